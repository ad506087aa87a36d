//! Consistent books have no violation, and each inconsistency is reported.

mod good_books;

use contract::{PaymentId, SagaId, TicketId, Timestamp, UserId, domain::PaymentStatus};
use messaging::{Random, coordinator::SagaRecord};
use payment::record::Refund;
use saga::SagaState;
use ticketing::{
    model::{ReservationRecord, ReservationState},
    reservations::ClaimSnapshot,
};
use user::points::HoldState;

use super::*;
use good_books::{EVENT, NOW, USER, account, good, money, payment_of, saga, ticket_id};

/// Only the promises; `tests/scenarios/mutations.rs` tests the agreement of all tables by corrupting a real folder.
fn check(books: &Books, now: Timestamp) -> Vec<Violation> {
    let mut found = Findings::default();
    promises(books, now, &mut found);
    found.sorted()
}

/// The promises that this change of consistent books breaks.
fn broken(change: impl FnOnce(&mut Books, TicketId)) -> Vec<u8> {
    let mut books = good();
    change(&mut books, ticket_id());
    let mut promises: Vec<u8> = check(&books, NOW)
        .into_iter()
        .map(|violation| violation.promise)
        .collect();
    promises.dedup();
    promises
}

#[test]
fn consistent_books_have_no_violation() {
    assert_eq!(check(&good(), NOW), []);
}

#[test]
fn an_oversold_event_is_reported() {
    assert_eq!(
        broken(|books, _| books.allocations.get_mut(&EVENT).unwrap().quantity = 0),
        [1, 3]
    );
    assert_eq!(
        broken(|books, _| books.allocations.get_mut(&EVENT).unwrap().sold = 0),
        [1]
    );
    assert_eq!(broken(|books, _| _ = books.allocations.remove(&EVENT)), [1]);
}

#[test]
fn a_compensated_purchase_that_still_holds_something_is_reported() {
    let compensated = |books: &mut Books, id: TicketId| {
        let saga_id = id.purchase_saga();
        books
            .sagas
            .insert(saga_id, saga(id, SagaState::Compensated));
        books.tickets.remove(&id);
        books.allocations.get_mut(&EVENT).unwrap().sold = 0;
        books.reservations.remove(&id);
        payment_of(books, id).status = PaymentStatus::Deleted;
        books.holds.get_mut(&saga_id).unwrap().state = HoldState::Restored;
    };
    assert_eq!(
        broken(compensated),
        [0_u8; 0],
        "a compensated purchase that holds nothing is no violation"
    );
    let with = |more: fn(&mut Books, TicketId)| {
        broken(|books, id| {
            compensated(books, id);
            more(books, id);
        })
    };
    let held = |books: &mut Books, id: TicketId| {
        books.holds.get_mut(&id.purchase_saga()).unwrap().state = HoldState::Held;
    };
    assert_eq!(with(held), [2]);
    let payable = |books: &mut Books, id: TicketId| {
        payment_of(books, id).status = PaymentStatus::Created;
    };
    assert_eq!(with(payable), [2]);
    let reserved = |books: &mut Books, id: TicketId| {
        let again = good().reservations.remove(&id).unwrap();
        books.reservations.insert(
            id,
            ReservationRecord {
                state: ReservationState::Waiting,
                ..again
            },
        );
    };
    assert_eq!(with(reserved), [2]);
}

#[test]
fn a_payment_without_a_ticket_and_a_ticket_without_a_payment_are_reported() {
    let no_ticket = |books: &mut Books, id: TicketId| {
        books.tickets.remove(&id);
        books.reservations.remove(&id);
        books.allocations.get_mut(&EVENT).unwrap().sold = 0;
    };
    assert_eq!(broken(no_ticket), [3]);
    let under_way = |books: &mut Books, id: TicketId| {
        no_ticket(books, id);
        books
            .under_way
            .insert(PaymentId::of_saga(id.purchase_saga()).to_string());
    };
    assert_eq!(
        broken(under_way),
        [0_u8; 0],
        "an unhandled message may still issue the ticket"
    );
    let unpaid = |books: &mut Books, id: TicketId| {
        payment_of(books, id).status = PaymentStatus::Failed;
    };
    assert_eq!(broken(unpaid), [3]);
    assert_eq!(
        broken(|books, id| _ = books
            .payments
            .remove(&PaymentId::of_saga(id.purchase_saga()))),
        [3]
    );
}

#[test]
fn a_payment_without_a_ticket_is_reported_even_if_its_saga_is_parked() {
    let parked = |books: &mut Books, id: TicketId, saga_id: SagaId| {
        let record = SagaRecord {
            saga_id,
            parked: Some("nobody answers".to_owned()),
            ..saga(id, SagaState::Compensating)
        };
        books.sagas.insert(saga_id, record);
    };
    let no_ticket = |books: &mut Books, id: TicketId| {
        books.tickets.remove(&id);
        books.reservations.remove(&id);
        books.allocations.get_mut(&EVENT).unwrap().sold = 0;
    };
    for saga_of in [TicketId::purchase_saga, TicketId::expire_saga] {
        let kept = broken(|books, id| {
            no_ticket(books, id);
            parked(books, id, saga_of(id));
        });
        assert_eq!(kept, [3]);
        let still_moving = broken(|books, id| {
            no_ticket(books, id);
            parked(books, id, saga_of(id));
            payment_of(books, id).refund = Refund::Requested;
        });
        assert_eq!(still_moving, [0_u8; 0], "it is being refunded");
    }
    let being_given_back = broken(|books, id| {
        books.tickets.get_mut(&id).unwrap().cancellation = 1;
        parked(books, id, id.cancel_saga(1));
        payment_of(books, id).status = PaymentStatus::Cancelled;
    });
    assert_eq!(being_given_back, [0_u8; 0], "the ticket is cancelled last");
}

#[test]
fn points_that_differ_from_the_ledger_are_reported() {
    assert_eq!(
        broken(|books, _| _ = books.ledger.accounts.insert(USER, account(71))),
        [3]
    );
    let never_used = |books: &mut Books, id: TicketId| {
        books.holds.get_mut(&id.purchase_saga()).unwrap().state = HoldState::Held;
    };
    assert_eq!(broken(never_used), [3]);
}

#[test]
fn a_ticket_whose_claim_still_waits_is_reported() {
    let waiting = |books: &mut Books, id: TicketId| {
        books.reservations.get_mut(&id).unwrap().state = ReservationState::Waiting;
    };
    assert_eq!(broken(waiting), [3]);
}

#[test]
fn claims_in_redis_that_differ_from_the_tickets_are_reported() {
    let claims = |waiting: &[TicketId], completed: &[TicketId]| ClaimSnapshot {
        waiting: waiting.iter().copied().collect(),
        completed: completed.iter().copied().collect(),
    };
    let says = |claims: ClaimSnapshot| broken(|books, _| _ = books.claims.insert(EVENT, claims));
    let (ticket, other) = (ticket_id(), TicketId(Random::seeded(2).uuid(NOW)));
    assert!(says(claims(&[other], &[ticket])).is_empty());
    assert_eq!(says(claims(&[], &[ticket, other])), [3]);
    assert_eq!(says(claims(&[], &[])), [3]);
    assert_eq!(says(claims(&[ticket], &[ticket])), [3]);
    let bought_meanwhile = broken(|books, ticket| {
        books.claims.insert(EVENT, claims(&[], &[ticket, other]));
        books.under_way.insert(other.to_string());
    });
    assert!(bought_meanwhile.is_empty());
}

#[test]
fn an_open_saga_without_timer_or_message_is_reported() {
    let stuck = |books: &mut Books, id: TicketId| {
        books
            .sagas
            .insert(id.purchase_saga(), saga(id, SagaState::Started));
    };
    assert_eq!(broken(stuck), [7]);
    let waiting = |books: &mut Books, id: TicketId| {
        stuck(books, id);
        books.timers.insert(format!("saga/{}", id.purchase_saga()));
    };
    assert_eq!(broken(waiting), [0_u8; 0]);
    assert_eq!(
        broken(|books, id| _ = books.sagas.remove(&id.purchase_saga())),
        [7],
        "the purchase has no saga"
    );
}

#[test]
fn an_attempt_without_an_outcome_is_reported_after_an_hour() {
    let began = |expires_at: Option<Timestamp>, now: Timestamp| {
        let mut books = good();
        let id = ticket_id();
        books.tickets.clear();
        books.reservations.clear();
        books.allocations.get_mut(&EVENT).unwrap().sold = 0;
        let payment = payment_of(&mut books, id);
        payment.status = PaymentStatus::Confirming;
        payment.attempt_started_at = Some(NOW);
        payment.expires_at = expires_at;
        check(&books, now).len()
    };
    let hour = attempts::CONFIRMING_SECS_MAX;
    assert_eq!(began(None, NOW.plus_secs(hour)), 0);
    assert_eq!(began(None, NOW.plus_secs(hour + 1)), 1);
    let account_is_open_until = Some(NOW.plus_secs(hour));
    assert_eq!(began(account_is_open_until, NOW.plus_secs(2 * hour)), 0);
    assert_eq!(began(account_is_open_until, NOW.plus_secs(2 * hour + 1)), 1);
    let before_it_began = Some(NOW.plus_secs(-hour));
    assert_eq!(began(before_it_began, NOW.plus_secs(hour)), 0);
}

#[test]
fn an_overdue_refund_is_reported_with_the_gateways_last_code() {
    let named = |now: Timestamp| {
        let mut books = good();
        let payment = books.payments.values_mut().next().unwrap();
        let mut orphan = payment
            .orphan_to_refund("pg-second", money(70), None, NOW)
            .unwrap();
        orphan.refund_code = Some("REFUND_POLICY_2027".to_owned());
        books.orphan_charges.insert("pg-second".to_owned(), orphan);
        payment.refund = Refund::Requested;
        payment.refund_requested_at = Some(NOW);
        payment.refund_code = Some("REFUND_POLICY_2027".to_owned());
        let found = check(&books, now);
        let told = |it: &&Violation| it.detail.contains("REFUND_POLICY_2027");
        found.iter().filter(told).count()
    };
    assert_eq!(named(NOW.plus_secs(2 * 3_600)), 0);
    assert_eq!(named(NOW.plus_secs(2 * 3_600 + 1)), 2);
}

#[test]
fn a_payment_with_two_tickets_is_reported() {
    let twice = |books: &mut Books, id: TicketId| {
        let second = TicketId(Random::seeded(2).uuid(NOW));
        let mut ticket = books.tickets[&id].clone();
        ticket.ticket_id = second;
        books.tickets.insert(second, ticket);
        let mut reservation = books.reservations[&id].clone();
        reservation.ticket_id = second;
        reservation.user_id = UserId(3);
        books.reservations.insert(second, reservation);
        let allocation = books.allocations.get_mut(&EVENT).unwrap();
        (allocation.quantity, allocation.sold) = (2, 2);
    };
    let mut books = good();
    twice(&mut books, ticket_id());
    let found = check(&books, NOW);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].detail.contains("two tickets"), "{found:?}");
}

#[test]
fn parked_refunds_are_counted_and_are_no_violation() {
    let mut books = good();
    let payment = books.payments.values_mut().next().unwrap();
    let mut orphan = payment
        .orphan_to_refund("pg-second", money(70), None, NOW)
        .unwrap();
    orphan.refund = Refund::Parked;
    books.orphan_charges.insert("pg-second".to_owned(), orphan);
    assert_eq!(books.counts().parked_orphan_charges, 1);
    assert_eq!(check(&books, NOW), []);
    let payment = books.payments.values_mut().next().unwrap();
    payment.refund = Refund::Parked;
    assert_eq!(books.counts().parked_refunds, 1);
    let found = check(&books, NOW);
    assert!(
        found.iter().all(|it| !it.subject.starts_with("payment")),
        "{found:?}"
    );
}

#[test]
fn a_ticket_that_is_being_released_may_already_belong_to_the_next_buyer() {
    let mut books = good();
    let next = TicketId(Random::seeded(2).uuid(NOW));
    let waiting = ReservationRecord {
        ticket_id: next,
        state: ReservationState::Waiting,
        ..books.reservations[&ticket_id()].clone()
    };
    books.reservations.insert(next, waiting);
    let named = |books: &Books| check(books, NOW).iter().any(|it| it.promise == 3);
    assert!(named(&books), "it is claimed twice, by the same user");

    books.under_way.insert(ticket_id().to_string());
    assert!(!named(&books), "its payment may be cancelled");
}

#[test]
fn an_expired_purchase_whose_late_payment_got_a_ticket_is_no_violation() {
    let mut books = good();
    let expiry = SagaRecord {
        saga_id: ticket_id().expire_saga(),
        ..saga(ticket_id(), SagaState::Completed)
    };
    books.sagas.insert(expiry.saga_id, expiry);
    assert_eq!(check(&books, NOW), []);
    books.tickets.clear();
    assert!(check(&books, NOW).iter().any(|it| it.promise == 2));
}
