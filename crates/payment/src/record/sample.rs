//! A payment for tests: of 700, charged with the key `pg-1` by its first attempt.

use contract::{
    EventId, Money, Points, SagaId, TicketId, Timestamp, UserId, domain::PaymentStatus,
    payment::CreateRequest,
};
use messaging::Random;

use super::{PaymentRecord, Refund};
use crate::model::{Creation, create};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn payment(status: PaymentStatus, refund: Refund) -> PaymentRecord {
    let random = Random::seeded(5);
    let request = CreateRequest {
        saga_id: SagaId(random.uuid(NOW)),
        ticket_id: TicketId(random.uuid(NOW)),
        event_id: EventId(1),
        user_id: UserId(2),
        total_amount: Money::new(700).unwrap(),
        point: Points::ZERO,
        expires_at: None,
    };
    let Ok(Creation::Opened(change)) = create(&request, None, None, NOW) else {
        panic!("nothing is known of this payment");
    };
    PaymentRecord {
        status,
        refund,
        pg_payment_id: Some("pg-1".to_owned()),
        attempt: 1,
        attempt_started_at: Some(NOW),
        version: 1,
        ..change.payment().clone()
    }
}
