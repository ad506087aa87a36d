//! Opening, paying and closing.

use std::sync::Arc;

use contract::{
    Money, Payload, PaymentId, Points,
    domain::{self, DomainMessage, PaymentStatus},
    payment::{ConfirmedRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse},
};
use futures::{FutureExt, future::join_all};
use payment::{
    Error,
    confirm::ConfirmInput,
    in_flight::InFlight,
    model::Refusal,
    record::{HistoryEntry, OrphanChargeRecord, PaymentRecord, Refund},
};

use serde_json::json;

use crate::support::{
    TestGateway, TestPaymentService, answer, assert_pending, creation, input, input_with,
    second_charge, settings, settled, until,
};

fn responses(app: &TestPaymentService) -> Vec<bool> {
    let responses: Vec<CreateResponse> = app.published(&[CreateResponse::TOPIC]);
    responses.iter().map(|response| response.succeed).collect()
}

fn deletion(request: &CreateRequest) -> DeleteRequest {
    DeleteRequest {
        saga_id: request.saga_id,
        payment_id: PaymentId::of_saga(request.saga_id),
    }
}

#[tokio::test]
async fn an_approved_payment_succeeds_and_every_step_is_published() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    let answer = settled(app.confirm(input(id)).await);
    assert!(answer.succeeded);
    app.drain().await;

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.pg_payment_id, Some(format!("pg-{id}")));
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.total_amount, 7_000);
    let told: Vec<DomainMessage<domain::Payment>> = app.published(&["domain.payment"]);
    let told: Vec<_> = told
        .iter()
        .map(|message| (message.version, message.payload.status))
        .collect();
    let steps = [
        (1, PaymentStatus::Created),
        (2, PaymentStatus::Confirming),
        (3, PaymentStatus::Succeeded),
    ];
    assert_eq!(told, steps);
    let history = app.history(id).await;
    let history: Vec<_> = history
        .iter()
        .map(|entry| (entry.payment_version, entry.status))
        .collect();
    assert_eq!(history, steps);
    assert!(settled(app.confirm(input(id)).await).succeeded);
    assert_eq!(app.payment(id).await.attempt, 1, "it is told, not made");
    let other = ConfirmInput {
        pg_payment_id: "pg-of-another-charge".to_owned(),
        ..input(id)
    };
    assert!(matches!(
        app.confirm(other).await,
        Err(Error::Refused(Refusal::AlreadyConfirmed))
    ));
}

#[tokio::test]
async fn an_answer_can_be_read_back_at_once() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    // No message is handled in between.
    let refused = settled(app.confirm(input_with(id, "REJECT_CARD_PAYMENT")).await);
    assert!(!refused.succeeded);
    assert_eq!(app.status(id).await, PaymentStatus::Failed);
    let approved = settled(app.confirm(input(id)).await);
    assert!(approved.succeeded, "the next attempt can begin at once");
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(settled(app.confirm(input(id)).await), approved);

    app.drain().await;
    let payment = app.payment(id).await;
    assert_eq!((payment.attempt, payment.version), (2, 5));
    let outcomes: Vec<ConfirmedRequest> = app.published(&[ConfirmedRequest::TOPIC]);
    assert_eq!(outcomes.len(), 2, "others may listen");
}

#[tokio::test]
async fn an_outcome_that_was_only_published_is_applied() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let lost = input_with(id, "SANDBOX_CHARGE_THEN_500");
    assert_pending(&app.confirm(lost).await);

    // A process of an earlier version leaves the change to the consumer.
    let outcome = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: format!("pg-{id}"),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };
    app.send("outcome", &outcome).await;

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_deletion_during_an_attempt_is_answered_with_its_outcome() {
    for (test_code, status) in [
        (None, PaymentStatus::Succeeded),
        (Some("REJECT_CARD_PAYMENT"), PaymentStatus::Deleted),
    ] {
        let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
        let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
        let id = app.open_payment(1).await;
        let slow = json!({ "on": "confirm", "fault": { "delay": { "millis": 1_000 } } });
        gateway.script(&json!({ "rules": [slow] })).await;
        let input = ConfirmInput {
            test_code: test_code.map(str::to_owned),
            ..input(id)
        };
        let service = app.service.clone();
        let attempt = tokio::spawn(async move { service.confirm(input, answer).await });
        until(&app.store, id, PaymentStatus::Confirming).await;
        app.send("delete", &deletion(&creation(1))).await;
        let answers: Vec<DeleteResponse> = app.published(&[DeleteResponse::TOPIC]);
        assert_eq!(answers, [], "it is not decided yet");

        settled(attempt.await.unwrap());

        assert_eq!(app.status(id).await, status);
        app.drain().await;
        let answers: Vec<DeleteResponse> = app.published(&[DeleteResponse::TOPIC]);
        let succeed = status == PaymentStatus::Deleted;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].succeed, succeed);
    }
}

#[tokio::test]
async fn a_lookup_of_the_same_payment_does_not_refuse_the_buyers_next_attempt() {
    let attempts = Arc::new(InFlight::default());
    let id = PaymentId::of_saga(creation(1).saga_id);
    let lookup = attempts.enter(id).expect("nobody asks yet");
    let mut buyer = Box::pin(attempts.enter_for_buyer(id));
    assert!(buyer.as_mut().now_or_never().is_none(), "it waits");

    drop(lookup);

    let attempt = buyer.await.expect("the lookup has ended");
    assert!(attempts.enter(id).is_none());
    assert!(
        attempts.enter_for_buyer(id).await.is_none(),
        "two attempts never run at once"
    );
    drop(attempt);
    assert!(attempts.enter_for_buyer(id).await.is_some());
}

#[tokio::test]
async fn a_declined_payment_may_be_tried_again_and_is_charged_once() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    let refused = settled(app.confirm(input_with(id, "REJECT_CARD_PAYMENT")).await);
    assert!(!refused.succeeded);
    assert_eq!(refused.decline_code.as_deref(), Some("REJECT_CARD_PAYMENT"));
    app.drain().await;
    let first = app.payment(id).await;
    assert_eq!(first.status, PaymentStatus::Failed);
    assert_eq!(first.decline_code.as_deref(), Some("REJECT_CARD_PAYMENT"));
    assert_eq!(gateway.charge(id).await, None);

    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    let second = app.payment(id).await;
    assert_eq!(
        (second.status, second.attempt),
        (PaymentStatus::Succeeded, 2)
    );
    assert_ne!(first.attempt_key, second.attempt_key);
    assert_eq!(second.decline_code, None);
}

#[tokio::test]
async fn of_many_confirmations_at_once_one_asks_the_gateway() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    let outputs = join_all((0..20).map(|_| app.confirm(input(id)))).await;
    app.drain().await;

    let (taken, refused): (Vec<_>, Vec<_>) = outputs.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 1);
    for output in refused {
        assert!(
            matches!(output, Err(Error::Refused(Refusal::InProgress))),
            "{output:?}"
        );
    }
    assert_eq!(app.payment(id).await.attempt, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_attempt_continues_when_its_client_disconnects() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut settings = settings(gateway.address);
    settings.gateway.request_timeout_millis = 300;
    let mut app = TestPaymentService::open(folder.path(), settings);
    let id = app.open_payment(1).await;

    tokio::select! {
        biased;
        output = app.confirm(input_with(id, "SANDBOX_HANG")) => panic!("too early: {output:?}"),
        () = until(&app.store, id, PaymentStatus::Confirming) => {}
    }
    // It is still at the gateway: neither the buyer nor the settler may ask a second time.
    assert_eq!(app.settle().await, 0);
    app.service.drained().await;

    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn after_the_deadline_the_gateway_is_not_asked() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    app.clock.advance_millis(600_001);
    assert!(matches!(
        app.confirm(input(id)).await,
        Err(Error::Refused(Refusal::DeadlinePassed { .. }))
    ));

    assert_eq!(gateway.charge(id).await, None);
    assert_eq!(app.payment(id).await.attempt, 0);
}

#[tokio::test]
async fn a_free_payment_never_asks_the_gateway() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let request = CreateRequest {
        point: Points::new(10_000).unwrap(),
        ..creation(1)
    };
    app.send("create", &request).await;
    let id = PaymentId::of_saga(request.saga_id);

    let mut free = input(id);
    free.amount = Money::ZERO;
    let answer = settled(app.confirm(free.clone()).await);
    assert!(answer.succeeded);
    app.drain().await;

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(gateway.charge(id).await, None);
    // And what the caller calls it is kept nowhere: nothing proves that it is theirs.
    assert_eq!(
        payment.pg_payment_id.as_deref(),
        Some(&*format!("free-{id}"))
    );
    assert_eq!(Some(&answer.pg_payment_id), payment.pg_payment_id.as_ref());
    let history = app.history(id).await;
    let kept = |entry: &HistoryEntry| entry.pg_payment_id.as_ref() == Some(&free.pg_payment_id);
    assert!(!history.iter().any(kept));
    assert_eq!(settled(app.confirm(free).await), answer);
}

#[tokio::test]
async fn a_free_purchase_leaves_the_orphan_charge_of_another_payment_alone() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    // Given a payment whose order was charged twice.
    let paid = app.open_payment(1).await;
    assert!(settled(app.confirm(input(paid)).await).succeeded);
    let other = app.open_payment(2).await;
    gateway.charge_directly(other, "pg-second", 7_000).await;
    let second = second_charge(paid);
    app.send("second", &second).await;
    // When somebody names that charge for a purchase that costs nothing.
    let request = CreateRequest {
        point: Points::new(10_000).unwrap(),
        ..creation(3)
    };
    app.send("create-free", &request).await;
    let free = ConfirmInput {
        pg_payment_id: "pg-second".to_owned(),
        amount: Money::ZERO,
        ..input(PaymentId::of_saga(request.saga_id))
    };
    assert!(settled(app.confirm(free).await).succeeded);
    // Also as a message that an earlier version of the program published.
    let of_old = ConfirmedRequest {
        payment_id: PaymentId::of_saga(request.saga_id),
        attempt: None,
        ..second
    };
    app.send("of-old", &of_old).await;

    // Then that charge still goes back.
    let orphan: Option<OrphanChargeRecord> = app.store.load("pg-second").await.unwrap();
    assert_eq!(orphan.map(|it| it.refund), Some(Refund::Requested));
    assert_eq!(app.settle().await, 1);
    let charge = gateway.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_deletion_that_overtakes_its_creation_leaves_a_tombstone() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let request = creation(1);

    app.send("delete", &deletion(&request)).await;
    app.send("create", &request).await;
    app.send("create-again", &request).await;
    app.send("delete-again", &deletion(&request)).await;

    assert_eq!(responses(&app), [false, false]);
    let deleted: Vec<DeleteResponse> = app.published(&[DeleteResponse::TOPIC]);
    assert!(deleted.len() == 2 && deleted.iter().all(|response| response.succeed));
    let id = PaymentId::of_saga(request.saga_id);
    assert_eq!(app.service.show(id).await.unwrap(), None);
    assert!(matches!(
        app.confirm(input(id)).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn points_worth_more_than_the_price_never_open_a_payment() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let request = CreateRequest {
        point: Points::new(10_001).unwrap(),
        ..creation(1)
    };

    app.send("create", &request).await;
    app.send("create-again", &request).await;

    assert_eq!(responses(&app), [false, false]);
}

#[tokio::test]
async fn a_duplicate_message_is_answered_once_and_a_repeated_request_gets_the_same_answer() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let request = creation(1);

    app.send("create", &request).await;
    app.send("create", &request).await;
    app.send("create-again", &request).await;

    assert_eq!(responses(&app), [true, true]);
    let payments: Vec<PaymentRecord> = vec![app.payment(PaymentId::of_saga(request.saga_id)).await];
    assert_eq!(payments[0].version, 1);
}

#[tokio::test]
async fn a_deletion_is_not_answered_while_an_attempt_is_open() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let request = creation(1);
    let id = app.open_payment(1).await;

    assert_pending(&app.confirm(input_with(id, "PROVIDER_ERROR")).await);
    app.send("delete", &deletion(&request)).await;

    let deleted: Vec<DeleteResponse> = app.published(&[DeleteResponse::TOPIC]);
    assert!(deleted.is_empty(), "it is not decided yet");
    assert_eq!(app.status(id).await, PaymentStatus::Confirming);
}
