//! Issuing a ticket: all or nothing, once, and never more than the quantity.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain,
    domain::{DomainMessage, PaymentStatus, Refund, TicketStatus},
};
use messaging::{Commit, Fence, Random, Records, Rejection};
use ticketing::{
    issue,
    metrics::TicketOutcome,
    model::{Allocation, Purchase, ReservationRecord, ReservationState, Ticket},
    refund::{PurchaseRefund, apply_cancelled_payment},
    reservations::{ClaimProof, Completion},
};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// The version of the payment when it succeeded.
const PAID_AT: i64 = 3;

fn payment() -> DomainMessage<domain::Payment> {
    let ticket_id = TicketId(Random::seeded(1).uuid(NOW));
    let saga_id: SagaId = ticket_id.purchase_saga();
    let payment_id: PaymentId = PaymentId::of_saga(saga_id);
    let payment = domain::Payment {
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
        refund: Refund::None,
        refund_reason: None,
        created_at: NOW,
        updated_at: NOW,
    };
    DomainMessage::new(payment, PAID_AT, NOW)
}

fn allocation(quantity: i64, sold: i64) -> Allocation {
    Allocation {
        event_id: EventId(1),
        quantity,
        lowered_to: None,
        sold,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 4,
    }
}

fn reservation(state: ReservationState) -> ReservationRecord {
    let payment = payment().payload;
    ReservationRecord {
        ticket_id: payment.ticket_id,
        event_id: payment.event_id,
        user_id: payment.user_id,
        state,
        expires_at: NOW,
        lapses_at: NOW,
        agreed_price: None,
        version: 0,
    }
}

fn completed() -> Completion {
    Completion::Completed(ClaimProof::Row(reservation(ReservationState::Completed)))
}

fn ticket(status: TicketStatus, payment_version: i64) -> Ticket {
    Ticket {
        status,
        ..Ticket::issued(&payment().payload, payment_version, NOW)
    }
}

fn refunded(payment_status: PaymentStatus, payment_version: i64) -> PurchaseRefund {
    let payment = payment().payload;
    PurchaseRefund {
        ticket_id: payment.ticket_id,
        payment_id: payment.id,
        payment_version,
        payment_status,
        refund: Refund::Requested,
        reason: None,
        updated_at: NOW,
        version: 0,
    }
}

fn issue(
    payment: &DomainMessage<domain::Payment>,
    completion: Option<&Completion>,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    issue::issue(payment, completion, records, now).map(|decision| decision.commit)
}

fn topics(commit: &Commit) -> Vec<&str> {
    commit
        .messages
        .iter()
        .map(|message| message.topic.as_str())
        .collect()
}

/// The tables and expected versions of the put rows.
fn puts(commit: &Commit) -> Vec<(&str, i64)> {
    let puts = commit.puts.iter();
    puts.map(|put| (put.table.name, put.expected)).collect()
}

#[test]
fn a_paid_reservation_becomes_a_ticket_in_one_commit() {
    let records = Records::default()
        .with(&allocation(1, 0))
        .with(&reservation(ReservationState::Waiting));
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    assert_eq!(
        puts(&commit),
        [("reservation", 1), ("allocation", 5), ("ticket", 0)]
    );
    assert_eq!(commit.puts[1].row["sold"], 1);
    assert_eq!(commit.puts[2].row["payment_version"], PAID_AT);
    assert_eq!(topics(&commit), ["domain.ticket"]);
}

#[test]
fn a_ticket_of_a_claim_without_a_row_carries_the_proof_of_its_claim_instead() {
    let fence = Fence {
        lease: "reservations/1".to_owned(),
        token: 7,
    };
    let completed = Completion::Completed(ClaimProof::Fence(fence.clone()));
    let sold_out = Records::default().with(&allocation(1, 1));
    let on_sale = Records::default().with(&allocation(1, 0));
    let commit = issue(&payment(), Some(&completed), &on_sale, NOW).unwrap();
    assert_eq!(puts(&commit), [("allocation", 5), ("ticket", 0)]);
    assert_eq!(commit.fences, vec![fence.clone()]);
    let commit = issue(&payment(), Some(&completed), &sold_out, NOW).unwrap();
    assert_eq!(topics(&commit), ["payment.cancel.request"]);
    assert_eq!((commit.deletes.len(), commit.fences), (0, vec![fence]));
}

#[test]
fn a_retaken_claim_is_stored_as_a_new_row() {
    let records = Records::default().with(&allocation(1, 0));
    let decision = issue::issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    let retaken = TicketOutcome::Issued { is_retaken: true };
    assert_eq!(decision.outcome, Some(retaken));
    assert_eq!(puts(&decision.commit)[0], ("reservation", 0));
    assert_eq!(topics(&decision.commit), ["domain.ticket"]);
}

#[test]
fn a_payment_published_twice_issues_one_ticket_in_any_version() {
    let records = Records::default()
        .with(&allocation(2, 1))
        .with(&ticket(TicketStatus::Reserved, PAID_AT));
    let paid = payment().payload;
    for version in [PAID_AT, PAID_AT + 1] {
        let message = DomainMessage::new(paid.clone(), version, NOW);
        let commit = issue(&message, Some(&completed()), &records, NOW).unwrap();
        assert!(commit.is_empty(), "version {version}");
    }
}

#[test]
fn a_payment_that_succeeded_before_it_was_cancelled_issues_no_ticket_again() {
    let cancelled = [
        Records::default().with(&ticket(TicketStatus::Cancelled, PAID_AT + 1)),
        Records::default().with(&refunded(PaymentStatus::Cancelled, PAID_AT + 1)),
    ];
    for records in cancelled {
        let records = records.with(&allocation(1, 0));
        let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
        assert!(commit.is_empty());
    }
}

#[test]
fn an_older_cancellation_of_the_payment_cancels_no_ticket() {
    let records = || {
        Records::default()
            .with(&allocation(1, 1))
            .with(&ticket(TicketStatus::Reserved, PAID_AT))
    };
    let message = |version| {
        let cancelled = domain::Payment {
            status: PaymentStatus::Cancelled,
            ..payment().payload
        };
        DomainMessage::new(cancelled, version, NOW)
    };
    let apply = |version| {
        apply_cancelled_payment(&message(version), Commit::new(), &records(), NOW).unwrap()
    };
    assert!(apply(PAID_AT - 1).commit.is_empty());
    let newer = apply(PAID_AT + 1).commit;
    assert_eq!(puts(&newer), [("allocation", 5), ("ticket", 1)]);
    assert_eq!(newer.puts[0].row["sold"], 0);
    assert_eq!(topics(&newer), ["domain.ticket"]);
}

#[test]
fn a_payment_that_succeeds_after_its_cancellation_is_refunded() {
    let cancelled = [
        Records::default().with(&ticket(TicketStatus::Cancelled, PAID_AT - 1)),
        Records::default().with(&refunded(PaymentStatus::Cancelled, PAID_AT - 1)),
    ];
    for records in cancelled {
        let records = records.with(&allocation(1, 0));
        let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
        assert_eq!(puts(&commit), [], "no ticket is issued");
        assert_eq!(topics(&commit), ["payment.cancel.request"]);
    }
}

#[test]
fn a_payment_with_a_requested_refund_gets_no_ticket_until_the_refund_is_refused() {
    let records = Records::default()
        .with(&allocation(1, 0))
        .with(&refunded(PaymentStatus::Succeeded, PAID_AT - 1));
    let mut refunding = payment();
    refunding.payload.refund = Refund::Requested;
    assert!(
        issue(&refunding, Some(&completed()), &records, NOW)
            .unwrap()
            .is_empty()
    );
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    assert_eq!(topics(&commit), ["domain.ticket"]);
}

#[test]
fn a_payment_for_a_reservation_that_is_gone_is_refunded() {
    let records = Records::default().with(&allocation(1, 0));
    let commit = issue(&payment(), Some(&Completion::Gone), &records, NOW).unwrap();
    assert_eq!(puts(&commit), [], "no ticket is issued");
    assert_eq!(topics(&commit), ["payment.cancel.request"]);
}

#[test]
fn a_payment_for_a_reservation_that_its_buyer_released_is_refunded() {
    let paid = payment().payload;
    let purchase = Purchase {
        ticket_id: paid.ticket_id,
        event_id: paid.event_id,
        user_id: paid.user_id,
        total_amount: paid.total_amount,
        point: paid.point_amount,
        expires_at: NOW,
        requested_at: NOW,
        released_at: Some(NOW),
        version: 1,
    };
    let records = Records::default().with(&allocation(1, 0)).with(&purchase);
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    assert_eq!(puts(&commit), [], "no ticket is issued");
    assert_eq!(topics(&commit), ["payment.cancel.request"]);
}

#[test]
fn the_allocation_forbids_one_ticket_too_many_and_its_payment_is_refunded() {
    let records = Records::default()
        .with(&allocation(1, 1))
        .with(&reservation(ReservationState::Waiting));
    let commit = issue(&payment(), Some(&completed()), &records, NOW).unwrap();
    assert_eq!(puts(&commit), [], "no ticket is issued");
    assert_eq!(topics(&commit), ["payment.cancel.request"]);
    assert_eq!(
        commit.deletes[0].table.name, "reservation",
        "the claim is removed too"
    );
}

#[test]
fn a_payment_for_an_unknown_event_is_rejected_to_a_dead_letter() {
    let rejection = issue(&payment(), Some(&completed()), &Records::default(), NOW).unwrap_err();
    assert!(rejection.reason.contains("allocation"), "{rejection}");
}
