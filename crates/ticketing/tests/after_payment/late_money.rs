//! Money that comes when its reservation is gone.

use contract::{
    UserId,
    domain::TicketStatus,
    payment::{CancelRequest, DeleteResponse},
    ticketing::Release,
};
use messaging::Commit;

use crate::house::{EVENT, House, cancelled, paid, payment_id};

#[tokio::test]
async fn money_for_a_lapsed_reservation_buys_a_ticket_while_there_are_any() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse(ticket, 1).await;
    assert_eq!(house.stats().await.available, 1);
    assert_eq!(
        house.process(ticket).await["failure"],
        "RESERVATION_EXPIRED"
    );

    house.hear(&paid(ticket, 1, 3)).await;

    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(house.check_books().await, 1);
    assert_eq!(house.published::<CancelRequest>(), []);
    let process = house.process(ticket).await;
    assert_eq!(process["ticketStatus"], "RESERVED");
    assert_eq!(process.get("failure"), None, "{process}");
    house.restart().await;
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn a_seat_is_kept_while_an_attempt_that_began_in_time_has_no_outcome() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    // The payment does not say that it is deleted: an attempt is at the gateway.
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    house.work().await;
    for _ in 0..3 {
        house.clock.advance_millis(61_000);
        house.service.expire_due().await.unwrap();
        house.work().await;
        let refused = |user, code: &str| (409, user, code.to_owned());
        for (_, user, code) in [refused(1, "ALREADY_RESERVED"), refused(2, "SOLD_OUT")] {
            let body = serde_json::json!({"eventId": 1, "userId": user}).to_string();
            let (status, answer) = house.post("/ticketing/reserve", body).await;
            assert_eq!(
                (status, answer["code"].as_str()),
                (409, Some(code.as_str()))
            );
        }
        house.restart().await;
    }
    assert_eq!(house.published::<Release>(), []);

    house.hear(&paid(ticket, 1, 3)).await;

    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn who_reads_on_behind_the_last_ticket_misses_none_that_was_reserved_earlier_and_paid_later()
{
    let mut house = House::with_quantity(2).await;
    let early = house.purchase(1).await;
    house.clock.advance_millis(5_000);
    let late = house.bought(2).await;
    house.clock.advance_millis(5_000);
    house.hear(&paid(early, 1, 3)).await;
    assert!(early < late, "a ticket has its name since it was reserved");
    // One user has both.
    let ticket = house.ticket(late).await.unwrap();
    let mut commit = Commit::new();
    commit.put(&ticketing::model::Ticket {
        user_id: UserId(1),
        ..ticket
    });
    house.store.commit(commit).await.unwrap();

    let read = async |query: String| {
        let (status, page) = house.get(&format!("/ticket?userId=1{query}")).await;
        assert_eq!(status, 200, "{page}");
        let items = page["items"].as_array().unwrap().clone();
        let ids = items
            .iter()
            .map(|it| it["ticketId"].as_str().unwrap().parse().unwrap());
        ids.collect::<Vec<contract::TicketId>>()
    };
    assert_eq!(read(String::new()).await, [late, early]);
    assert_eq!(read("&limit=1".to_owned()).await, [late]);
    assert_eq!(read(format!("&after={late}")).await, [early]);
    assert_eq!(read(format!("&after={early}")).await, []);
}

#[tokio::test]
async fn a_seat_is_free_as_soon_as_its_payment_is_closed() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse_clock();
    house.service.expire_due().await.unwrap();
    house.work().await;
    assert_eq!(house.stats().await.available, 0);

    // Its points are not back yet.
    house
        .hear(&DeleteResponse {
            saga_id: ticket.expire_saga(),
            succeed: true,
            payment_id: payment_id(ticket),
        })
        .await;

    assert_eq!(house.stats().await.available, 1);
    house.bought(2).await;
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn money_for_a_lapsed_reservation_goes_back_where_all_is_sold() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse(ticket, 1).await;
    let next = house.bought(2).await;

    house.hear(&paid(ticket, 1, 3)).await;

    let asked: Vec<_> = house.published::<CancelRequest>();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].payment_id, asked[0].saga_id),
        (payment_id(ticket), None)
    );
    assert_eq!(house.ticket_status(ticket).await, None);
    assert_eq!(
        house.ticket_status(next).await,
        Some(TicketStatus::Reserved)
    );
    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn money_for_a_lapsed_reservation_goes_back_where_its_user_has_reserved_again() {
    let mut house = House::with_quantity(2).await;
    let ticket = house.purchase(1).await;
    house.lapse(ticket, 1).await;
    let again = house.purchase(1).await;

    house.hear(&paid(ticket, 1, 3)).await;

    assert_eq!(house.published::<CancelRequest>().len(), 1);
    let found = house.service.reservations().find(EVENT, UserId(1)).await;
    let held = found.unwrap().unwrap();
    assert_eq!(held.ticket_id, again, "the good reservation stands");
    assert_eq!(house.check_books().await, 0);
}

#[tokio::test]
async fn money_for_a_reservation_that_its_buyer_gave_back_goes_back() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.service.release(ticket, None).await.unwrap();
    house.work().await;

    house.hear(&paid(ticket, 1, 3)).await;

    assert_eq!(house.published::<CancelRequest>().len(), 1);
    assert_eq!(house.ticket_status(ticket).await, None);
    assert_eq!(house.stats().await.available, 1);
    assert_eq!(house.check_books().await, 0);
}

#[tokio::test]
async fn a_late_release_of_a_purchase_that_turned_back_does_not_take_its_ticket() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.lapse(ticket, 1).await;
    house.hear(&paid(ticket, 1, 3)).await;

    house
        .hear(&Release {
            ticket_id: ticket,
            event_id: EVENT,
            user_id: UserId(1),
        })
        .await;

    assert_eq!(house.check_books().await, 1);
}

#[tokio::test]
async fn what_the_stock_refuses_is_free_again_when_its_payment_is_cancelled() {
    let mut house = House::with_quantity(2).await;
    let (first, second) = (house.purchase(1).await, house.purchase(2).await);
    // Both wait, and only one is offered any more.
    house.event(1, 2).await;
    house.say(&paid(first, 1, 3)).await;
    house.hear(&paid(second, 2, 3)).await;
    assert_eq!(house.published::<CancelRequest>().len(), 1);

    house.hear(&cancelled(second, 2, 4)).await;

    assert_eq!(house.check_books().await, 1);
    let reserving = house.service.reserving(EVENT, UserId(2));
    let refused = house.service.reserve(reserving, Commit::new()).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "there is no ticket left",
        "the user may want one again, but there is none"
    );
}
