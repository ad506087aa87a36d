//! The table of what a page of transactions says.

use serde_json::{Value, json};

use super::*;
use crate::ChargeStatus;

fn row(key: &str) -> Value {
    json!({
        "transactionKey": key, "paymentKey": "key-1", "orderId": "order-1", "status": "DONE", "amount": 1000,
        "transactionAt": "2024-06-19T12:00:00+09:00", "method": null, "customerKey": "new",
    })
}

fn transaction(key: &str) -> Transaction {
    Transaction {
        transaction_key: key.to_owned(),
        payment_key: "key-1".to_owned(),
        order_id: "order-1".to_owned(),
        status: ChargeStatus::Done,
        amount: 1000,
        at: Some("2024-06-19T03:00:00Z".parse().expect("a time")),
    }
}

fn answer(body: &Value) -> RawAnswer {
    RawAnswer {
        status: 200,
        is_json: true,
        body: body.to_string().into_bytes(),
    }
}

fn page_of(keys: &[&str], is_last: bool, unreadable: usize) -> Listing {
    Listing::Page {
        transactions: keys.iter().map(|key| transaction(key)).collect(),
        is_last,
        unreadable,
    }
}

fn reason(listing: Listing) -> String {
    match listing {
        Listing::Unknown { reason } => reason,
        page @ Listing::Page { .. } => panic!("expected nothing, got {page:?}"),
    }
}

#[test]
fn a_page_is_the_last_if_it_has_fewer_rows_than_requested() {
    let two = answer(&json!([row("t-1"), row("t-2")]));
    assert_eq!(of_page(&two, None, 3), page_of(&["t-1", "t-2"], true, 0));
    assert_eq!(of_page(&two, None, 2), page_of(&["t-1", "t-2"], false, 0));
    assert_eq!(of_page(&answer(&json!([])), None, 1), page_of(&[], true, 0));
}

#[test]
fn a_row_that_cannot_be_read_hides_no_other_and_is_counted() {
    let mut no_amount = row("t-2");
    no_amount["amount"] = json!(null);
    let body = json!([row("t-1"), no_amount, "text", null, row("t-3")]);
    let listing = of_page(&answer(&body), None, 5);
    assert_eq!(listing, page_of(&["t-1", "t-3"], false, 3));
}

#[test]
fn a_time_that_cannot_be_read_leaves_the_row_without_one() {
    for at in [
        json!(null),
        json!("yesterday"),
        json!("2024-06-19T12:00:00"),
    ] {
        let mut body = row("t-1");
        body["transactionAt"] = at;
        let Listing::Page { transactions, .. } = of_page(&answer(&json!([body])), None, 9) else {
            panic!("expected a page");
        };
        let timeless = Transaction {
            at: None,
            ..transaction("t-1")
        };
        assert_eq!(transactions, [timeless]);
    }
}

#[test]
fn a_cursor_always_moves_forward() {
    let inclusive = answer(&json!([row("t-1"), row("t-2")]));
    let listing = of_page(&inclusive, Some("t-1"), 2);
    assert_eq!(
        listing,
        page_of(&["t-2"], false, 0),
        "the first row is the cursor"
    );

    let expected = "a whole page of transactions holds nothing to go on from";
    let stuck = answer(&json!([row("t-1")]));
    assert_eq!(reason(of_page(&stuck, Some("t-1"), 1)), expected);
    assert_eq!(reason(of_page(&answer(&json!([{}])), None, 1)), expected);
}

#[test]
fn an_answer_that_is_no_list_is_inconclusive() {
    let list = answer(&json!([row("t-1")]));
    let mut cut = list.clone();
    cut.body.pop();
    let web_page = RawAnswer {
        is_json: false,
        ..list.clone()
    };
    let error = json!({"code": "INVALID_TRANSACTION_KEY", "message": "why"});
    let refused = RawAnswer {
        status: 400,
        ..answer(&error)
    };
    let created = RawAnswer {
        status: 201,
        ..list
    };
    for (answer, expected) in [
        (cut, "the answer with status 200 cannot be read"),
        (web_page, "the answer with status 200 is not JSON"),
        (answer(&error), "the answer with status 200 cannot be read"),
        (refused, "the gateway answered 400 INVALID_TRANSACTION_KEY"),
        (created, "the answer with status 201 cannot be read"),
    ] {
        assert_eq!(reason(of_page(&answer, None, 9)), expected);
    }
}
