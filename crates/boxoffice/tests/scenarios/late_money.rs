//! Money that comes, or may have come, when the reservation is gone.

use crate::{
    desk::{Purchase, entries, expiry_of, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

/// A purchase whose payment is at the gateway, which says nothing.
async fn unanswered(house: &House, event: i64, user: i64, mood: Mood) -> Purchase {
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.turn(mood);
    house.pay(&purchase, "card-1").await.ok(202);
    purchase
}

async fn is_refunded(house: &House, purchase: &Purchase, user: i64) {
    let payment = house.payment_becomes_in_time(purchase, "CANCELLED").await;
    assert_eq!(payment["refund"], "DONE");
    house.rest().await;
    let charge = house.gateway.charge("card-1");
    assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));
    house.has_no_ticket(&purchase.ticket).await;
    let ledger = house.ledger(user).await;
    assert_eq!(ledger.last(), entries(&[("RESTORED", 300, 300)]).last());
    let path = format!("/saga/{}", expiry_of(&purchase.ticket));
    house
        .pass_until(&path, |it| it["sagaState"] == "COMPENSATED")
        .await;
}

#[tokio::test]
async fn money_for_a_ticket_that_was_released_meanwhile_goes_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = unanswered(house, event, user, Mood::Dumb).await;
        house.release(&purchase.ticket).await.ok(204);
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
        assert_eq!(house.points(user).await, 0);
        let next = house.purchase(event, house.user(0).await, 0).await;

        house.gateway.turn(Mood::Well);
        is_refunded(house, &purchase, user).await;
        house.paid(&next, "card-of-the-next").await;
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_never_reached_the_gateway_is_given_up_and_the_points_come_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = unanswered(house, event, user, Mood::Away).await;
        // Nobody knows that before the gateway can be asked, so the seat is kept until then.
        house.pass(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        house
            .eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        assert_eq!(house.payment(&purchase).await["status"], "CONFIRMING");

        house.gateway.turn(Mood::Well);
        house.payment_becomes_in_time(&purchase, "DELETED").await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.points_become(user, 300).await;
        assert_eq!(house.gateway.charge("card-1"), None);
    })
    .await;
}
