//! Facts about payments for checks across services, such as: each successful payment has one ticket or a refund. Read
//! only.

use contract::{EventId, Money, PaymentId, TicketId, UserId, domain::PaymentStatus};
use messaging::{Find, Record, Store, StoreError};

use crate::record::{PaymentRecord, Refund};

/// The largest page of facts.
pub const PAGE_MAX: u32 = 1_000;

/// What is checked of one payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentFact {
    pub payment_id: PaymentId,
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub status: PaymentStatus,
    pub refund: Refund,
    pub final_amount: Money,
    pub pg_payment_id: Option<String>,
    /// A payment has one history entry for each version.
    pub version: i64,
}

impl PaymentFact {
    /// Whether the payment was charged and not refunded: it must have a ticket.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.status == PaymentStatus::Succeeded && self.refund == Refund::None
    }
}

/// Up to [`PAGE_MAX`] payments after `after`, in the order of their ids.
///
/// # Errors
/// [`StoreError`] if the store cannot answer.
pub async fn payments(
    store: &Store,
    after: Option<PaymentId>,
) -> Result<Vec<PaymentFact>, StoreError> {
    let find = Find::all(PaymentRecord::TABLE, PAGE_MAX).after(after);
    let payments: Vec<PaymentRecord> = store.find(find).await?;
    Ok(payments.into_iter().map(PaymentFact::from).collect())
}

impl From<PaymentRecord> for PaymentFact {
    fn from(payment: PaymentRecord) -> Self {
        Self {
            payment_id: payment.payment_id,
            ticket_id: payment.ticket_id,
            event_id: payment.event_id,
            user_id: payment.user_id,
            status: payment.status,
            refund: payment.refund,
            final_amount: payment.final_amount,
            pg_payment_id: payment.pg_payment_id,
            version: payment.version,
        }
    }
}
