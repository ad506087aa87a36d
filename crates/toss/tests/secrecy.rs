//! The secret goes out in one header, and comes out nowhere. A program of its own: whether a log statement is recorded
//! depends on the subscribers that exist when it runs for the first time, in any test of the program.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

#[expect(dead_code, reason = "the tests of the answers use the rest")]
#[path = "answers/peer.rs"]
mod peer;

use std::error::Error as _;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex};

use serde_json::json;
use toss::{
    Charge, ChargeStatus, Client, ErrorCode, GatewayOutcome, Listing, Lookup, Meaning, Period,
    Protocol, SecretKey, Settings, Transaction, protocol::RefundAccount,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use peer::*;

/// The secret as the header carries it, and its first bytes without the colon.
const ENCODED: [&str; 2] = ["dGVzdF9za19vZl90aGVfdGVzdHM6", "dGVzdF9za19vZl90aGVf"];
const ACCOUNT_NUMBER: &str = "110123456789";
const DEPOSIT_SECRET: &str = "ps_of_this_payment";

#[track_caller]
fn assert_keeps_the_secrets(text: &str) {
    for secret in [SECRET, ACCOUNT_NUMBER, DEPOSIT_SECRET]
        .iter()
        .chain(&ENCODED)
    {
        assert!(!text.contains(secret), "{secret} came out in {text}");
    }
}

/// Keeps every word of every span and event.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<String>>);

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Words(&mut self.0.lock().unwrap()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Words(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Words(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn account() -> RefundAccount {
    RefundAccount {
        bank: "88".into(),
        account_number: ACCOUNT_NUMBER.into(),
        holder_name: "김철수".into(),
    }
}

#[tokio::test]
async fn calls_that_fail_log_neither_the_secret_nor_an_account() {
    let recorder = Recorder::default();
    let recording = tracing::subscriber::set_default(recorder.clone());
    let script = vec![
        error(401, "UNAUTHORIZED_KEY"),
        PeerReply::All(http(502, "text/html", "<h1>Bad Client</h1>")),
        PeerReply::ThenReset(String::new()),
    ];
    let peer = Peer::replying(script).await;
    let gateway = peer.client();
    let mut given_back = cancel(Some(1));
    given_back.refund_account = Some(account());
    let outcomes = (
        gateway.confirm(&confirm()).await,
        gateway.cancel(&given_back).await,
        gateway.cancel(&given_back).await,
        gateway.find_by_key("payment-key-1").await,
    );
    drop(recording);

    let received = peer.received().join("\n");
    assert!(
        received.contains(ENCODED[0]) && received.contains(ACCOUNT_NUMBER),
        "they were sent"
    );
    assert_keeps_the_secrets(&format!("{outcomes:?}"));
    let log = recorder.0.lock().unwrap().clone();
    assert!(
        log.contains("the gateway is asked again"),
        "it was recorded: {log}"
    );
    assert_keeps_the_secrets(&log);
}

#[tokio::test]
async fn a_peer_that_quotes_the_request_does_not_get_the_secret_into_a_message() {
    let message = format!("not with Basic {}, that is {SECRET}", ENCODED[0]);
    let quoting = json!({"code": "REJECT_CARD_PAYMENT", "message": message});
    let peer = Peer::replying(vec![replies(403, &quoting)]).await;
    let declined = GatewayOutcome::Declined {
        code: "REJECT_CARD_PAYMENT".into(),
        message: "not with Basic ***, that is ***".into(),
    };
    assert_eq!(peer.client().confirm(&confirm()).await, declined);
}

#[test]
fn no_public_type_prints_the_secret() {
    let settings = Settings {
        secret_key: SecretKey::new(SECRET),
        ..Settings::default()
    };
    let charge = Charge {
        secret: Some(DEPOSIT_SECRET.into()),
        ..charge(ChargeStatus::WaitingForDeposit, 1_000)
    };
    let mut given_back = cancel(Some(1));
    given_back.refund_account = Some(account());
    let now = "2024-06-19T03:00:00Z".parse().unwrap();
    let transaction = Transaction {
        transaction_key: "t-1".into(),
        payment_key: "key-1".into(),
        order_id: "order-1".into(),
        status: ChargeStatus::Done,
        amount: 1,
        at: Some(now),
    };
    let page = Listing::Page {
        transactions: vec![transaction],
        is_last: true,
        unreadable: 0,
    };
    let types: [&dyn fmt::Debug; 13] = [
        &settings,
        &settings.secret_key,
        &Client::new(&settings).unwrap(),
        &confirm(),
        &given_back,
        &account(),
        &GatewayOutcome::Approved(charge.clone()),
        &Lookup::Found(charge),
        &page,
        &Period { from: now, to: now },
        &Protocol::Toss,
        &ErrorCode::ALL,
        &Meaning::Refused,
    ];
    let printed: Vec<String> = types.iter().map(|it| format!("{it:?} {it:#?}")).collect();
    assert!(printed[0].contains("***"), "{}", printed[0]);
    assert_keeps_the_secrets(&printed.join("\n"));
}

#[test]
fn no_error_prints_the_secret() {
    let good = || Settings {
        secret_key: SecretKey::new(SECRET),
        ..Settings::default()
    };
    let no_address = Settings {
        base_url: format!("http://{SECRET}@localhost"),
        ..good()
    };
    let no_secret = Settings {
        secret_key: SecretKey::new(""),
        ..good()
    };
    let no_patience = Settings {
        connect_timeout_millis: 0,
        ..good()
    };
    for settings in [no_address, no_secret, no_patience] {
        let error = Client::new(&settings).unwrap_err();
        assert_keeps_the_secrets(&format!("{error} {error:?} {:?}", error.source()));
    }
}
