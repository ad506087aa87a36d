//! Refunds, orphan charges and open attempts, for operators.

use axum::{Json, extract::State, http::StatusCode};
use contract::{Money, PaymentId, Timestamp, UserId, domain::PaymentStatus};
use messaging::{Find, Record};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use web::{Body, Caller, Id, Page, Params, Problem, ProblemDetails};

use super::{PaymentView, RefundAccountBody};
use crate::{
    Service,
    record::{OrphanChargeRecord, PaymentRecord, Refund},
};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PaymentsWhere {
    /// Payments with this status.
    status: Option<PaymentStatus>,
    /// Payments whose refund has this state; `PARKED` waits for an operator.
    refund: Option<Refund>,
    /// The last id seen.
    after: Option<PaymentId>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
}

/// List payments by their status and by the state of their refund
#[utoipa::path(
    get, path = "/payment", tag = "payment", params(PaymentsWhere),
    responses(
        (status = 200, body = Page<PaymentView>),
    )
)]
pub(super) async fn list(
    State(service): State<Service>,
    Params(wanted): Params<PaymentsWhere>,
) -> Result<Json<Page<PaymentView>>, Problem> {
    let limit = web::page::limit(wanted.limit)?;
    let mut find = Find::all(PaymentRecord::TABLE, limit).after(wanted.after);
    find = match (wanted.status, wanted.refund) {
        (Some(status), Some(refund)) => find
            .equals("status", name(&status))
            .only(only_refund(refund)),
        (Some(status), None) => find.equals("status", name(&status)),
        (None, Some(refund)) => find.equals("refund", name(&refund)),
        (None, None) => find,
    };
    let payments: Vec<PaymentRecord> = service.inner.store.find(find).await?;
    let views = payments
        .into_iter()
        .map(|payment| PaymentView::new(payment, Vec::new()))
        .collect();
    Ok(Json(Page::new(views, limit, |payment: &PaymentView| {
        payment.payment_id.to_string()
    })))
}

const fn only_refund(refund: Refund) -> &'static str {
    match refund {
        Refund::None => "refund = 'NONE'",
        Refund::Requested => "refund = 'REQUESTED'",
        Refund::Done => "refund = 'DONE'",
        Refund::Parked => "refund = 'PARKED'",
    }
}

fn name(of: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(of).expect("the name of a state is a text")
}

/// Request a parked refund again
///
/// First remove the obstacle that the payment's `refundCode` names.
#[utoipa::path(
    post, path = "/payment/{paymentId}/refund", tag = "payment",
    params(("paymentId" = PaymentId, Path)),
    responses(
        (status = 202, description = "The gateway is asked again"),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ProblemDetails),
        (status = 409, description = "REFUND_NOT_PARKED, VERSION_CONFLICT", body = ProblemDetails),
    )
)]
pub(super) async fn resume(
    State(service): State<Service>,
    Id(id): Id<PaymentId>,
) -> Result<StatusCode, Problem> {
    service.resume_refund(id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Give up an attempt whose outcome the gateway does not tell
///
/// For an operator who has asked the gateway by another way, `give_up_after_millis` after the attempt started. The buyer
/// may pay again; an approval that arrives later counts all the same.
#[utoipa::path(
    post, path = "/payment/{paymentId}/abandon", tag = "payment",
    params(("paymentId" = PaymentId, Path), Caller),
    responses(
        (status = 202, description = "The attempt has failed: ABANDONED"),
        (status = 403, description = "PAYMENT_OWNER_MISMATCH", body = ProblemDetails),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ProblemDetails),
        (status = 409, description = "PAYMENT_NOT_CONFIRMING", body = ProblemDetails),
    )
)]
pub(super) async fn abandon(
    State(service): State<Service>,
    Id(id): Id<PaymentId>,
    Params(caller): Params<Caller>,
) -> Result<StatusCode, Problem> {
    service.abandon(id, caller.user_id()).await?;
    Ok(StatusCode::ACCEPTED)
}

/// The account, and the caller.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NameAccountBody {
    /// The caller; if set, it must be the payment's owner. Also accepted in the query.
    #[serde(default)]
    user_id: Option<UserId>,
    /// The gateway's code of the bank.
    #[schema(pattern = "^[0-9]{2,3}$")]
    bank: String,
    /// Digits only.
    #[schema(pattern = "^[0-9]{1,20}$")]
    account_number: String,
    #[schema(schema_with = web::schema::holder_name)]
    holder_name: String,
}

impl NameAccountBody {
    fn account(self) -> RefundAccountBody {
        RefundAccountBody {
            bank: self.bank,
            account_number: self.account_number,
            holder_name: self.holder_name,
        }
    }
}

/// Set the account that receives the refund of a deposit
#[utoipa::path(
    put, path = "/payment/{paymentId}/refund-account", tag = "payment",
    params(("paymentId" = PaymentId, Path), Caller), request_body = NameAccountBody,
    responses(
        (status = 204),
        (status = 403, description = "PAYMENT_OWNER_MISMATCH", body = ProblemDetails),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ProblemDetails),
        (status = 409, description = "VERSION_CONFLICT", body = ProblemDetails),
    )
)]
pub(super) async fn name_account(
    State(service): State<Service>,
    Id(id): Id<PaymentId>,
    Params(caller): Params<Caller>,
    Body(body): Body<NameAccountBody>,
) -> Result<StatusCode, Problem> {
    let user_id = caller.or(body.user_id)?;
    let account = body.account().read("")?;
    service.set_refund_account(id, &account, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An orphan charge: a charge that is not its payment's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StrayView {
    pg_payment_id: String,
    /// The payment whose order was charged.
    payment_id: PaymentId,
    amount: Money,
    refund: Refund,
    reason: String,
    /// Why the gateway refused the refund, or the last code of an answer that did not execute it.
    refund_code: Option<String>,
    /// When the refund was requested.
    refund_requested_at: Option<Timestamp>,
    found_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StraysWhere {
    /// Those whose refund has this state; `PARKED` waits for an operator.
    refund: Option<Refund>,
    /// The last pgPaymentId seen.
    after: Option<String>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
}

/// List orphan charges
///
/// For example a second charge of an order, found by its outcome, a webhook or the reconciliation. They are refunded
/// automatically.
#[utoipa::path(
    get, path = "/payment/stray", tag = "payment", params(StraysWhere),
    responses(
        (status = 200, body = Page<StrayView>),
    )
)]
pub(super) async fn list_strays(
    State(service): State<Service>,
    Params(wanted): Params<StraysWhere>,
) -> Result<Json<Page<StrayView>>, Problem> {
    let limit = web::page::limit(wanted.limit)?;
    let after = wanted.after.as_deref();
    let mut find = Find::all(OrphanChargeRecord::TABLE, limit).after(after);
    if let Some(refund) = wanted.refund {
        find = find.equals("refund", name(&refund));
    }
    let orphans: Vec<OrphanChargeRecord> = service.inner.store.find(find).await?;
    let views = orphans.into_iter().map(StrayView::from).collect();
    Ok(Json(Page::new(views, limit, |orphan: &StrayView| {
        orphan.pg_payment_id.clone()
    })))
}

/// Request the parked refund of an orphan charge again
#[utoipa::path(
    post, path = "/payment/stray/{pgPaymentId}/refund", tag = "payment",
    params(("pgPaymentId" = String, Path)),
    responses(
        (status = 202, description = "The gateway is asked again"),
        (status = 404, description = "STRAY_NOT_FOUND", body = ProblemDetails),
        (status = 409, description = "REFUND_NOT_PARKED, VERSION_CONFLICT", body = ProblemDetails),
    )
)]
pub(super) async fn resume_stray(
    State(service): State<Service>,
    Id(pg_payment_id): Id<String>,
) -> Result<StatusCode, Problem> {
    service.resume_orphan_refund(&pg_payment_id).await?;
    Ok(StatusCode::ACCEPTED)
}

impl From<OrphanChargeRecord> for StrayView {
    fn from(orphan: OrphanChargeRecord) -> Self {
        Self {
            pg_payment_id: orphan.pg_payment_id,
            payment_id: orphan.payment_id,
            amount: orphan.amount,
            refund: orphan.refund,
            reason: orphan.reason,
            refund_code: orphan.refund_code,
            refund_requested_at: orphan.refund_requested_at,
            found_at: orphan.found_at,
            updated_at: orphan.updated_at,
        }
    }
}
