//! A purchase that is refused at one of its steps: earlier steps are compensated in exact reverse order.

use contract::payment::DeleteRequest;
use serde_json::json;

use crate::{
    actions::{entries, pairs, payment_of, saga_of, stock},
    test_app::{TestApp, on_every_deployment},
};

#[tokio::test]
async fn an_inactive_user_buys_nothing_and_the_ticket_is_free_at_once() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        app.update_user(user, "INACTIVE", false).await;
        let ticket = app.reserved(event, user).await;
        app.process(&ticket, event, user, 300).await.ok(202);
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "USER_NOT_ACTIVE");
        assert_eq!(progress.get("paymentId"), None);
        assert_eq!(
            app.steps(saga_of(&ticket)).await,
            pairs(&[("user.check.active", "FAILED")])
        );
        assert_eq!(app.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
        sells_the_ticket_to_the_next(app, event).await;
    })
    .await;
}

#[tokio::test]
async fn too_few_points_end_the_purchase_and_reserve_none() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(299).await);
        let ticket = app.reserved(event, user).await;
        app.process(&ticket, event, user, 300).await.ok(202);
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "NOT_ENOUGH_POINTS");
        assert_eq!(
            app.steps(saga_of(&ticket)).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "FAILED")
            ])
        );
        assert_eq!(app.ledger(user).await, entries(&[("GRANTED", 299, 299)]));
        sells_the_ticket_to_the_next(app, event).await;
    })
    .await;
}

#[tokio::test]
async fn a_suspected_fraud_gets_the_reserved_points_back() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        app.update_user(user, "ACTIVE", true).await;
        let ticket = app.reserved(event, user).await;
        app.process(&ticket, event, user, 200).await.ok(202);
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "FRAUD_SUSPECTED");
        assert_eq!(
            app.steps(saga_of(&ticket)).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "COMPENSATED"),
                ("user.check.fraud", "FAILED"),
            ])
        );
        assert_eq!(
            app.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -200, 100),
                ("RESTORED", 200, 300)
            ])
        );
        app.get(&format!("/payment/{}", payment_of(&ticket)))
            .await
            .refused(404, "PAYMENT_NOT_FOUND");
        sells_the_ticket_to_the_next(app, event).await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_cannot_be_created_compensates_the_purchase_message_by_message() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let ticket = app.reserved(event, user).await;
        let saga = saga_of(&ticket);

        // Given the payment's deletion was requested before its creation.
        let payment_id = payment_of(&ticket);
        app.send(&DeleteRequest {
            saga_id: saga,
            payment_id,
        })
        .await;
        app.discard_only_dead_letter().await;

        app.process(&ticket, event, user, 300).await.ok(202);
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "PAYMENT_NOT_CREATED");
        app.wait_until_idle().await;
        assert_eq!(
            app.published_topics(&saga.to_string()).await[2..],
            [
                "user.check.active.request",
                "user.check.active.response",
                "user.reserve.point.request",
                "user.reserve.point.response",
                "user.check.fraud.request",
                "user.check.fraud.response",
                "payment.create.request",
                "payment.create.response",
                "user.restore.point.request",
                "user.restore.point.response",
            ]
        );
        assert_eq!(app.points(user).await, 300);
        sells_the_ticket_to_the_next(app, event).await;
    })
    .await;
}

impl TestApp {
    /// Discards the dead letter of a reply to a saga that has not begun.
    pub async fn discard_only_dead_letter(&self) {
        let letter = self.dead_letter("WAITING").await;
        let path = format!("/dead-letter/{}", letter["id"].as_str().unwrap());
        assert_eq!(
            self.delete(&path).await.ok(200)["state"],
            json!("DISCARDED")
        );
    }
}

async fn sells_the_ticket_to_the_next(app: &TestApp, event: i64) {
    app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    let next = app.user(0).await;
    let purchase = app.purchase(event, next, 0).await;
    app.paid(&purchase, "card-of-the-next").await;
    assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
}
