//! What a list of transactions says by itself, and where it is left when it is too long.

use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};
use contract::{EventId, Points, SagaId, TicketId, UserId};
use messaging::Random;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn payment(status: PaymentStatus, refund: Refund) -> PaymentRecord {
    let random = Random::seeded(5);
    let saga_id = SagaId(random.uuid(NOW));
    PaymentRecord {
        payment_id: saga_id.payment(),
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
        refund,
        refund_reason: None,
        refund_number: 0,
        refund_saga: None,
        refund_code: None,
        refund_bank: None,
        refund_account: None,
        refund_holder: None,
        deposit_bank: None,
        deposit_account: None,
        deposit_due: None,
        expires_at: None,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
    }
}

fn row(payment_key: &str, status: ChargeStatus, amount: i64) -> Row {
    Row {
        transaction_key: format!("{payment_key}-{status:?}-{amount}"),
        payment_key: payment_key.to_owned(),
        status,
        amount,
        is_inside: true,
    }
}

fn done(key: &str) -> Row {
    row(key, ChargeStatus::Done, 700)
}

fn canceled(key: &str, amount: i64) -> Row {
    row(key, ChargeStatus::Canceled, amount)
}

/// The charges that must be looked up.
fn open(status: PaymentStatus, refund: Refund, rows: &[Row]) -> Vec<String> {
    let open = open_charges(&payment(status, refund), rows);
    open.into_iter().map(|charge| charge.payment_key).collect()
}

#[test]
fn only_what_both_sides_tell_alike_needs_no_lookup() {
    let (none, back) = (Refund::None, Refund::Done);
    let nothing: [&str; 0] = [];
    let given_back = [done("pg-1"), canceled("pg-1", 700)];
    assert_eq!(open(Succeeded, none, &[done("pg-1")]), nothing);
    assert_eq!(open(Cancelled, back, &given_back), nothing);
    for status in [Created, Failed, Deleted] {
        assert_eq!(open(status, none, &[]), nothing, "{status:?}");
        assert_eq!(open(status, none, &given_back), nothing, "{status:?}");
        assert_eq!(open(status, none, &[done("pg-1")]), ["pg-1"], "{status:?}");
    }
    for (status, refund, rows) in [
        (Succeeded, none, vec![]),
        (Succeeded, none, given_back.to_vec()),
        (Succeeded, none, vec![row("pg-1", ChargeStatus::Done, 699)]),
        (Succeeded, none, vec![done("pg-1"), canceled("pg-1", 100)]),
        (Succeeded, Refund::Requested, vec![done("pg-1")]),
        (Succeeded, Refund::Parked, vec![done("pg-1")]),
        (Cancelled, back, vec![done("pg-1")]),
        (Cancelled, back, vec![]),
        (Confirming, none, vec![]),
        (Confirming, none, given_back.to_vec()),
    ] {
        assert_eq!(open(status, refund, &rows), ["pg-1"], "{status:?} {rows:?}");
    }
}

#[test]
fn a_charge_beside_the_payments_own_is_looked_up_after_it_unless_it_went_back() {
    let beside = [done("pg-0"), done("pg-1")];
    assert_eq!(open(Succeeded, Refund::None, &beside), ["pg-0"]);
    assert_eq!(open(Confirming, Refund::None, &beside), ["pg-1", "pg-0"]);
    let gone = [canceled("pg-0", 700), done("pg-1"), done("pg-0")];
    assert_eq!(open(Succeeded, Refund::None, &gone), [""; 0]);
}

#[test]
fn a_list_that_is_too_long_ends_the_period_where_it_was_left() {
    let period = Period {
        from: NOW,
        to: NOW.plus_secs(86_400),
    };
    let theirs = || Theirs {
        orders: BTreeMap::new(),
        unreadable: 0,
        to: period.to,
    };
    let cut = |latest| theirs().cut(&period, latest).map(|theirs| theirs.to);
    let margin = NOW.plus_millis(MARGIN_MILLIS);
    assert!(matches!(cut(Some(margin.plus_millis(1))), Ok(to) if to == NOW.plus_millis(1)));
    assert!(matches!(cut(Some(period.to.plus_secs(9_999))), Ok(to) if to == period.to));
    assert!(matches!(cut(Some(margin)), Err(Error::TooMany)));
    assert!(matches!(cut(None), Err(Error::TooMany)));
}
