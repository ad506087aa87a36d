//! The entry point for requests.

mod reconcile;
mod refund;
mod webhook;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain::PaymentStatus,
    text,
};
use messaging::Commit;
use serde::{Deserialize, Serialize};
use toss::protocol::{RefundAccount, TEST_CODE_HEADER};
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouter},
    routes,
};
use web::{
    Body, Caller, Id, IdempotentRequest, Params, Problem, ProblemDetails, schema::HOLDER_CHARS_MAX,
};

use crate::{
    Error, Service,
    confirm::{ConfirmInput, ConfirmOutput, Pending, Settled},
    model::Refusal,
    record::{HistoryEntry, PaymentRecord, Refund},
};

/// Every route of this service.
pub fn router(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(confirm))
        .routes(confirm_by_verb())
        .routes(routes!(show))
        .routes(routes!(refund::list))
        .routes(routes!(refund::resume))
        .routes(routes!(refund::abandon))
        .routes(routes!(refund::name_account))
        .routes(routes!(refund::list_strays))
        .routes(routes!(refund::resume_stray))
        .routes(routes!(reconcile::reconcile))
        .routes(routes!(reconcile::list))
        .routes(routes!(reconcile::show))
        .routes(routes!(webhook::hear))
        .with_state(service)
}

/// The buyer has authenticated the payment at the gateway.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfirmBody {
    payment_id: PaymentId,
    /// The gateway's key of the payment. Optional, and not stored, if `amount` is 0: the gateway is not asked then.
    #[schema(
        pattern = r"^\.*[A-Za-z0-9_=-][A-Za-z0-9_=.-]*$",
        min_length = 1,
        max_length = 200
    )]
    pg_payment_id: Option<String>,
    /// What the buyer agreed to pay: the payment's `finalAmount`.
    amount: Money,
    /// The caller; if set, it must be the payment's owner. Also accepted in the query.
    #[serde(default)]
    user_id: Option<UserId>,
    /// The account that receives the refund of a deposit, for a payment by virtual account.
    #[serde(default, deserialize_with = "web::optional_object")]
    refund_account: Option<RefundAccountBody>,
}

// It has no `Debug`, so that no log can show it.
/// A bank account that receives a refund. It is stored, and never logged or shown.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RefundAccountBody {
    /// The gateway's code of the bank.
    #[schema(pattern = "^[0-9]{2,3}$")]
    bank: String,
    /// Digits only.
    #[schema(pattern = "^[0-9]{1,20}$")]
    account_number: String,
    #[schema(schema_with = web::schema::holder_name)]
    holder_name: String,
}

impl RefundAccountBody {
    /// `path` is the prefix of the name of a wrong field.
    fn read(self, path: &str) -> Result<RefundAccount, Problem> {
        let wrong = |field: &str, detail: &str| Problem::invalid(format!("{path}{field}"), detail);
        let is_within = |text: &str, min, max| (min..=max).contains(&text.chars().count());
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(&self.bank) || !is_within(&self.bank, 2, 3) {
            return Err(wrong("bank", "a bank's code has 2 or 3 digits"));
        }
        if !is_digits(&self.account_number) || !is_within(&self.account_number, 1, 20) {
            return Err(wrong("accountNumber", "an account has 1 to 20 digits"));
        }
        let is_name = text::is_plain(&self.holder_name) && text::is_visible(&self.holder_name);
        if !is_name || !is_within(&self.holder_name, 1, HOLDER_CHARS_MAX) {
            let detail = "a name has 1 to 60 characters that show";
            return Err(wrong("holderName", detail));
        }
        Ok(RefundAccount {
            bank: self.bank,
            account_number: self.account_number,
            holder_name: self.holder_name,
        })
    }
}

/// A payment with its history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PaymentView {
    payment_id: PaymentId,
    saga_id: SagaId,
    event_id: EventId,
    user_id: UserId,
    ticket_id: TicketId,
    status: PaymentStatus,
    total_amount: Money,
    point_amount: Points,
    final_amount: Money,
    /// The gateway's key of the payment; of a free payment `free-{paymentId}`.
    pg_payment_id: Option<String>,
    /// Attempts so far.
    attempt: u32,
    decline_code: Option<String>,
    /// The account for the deposit, for a payment by virtual account.
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_account: Option<DepositView>,
    refund: Refund,
    refund_reason: Option<String>,
    /// Why the gateway refused the refund, or the last code of an answer that did not execute it.
    refund_code: Option<String>,
    /// When the refund was requested.
    refund_requested_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: i64,
    /// Oldest first, the newest 100.
    history: Vec<HistoryView>,
}

/// The account for the buyer's deposit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DepositView {
    /// The gateway's code of the bank.
    bank: Option<String>,
    account_number: String,
    /// The gateway's deadline of the deposit; the payment's `expiresAt` may be earlier.
    due_date: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HistoryView {
    version: i64,
    status: PaymentStatus,
    attempt: u32,
    pg_payment_id: Option<String>,
    note: String,
    at: Timestamp,
}

/// Confirm a payment
///
/// Charges the payment at the gateway. If the outcome is not known in time, the answer is 202, and
/// `GET /payment/{paymentId}` shows the outcome later. Repeated with the `pgPaymentId` that has succeeded, it repeats its
/// answer; any other is `ALREADY_CONFIRMED`. A purchase that points pay in full, or that is free, is confirmed with
/// `amount` 0 and without a `pgPaymentId`.
#[utoipa::path(
    post, path = "/payment/confirmed", tag = "payment", params(Caller), request_body = ConfirmBody,
    responses(
        (status = 200, description = "The gateway approved or declined", body = Settled),
        (status = 202, description = "The gateway's answer is not known yet", body = Pending),
        (status = 400, description = "INVALID_REQUEST, AMOUNT_MISMATCH", body = ProblemDetails),
        (status = 403, description = "PAYMENT_OWNER_MISMATCH", body = ProblemDetails),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ProblemDetails),
        (status = 409, description = "ALREADY_CONFIRMED, CONFIRMATION_IN_PROGRESS, PAYMENT_CLOSED, DEADLINE_PASSED, IDEMPOTENCY_KEY_IN_FLIGHT", body = ProblemDetails),
    )
)]
async fn confirm(
    State(service): State<Service>,
    Params(caller): Params<Caller>,
    idempotent: IdempotentRequest,
    headers: HeaderMap,
    Body(body): Body<ConfirmBody>,
) -> Result<Response, Problem> {
    let input = ConfirmInput {
        payment_id: body.payment_id,
        pg_payment_id: pg_payment_id(&body)?,
        amount: body.amount,
        user_id: caller.or(body.user_id)?,
        refund_account: body
            .refund_account
            .map(|account| account.read("refundAccount."))
            .transpose()?,
        test_code: test_code(&service, &headers)?,
    };
    let answer = move |commit: &mut Commit, settled: &Settled| {
        idempotent.answer(commit, StatusCode::OK, settled)
    };
    Ok(match service.confirm(input, answer).await? {
        ConfirmOutput::Settled(response) => response,
        ConfirmOutput::Pending(pending) => web::idempotency::pending(StatusCode::ACCEPTED, pending),
    })
}

/// A free payment has no payment at the gateway, and no key of it.
fn pg_payment_id(body: &ConfirmBody) -> Result<String, Problem> {
    match &body.pg_payment_id {
        Some(told) => Ok(told.clone()),
        None if body.amount == Money::ZERO => Ok(format!("free-{}", body.payment_id)),
        None => {
            let detail = "required unless amount is 0: the paymentKey of the gateway";
            Err(Problem::invalid("pgPaymentId", detail))
        }
    }
}

/// `POST /payment/confirm`: the same route by another name.
fn confirm_by_verb() -> UtoipaMethodRouter<Service> {
    let (schemas, mut paths, handler) = routes!(confirm);
    let known = paths.paths.remove("/payment/confirmed");
    let mut item = known.expect("the path of `confirm`");
    if let Some(operation) = &mut item.post {
        operation.operation_id = Some("confirm_by_verb".to_owned());
        operation.summary = Some("Confirm a payment, by another name".to_owned());
        operation.description = Some("The same as `POST /payment/confirmed`.".to_owned());
    }
    paths.paths.insert("/payment/confirm".to_owned(), item);
    (schemas, paths, handler)
}

/// Show a payment with its history
#[utoipa::path(
    get, path = "/payment/{paymentId}", tag = "payment",
    params(("paymentId" = PaymentId, Path)),
    responses(
        (status = 200, body = PaymentView),
        (status = 404, description = "PAYMENT_NOT_FOUND", body = ProblemDetails),
        (status = 503, description = "UNAVAILABLE", body = ProblemDetails),
    )
)]
async fn show(
    State(service): State<Service>,
    Id(id): Id<PaymentId>,
) -> Result<Json<PaymentView>, Problem> {
    let payment = service.existing(id).await?;
    let history = service.history(&payment).await?;
    Ok(Json(PaymentView::new(payment, history)))
}

fn test_code(service: &Service, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(code) = headers
        .get(TEST_CODE_HEADER)
        .filter(|_| service.inner.settings.forward_test_codes)
    else {
        return Ok(None);
    };
    let text = code
        .to_str()
        .map_err(|_| Problem::invalid(TEST_CODE_HEADER, "a test code is plain ASCII"))?;
    Ok(Some(text.to_owned()))
}

impl PaymentView {
    fn new(payment: PaymentRecord, history: Vec<HistoryEntry>) -> Self {
        Self {
            payment_id: payment.payment_id,
            saga_id: payment.saga_id,
            event_id: payment.event_id,
            user_id: payment.user_id,
            ticket_id: payment.ticket_id,
            status: payment.status,
            total_amount: payment.total_amount,
            point_amount: payment.point_amount,
            final_amount: payment.final_amount,
            pg_payment_id: payment.pg_payment_id,
            attempt: payment.attempt,
            decline_code: payment.decline_code,
            virtual_account: payment.deposit_account.map(|account_number| DepositView {
                bank: payment.deposit_bank,
                account_number,
                due_date: payment.deposit_due,
            }),
            refund: payment.refund,
            refund_reason: payment.refund_reason,
            refund_code: payment.refund_code,
            refund_requested_at: payment.refund_requested_at,
            expires_at: payment.expires_at,
            created_at: payment.created_at,
            updated_at: payment.updated_at,
            version: payment.version,
            history: history.into_iter().map(HistoryView::from).collect(),
        }
    }
}

impl From<HistoryEntry> for HistoryView {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            version: entry.payment_version,
            status: entry.status,
            attempt: entry.attempt,
            pg_payment_id: entry.pg_payment_id,
            note: entry.note,
            at: entry.at,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound(_) => Self::not_found("PAYMENT_NOT_FOUND", text),
            Error::OrphanNotFound(_) => Self::not_found("STRAY_NOT_FOUND", text),
            Error::PgPaymentId => Self::invalid("pgPaymentId", text),
            Error::Refused(refusal) => refused(refusal, text),
            Error::NotParked => Self::conflict("REFUND_NOT_PARKED", text),
            Error::NotConfirming => Self::conflict("PAYMENT_NOT_CONFIRMING", text),
            Error::Commit(error) => error.into(),
        }
    }
}

fn refused(refusal: Refusal, text: String) -> Problem {
    match refusal {
        Refusal::OwnerMismatch => {
            Problem::new(StatusCode::FORBIDDEN, "PAYMENT_OWNER_MISMATCH", text)
        }
        Refusal::AmountMismatch { .. } => Problem {
            field: Some("amount".to_owned()),
            ..Problem::bad_request("AMOUNT_MISMATCH", text)
        },
        Refusal::AlreadyConfirmed => Problem::conflict("ALREADY_CONFIRMED", text),
        Refusal::InProgress => Problem {
            retry_after_secs: Some(1),
            ..Problem::conflict("CONFIRMATION_IN_PROGRESS", text)
        },
        Refusal::Closed | Refusal::Refunded { .. } => Problem::conflict("PAYMENT_CLOSED", text),
        Refusal::DeadlinePassed { .. } => Problem::conflict("DEADLINE_PASSED", text),
    }
}
