//! The real client against the real sandbox on a port of the system's choice, and against peers that misbehave.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use futures::future::join_all;
use test_support::{Polling, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use toss::{
    Cancel, Charge, ChargeStatus, Client, Confirm, GatewayOutcome, Lookup, SecretKey, Settings,
};
use toss_sandbox::{Sandbox, SandboxSettings};

const SECRET: &str = "test_sk_of_the_tests";
/// No test waits longer than this for anything.
const POLLING: Polling = Polling {
    interval: Duration::from_millis(1),
    timeout: Duration::from_secs(20),
};

struct Running {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn sandbox_in(path: Option<PathBuf>) -> Running {
    let settings = SandboxSettings {
        path,
        ..SandboxSettings::new(SecretKey::new(SECRET))
    };
    serve(Sandbox::open(settings).expect("a sandbox").router()).await
}

async fn serve(router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serving") });
    Running { address, server }
}

/// A peer that reads one request, answers these bytes, and hangs up.
async fn peer_that_says(answer: String) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a caller");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let read = stream.read_buf(&mut request).await.expect("a request");
            assert_ne!(read, 0, "the caller hung up before its body was complete");
        }
        stream
            .write_all(answer.as_bytes())
            .await
            .expect("an answer");
        stream.shutdown().await.expect("hanging up");
    });
    Running { address, server }
}

fn settings_of(address: SocketAddr, secret: &str, request_timeout_millis: u64) -> Settings {
    Settings {
        base_url: format!("http://{address}"),
        secret_key: SecretKey::new(secret),
        connect_timeout_millis: 1_000,
        request_timeout_millis,
        max_connections: 8,
        ..Settings::default()
    }
}

fn client_of(address: SocketAddr, secret: &str, request_timeout_millis: u64) -> Client {
    Client::new(&settings_of(address, secret, request_timeout_millis)).expect("a client")
}

async fn sandbox_and_client() -> (Running, Client) {
    let sandbox = sandbox_in(None).await;
    let gateway = client_of(sandbox.address, SECRET, 10_000);
    (sandbox, gateway)
}

fn confirm(idempotency_key: &str) -> Confirm {
    Confirm {
        payment_key: "payment-key-1".into(),
        order_id: "order-1".into(),
        amount: 1_000,
        idempotency_key: idempotency_key.into(),
        test_code: None,
    }
}

fn confirm_with(test_code: &str, idempotency_key: &str) -> Confirm {
    Confirm {
        test_code: Some(test_code.into()),
        ..confirm(idempotency_key)
    }
}

fn cancel(amount: Option<i64>, idempotency_key: &str) -> Cancel {
    Cancel {
        payment_key: "payment-key-1".into(),
        reason: "the buyer asked for it".into(),
        amount,
        refund_account: None,
        idempotency_key: idempotency_key.into(),
        test_code: None,
    }
}

fn charge(status: ChargeStatus, balance_amount: i64) -> Charge {
    Charge {
        payment_key: "payment-key-1".into(),
        order_id: "order-1".into(),
        status,
        total_amount: 1_000,
        balance_amount,
        secret: None,
        virtual_account: None,
    }
}

fn paid() -> Charge {
    charge(ChargeStatus::Done, 1_000)
}

fn declined_with(outcome: GatewayOutcome) -> String {
    match outcome {
        GatewayOutcome::Declined { code, .. } => code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn unknown_because(outcome: GatewayOutcome) -> String {
    match outcome {
        GatewayOutcome::Unknown { reason, .. } => reason,
        other => panic!("expected an unknown outcome, got {other:?}"),
    }
}

/// Asks the sandbox until it has charged the payment, or fails at the deadline.
async fn until_charged(gateway: &Client) {
    eventually(POLLING, "the payment is charged", async || {
        match gateway.find_by_key("payment-key-1").await {
            Lookup::Found(charge) if charge == paid() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_approved_payment_is_found_by_key_and_by_order() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    assert_eq!(gateway.find_by_order("order-1").await, Lookup::NotFound);
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );
    assert_eq!(
        gateway.find_by_key("payment-key-1").await,
        Lookup::Found(paid())
    );
    assert_eq!(
        gateway.find_by_order("order-1").await,
        Lookup::Found(paid())
    );
}

#[tokio::test]
async fn a_declined_payment_is_not_charged_and_may_be_tried_again() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    let refused = confirm_with("REJECT_CARD_PAYMENT", "first");
    assert_eq!(
        declined_with(gateway.confirm(&refused).await),
        "REJECT_CARD_PAYMENT"
    );
    assert_eq!(gateway.find_by_key("payment-key-1").await, Lookup::NotFound);

    let same_key = gateway.confirm(&confirm("first")).await;
    assert_eq!(
        declined_with(same_key),
        "REJECT_CARD_PAYMENT",
        "one key, one answer"
    );
    assert_eq!(
        gateway.confirm(&confirm("second")).await,
        GatewayOutcome::Approved(paid())
    );
}

#[tokio::test]
async fn one_idempotency_key_charges_once_and_repeats_its_answer() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );

    let other_body = Confirm {
        amount: 2_000,
        ..confirm("once")
    };
    let reason = unknown_because(gateway.confirm(&other_body).await);
    assert!(reason.contains("IDEMPOTENCY_KEY_REUSED"), "{reason}");
}

#[tokio::test]
async fn a_payment_processed_before_is_unknown_until_it_is_looked_up() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    assert_eq!(
        gateway.confirm(&confirm("first")).await,
        GatewayOutcome::Approved(paid())
    );
    let reason = unknown_because(gateway.confirm(&confirm("second")).await);
    assert!(reason.contains("ALREADY_PROCESSED_PAYMENT"), "{reason}");
    assert_eq!(
        gateway.find_by_key("payment-key-1").await,
        Lookup::Found(paid())
    );
}

#[tokio::test]
async fn a_payment_key_cannot_pay_another_order_nor_another_amount() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    assert_eq!(
        gateway.confirm(&confirm("first")).await,
        GatewayOutcome::Approved(paid())
    );
    let other_order = Confirm {
        order_id: "order-2".into(),
        ..confirm("second")
    };
    assert_eq!(
        declined_with(gateway.confirm(&other_order).await),
        "INVALID_REQUEST"
    );
    let other_amount = Confirm {
        amount: 1,
        ..confirm("third")
    };
    assert_eq!(
        declined_with(gateway.confirm(&other_amount).await),
        "INVALID_REQUEST"
    );

    let order_again = Confirm {
        payment_key: "payment-key-2".into(),
        ..confirm("fourth")
    };
    let reason = unknown_because(gateway.confirm(&order_again).await);
    assert!(reason.contains("DUPLICATED_ORDER_ID"), "{reason}");
}

#[tokio::test]
async fn a_charge_whose_server_then_fails_is_found_by_a_lookup() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    let failing = confirm_with("SANDBOX_CHARGE_THEN_500", "once");
    let reason = unknown_because(gateway.confirm(&failing).await);
    assert!(
        reason.contains("FAILED_INTERNAL_SYSTEM_PROCESSING"),
        "{reason}"
    );
    assert_eq!(
        gateway.find_by_key("payment-key-1").await,
        Lookup::Found(paid())
    );
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );
}

#[tokio::test]
async fn a_charge_whose_server_then_hangs_is_found_by_a_lookup() {
    let (sandbox, gateway) = sandbox_and_client().await;
    let impatient = client_of(sandbox.address, SECRET, 1_000);
    let reason = unknown_because(
        impatient
            .confirm(&confirm_with("SANDBOX_HANG", "once"))
            .await,
    );
    assert_eq!(reason, "no answer in time");
    assert_eq!(
        gateway.find_by_order("order-1").await,
        Lookup::Found(paid())
    );
}

#[tokio::test]
async fn a_second_request_with_a_key_in_flight_is_unknown() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    let hanging = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.confirm(&confirm_with("SANDBOX_HANG", "once")).await }
    });
    until_charged(&gateway).await;
    let reason = unknown_because(gateway.confirm(&confirm("once")).await);
    assert!(reason.contains("IDEMPOTENT_REQUEST_PROCESSING"), "{reason}");

    hanging.abort();
    eventually(
        POLLING,
        "the key is let go, as its caller is gone",
        async || match gateway.confirm(&confirm("once")).await {
            GatewayOutcome::Approved(charge) if charge == paid() => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
}

#[tokio::test]
async fn at_most_max_connections_requests_are_in_flight() {
    let now = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let most_seen = most.clone();
    let counting = move || {
        let (now_seen, most_seen) = (now.clone(), most_seen.clone());
        async move {
            most_seen.fetch_max(now_seen.fetch_add(1, SeqCst) + 1, SeqCst);
            // Long enough for every other request to arrive, were it allowed to.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            now_seen.fetch_sub(1, SeqCst);
            ([(CONTENT_TYPE, "application/json")], DONE)
        }
    };
    let peer = serve(Router::new().fallback(counting)).await;
    let gateway = Client::new(&Settings {
        max_connections: 2,
        ..settings_of(peer.address, SECRET, 10_000)
    })
    .expect("a client");
    let asked = confirm("once");
    let outcomes = join_all((0..16).map(|_| gateway.confirm(&asked))).await;
    assert_eq!(outcomes, vec![GatewayOutcome::Approved(paid()); 16]);
    assert_eq!(most.load(SeqCst), 2);
}

#[tokio::test]
async fn a_refused_connection_proves_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let gateway = client_of(address, SECRET, 10_000);
    let reason = unknown_because(gateway.confirm(&confirm("once")).await);
    assert_eq!(reason, "no connection to the gateway");
}

const DONE: &str = r#"{"paymentKey":"payment-key-1","orderId":"order-1","status":"DONE","totalAmount":1000,"balanceAmount":1000}"#;

fn answer(content_type: &str, length_bytes: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length_bytes}\r\n\r\n{body}"
    )
}

async fn reason_given_to(answer: String) -> String {
    let peer = peer_that_says(answer).await;
    let gateway = client_of(peer.address, SECRET, 10_000);
    unknown_because(gateway.confirm(&confirm("once")).await)
}

#[tokio::test]
async fn an_incomplete_or_foreign_answer_proves_nothing() {
    let whole = answer("application/json", DONE.len(), DONE);
    let truncated = answer("application/json", DONE.len(), &DONE[..60]);
    let cut_to_measure = answer("application/json", 60, &DONE[..60]);
    let web_page = answer("text/html", DONE.len(), DONE);
    let huge = answer("application/json", 1 << 20, &" ".repeat(1 << 20));
    let moved =
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
            .to_owned();
    let lie = answer(
        "application/json",
        DONE.len(),
        &DONE.replace("\"totalAmount\":1000", "\"totalAmount\":9999"),
    );

    let peer = peer_that_says(whole).await;
    let gateway = client_of(peer.address, SECRET, 10_000);
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid()),
        "the peer is believed when it is right"
    );

    assert_eq!(
        reason_given_to(truncated).await,
        "the connection broke before the answer was complete"
    );
    assert_eq!(
        reason_given_to(String::new()).await,
        "the connection broke before the answer was complete"
    );
    assert_eq!(
        reason_given_to(cut_to_measure).await,
        "the answer with status 200 cannot be read"
    );
    assert_eq!(
        reason_given_to(web_page).await,
        "the answer with status 200 is not JSON"
    );
    assert_eq!(reason_given_to(huge).await, "the answer is too large");
    assert_eq!(
        reason_given_to(moved).await,
        "the answer with status 307 is not JSON"
    );
    assert_eq!(
        reason_given_to(lie).await,
        "the answer is about another amount than was asked"
    );
}

#[tokio::test]
async fn a_payment_is_refunded_in_parts_and_never_more_than_was_charged() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    assert_eq!(
        declined_with(gateway.cancel(&cancel(None, "early")).await),
        "NOT_FOUND_PAYMENT"
    );
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );

    let part = GatewayOutcome::Approved(charge(ChargeStatus::PartialCanceled, 600));
    assert_eq!(gateway.cancel(&cancel(Some(400), "part")).await, part);
    assert_eq!(
        gateway.cancel(&cancel(Some(400), "part")).await,
        part,
        "one key gives back once"
    );
    assert_eq!(
        declined_with(gateway.cancel(&cancel(Some(601), "over")).await),
        "NOT_CANCELABLE_AMOUNT"
    );

    let rest = charge(ChargeStatus::Canceled, 0);
    assert_eq!(
        gateway.cancel(&cancel(None, "rest")).await,
        GatewayOutcome::Approved(rest.clone())
    );
    let reason = unknown_because(gateway.cancel(&cancel(None, "again")).await);
    assert!(reason.contains("ALREADY_CANCELED_PAYMENT"), "{reason}");
    assert_eq!(
        gateway.find_by_key("payment-key-1").await,
        Lookup::Found(rest)
    );
}

#[tokio::test]
async fn a_wrong_secret_proves_nothing_about_the_payment() {
    let (sandbox, gateway) = sandbox_and_client().await;
    let stranger = client_of(sandbox.address, "test_sk_wrong", 10_000);
    let reason = unknown_because(stranger.confirm(&confirm("once")).await);
    assert_eq!(reason, "the gateway answered 401 UNAUTHORIZED_KEY");
    assert!(matches!(
        stranger.find_by_key("payment-key-1").await,
        Lookup::Unknown { .. }
    ));
    assert_eq!(gateway.find_by_key("payment-key-1").await, Lookup::NotFound);
}

#[tokio::test]
async fn an_invalid_request_is_not_sent() {
    let (_sandbox, gateway) = sandbox_and_client().await;
    let elsewhere = Confirm {
        payment_key: "../orders".into(),
        ..confirm("once")
    };
    assert_eq!(
        declined_with(gateway.confirm(&elsewhere).await),
        "INVALID_PAYMENT_KEY"
    );
    let too_long = confirm(&"k".repeat(301));
    assert_eq!(
        declined_with(gateway.confirm(&too_long).await),
        "INVALID_IDEMPOTENCY_KEY"
    );
    assert!(matches!(
        gateway.find_by_key("..").await,
        Lookup::Unknown { .. }
    ));
    assert_eq!(gateway.find_by_order("order-1").await, Lookup::NotFound);
}

#[tokio::test]
async fn the_sandbox_remembers_across_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sandbox.sqlite");
    let first = sandbox_in(Some(file.clone())).await;
    let gateway = client_of(first.address, SECRET, 10_000);
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid())
    );
    let part = GatewayOutcome::Approved(charge(ChargeStatus::PartialCanceled, 900));
    assert_eq!(gateway.cancel(&cancel(Some(100), "part")).await, part);
    drop(first);

    let second = sandbox_in(Some(file)).await;
    let gateway = client_of(second.address, SECRET, 10_000);
    assert_eq!(
        gateway.confirm(&confirm("once")).await,
        GatewayOutcome::Approved(paid()),
        "the first answer is kept"
    );
    assert_eq!(
        gateway.cancel(&cancel(Some(100), "part")).await,
        part,
        "so is the cancellation's"
    );
    let left = charge(ChargeStatus::PartialCanceled, 900);
    assert_eq!(gateway.find_by_order("order-1").await, Lookup::Found(left));
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_name() {
    let good = || settings_of(SocketAddr::from(([127, 0, 0, 1], 9)), SECRET, 1);
    for (settings, expected) in [
        (
            Settings {
                base_url: "ftp://pay.example".into(),
                ..good()
            },
            "base_url",
        ),
        (
            Settings {
                base_url: "not a url".into(),
                ..good()
            },
            "base_url",
        ),
        (
            Settings {
                secret_key: SecretKey::new(""),
                ..good()
            },
            "secret_key",
        ),
        (
            Settings {
                request_timeout_millis: 0,
                ..good()
            },
            "request_timeout_millis",
        ),
        (
            Settings {
                max_connections: 0,
                ..good()
            },
            "max_connections",
        ),
    ] {
        let error = Client::new(&settings).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let live = Settings {
        base_url: "https://api.tosspayments.com".into(),
        ..good()
    };
    assert!(
        Client::new(&live).is_ok(),
        "TLS needs no choice made for the whole process"
    );
}

#[test]
fn the_secret_is_never_printed() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let gateway = client_of(address, SECRET, 1);
    let printed = format!("{:?} {gateway:?}", SecretKey::new(SECRET));
    assert!(
        !printed.contains(SECRET) && !printed.contains("dGVzdF9za19v"),
        "{printed}"
    );
    assert!(printed.starts_with("***"));
}
