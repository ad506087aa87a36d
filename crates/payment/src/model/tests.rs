//! Tables of what a payment may become.

use contract::{
    EventId, Points, SagaId, TicketId,
    payment::{CancelRequest, CancelResponse, CreateRequest, DeleteRequest},
};
use messaging::Random;

use super::*;
use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const ALL: [PaymentStatus; 6] = [Created, Confirming, Succeeded, Failed, Cancelled, Deleted];

fn won(amount: i64) -> Money {
    Money::new(amount).unwrap()
}

fn request(total: i64, points: i64) -> CreateRequest {
    let random = Random::seeded(7);
    CreateRequest {
        saga_id: SagaId(random.uuid(NOW)),
        ticket_id: TicketId(random.uuid(NOW)),
        event_id: EventId(1),
        user_id: UserId(2),
        total_amount: won(total),
        point: Points::new(points).unwrap(),
        expires_at: Some(NOW.plus_secs(60)),
    }
}

fn opened() -> PaymentRecord {
    match create(&request(1_000, 300), None, None, NOW) {
        Ok(Creation::Opened(change)) => stored(change),
        other => panic!("expected an open payment, got {other:?}"),
    }
}

fn stored(change: Change) -> PaymentRecord {
    let version = change.payment.version + 1;
    PaymentRecord {
        version,
        ..change.payment
    }
}

/// A payment whose first attempt has come as far as `status`.
fn in_status(status: PaymentStatus) -> PaymentRecord {
    let confirming = || stored(opened().begin_attempt(&attempt_request(), NOW).unwrap());
    let after = |confirmed| {
        stored(changed(
            confirming().record_outcome(&outcome(confirmed, 1), NOW),
        ))
    };
    match status {
        Created => opened(),
        Confirming => confirming(),
        Succeeded => after(true),
        Failed => after(false),
        Cancelled => {
            let wanted = requested(&after(true), &refund());
            stored(wanted.finish_refund(NOW).unwrap())
        }
        Deleted => match delete(&deletion(), Some(&opened()), None, NOW) {
            Deletion::Closed(change) => stored(change),
            other => panic!("expected a closed payment, got {other:?}"),
        },
    }
}

fn changed(taken: Result<OutcomeEffect, Rejection>) -> Change {
    match taken {
        Ok(OutcomeEffect::Changed(change)) => *change,
        other => panic!("expected a change, got {other:?}"),
    }
}

fn requested(payment: &PaymentRecord, request: &CancelRequest) -> PaymentRecord {
    match payment.request_refund(request, NOW) {
        Ok(RefundReply::Requested(change)) => stored(*change),
        other => panic!("expected a refund, got {other:?}"),
    }
}

fn attempt_request() -> AttemptRequest<'static> {
    AttemptRequest {
        pg_payment_id: "pg-1",
        amount: won(700),
        user_id: Some(UserId(2)),
        refund_account: None,
    }
}

fn outcome(confirmed: bool, attempt: u32) -> ConfirmedRequest {
    ConfirmedRequest {
        payment_id: opened().payment_id,
        pg_payment_id: "pg-1".to_owned(),
        confirmed,
        attempt: Some(attempt),
        decline_code: (!confirmed).then(|| "REJECT_CARD_PAYMENT".to_owned()),
    }
}

fn refund() -> CancelRequest {
    CancelRequest {
        payment_id: opened().payment_id,
        reason: "sold out".to_owned(),
        saga_id: None,
    }
}

fn deletion() -> DeleteRequest {
    DeleteRequest {
        saga_id: request(0, 0).saga_id,
        payment_id: opened().payment_id,
    }
}

#[test]
fn the_final_amount_is_the_total_less_the_points() {
    let payment = opened();
    assert_eq!(payment.final_amount, won(700));
    assert_eq!(
        payment.payment_id,
        PaymentId::of_saga(request(0, 0).saga_id)
    );
}

#[test]
fn points_worth_more_than_the_amount_leave_a_tombstone() {
    let asked = request(1_000, 1_001);
    let Ok(Creation::Tombstoned(tombstone)) = create(&asked, None, None, NOW) else {
        panic!("expected a refusal");
    };
    let again = create(&request(1_000, 0), None, Some(&tombstone), NOW);
    assert_eq!(again, Ok(Creation::Decided { succeed: false }));
}

#[test]
fn a_repeated_creation_gets_the_same_answer_and_a_different_one_is_rejected() {
    let payment = opened();
    let again = create(&request(1_000, 300), Some(&payment), None, NOW);
    assert_eq!(again, Ok(Creation::Decided { succeed: true }));
    assert!(create(&request(1_001, 300), Some(&payment), None, NOW).is_err());
    let late = create(&request(1_000, 300), Some(&in_status(Deleted)), None, NOW);
    assert_eq!(late, Ok(Creation::Decided { succeed: false }));
}

#[test]
fn a_deletion_closes_only_an_unpaid_payment() {
    for (status, expected) in [
        (Created, None),
        (Failed, None),
        (Deleted, Some(true)),
        (Confirming, None),
        (Succeeded, Some(false)),
        (Cancelled, Some(true)),
    ] {
        match delete(&deletion(), Some(&in_status(status)), None, NOW) {
            Deletion::Closed(change) => {
                assert_eq!((expected, change.payment().status), (None, Deleted));
            }
            Deletion::Decided { succeed } => assert_eq!(Some(succeed), expected, "{status:?}"),
            Deletion::Deferred(noted) => assert!(status == Confirming && noted.is_some()),
            Deletion::Tombstoned(_) => panic!("the payment is there: {status:?}"),
        }
    }
}

#[test]
fn a_deletion_that_waits_for_an_outcome_is_answered_by_it() {
    let noted = match delete(&deletion(), Some(&in_status(Confirming)), None, NOW) {
        Deletion::Deferred(Some(change)) => stored(change),
        other => panic!("expected a note, got {other:?}"),
    };
    let again = delete(&deletion(), Some(&noted), None, NOW);
    assert_eq!(again, Deletion::Deferred(None), "it is noted once");
    let saga = deletion().saga_id;
    for (confirmed, status, answer) in [(true, Succeeded, false), (false, Deleted, true)] {
        let change = changed(noted.record_outcome(&outcome(confirmed, 1), NOW));
        assert_eq!(change.payment.status, status);
        let told = noted.deferred_deletion(&change.payment);
        assert_eq!(told, Some((saga, answer)));
        assert_eq!(stored(change).delete_saga, None);
    }
}

#[test]
fn an_attempt_starts_only_if_no_charge_exists_or_is_possible() {
    for (status, expected) in [
        (Created, Ok(1)),
        (Failed, Ok(2)),
        (Confirming, Err(Refusal::InProgress)),
        (Succeeded, Err(Refusal::AlreadyConfirmed)),
        (
            Cancelled,
            Err(Refusal::Refunded {
                refund: Refund::Done,
            }),
        ),
        (Deleted, Err(Refusal::Closed)),
    ] {
        let begun = in_status(status).begin_attempt(&attempt_request(), NOW);
        let attempt = begun.as_ref().map(|change| change.payment().attempt);
        assert_eq!(attempt.map_err(|refusal| *refusal), expected, "{status:?}");
        if let Ok(change) = begun {
            let payment = change.payment();
            let key = attempt_key(payment.payment_id, payment.attempt);
            assert_eq!(payment.attempt_key, Some(key));
        }
    }
}

#[test]
fn only_the_same_successful_request_gets_its_answer_again() {
    let asked = |payment: &PaymentRecord, attempt_request: &AttemptRequest<'_>| {
        payment.has_succeeded_as(attempt_request)
    };
    let paid = PaymentRecord {
        pg_payment_id: Some(attempt_request().pg_payment_id.to_owned()),
        ..in_status(Succeeded)
    };
    assert!(asked(&paid, &attempt_request()));
    let other = AttemptRequest {
        pg_payment_id: "another",
        ..attempt_request()
    };
    let less = AttemptRequest {
        amount: won(1),
        ..attempt_request()
    };
    let foreign = AttemptRequest {
        user_id: Some(UserId(99)),
        ..attempt_request()
    };
    for attempt_request in [other, less, foreign] {
        assert!(!asked(&paid, &attempt_request), "{attempt_request:?}");
    }
    for status in [Created, Confirming, Failed, Cancelled, Deleted] {
        let payment = PaymentRecord {
            status,
            ..paid.clone()
        };
        assert!(!asked(&payment, &attempt_request()), "{status:?}");
    }
}

#[test]
fn an_attempt_needs_the_owner_the_amount_and_time() {
    let payment = opened();
    let foreign = AttemptRequest {
        user_id: Some(UserId(3)),
        ..attempt_request()
    };
    let too_little = AttemptRequest {
        amount: won(699),
        ..attempt_request()
    };
    let refused = |attempt_request: &AttemptRequest<'_>, now| {
        payment.begin_attempt(attempt_request, now).err()
    };
    assert_eq!(refused(&foreign, NOW), Some(Refusal::OwnerMismatch));
    let mismatch = Refusal::AmountMismatch { expected: won(700) };
    assert_eq!(refused(&too_little, NOW), Some(mismatch));
    let at = NOW.plus_secs(60);
    assert_eq!(refused(&attempt_request(), at), None);
    let late = Refusal::DeadlinePassed { at };
    assert_eq!(refused(&attempt_request(), at.plus_millis(1)), Some(late));
}

#[test]
fn an_approval_is_never_lost_and_a_decline_never_reverts_one() {
    for status in ALL {
        let payment = in_status(status);
        let attempt = payment.attempt;
        let approved = payment
            .record_outcome(&outcome(true, attempt), NOW)
            .unwrap();
        let declined = payment
            .record_outcome(&outcome(false, attempt), NOW)
            .unwrap();
        let became = |taken: OutcomeEffect| match taken {
            OutcomeEffect::Changed(change) => Some((change.payment.status, change.payment.refund)),
            OutcomeEffect::AlreadyKnown => None,
            OutcomeEffect::ChargedAgain => panic!("it is the same charge"),
        };
        let (approved, declined) = (became(approved), became(declined));
        match status {
            Created | Confirming => {
                assert_eq!(approved, Some((Succeeded, Refund::None)));
                assert_eq!(declined, Some((Failed, Refund::None)));
            }
            // The points are still held: the purchase goes on.
            Failed => {
                assert_eq!(approved, Some((Succeeded, Refund::None)));
                assert_eq!(declined, None);
            }
            Deleted => {
                assert_eq!(approved, Some((Succeeded, Refund::Requested)));
                assert_eq!(declined, None);
            }
            Succeeded | Cancelled => assert_eq!((approved, declined), (None, None)),
        }
    }
}

#[test]
fn a_late_decline_of_an_earlier_attempt_changes_nothing_and_a_late_approval_counts() {
    let second = stored(
        in_status(Failed)
            .begin_attempt(&attempt_request(), NOW)
            .unwrap(),
    );
    assert_eq!(
        second.record_outcome(&outcome(false, 1), NOW),
        Ok(OutcomeEffect::AlreadyKnown)
    );
    let approved = changed(second.record_outcome(&outcome(true, 1), NOW));
    assert_eq!(approved.payment.status, Succeeded);
}

#[test]
fn an_outcome_of_an_unknown_attempt_is_rejected_and_a_second_charge_is_an_orphan() {
    let unheard_of = outcome(true, 2);
    assert!(
        in_status(Confirming)
            .record_outcome(&unheard_of, NOW)
            .is_err()
    );
    let second_charge = ConfirmedRequest {
        pg_payment_id: "pg-2".to_owned(),
        ..outcome(true, 1)
    };
    for status in [Succeeded, Cancelled] {
        let taken = in_status(status).record_outcome(&second_charge, NOW);
        assert_eq!(taken, Ok(OutcomeEffect::ChargedAgain), "{status:?}");
    }
}

fn by_saga(number: u64) -> CancelRequest {
    CancelRequest {
        saga_id: Some(SagaId(Random::seeded(number).uuid(NOW))),
        ..refund()
    }
}

/// What a request comes to without a change: whether the asker is told that the money is back.
fn answer_to(payment: &PaymentRecord, request: &CancelRequest) -> Option<bool> {
    match payment.request_refund(request, NOW) {
        Ok(RefundReply::Decided { succeed, .. }) => Some(succeed),
        Ok(RefundReply::Undecided) => None,
        other => panic!("expected no change, got {other:?}"),
    }
}

#[test]
fn a_refund_is_requested_once_and_only_for_a_charged_payment() {
    for status in ALL {
        let payment = in_status(status);
        match status {
            Succeeded => {
                let wanted = requested(&payment, &refund());
                assert_eq!(wanted.refund, Refund::Requested);
                assert_eq!(
                    answer_to(&wanted, &refund()),
                    Some(true),
                    "it is on its way"
                );
            }
            Confirming => {
                assert!(payment.request_refund(&refund(), NOW).is_err());
                assert_eq!(
                    answer_to(&payment, &by_saga(1)),
                    None,
                    "the saga asks again"
                );
            }
            Cancelled => assert_eq!(answer_to(&payment, &refund()), Some(true)),
            Created | Failed | Deleted => assert_eq!(answer_to(&payment, &refund()), Some(false)),
        }
    }
}

#[test]
fn a_payment_without_a_ticket_is_published_as_cancelled_during_its_refund() {
    let wanted = requested(&in_status(Succeeded), &refund());
    let parked = stored(wanted.refuse_refund("NOT_CANCELABLE_PAYMENT", NOW).unwrap());
    let done = stored(parked.finish_refund(NOW).unwrap());
    for payment in [wanted, parked, done] {
        assert_eq!(payment.published().status, Cancelled);
    }
    assert_eq!(in_status(Succeeded).published().status, Succeeded);
}

#[test]
fn a_cancelled_ticket_stays_valid_until_its_refund_is_done() {
    let wanted = requested(&in_status(Succeeded), &by_saga(1));
    assert_eq!(wanted.published().status, Succeeded);
    let done = wanted.finish_refund(NOW).unwrap();
    let mut commit = Commit::new();
    done.answer_saga(&mut commit);
    let answer: CancelResponse = commit.messages[0].parse().unwrap();
    assert_eq!(
        (answer.succeed, done.payment.published().status),
        (true, Cancelled)
    );
}

#[test]
fn a_refused_refund_compensates_its_saga_and_stays_refused_for_it() {
    let wanted = requested(&in_status(Succeeded), &by_saga(1));
    let refused = wanted.refuse_refund("NOT_CANCELABLE_AMOUNT", NOW).unwrap();
    let mut commit = Commit::new();
    refused.answer_saga(&mut commit);
    let answer: CancelResponse = commit.messages[0].parse().unwrap();
    assert_eq!(answer.code.as_deref(), Some("NOT_CANCELABLE_AMOUNT"));
    let refused = stored(refused);
    assert_eq!((refused.status, refused.refund), (Succeeded, Refund::None));
    assert_eq!(answer_to(&refused, &by_saga(1)), Some(false));
    let again = requested(&refused, &by_saga(2));
    assert_ne!(again.refund_key(), refused.refund_key());
}

#[test]
fn a_parked_refund_is_requested_again_with_a_new_key() {
    let wanted = requested(&in_status(Succeeded), &refund());
    let parked = stored(wanted.refuse_refund("NOT_CANCELABLE_PAYMENT", NOW).unwrap());
    assert_eq!(wanted.resume_refund(NOW), None, "it is on its way");
    let resumed = stored(parked.resume_refund(NOW).unwrap());
    assert_eq!(resumed.refund, Refund::Requested);
    assert_ne!(resumed.refund_key(), wanted.refund_key());
}

#[test]
fn a_refund_made_at_the_gateway_cancels_the_payment() {
    let withdrawn = in_status(Succeeded).cancelled_at_gateway(NOW).unwrap();
    assert_eq!(withdrawn.payment.refund, Refund::Done);
    assert_eq!(withdrawn.payment.published().status, Cancelled);
    let lost = in_status(Succeeded).deposit_reversed(NOW).unwrap();
    assert_eq!(
        lost.payment.refund,
        Refund::Requested,
        "the account is still to be closed"
    );
    assert_eq!(lost.payment.published().status, Cancelled);
    for status in [Created, Confirming, Failed, Cancelled, Deleted] {
        assert_eq!(in_status(status).cancelled_at_gateway(NOW), None);
        assert_eq!(in_status(status).deposit_reversed(NOW), None);
    }
}

#[test]
fn a_change_saves_the_record_its_history_and_its_message_together() {
    let mut commit = Commit::new();
    let change = opened().begin_attempt(&attempt_request(), NOW).unwrap();
    change.save(&mut commit);
    assert_eq!(commit.puts.len(), 1);
    let entry = &commit.appends[0].row;
    let id = opened().payment_id;
    assert_eq!(entry["entry_id"], format!("{id}:2"));
    assert_eq!(commit.messages[0].id, format!("payment:{id}:2"));
    assert_eq!(commit.messages[0].topic, "domain.payment");
}
