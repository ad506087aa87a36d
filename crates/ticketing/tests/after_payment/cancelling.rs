//! A buyer gives a ticket back.

use contract::{
    SagaId, TicketId, UserId,
    domain::{PaymentStatus, Refund, TicketStatus},
    payment::{CancelRequest, CancelResponse},
    ticketing::{CancelTicketRequest, CancelTicketResponse, SagaTimeout},
    user::RestorePointRequest,
};

use crate::house::{EVENT, House, call, cancelled, paid, payment, payment_id};

fn answer(ticket: TicketId, saga_id: SagaId, code: Option<&str>) -> CancelResponse {
    CancelResponse {
        saga_id,
        payment_id: payment_id(ticket),
        succeed: code.is_none(),
        code: code.map(str::to_owned),
    }
}

fn going_back(
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
async fn a_ticket_given_back_is_refunded_with_its_points_and_on_sale_again() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    let saga_id = ticket.cancel_saga(1);

    let (status, begun) = house.cancel(ticket).await;
    assert_eq!(status, 202, "{begun}");
    assert_eq!(
        begun,
        serde_json::json!({"ticketId": ticket, "sagaId": saga_id, "cancellation": 1})
    );
    assert_eq!(house.cancellation(ticket).await["sagaState"], "STARTED");
    house.work().await;
    let asked = house.published::<CancelRequest>().remove(0);
    assert_eq!(
        (asked.payment_id, asked.saga_id, asked.reason.as_str()),
        (payment_id(ticket), Some(saga_id), "cancelled by the buyer")
    );
    house.hear(&going_back(ticket, 4)).await;
    assert_eq!(
        house.process(ticket).await["failure"],
        "PAYMENT_REFUND_REQUESTED"
    );
    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Reserved),
        "it is the buyer's until the money is back"
    );

    house.say(&cancelled(ticket, 1, 5)).await;
    house.hear(&answer(ticket, saga_id, None)).await;
    let restore = house.published::<RestorePointRequest>().pop().unwrap();
    assert_eq!(
        (restore.held_by, restore.refunded, restore.point.get()),
        (Some(ticket.purchase_saga()), true, 30)
    );
    house.restored(ticket, saga_id, 1).await;

    let done = house.cancellation(ticket).await;
    assert_eq!(done["sagaState"], "COMPLETED");
    let steps = done["stepHistory"].as_array().unwrap().iter();
    let steps: Vec<_> = steps.map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(
        steps,
        ["payment.cancel", "user.restore.point", "ticket.cancel"]
    );
    let process = house.process(ticket).await;
    assert_eq!(
        (
            &process["ticketStatus"],
            &process["failure"],
            &process["sagaState"]
        ),
        (
            &"CANCELLED".into(),
            &"PAYMENT_REFUNDED".into(),
            &"COMPLETED".into()
        )
    );
    assert_eq!(house.check_books().await, 0);
    assert_eq!(house.cancel(ticket).await.1["code"], "TICKET_CANCELLED");
    house.bought(1).await;
}

#[tokio::test]
async fn the_ticket_goes_by_the_saga_where_the_payment_has_not_been_heard_of() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    let saga_id = ticket.cancel_saga(1);
    house.cancel(ticket).await;
    house.work().await;
    house.hear(&answer(ticket, saga_id, None)).await;
    house.restored(ticket, saga_id, 1).await;
    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(house.check_books().await, 0);

    // An old word of the payment takes no ticket again.
    house.hear(&paid(ticket, 1, 3)).await;
    assert_eq!(house.stats().await.available, 1);

    // Told again, and told by the payment too, it changes nothing.
    house
        .hear(&CancelTicketRequest {
            saga_id,
            ticket_id: ticket,
            event_id: EVENT,
            user_id: UserId(1),
        })
        .await;
    house.hear(&cancelled(ticket, 1, 5)).await;
    assert_eq!(house.check_books().await, 0);
    let answers = house.published::<CancelTicketResponse>();
    assert!(answers.iter().all(|it| it.succeed), "{answers:?}");
    assert_eq!(answers.len(), 2);
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_leaves_the_ticket_and_may_be_tried_again() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    house.cancel(ticket).await;
    assert_eq!(
        house.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS",
        "before its saga has begun"
    );
    house.work().await;
    assert_eq!(
        house.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS"
    );
    house.say(&going_back(ticket, 4)).await;
    house
        .say(&payment(
            ticket,
            1,
            5,
            (PaymentStatus::Succeeded, Refund::None),
        ))
        .await;
    house
        .hear(&answer(
            ticket,
            ticket.cancel_saga(1),
            Some("NOT_CANCELABLE_PAYMENT"),
        ))
        .await;

    let refused = house.cancellation(ticket).await;
    assert_eq!(
        (&refused["sagaState"], &refused["failure"]),
        (&"COMPENSATED".into(), &"NOT_CANCELABLE_PAYMENT".into())
    );
    let process = house.process(ticket).await;
    assert_eq!(process["ticketStatus"], "RESERVED");
    assert_eq!(process.get("failure"), None, "{process}");
    assert_eq!(house.check_books().await, 1);

    let (status, again) = house.cancel(ticket).await;
    assert_eq!((status, &again["cancellation"]), (202, &2.into()));
    house.work().await;
    let asked = house.published::<CancelRequest>().pop().unwrap();
    assert_eq!(asked.saga_id, Some(ticket.cancel_saga(2)));
    let (_, shown) = house.get(&format!("/ticket/{ticket}")).await;
    assert_eq!(shown["cancellation"], 2);
}

/// The gateway says nothing, as often as it is asked.
async fn silence(house: &mut House, saga_id: SagaId) {
    for attempt in 1..=61 {
        house
            .time_out(&SagaTimeout {
                saga_id,
                step: 0,
                compensating: false,
                attempt,
            })
            .await;
    }
}

#[tokio::test]
async fn a_silent_gateway_parks_the_cancellation_and_a_late_answer_sets_it_going() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    let saga_id = ticket.cancel_saga(1);
    house.cancel(ticket).await;
    house.work().await;
    silence(&mut house, saga_id).await;

    let parked = house.cancellation(ticket).await;
    assert_eq!(
        parked["failure"],
        "payment.cancel: no answer to the request after attempt 61"
    );
    assert_eq!(
        house.cancel(ticket).await.1["code"],
        "CANCELLATION_IN_PROGRESS"
    );

    house.hear(&answer(ticket, saga_id, None)).await;
    let going = house.cancellation(ticket).await;
    assert_eq!(going["currentStep"], "user.restore.point");
    assert_eq!(going.get("failure"), None);
}

#[tokio::test]
async fn a_key_of_a_try_that_came_to_nothing_begins_the_next() {
    let mut house = House::with_quantity(1).await;
    let ask = |ticket: TicketId| {
        let request = axum::http::Request::post(format!("/ticket/{ticket}/cancel"));
        let request = request.header("Idempotency-Key", "give-back");
        request.body(axum::body::Body::from("{}")).unwrap()
    };
    // A moment too early: there is no ticket yet.
    let ticket = house.purchase(1).await;
    let (status, early) = call(house.another_door(99).await, ask(ticket)).await;
    assert_eq!((status, &early["code"]), (404, &"TICKET_NOT_FOUND".into()));
    house.hear(&paid(ticket, 1, 3)).await;

    let first = call(house.another_door(99).await, ask(ticket)).await;
    assert_eq!((first.0, &first.1["cancellation"]), (202, &1.into()));
    house.work().await;
    assert_eq!(call(house.another_door(99).await, ask(ticket)).await, first);
    let refused = answer(
        ticket,
        ticket.cancel_saga(1),
        Some("NOT_CANCELABLE_PAYMENT"),
    );
    house.hear(&refused).await;

    let second = call(house.another_door(99).await, ask(ticket)).await;
    assert_eq!((second.0, &second.1["cancellation"]), (202, &2.into()));
    house.work().await;
    assert_eq!(
        call(house.another_door(99).await, ask(ticket)).await,
        second
    );
}

#[tokio::test]
async fn a_parked_cancellation_is_asked_for_again_by_a_person() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    let saga_id = ticket.cancel_saga(1);
    house.cancel(ticket).await;
    house.work().await;
    silence(&mut house, saga_id).await;
    let asked = house.published::<CancelRequest>().len();
    assert_eq!(asked, 61);

    let (status, _) = house
        .post(&format!("/saga/{saga_id}/resume"), String::new())
        .await;

    assert_eq!(status, 202);
    assert_eq!(house.published::<CancelRequest>().len(), 62);
    assert_eq!(house.cancellation(ticket).await.get("failure"), None);
}

#[tokio::test]
async fn a_cancellation_is_refused_by_name_and_changes_nothing() {
    let mut house = House::with_quantity(2).await;
    let ticket = house.bought(1).await;
    let unpaid = house.purchase(2).await;
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
        let (refused, problem) = house.post(&path(ticket), body.to_owned()).await;
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
    house.work().await;
    assert_eq!(house.ticket(ticket).await.unwrap().cancellation, 0);
    assert_eq!(
        house.get(&path(ticket)).await.1["code"],
        "CANCELLATION_NOT_FOUND"
    );
    assert_eq!(house.get(&path(unpaid)).await.1["code"], "TICKET_NOT_FOUND");
    let (status, begun) = house
        .post(
            &path(ticket),
            r#"{"userId":1,"reason":"I am ill"}"#.to_owned(),
        )
        .await;
    assert_eq!(status, 202, "{begun}");
    house.work().await;
    assert_eq!(house.published::<CancelRequest>()[0].reason, "I am ill");
}
