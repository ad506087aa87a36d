//! Another company's payment service: it chooses its payment ids, counts versions from 0, and knows no saga.

use contract::{
    PaymentId, TicketId, UserId,
    domain::{self, DomainMessage, PaymentStatus, Refund, TicketStatus},
    payment::{CancelRequest, CreateResponse, DeleteRequest, DeleteResponse},
    ticketing::{Expire, Release, SagaTimeout},
    user::{CheckActiveResponse, RestorePointRequest},
};
use messaging::{
    Random,
    trace::{self, TraceContext},
};

use crate::test_app::{EVENT, TestApp, cancelled, paid, payment_id};

/// An id that cannot be derived from the saga.
fn foreign_id() -> PaymentId {
    "1a2b3c4d-0000-4000-8000-000000000001".parse().unwrap()
}

fn another_id() -> PaymentId {
    "1a2b3c4d-0000-4000-8000-000000000002".parse().unwrap()
}

fn created(ticket: TicketId, payment_id: PaymentId) -> CreateResponse {
    CreateResponse {
        saga_id: ticket.purchase_saga(),
        succeed: true,
        user_id: UserId(1),
        event_id: EVENT,
        payment_id: Some(payment_id),
    }
}

/// The message as that service publishes it.
fn foreign(ours: DomainMessage<domain::Payment>, version: i64) -> DomainMessage<domain::Payment> {
    let payload = domain::Payment {
        id: foreign_id(),
        saga_id: None,
        ..ours.payload
    };
    DomainMessage::new(payload, version, ours.time_stamp)
}

impl TestApp {
    async fn purchase_with_foreign_payment(&mut self) -> TicketId {
        let ticket = self.purchase_without_payment(1).await;
        self.deliver(&created(ticket, foreign_id())).await;
        ticket
    }

    fn deletions(&self) -> Vec<PaymentId> {
        let requests = self.published::<DeleteRequest>().into_iter();
        requests.map(|it| it.payment_id).collect()
    }
}

#[tokio::test]
async fn a_buyer_reads_the_payment_id_that_the_payment_service_chose() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_with_foreign_payment().await;
    let shown = app.progress(ticket).await;
    assert_eq!(shown["sagaState"], "COMPLETED");
    assert_eq!(shown["paymentId"], foreign_id().to_string());

    // It created another payment for the same request: the first id stays.
    app.deliver(&created(ticket, another_id())).await;
    assert_eq!(
        app.progress(ticket).await["paymentId"],
        foreign_id().to_string()
    );
}

#[tokio::test]
async fn a_response_without_a_payment_id_means_the_derived_id() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_without_payment(1).await;
    let unnamed = CreateResponse {
        payment_id: None,
        ..created(ticket, foreign_id())
    };
    app.deliver(&unnamed).await;
    let shown = app.progress(ticket).await;
    assert_eq!(shown["paymentId"], payment_id(ticket).to_string());
}

#[tokio::test]
async fn an_expired_purchase_deletes_the_payment_by_its_foreign_id() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_with_foreign_payment().await;
    app.expire_claims().await;
    assert_eq!(app.deletions(), [foreign_id()]);

    let saga_id = ticket.expire_saga();
    app.deliver(&DeleteResponse {
        saga_id,
        succeed: true,
        payment_id: foreign_id(),
    })
    .await;
    app.restore_points(ticket, saga_id, 1).await;
    assert_eq!(app.stats().await.available, 1);
}

/// The user service may know that the payment succeeded, and not yet that it was refunded.
#[tokio::test]
async fn an_expired_purchase_restores_points_that_count_as_used() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_with_foreign_payment().await;
    app.expire_claims().await;
    app.deliver(&DeleteResponse {
        saga_id: ticket.expire_saga(),
        succeed: true,
        payment_id: foreign_id(),
    })
    .await;
    let request = app.published::<RestorePointRequest>().pop().unwrap();
    assert_eq!(request.held_by, Some(ticket.purchase_saga()));
    assert!(request.refunded);
}

#[tokio::test]
async fn a_payment_whose_id_arrives_late_is_deleted_by_it_when_the_request_is_repeated() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_without_payment(1).await;
    // The reservation expires while the payment is being created, with an unknown outcome.
    let expire = Expire {
        ticket_id: ticket,
        event_id: EVENT,
        user_id: UserId(1),
    };
    app.deliver(&expire).await;
    assert_eq!(app.deletions(), [payment_id(ticket)]);

    app.deliver(&created(ticket, foreign_id())).await;
    app.deliver(&created(ticket, another_id())).await;
    app.time_out(&SagaTimeout {
        saga_id: ticket.purchase_saga(),
        step: 3,
        compensating: true,
        attempt: 1,
    })
    .await;
    assert_eq!(app.deletions(), [payment_id(ticket), foreign_id()]);
}

#[tokio::test]
async fn a_payment_at_version_0_and_without_a_saga_gets_a_ticket() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_with_foreign_payment().await;
    app.deliver(&foreign(paid(ticket, 1, 1), 0)).await;
    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(
        app.progress(ticket).await["paymentId"],
        foreign_id().to_string()
    );
    // A duplicate changes nothing.
    app.deliver(&foreign(paid(ticket, 1, 1), 0)).await;
    assert_eq!(app.check_consistency().await, 1);

    let (status, _) = app.cancel(ticket).await;
    assert_eq!(status, 202);
    app.run_workers().await;
    assert_eq!(app.published::<CancelRequest>()[0].payment_id, foreign_id());
    app.deliver(&foreign(cancelled(ticket, 1, 1), 1)).await;
    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
}

#[tokio::test]
async fn a_refund_at_version_0_is_stored() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase_with_foreign_payment().await;
    app.deliver(&foreign(cancelled(ticket, 1, 1), 0)).await;
    let shown = app.progress(ticket).await;
    assert_eq!(shown["refund"], serde_json::json!(Refund::Done));
    assert_eq!(
        shown["paymentStatus"],
        serde_json::json!(PaymentStatus::Cancelled)
    );
    assert_eq!(shown["paymentId"], foreign_id().to_string());
}

#[tokio::test]
async fn a_seat_comes_back_in_the_purchases_trace_though_answers_name_none() {
    let mut app = TestApp::with_quantity(1).await;
    let caller =
        TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let ticket = app.reserve(1).await.unwrap();
    let started = app.start_purchase(ticket, 1);
    trace::requested(Some(caller), &Random::seeded(1), started).await;
    let refusal = CheckActiveResponse {
        saga_id: ticket.purchase_saga(),
        user_id: UserId(1),
        is_active: false,
    };
    app.deliver(&refusal).await;

    let released = &app.messages::<Release>()[0];
    let trace = released.trace.expect("a trace");
    assert_eq!(trace.trace_id(), caller.trace_id());
}
