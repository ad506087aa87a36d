//! Opening a payment, and closing it before it is paid. Either request may arrive first, and more than once.

use contract::{
    PaymentId, SagaId, Timestamp,
    domain::PaymentStatus,
    payment::{CreateRequest, DeleteRequest},
};
use messaging::Rejection;

use super::Change;
use crate::record::{PaymentRecord, Refund, TombstoneReason, TombstoneRecord};

/// The decision about a request to create.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "created once per message and matched at once"
)]
pub enum Creation {
    Opened(Change),
    /// The payment can never open; the tombstone refuses later requests.
    Tombstoned(TombstoneRecord),
    /// It was decided before.
    Decided {
        succeed: bool,
    },
}

/// The decision about a request to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    Closed(Change),
    /// The request to create has not arrived; the tombstone refuses it.
    Tombstoned(TombstoneRecord),
    /// It was decided before, or the payment was charged.
    Decided {
        succeed: bool,
    },
    /// An attempt is at the gateway: its outcome answers the request. `None` if that was noted before.
    Deferred(Option<Change>),
}

/// Opens a payment, once for each saga.
///
/// # Errors
/// A [`Rejection`] if the saga has opened a different payment before.
pub fn create(
    request: &CreateRequest,
    known: Option<&PaymentRecord>,
    tombstone: Option<&TombstoneRecord>,
    now: Timestamp,
) -> Result<Creation, Rejection> {
    if tombstone.is_some() {
        return Ok(Creation::Decided { succeed: false });
    }
    if let Some(payment) = known {
        return payment.created_by(request);
    }
    let payment_id = PaymentId::of_saga(request.saga_id);
    let Some(final_amount) = request.total_amount.less(request.point) else {
        return Ok(Creation::Tombstoned(tombstone_of(
            payment_id,
            TombstoneReason::TooManyPoints,
            now,
        )));
    };
    let payment = PaymentRecord {
        payment_id,
        saga_id: request.saga_id,
        event_id: request.event_id,
        user_id: request.user_id,
        ticket_id: request.ticket_id,
        status: PaymentStatus::Created,
        total_amount: request.total_amount,
        point_amount: request.point,
        final_amount,
        pg_payment_id: None,
        attempt: 0,
        attempt_key: None,
        attempt_started_at: None,
        decline_code: None,
        delete_saga: None,
        refund: Refund::None,
        refund_reason: None,
        refund_number: 0,
        refund_saga: None,
        refund_code: None,
        refund_requested_at: None,
        deposit_bank: None,
        deposit_account: None,
        deposit_due: None,
        refund_bank: None,
        refund_account: None,
        refund_holder: None,
        expires_at: request.expires_at,
        created_at: now,
        updated_at: now,
        version: 0,
    };
    let note = "opened".to_owned();
    Ok(Creation::Opened(Change { payment, note }))
}

/// Closes a payment that was not paid.
pub fn delete(
    request: &DeleteRequest,
    known: Option<&PaymentRecord>,
    tombstone: Option<&TombstoneRecord>,
    now: Timestamp,
) -> Deletion {
    match known {
        Some(payment) => payment.delete(request.saga_id, now),
        None if tombstone.is_some() => Deletion::Decided { succeed: true },
        None => Deletion::Tombstoned(tombstone_of(
            request.payment_id,
            TombstoneReason::DeletedFirst,
            now,
        )),
    }
}

fn tombstone_of(payment_id: PaymentId, reason: TombstoneReason, now: Timestamp) -> TombstoneRecord {
    TombstoneRecord {
        payment_id,
        reason,
        created_at: now,
        version: 0,
    }
}

impl PaymentRecord {
    fn created_by(&self, request: &CreateRequest) -> Result<Creation, Rejection> {
        let is_same = self.ticket_id == request.ticket_id
            && self.event_id == request.event_id
            && self.user_id == request.user_id
            && self.total_amount == request.total_amount
            && self.point_amount == request.point;
        if is_same {
            let succeed = self.status != PaymentStatus::Deleted;
            Ok(Creation::Decided { succeed })
        } else {
            Err(Rejection::new(format_args!(
                "saga {} has opened a different payment before",
                self.saga_id
            )))
        }
    }

    fn delete(&self, saga: SagaId, now: Timestamp) -> Deletion {
        match self.status {
            PaymentStatus::Created | PaymentStatus::Failed => {
                let note = "deleted".to_owned();
                Deletion::Closed(self.change(now, note, |payment| {
                    payment.status = PaymentStatus::Deleted;
                }))
            }
            PaymentStatus::Deleted => Deletion::Decided { succeed: true },
            PaymentStatus::Confirming => {
                Deletion::Deferred((self.delete_saga != Some(saga)).then(|| {
                    let note = "to be deleted when its attempt has an outcome".to_owned();
                    self.change(now, note, |payment| payment.delete_saga = Some(saga))
                }))
            }
            PaymentStatus::Succeeded => Deletion::Decided { succeed: false },
            // It is refunded, as if it had never been paid.
            PaymentStatus::Cancelled => Deletion::Decided { succeed: true },
        }
    }
}
