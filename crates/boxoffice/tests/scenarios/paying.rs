//! The buyer at the gateway: refused cards, a gateway that is away.

use crate::{
    desk::stock,
    gateway::Mood,
    house::{House, play},
};

#[tokio::test]
async fn after_a_refused_card_another_one_buys_the_ticket() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;

        let refused = house
            .pay_with_refused_card(&purchase, "card-1")
            .await
            .ok(200);
        assert_eq!(refused["succeeded"], false);
        assert_eq!(refused["declineCode"], "REJECT_CARD_PAYMENT");
        house.payment_becomes(&purchase, "FAILED").await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        assert_eq!(house.points(user).await, 0);
        house.has_no_ticket(&purchase.ticket).await;

        house.paid(&purchase, "card-2").await;
        assert_eq!(
            house.payment_history(&purchase).await,
            ["CREATED", "CONFIRMING", "FAILED", "CONFIRMING", "SUCCEEDED"]
        );
        assert_eq!(house.gateway.charge("card-1"), None);
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_open_until_the_gateway_is_back_and_then_charged_once() {
    play(async |house: &mut House| {
        for mood in [Mood::Away, Mood::Dumb] {
            let (event, user) = (house.event(1).await, house.user(0).await);
            let purchase = house.purchase(event, user, 0).await;
            let card = format!("card-{mood:?}");
            house.gateway.turn(mood);
            let pending = house.pay(&purchase, &card).await.ok(202);
            assert_eq!(pending["status"], "CONFIRMING");
            house
                .pay(&purchase, "another-card")
                .await
                .refused(409, "CONFIRMATION_IN_PROGRESS");

            house.gateway.turn(Mood::Well);
            house.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
            house.stock_becomes(event, stock(1, 0, 1, 0)).await;
            let charge = house.gateway.charge(&card);
            assert_eq!(charge, Some(("DONE".to_owned(), 1000, 1000)));
            assert_eq!(house.gateway.charge("another-card"), None);
        }
    })
    .await;
}
