//! A buyer cancels a ticket.

use contract::{
    SagaId, TicketId, UserId,
    domain::{PaymentStatus, Refund, TicketStatus},
    payment::{CancelRequest, CancelResponse},
    ticketing::{CancelTicketRequest, CancelTicketResponse, SagaTimeout},
    user::RestorePointRequest,
};

use crate::test_app::{EVENT, TestApp, call, cancelled, paid, payment, payment_id};

fn response(ticket: TicketId, saga_id: SagaId, code: Option<&str>) -> CancelResponse {
    CancelResponse {
        saga_id,
        payment_id: payment_id(ticket),
        succeed: code.is_none(),
        code: code.map(str::to_owned),
    }
}

fn refund_requested(
    ticket: TicketId,
    version: i64,
) -> contract::domain::DomainMessage<contract::domain::Payment> {
    payment(
        ticket,
        1,
        version,
        (PaymentStatus::Succeeded, Refund::Requested),
    )
}

#[tokio::test]
async fn a_cancelled_ticket_is_refunded_with_its_points_and_on_sale_again() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    let saga_id = ticket.cancel_saga(1);

    let (status, begun) = app.cancel(ticket).await;
    assert_eq!(status, 202, "{begun}");
    assert_eq!(
        begun,
        serde_json::json!({"ticketId": ticket, "sagaId": saga_id, "cancellation": 1})
    );
    assert_eq!(app.cancellation(ticket).await["sagaState"], "STARTED");
    app.run_workers().await;
    let asked = app.published::<CancelRequest>().remove(0);
    assert_eq!(
        (asked.payment_id, asked.saga_id, asked.reason.as_str()),
        (payment_id(ticket), Some(saga_id), "cancelled by the buyer")
    );
    app.deliver(&refund_requested(ticket, 4)).await;
    assert_eq!(
        app.progress(ticket).await["failure"],
        "PAYMENT_REFUND_REQUESTED"
    );
    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Reserved),
        "it is valid until the refund is done"
    );

    app.publish(&cancelled(ticket, 1, 5)).await;
    app.deliver(&response(ticket, saga_id, None)).await;
    let restore = app.published::<RestorePointRequest>().pop().unwrap();
    assert_eq!(
        (restore.held_by, restore.refunded, restore.point.get()),
        (Some(ticket.purchase_saga()), true, 30)
    );
    app.restore_points(ticket, saga_id, 1).await;

    let done = app.cancellation(ticket).await;
    assert_eq!(done["sagaState"], "COMPLETED");
    let steps = done["stepHistory"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        ["payment.cancel", "user.restore.point", "ticket.cancel"]
    );
    let progress = app.progress(ticket).await;
    assert_eq!(
        (
            &progress["ticketStatus"],
            &progress["failure"],
            &progress["sagaState"]
        ),
        (
            &"CANCELLED".into(),
            &"PAYMENT_REFUNDED".into(),
            &"COMPLETED".into()
        )
    );
    assert_eq!(app.check_consistency().await, 0);
    assert_eq!(app.cancel(ticket).await.1["code"], "TICKET_CANCELLED");
    app.buy(1).await;
}

#[tokio::test]
async fn the_saga_cancels_the_ticket_if_the_payment_message_has_not_arrived() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    let saga_id = ticket.cancel_saga(1);
    app.cancel(ticket).await;
    app.run_workers().await;
    app.deliver(&response(ticket, saga_id, None)).await;
    app.restore_points(ticket, saga_id, 1).await;
    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(app.check_consistency().await, 0);

    // An old message of the payment issues no ticket again.
    app.deliver(&paid(ticket, 1, 3)).await;
    assert_eq!(app.stats().await.available, 1);

    // A duplicate, and the message of the payment, change nothing.
    app.deliver(&CancelTicketRequest {
        saga_id,
        ticket_id: ticket,
        event_id: EVENT,
        user_id: UserId(1),
    })
    .await;
    app.deliver(&cancelled(ticket, 1, 5)).await;
    assert_eq!(app.check_consistency().await, 0);
    let answers = app.published::<CancelTicketResponse>();
    assert!(answers.iter().all(|it| it.succeed), "{answers:?}");
    assert_eq!(answers.len(), 2);
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_leaves_the_ticket_valid_and_may_be_tried_again() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    app.cancel(ticket).await;
    assert_eq!(
        app.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS",
        "before its saga has started"
    );
    app.run_workers().await;
    assert_eq!(
        app.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS"
    );
    app.publish(&refund_requested(ticket, 4)).await;
    app.publish(&payment(
        ticket,
        1,
        5,
        (PaymentStatus::Succeeded, Refund::None),
    ))
    .await;
    app.deliver(&response(
        ticket,
        ticket.cancel_saga(1),
        Some("NOT_CANCELABLE_PAYMENT"),
    ))
    .await;

    let refused = app.cancellation(ticket).await;
    assert_eq!(
        (&refused["sagaState"], &refused["failure"]),
        (&"COMPENSATED".into(), &"NOT_CANCELABLE_PAYMENT".into())
    );
    let progress = app.progress(ticket).await;
    assert_eq!(progress["ticketStatus"], "RESERVED");
    assert_eq!(progress.get("failure"), None, "{progress}");
    assert_eq!(app.check_consistency().await, 1);

    let (status, again) = app.cancel(ticket).await;
    assert_eq!((status, &again["cancellation"]), (202, &2.into()));
    app.run_workers().await;
    let asked = app.published::<CancelRequest>().pop().unwrap();
    assert_eq!(asked.saga_id, Some(ticket.cancel_saga(2)));
    let (_, shown) = app.get(&format!("/ticket/{ticket}")).await;
    assert_eq!(shown["cancellation"], 2);
}

/// Lets every request to the gateway time out.
async fn time_out_all(app: &mut TestApp, saga_id: SagaId) {
    for attempt in 1..=61 {
        app.time_out(&SagaTimeout {
            saga_id,
            step: 0,
            compensating: false,
            attempt,
        })
        .await;
    }
}

#[tokio::test]
async fn a_silent_gateway_parks_the_cancellation_and_a_late_response_resumes_it() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    let saga_id = ticket.cancel_saga(1);
    app.cancel(ticket).await;
    app.run_workers().await;
    time_out_all(&mut app, saga_id).await;

    let parked = app.cancellation(ticket).await;
    assert_eq!(
        parked["failure"],
        "payment.cancel: no answer to the request after attempt 61"
    );
    assert_eq!(
        app.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS"
    );

    app.deliver(&response(ticket, saga_id, None)).await;
    let resumed = app.cancellation(ticket).await;
    assert_eq!(resumed["currentStep"], "user.restore.point");
    assert_eq!(resumed.get("failure"), None);
}

#[tokio::test]
async fn a_key_of_a_failed_cancellation_starts_the_next() {
    let mut app = TestApp::with_quantity(1).await;
    let request_for = |ticket: TicketId| {
        let request = axum::http::Request::post(format!("/ticket/{ticket}/cancel"));
        let request = request.header("Idempotency-Key", "give-back");
        request.body(axum::body::Body::from("{}")).unwrap()
    };
    // Too early: there is no ticket yet.
    let ticket = app.purchase(1).await;
    let (status, early) = call(app.another_process(99).await, request_for(ticket)).await;
    assert_eq!((status, &early["code"]), (404, &"TICKET_NOT_FOUND".into()));
    app.deliver(&paid(ticket, 1, 3)).await;

    let first = call(app.another_process(99).await, request_for(ticket)).await;
    assert_eq!((first.0, &first.1["cancellation"]), (202, &1.into()));
    app.run_workers().await;
    assert_eq!(
        call(app.another_process(99).await, request_for(ticket)).await,
        first
    );
    let refused = response(
        ticket,
        ticket.cancel_saga(1),
        Some("NOT_CANCELABLE_PAYMENT"),
    );
    app.deliver(&refused).await;

    let second = call(app.another_process(99).await, request_for(ticket)).await;
    assert_eq!((second.0, &second.1["cancellation"]), (202, &2.into()));
    app.run_workers().await;
    assert_eq!(
        call(app.another_process(99).await, request_for(ticket)).await,
        second
    );
}

#[tokio::test]
async fn an_operator_resumes_a_parked_cancellation() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    let saga_id = ticket.cancel_saga(1);
    app.cancel(ticket).await;
    app.run_workers().await;
    time_out_all(&mut app, saga_id).await;
    let asked = app.published::<CancelRequest>().len();
    assert_eq!(asked, 61);

    let (status, _) = app
        .post(&format!("/saga/{saga_id}/resume"), String::new())
        .await;

    assert_eq!(status, 202);
    assert_eq!(app.published::<CancelRequest>().len(), 62);
    assert_eq!(app.cancellation(ticket).await.get("failure"), None);
}

#[tokio::test]
async fn a_refused_cancellation_has_a_code_and_changes_nothing() {
    let mut app = TestApp::with_quantity(2).await;
    let ticket = app.buy(1).await;
    let unpaid = app.purchase(2).await;
    let path = |ticket: TicketId| format!("/ticket/{ticket}/cancel");
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(201));
    for (ticket, body, status, code, field) in [
        (unpaid, "", 404, "TICKET_NOT_FOUND", None),
        (
            ticket,
            r#"{"userId":2}"#,
            403,
            "TICKET_OWNER_MISMATCH",
            None,
        ),
        (
            ticket,
            r#"{"reason":""}"#,
            400,
            "INVALID_REQUEST",
            Some("reason"),
        ),
        (
            ticket,
            r#"{"reason":"a\u0000"}"#,
            400,
            "INVALID_REQUEST",
            Some("reason"),
        ),
        (ticket, &long, 400, "INVALID_REQUEST", Some("reason")),
        (ticket, r#"{"who":1}"#, 400, "INVALID_REQUEST", Some("who")),
        (ticket, "{", 400, "INVALID_REQUEST", Some("body")),
    ] {
        let (refused, problem) = app.post(&path(ticket), body.to_owned()).await;
        assert_eq!(
            (refused, problem["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        assert_eq!(
            problem.get("field").and_then(|it| it.as_str()),
            field,
            "{body}"
        );
    }
    app.run_workers().await;
    assert_eq!(app.ticket(ticket).await.unwrap().cancellation, 0);
    assert_eq!(
        app.get(&path(ticket)).await.1["code"],
        "CANCELLATION_NOT_FOUND"
    );
    assert_eq!(app.get(&path(unpaid)).await.1["code"], "TICKET_NOT_FOUND");
    let (status, begun) = app
        .post(
            &path(ticket),
            r#"{"userId":1,"reason":"I am ill"}"#.to_owned(),
        )
        .await;
    assert_eq!(status, 202, "{begun}");
    app.run_workers().await;
    assert_eq!(app.published::<CancelRequest>()[0].reason, "I am ill");
}
