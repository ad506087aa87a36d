//! What is asked again, and what never is.

use serde_json::json;
use toss::{ChargeStatus, Client, Listing, Lookup, Period, Settings};

use crate::peer::*;

fn broken() -> PeerReply {
    PeerReply::ThenReset(String::new())
}

fn period() -> Period {
    Period {
        from: "2024-06-18T15:00:00Z".parse().unwrap(),
        to: "2024-06-19T15:00:00Z".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_lookup_is_retried_at_once_after_a_broken_connection() {
    let found = Lookup::Found(charge(ChargeStatus::Done, 1_000));
    let script = vec![broken(), broken(), replies(200, &payment("DONE"))];
    let peer = Peer::replying(script.clone()).await;
    assert_eq!(peer.client().find_by_key("payment-key-1").await, found);
    assert_eq!(peer.received().len(), 3);

    let peer = Peer::replying(script).await;
    assert_eq!(peer.client().find_by_order("order-1").await, found);
    assert_eq!(peer.received().len(), 3);
}

#[tokio::test]
async fn a_list_is_retried_at_once_after_a_broken_connection() {
    let peer = Peer::replying(vec![broken(), replies(200, &json!([]))]).await;
    let empty = Listing::Page {
        transactions: Vec::new(),
        is_last: true,
        unreadable: 0,
    };
    assert_eq!(peer.client().transactions(&period(), None, 10).await, empty);
    assert_eq!(peer.received().len(), 2);
}

#[tokio::test]
async fn a_lookup_is_retried_exactly_as_often_as_configured() {
    for (lookup_retries, asked) in [(0, 1), (2, 3), (5, 6)] {
        let peer = Peer::replying(vec![broken()]).await;
        let gateway = Client::new(&Settings {
            lookup_retries,
            ..peer.settings()
        })
        .unwrap();
        let looked_up = gateway.find_by_key("payment-key-1").await;
        assert!(matches!(looked_up, Lookup::Unknown { .. }), "{looked_up:?}");
        assert_eq!(peer.received().len(), asked);
    }
}

#[tokio::test]
async fn a_lookup_is_not_retried_after_its_deadline() {
    let late = Lookup::Unknown {
        reason: "no answer in time".into(),
    };
    let hang = PeerReply::ThenHang(String::new());
    for (script, asked) in [
        (vec![hang.clone(), replies(200, &payment("DONE"))], 1),
        // The second time has what is left of the first.
        (vec![broken(), hang, replies(200, &payment("DONE"))], 2),
    ] {
        let peer = Peer::replying(script).await;
        assert_eq!(
            peer.impatient_client().find_by_key("payment-key-1").await,
            late
        );
        assert_eq!(peer.received().len(), asked);
    }
}

#[tokio::test]
async fn an_unexpected_answer_is_not_retried() {
    let strange = PeerReply::All(http(502, "text/html", "<h1>Bad Client</h1>"));
    let peer = Peer::replying(vec![strange, replies(200, &payment("DONE"))]).await;
    let looked_up = peer.client().find_by_key("payment-key-1").await;
    assert!(matches!(looked_up, Lookup::Unknown { .. }), "{looked_up:?}");
    assert_eq!(peer.received().len(), 1);
}

#[tokio::test]
async fn a_request_that_moves_money_is_sent_once() {
    let expected = "the connection broke before the answer was complete";
    let peer = Peer::replying(vec![broken(), replies(200, &payment("DONE"))]).await;
    let outcome = peer.client().confirm(&confirm()).await;
    assert_eq!(unknown_because(outcome), expected);
    assert_eq!(peer.received().len(), 1);

    let mut cancelled = payment("CANCELED");
    cancelled["balanceAmount"] = json!(0);
    let peer = Peer::replying(vec![broken(), replies(200, &cancelled)]).await;
    let outcome = peer.client().cancel(&cancel(None)).await;
    assert_eq!(unknown_because(outcome), expected);
    assert_eq!(peer.received().len(), 1);
}
