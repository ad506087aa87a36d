//! Payments with refused cards or an unreachable gateway.

use crate::{
    actions::stock,
    gateway::GatewayMode,
    test_app::{TestApp, on_every_deployment},
};

#[tokio::test]
async fn after_a_refused_card_another_one_buys_the_ticket() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;

        let refused = app.pay_with_refused_card(&purchase, "card-1").await.ok(200);
        assert_eq!(refused["succeeded"], false);
        assert_eq!(refused["declineCode"], "REJECT_CARD_PAYMENT");
        app.payment_becomes(&purchase, "FAILED").await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        assert_eq!(app.points(user).await, 0);
        app.has_no_ticket(&purchase.ticket).await;

        app.paid(&purchase, "card-2").await;
        assert_eq!(
            app.payment_history(&purchase).await,
            ["CREATED", "CONFIRMING", "FAILED", "CONFIRMING", "SUCCEEDED"]
        );
        assert_eq!(app.gateway.charge("card-1"), None);
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn an_unanswered_attempt_stays_open_until_the_gateway_is_back_and_is_charged_once() {
    on_every_deployment(async |app: &mut TestApp| {
        for mode in [GatewayMode::Unreachable, GatewayMode::LosesAnswers] {
            let (event, user) = (app.event(1).await, app.user(0).await);
            let purchase = app.purchase(event, user, 0).await;
            let card = format!("card-{mode:?}");
            app.gateway.set_mode(mode);
            let pending = app.pay(&purchase, &card).await.ok(202);
            assert_eq!(pending["status"], "CONFIRMING");
            app.pay(&purchase, "another-card")
                .await
                .refused(409, "CONFIRMATION_IN_PROGRESS");

            app.gateway.set_mode(GatewayMode::Normal);
            app.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
            app.stock_becomes(event, stock(1, 0, 1, 0)).await;
            let charge = app.gateway.charge(&card);
            assert_eq!(charge, Some(("DONE".to_owned(), 1000, 1000)));
            assert_eq!(app.gateway.charge("another-card"), None);
        }
    })
    .await;
}
