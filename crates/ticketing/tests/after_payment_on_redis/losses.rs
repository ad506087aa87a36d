//! Redis comes back without its data, in the middle of purchases.

use contract::{
    Money, PaymentId, Points, UserId,
    domain::TicketStatus,
    payment::{CancelRequest, CreateResponse},
};
use messaging::Commit;
use ticketing::process::ProcessInput;

use crate::house::{EVENT, House, cancelled, paid};

impl House {
    async fn lose(&self) {
        crate::backend::lose(&self.settings).await;
    }
}

#[tokio::test]
async fn what_is_bought_and_what_waits_for_payment_is_as_it_was() {
    let mut house = House::with_quantity(4).await;
    let bought = house.bought(1).await;
    let waits = house.purchase(2).await;
    let given_back = house.bought(3).await;
    house.hear(&cancelled(given_back, 3, 4)).await;
    let released = house.purchase(4).await;
    house.service.release(released, None).await.unwrap();
    house.work().await;
    let before = house.stats().await;

    house.lose().await;

    assert_eq!(house.stats().await, before);
    let find = |user| house.service.reservations().find(EVENT, UserId(user));
    assert_eq!(find(1).await.unwrap().unwrap().ticket_id, bought);
    assert_eq!(find(2).await.unwrap().unwrap().ticket_id, waits);
    assert_eq!(find(3).await.unwrap(), None);
    assert_eq!(find(4).await.unwrap(), None);

    house.hear(&paid(waits, 2, 3)).await;
    assert_eq!(house.check_books().await, 2);
}

#[tokio::test]
async fn money_that_comes_while_redis_is_empty_gets_its_ticket() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;

    house.lose().await;
    house.hear(&paid(ticket, 1, 3)).await;

    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn a_reservation_without_a_purchase_is_lost_and_its_buyer_reserves_again() {
    let house = House::with_quantity(1).await;
    let first = house.service.reserving(EVENT, UserId(1));
    house.service.reserve(first, Commit::new()).await.unwrap();

    house.lose().await;
    assert_eq!(house.stats().await.available, 1);

    let body = serde_json::json!({"ticketId": first.ticket_id, "eventId": 1, "userId": 1,
        "totalAmount": 100, "point": 30});
    let (status, answer) = house.post("/ticketing/process", body.to_string()).await;
    assert_eq!(
        (status, &answer["code"]),
        (404, &"RESERVATION_NOT_FOUND".into())
    );
    let again = house.service.reserving(EVENT, UserId(1));
    house.service.reserve(again, Commit::new()).await.unwrap();
}

#[tokio::test]
async fn requests_are_refused_with_a_name_while_an_event_is_rebuilt() {
    let house = House::with_quantity(1).await;
    house.lose().await;

    let body = serde_json::json!({"eventId": 1, "userId": 1}).to_string();
    let (status, answer) = house.post("/ticketing/reserve", body.clone()).await;
    assert_eq!(
        (status, &answer["code"]),
        (503, &"RESERVATIONS_REBUILDING".into())
    );
    house.stats().await;
    assert_eq!(house.post("/ticketing/reserve", body).await.0, 200);

    let unknown = serde_json::json!({"eventId": 2, "userId": 1}).to_string();
    let (status, answer) = house.post("/ticketing/reserve", unknown).await;
    assert_eq!((status, &answer["code"]), (404, &"EVENT_NOT_FOUND".into()));
}

#[tokio::test]
async fn what_nobody_asks_for_lapses_all_the_same_and_its_points_come_back() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lose().await;

    // The first look finds the loss; the claim stands for a grace period from then.
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    assert_eq!(house.stats().await.waiting, 1);
    house.lapse(ticket, 1).await;

    assert_eq!(house.stats().await.available, 1);
    assert_eq!(
        house.process(ticket).await["failure"],
        "RESERVATION_EXPIRED"
    );
}

#[tokio::test]
async fn a_purchase_that_began_behind_a_lapse_and_a_loss_is_taken_back_at_its_second_lapse() {
    let mut house = House::with_quantity(1).await;
    let reserving = house.service.reserving(EVENT, UserId(1));
    house
        .service
        .reserve(reserving, Commit::new())
        .await
        .unwrap();
    let ticket_id = reserving.ticket_id;
    // Its buyer's word is checked in time, and stored when the claim is gone.
    let asked = house.service.process(ProcessInput {
        ticket_id,
        event_id: EVENT,
        user_id: UserId(1),
        total_amount: Money::new(100).unwrap(),
        point: Points::new(30).unwrap(),
    });
    let asked = asked.await.unwrap();
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    house.work().await;
    house.store.commit(asked).await.unwrap();

    // Redis is rebuilt from what is stored, so the claim waits again and the purchase goes on.
    house.lose().await;
    assert_eq!(house.stats().await.waiting, 1);
    house.work().await;
    house.agree(ticket_id, UserId(1)).await;
    let saga_id = ticket_id.purchase_saga();
    let opened = CreateResponse {
        saga_id,
        succeed: true,
        user_id: UserId(1),
        event_id: EVENT,
        payment_id: Some(PaymentId::of_saga(saga_id)),
    };
    house.hear(&opened).await;
    assert_eq!(house.process(ticket_id).await["sagaState"], "COMPLETED");

    house.lapse(ticket_id, 1).await;

    let answer = house.process(ticket_id).await;
    assert_eq!(answer["failure"], "RESERVATION_EXPIRED", "{answer}");
    assert_eq!(answer["paymentId"], serde_json::Value::Null);
    assert_eq!(house.stats().await.available, 1);
}

#[tokio::test]
async fn a_seat_that_is_kept_for_an_open_attempt_is_kept_over_a_loss() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    house.work().await;

    house.lose().await;
    assert_eq!(house.stats().await.waiting, 1);
    house.clock.advance_millis(600_000);
    house.service.expire_due().await.unwrap();
    house.work().await;
    assert_eq!(house.stats().await.waiting, 1);

    house.hear(&paid(ticket, 1, 3)).await;
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn no_ticket_is_sold_twice_where_redis_forgot_who_paid() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse(ticket, 1).await;
    let next = house.purchase(2).await;
    house.say(&paid(next, 2, 3)).await;
    house.lose().await;
    house.say(&paid(ticket, 1, 3)).await;
    house.work().await;

    assert_eq!(
        house.ticket_status(next).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(house.ticket_status(ticket).await, None);
    assert_eq!(house.published::<CancelRequest>().len(), 1);
    assert_eq!(house.check_books().await, 1);
}
