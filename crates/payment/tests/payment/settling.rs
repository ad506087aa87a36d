//! Attempts whose outcome was not known are finished, whatever happened to them.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use contract::{domain::PaymentStatus, payment::DeleteRequest};
use messaging::{Clock, ShutdownSwitch};
use payment::{Error, Settler, model::Refusal};

use crate::support::{
    START, TestGateway, TestPaymentService, answer, assert_pending, input, input_with, settings,
    settled, until,
};

#[tokio::test]
async fn an_attempt_that_is_left_open_wakes_the_settler() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let (switch, shutdown) = ShutdownSwitch::new();
    let settler = tokio::spawn(app.settler.clone().run(shutdown));

    // The settler's first look may find the first attempt. The clock stands still, so no other look comes by itself.
    for number in 1..=3 {
        let id = app.open_payment(number).await;
        let lost = input_with(id, "SANDBOX_CHARGE_THEN_500");
        assert_pending(&app.confirm(lost).await);
        until(&app.store, id, PaymentStatus::Succeeded).await;
    }

    switch.stop();
    settler.await.unwrap();
}

#[tokio::test]
async fn a_charge_whose_answer_never_came_is_found() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut settings = settings(gateway.address);
    settings.gateway.request_timeout_millis = 300;
    let mut app = TestPaymentService::open(folder.path(), settings);
    let id = app.open_payment(1).await;

    assert_pending(&app.confirm(input_with(id, "SANDBOX_HANG")).await);
    assert_eq!(app.status(id).await, PaymentStatus::Confirming);
    assert!(matches!(
        app.confirm(input(id)).await,
        Err(Error::Refused(Refusal::InProgress))
    ));

    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(app.settle().await, 0);
}

#[tokio::test]
async fn a_charge_that_was_answered_with_an_error_is_found() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(app.history(id).await.len(), 3);
}

#[tokio::test]
async fn a_settler_that_lost_its_lease_changes_nothing_and_the_next_one_settles() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);
    let (stale, lease) = app.change_leaders().await;

    let stale = Settler::new(app.service.fenced_by(Some(stale)));
    assert_eq!(stale.settle_due().await, Ok(0));
    assert_eq!(app.status(id).await, PaymentStatus::Confirming);

    // The next look at this attempt is due after a pause.
    app.clock.advance_millis(1_000);
    let leader = Settler::new(app.service.fenced_by(Some(lease.fence())));
    assert_eq!(leader.settle_due().await, Ok(1));
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[test]
fn an_attempt_of_a_process_that_died_before_its_request_is_charged_once() {
    let folder = tempfile::tempdir().unwrap();
    // A gateway that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();

    let first = tokio::runtime::Runtime::new().unwrap();
    let id = first.block_on(async {
        let mut app = TestPaymentService::open(folder.path(), settings(address));
        let id = app.open_payment(1).await;
        let service = app.service.clone();
        tokio::spawn(async move { service.confirm(input(id), answer).await });
        until(&app.store, id, PaymentStatus::Confirming).await;
        id
    });
    // The process dies: every task of it is dropped where it stands.
    drop(first);

    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let gateway = TestGateway::start().await;
        let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
        assert_eq!(app.status(id).await, PaymentStatus::Confirming);
        assert_eq!(app.settle().await, 1);
        assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
        let charge = gateway.charge(id).await.expect("a charge");
        assert_eq!(charge.balance_amount, 7_000);
        assert_eq!(app.payment(id).await.attempt, 1);
    });
}

#[tokio::test]
async fn a_charge_of_another_key_for_the_same_order_is_found_by_the_order() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    gateway
        .charge_directly(id, "pg-of-another-window", 7_000)
        .await;

    assert_pending(&app.confirm(input(id)).await);

    assert_eq!(app.settle().await, 1);
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(
        payment.pg_payment_id.as_deref(),
        Some("pg-of-another-window")
    );
}

#[tokio::test]
async fn a_charge_of_another_amount_is_refunded_and_buys_nothing() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    gateway.charge_directly(id, "pg-of-another-window", 1).await;

    assert_pending(&app.confirm(input(id)).await);

    assert_eq!(app.settle().await, 2, "the attempt, and the charge");
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("WRONG_AMOUNT"));
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_process_that_is_held_up_after_an_attempt_began_does_not_send_it() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    // given a process that stands still for a minute after it has read the clock so often
    let readings = Arc::new(AtomicI64::new(i64::MAX));
    let left = Arc::clone(&readings);
    let clock = Clock::steady_from(move || {
        let passed = if left.fetch_sub(1, Relaxed) > 0 {
            0
        } else {
            60_000_000_000
        };
        (START.as_millis() * 1_000_000 + passed, passed)
    });
    let mut app = TestPaymentService::open_with(folder.path(), settings(gateway.address), clock);
    let id = app.open_payment(1).await;
    // when it begins an attempt
    readings.store(1, Relaxed);
    assert_pending(&app.confirm(input(id)).await);
    // then it leaves the attempt to the settler, which sends it
    assert!(gateway.charge(id).await.is_none());
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_attempt_is_not_given_up_while_a_request_of_the_settler_before_may_be_in_flight() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let settings = settings(gateway.address);
    let give_up_millis = i64::try_from(settings.give_up_after_millis).unwrap();
    let mut app = TestPaymentService::open(folder.path(), settings);
    // given an old attempt without a charge, of a payment that is to be deleted
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "PROVIDER_ERROR")).await);
    let saga_id = app.payment(id).await.saga_id;
    let deletion = DeleteRequest {
        saga_id,
        payment_id: id,
    };
    app.send("delete", &deletion).await;
    app.clock.advance_millis(give_up_millis);
    // when the leader changes
    let (_, lease) = app.change_leaders().await;
    let leader = Settler::new(app.service.fenced_by(Some(lease.fence())));
    leader.settle_due().await.unwrap();
    // then a request of the former leader may still be executed
    assert_eq!(app.status(id).await, PaymentStatus::Confirming);
    app.clock.advance_millis(give_up_millis);
    leader.settle_due().await.unwrap();
    app.drain().await;
    assert_eq!(app.status(id).await, PaymentStatus::Deleted);
}

#[tokio::test]
async fn after_an_attempt_that_is_never_charged_another_is_possible() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    // The gateway repeats its first answer to this attempt's key, whatever it is.
    assert_pending(&app.confirm(input_with(id, "PROVIDER_ERROR")).await);

    let mut looks = 0;
    while app.status(id).await == PaymentStatus::Confirming {
        app.clock.advance_millis(15_000);
        app.settle().await;
        looks += 1;
        assert!(looks < 30, "it is never given up");
    }
    let payment = app.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("NOT_CHARGED"));
    assert!(settled(app.confirm(input(id)).await).succeeded);
}

#[tokio::test]
async fn a_silent_gateway_is_asked_again_later_and_not_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = TestGateway::start().await;
    let address = gateway.address;
    let mut app = TestPaymentService::open(folder.path(), settings(address));
    let id = app.open_payment(1).await;
    gateway.stop().await;
    assert_pending(&app.confirm(input(id)).await);
    assert_eq!(app.settle().await, 0);

    // The gateway is back.
    let _peer = TestGateway::start_at(address).await;
    assert_eq!(app.settle().await, 0);
    app.clock.advance_millis(1_000);
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn after_the_deadline_an_attempt_without_a_charge_is_given_up_when_no_request_can_be_in_flight()
 {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    app.clock.advance_millis(590_000);
    assert_pending(&app.confirm(input_with(id, "UNKNOWN_PAYMENT_ERROR")).await);

    app.clock.advance_millis(11_000);
    assert_eq!(app.settle().await, 0);
    assert_eq!(app.status(id).await, PaymentStatus::Confirming);

    app.clock.advance_millis(60_000);
    assert_eq!(app.settle().await, 1);
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("DEADLINE_PASSED"));
    assert_eq!(gateway.charge(id).await, None);
}

#[tokio::test]
async fn after_the_deadline_a_charge_still_counts() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);
    drop(app);

    let later = START.plus_secs(3_600);
    let mut app = TestPaymentService::open_at(folder.path(), settings(gateway.address), later);
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_running_settler_finishes_what_is_open_and_stops_when_told() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    let (switch, shutdown) = ShutdownSwitch::new();
    let mut committed = app.store.committed();
    committed.borrow_and_update();
    let running = tokio::spawn(app.settler.clone().run(shutdown));
    committed.changed().await.unwrap();
    switch.stop();
    running.await.unwrap();

    app.drain().await;
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

/// Every answer to this kind of request is this error.
async fn always(gateway: &TestGateway, on: &str, code: &str, status: u16) {
    let fault = serde_json::json!({ "refuse": { "code": code, "status": status } });
    gateway
        .script(&serde_json::json!({ "rules": [{ "on": on, "fault": fault }] }))
        .await;
}

#[tokio::test]
async fn an_attempt_whose_key_the_gateway_refuses_to_show_is_looked_up_by_its_order() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let key = format!("pg-{id}");
    let refuse = serde_json::json!({ "refuse": { "code": "FORBIDDEN_REQUEST", "status": 403 } });
    let rules = serde_json::json!([
        { "on": "confirm", "fault": refuse },
        { "on": "lookup", "paymentKey": key, "fault": refuse },
    ]);
    gateway.script(&serde_json::json!({ "rules": rules })).await;

    assert_pending(&app.confirm(input(id)).await);
    app.clock.advance_millis(700_000);
    app.settle().await;

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("DEADLINE_PASSED"));
}

#[tokio::test]
async fn an_operator_can_give_up_an_attempt_whose_outcome_the_gateway_never_tells() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);
    always(&gateway, "lookup", "FORBIDDEN_REQUEST", 403).await;
    app.clock.advance_millis(11_000);
    app.settle().await;
    assert!(
        app.service.abandon(id, None).await.is_err(),
        "it is too young"
    );

    app.clock.advance_millis(60_000);
    app.service.abandon(id, None).await.unwrap();
    app.drain().await;
    let payment = app.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("ABANDONED"));
    assert!(app.service.abandon(id, None).await.is_err());

    // It had been charged, as the next attempt finds.
    gateway.script(&serde_json::json!({ "rules": [] })).await;
    assert_pending(&app.confirm(input(id)).await);
    app.settle().await;
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}
