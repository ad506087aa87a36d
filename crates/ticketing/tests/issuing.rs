//! Issuing a ticket: all or nothing, once, and never more than there are.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain,
    domain::PaymentStatus,
};
use messaging::{Commit, Random, Records};
use ticketing::{
    issue::issue,
    model::{Allocation, Ticket},
    reservations::Completion,
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn payment() -> domain::Payment {
    let ticket_id = TicketId(Random::seeded(1).uuid(NOW));
    let saga_id: SagaId = ticket_id.purchase_saga();
    let payment_id: PaymentId = saga_id.payment();
    domain::Payment {
        id: payment_id,
        event_id: EventId(1),
        user_id: UserId(2),
        ticket_id,
        saga_id: Some(saga_id),
        pg_payment_id: Some("pg".to_owned()),
        status: PaymentStatus::Succeeded,
        total_amount: Money::new(100).unwrap(),
        point_amount: Points::ZERO,
        final_amount: Money::new(100).unwrap(),
        refund: domain::Refund::None,
        refund_reason: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn allocation(quantity: i64, sold: i64) -> Allocation {
    Allocation {
        event_id: EventId(1),
        quantity,
        sold,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 4,
    }
}

fn completed() -> Completion {
    Completion::Completed {
        commit: Box::default(),
    }
}

fn topics(commit: &Commit) -> Vec<&str> {
    commit
        .messages
        .iter()
        .map(|message| message.topic.as_str())
        .collect()
}

#[test]
fn a_paid_reservation_becomes_a_ticket_in_one_commit() {
    let records = Records::default().with(&allocation(1, 0));
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    let tables: Vec<_> = commit.puts.iter().map(|put| put.table.name).collect();
    assert_eq!(tables, ["allocation", "ticket"]);
    assert_eq!(commit.puts[0].row["sold"], 1);
    assert_eq!(topics(&commit), ["domain.ticket"]);
}

#[test]
fn a_payment_told_twice_issues_one_ticket() {
    let records = Records::default()
        .with(&allocation(2, 1))
        .with(&Ticket::issued(&payment(), NOW));
    assert!(
        issue(&payment(), Some(&completed()), &records, NOW)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn money_for_a_reservation_that_is_gone_goes_back() {
    let records = Records::default().with(&allocation(1, 0));
    let commit = issue(&payment(), Some(&Completion::Gone), &records, NOW).unwrap();
    assert!(commit.puts.is_empty(), "no ticket is issued");
    assert_eq!(topics(&commit), ["payment.cancel.request"]);
}

#[test]
fn the_allocation_forbids_one_ticket_too_many_and_the_money_goes_back() {
    let records = Records::default().with(&allocation(1, 1));
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    assert!(commit.puts.is_empty(), "no ticket is issued");
    assert_eq!(
        topics(&commit),
        ["payment.cancel.request", "ticketing.release"]
    );
}

#[test]
fn a_payment_for_an_unknown_event_is_a_dead_letter_and_not_lost() {
    let rejection = issue(&payment(), Some(&completed()), &Records::default(), NOW).unwrap_err();
    assert!(rejection.reason.contains("allocation"), "{rejection}");
}
