//! A payment for tests: of 700, charged with the key `pg-1` by its first attempt.

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain::PaymentStatus,
};
use messaging::Random;

use super::{PaymentRecord, Refund};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn payment(status: PaymentStatus, refund: Refund) -> PaymentRecord {
    let random = Random::seeded(5);
    let saga_id = SagaId(random.uuid(NOW));
    PaymentRecord {
        payment_id: PaymentId::of_saga(saga_id),
        saga_id,
        event_id: EventId(1),
        user_id: UserId(2),
        ticket_id: TicketId(random.uuid(NOW)),
        status,
        total_amount: Money::new(700).unwrap(),
        point_amount: Points::ZERO,
        final_amount: Money::new(700).unwrap(),
        pg_payment_id: Some("pg-1".to_owned()),
        attempt: 1,
        attempt_key: None,
        attempt_started_at: Some(NOW),
        decline_code: None,
        delete_saga: None,
        refund,
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
        expires_at: None,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
    }
}
