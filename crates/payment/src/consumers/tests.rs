//! Random histories of one payment: messages that come twice, late, or in any order, and attempts between them.

use contract::{
    EventId, Money, Points, SagaId, TicketId, UserId,
    domain::{self, DomainMessage, PaymentStatus},
};
use messaging::Random;
use proptest::prelude::*;

use super::*;
use crate::{model::AttemptRequest, record::Refund};
use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[derive(Debug, Clone)]
enum Input {
    Create,
    Delete,
    /// By HTTP, not by message.
    Begin,
    Outcome {
        confirmed: bool,
        attempt: Option<u32>,
    },
    Cancel,
    RefundDone,
    RefundRefused,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        3 => Just(Input::Create),
        2 => Just(Input::Delete),
        4 => Just(Input::Begin),
        4 => (any::<bool>(), proptest::option::of(1_u32..4))
            .prop_map(|(confirmed, attempt)| Input::Outcome { confirmed, attempt }),
        2 => Just(Input::Cancel),
        1 => Just(Input::RefundDone),
        1 => Just(Input::RefundRefused),
    ];
    proptest::collection::vec(input, 1..30)
}

/// Two processes read the store before either commits: one handles the creation, and the other the deletion.
#[tokio::test]
async fn a_creation_and_a_deletion_that_are_decided_at_the_same_time_are_not_both_stored() {
    let folder = tempfile::tempdir().unwrap();
    let tables = [messaging::TABLES, crate::TABLES].concat();
    let metrics = messaging::Metrics::unregistered();
    let store = messaging::Store::open_embedded(folder.path(), &tables, metrics).unwrap();
    let random = Random::seeded(5);
    let creation = CreateRequest {
        saga_id: SagaId(random.uuid(NOW)),
        ticket_id: TicketId(random.uuid(NOW)),
        event_id: EventId(1),
        user_id: UserId(2),
        total_amount: Money::new(1_000).unwrap(),
        point: Points::ZERO,
        expires_at: None,
    };
    let deletion = DeleteRequest {
        saga_id: creation.saga_id,
        payment_id: PaymentId::of_saga(creation.saga_id),
    };
    let created = decided(&Message::new("create", &creation, NOW));
    let deleted = decided(&Message::new("delete", &deletion, NOW));
    assert_eq!(store.commit(created).await, Ok(()));
    let refused = store.commit(deleted).await;
    assert!(
        matches!(refused, Err(messaging::CommitError::Conflict { .. })),
        "{refused:?}"
    );
}

/// The Commit of a message about a payment that is not stored.
fn decided(message: &Message) -> Commit {
    let request = PaymentRequest::read(message).unwrap();
    decide(message, &request, &Records::default(), NOW).unwrap()
}

struct PaymentHistory {
    saga: SagaId,
    ticket: TicketId,
    records: Records,
    history: Vec<PaymentStatus>,
    published: Vec<PaymentStatus>,
    responses: usize,
}

impl PaymentHistory {
    fn new() -> Self {
        let random = Random::seeded(3);
        Self {
            saga: SagaId(random.uuid(NOW)),
            ticket: TicketId(random.uuid(NOW)),
            records: Records::default(),
            history: Vec::new(),
            published: Vec::new(),
            responses: 0,
        }
    }

    fn payment(&self) -> Option<PaymentRecord> {
        self.records.get(PaymentId::of_saga(self.saga)).unwrap()
    }

    fn tombstone(&self) -> Option<TombstoneRecord> {
        let id = PaymentId::of_saga(self.saga);
        self.records.get(id).unwrap()
    }

    /// Whether the input was taken; a rejected message and a refused attempt change nothing.
    fn take(&mut self, input: &Input) -> bool {
        let payment_id = PaymentId::of_saga(self.saga);
        match input {
            Input::Create => self.receive(&CreateRequest {
                saga_id: self.saga,
                ticket_id: self.ticket,
                event_id: EventId(1),
                user_id: UserId(2),
                total_amount: Money::new(1_000).unwrap(),
                point: Points::ZERO,
                expires_at: None,
            }),
            Input::Delete => self.receive(&DeleteRequest {
                saga_id: self.saga,
                payment_id,
            }),
            Input::Outcome { confirmed, attempt } => self.receive(&ConfirmedRequest {
                payment_id,
                pg_payment_id: "pg-1".to_owned(),
                confirmed: *confirmed,
                attempt: *attempt,
                decline_code: None,
            }),
            Input::Cancel => self.receive(&CancelRequest {
                payment_id,
                reason: "sold out".to_owned(),
                saga_id: None,
            }),
            Input::Begin => self.change(|payment| {
                let request = AttemptRequest {
                    pg_payment_id: "pg-1",
                    amount: payment.final_amount,
                    user_id: None,
                    refund_account: None,
                };
                payment.begin_attempt(&request, NOW).ok()
            }),
            Input::RefundDone => self.change(|payment| payment.finish_refund(NOW)),
            Input::RefundRefused => self.change(|payment| payment.refuse_refund("NO", NOW)),
        }
    }

    fn receive<P: Payload>(&mut self, payload: &P) -> bool {
        let message = Message::new("request", payload, NOW);
        let request = PaymentRequest::read(&message).unwrap();
        match decide(&message, &request, &self.records, NOW) {
            Ok(commit) => {
                self.apply(&commit);
                true
            }
            Err(_) => false,
        }
    }

    fn change(&mut self, change: impl FnOnce(&PaymentRecord) -> Option<model::Change>) -> bool {
        let Some(change) = self.payment().as_ref().and_then(change) else {
            return false;
        };
        let mut commit = Commit::new();
        change.save(&mut commit);
        self.apply(&commit);
        true
    }

    fn apply(&mut self, commit: &Commit) {
        self.records.apply(commit);
        for entry in &commit.appends {
            let status = serde_json::from_value(entry.row["status"].clone());
            self.history.push(status.unwrap());
        }
        for message in &commit.messages {
            if message.topic == DomainMessage::<domain::Payment>::TOPIC {
                let published: DomainMessage<domain::Payment> = message.parse().unwrap();
                self.published.push(published.payload.status);
            } else {
                assert_eq!(message.id, "request:response");
                self.responses += 1;
            }
        }
    }
}

fn is_allowed(from: PaymentStatus, to: PaymentStatus) -> bool {
    match from {
        Created => matches!(to, Confirming | Succeeded | Failed | Deleted),
        // That it is to be deleted is noted, and done with its outcome.
        Confirming => matches!(to, Confirming | Succeeded | Failed | Deleted),
        Failed => matches!(to, Confirming | Succeeded | Deleted),
        Deleted => to == Succeeded,
        // A refund that is wanted, or refused.
        Succeeded => matches!(to, Succeeded | Cancelled),
        Cancelled => false,
    }
}

proptest! {
    #[test]
    fn a_payment_makes_only_allowed_transitions_and_its_history_has_every_one(inputs in inputs()) {
        let mut payments = PaymentHistory::new();
        let mut requests = 0;
        for input in &inputs {
            let before = payments.payment();
            let was_taken = payments.take(input);
            let may_be_moving = before.as_ref().is_some_and(|payment| payment.status == Confirming);
            if was_taken && (matches!(input, Input::Create) || matches!(input, Input::Delete) && !may_be_moving) {
                requests += 1;
            }
            let after = payments.payment();
            let waits = |payment: &Option<PaymentRecord>| payment.as_ref().is_some_and(|payment| payment.delete_saga.is_some());
            if waits(&before) && !waits(&after) {
                requests += 1;
            }
            if let (Some(before), Some(after)) = (&before, &after) && before.version != after.version {
                prop_assert!(is_allowed(before.status, after.status), "{before:?} -> {after:?}");
                prop_assert_eq!(after.version, before.version + 1);
            }
            if was_taken && matches!(input, Input::Outcome { confirmed: true, .. }) {
                let status = after.as_ref().map(|payment| payment.status);
                prop_assert!(matches!(status, Some(Succeeded | Cancelled)), "money was lost: {status:?}");
            }
        }
        let tombstone = payments.tombstone();
        let version = payments.payment().map_or(0, |payment| payment.version);
        let entries = version + i64::from(tombstone.is_some());
        prop_assert_eq!(payments.history.len(), usize::try_from(entries).unwrap());
        prop_assert_eq!(payments.published.len(), usize::try_from(version).unwrap());
        prop_assert_eq!(payments.responses, requests);
    }

    #[test]
    fn success_is_published_at_most_once_and_never_after_a_deletion(inputs in inputs()) {
        let mut payments = PaymentHistory::new();
        for input in &inputs {
            payments.take(input);
        }
        let successes = payments.published.iter().filter(|status| **status == Succeeded).count();
        prop_assert!(successes <= 1);
        let closed = payments.published.iter().position(|status| *status == Deleted);
        if let Some(closed) = closed {
            prop_assert!(!payments.published[closed..].contains(&Succeeded));
        }
        if let Some(payment) = payments.payment() {
            prop_assert_eq!(payment.status == Cancelled, payment.refund == Refund::Done);
        }
    }

    #[test]
    fn a_creation_after_its_deletion_opens_nothing(inputs in inputs()) {
        let mut payments = PaymentHistory::new();
        payments.take(&Input::Delete);
        for input in &inputs {
            payments.take(input);
        }
        prop_assert_eq!(payments.payment(), None);
    }
}
