//! A purchase that is refused on its way: everything it took comes back, in exact reverse order.

use contract::payment::DeleteRequest;
use serde_json::json;

use crate::{
    desk::{entries, pairs, payment_of, saga_of, stock},
    house::{House, play},
};

#[tokio::test]
async fn an_inactive_user_buys_nothing_and_the_ticket_is_free_at_once() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        house.judge(user, "INACTIVE", false).await;
        let ticket = house.reserved(event, user).await;
        house.process(&ticket, event, user, 300).await.ok(202);
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "USER_NOT_ACTIVE");
        assert_eq!(progress.get("paymentId"), None);
        assert_eq!(
            house.steps(saga_of(&ticket)).await,
            pairs(&[("user.check.active", "FAILED")])
        );
        assert_eq!(house.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
        sells_the_ticket_to_the_next(house, event).await;
    })
    .await;
}

#[tokio::test]
async fn too_few_points_take_none() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(299).await);
        let ticket = house.reserved(event, user).await;
        house.process(&ticket, event, user, 300).await.ok(202);
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "NOT_ENOUGH_POINTS");
        assert_eq!(
            house.steps(saga_of(&ticket)).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "FAILED")
            ])
        );
        assert_eq!(house.ledger(user).await, entries(&[("GRANTED", 299, 299)]));
        sells_the_ticket_to_the_next(house, event).await;
    })
    .await;
}

#[tokio::test]
async fn a_suspected_fraud_gets_the_points_back_that_were_taken_before() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        house.judge(user, "ACTIVE", true).await;
        let ticket = house.reserved(event, user).await;
        house.process(&ticket, event, user, 200).await.ok(202);
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "FRAUD_SUSPECTED");
        assert_eq!(
            house.steps(saga_of(&ticket)).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "COMPENSATED"),
                ("user.check.fraud", "FAILED"),
            ])
        );
        assert_eq!(
            house.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -200, 100),
                ("RESTORED", 200, 300)
            ])
        );
        house
            .get(&format!("/payment/{}", payment_of(&ticket)))
            .await
            .refused(404, "PAYMENT_NOT_FOUND");
        sells_the_ticket_to_the_next(house, event).await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_that_cannot_be_opened_ends_the_purchase_and_says_so_message_by_message() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let ticket = house.reserved(event, user).await;
        let saga = saga_of(&ticket);

        // Given its deletion was asked for before it was to be created.
        let payment_id = payment_of(&ticket);
        house
            .send(&DeleteRequest {
                saga_id: saga,
                payment_id,
            })
            .await;
        house.discard_only_dead_letter().await;

        house.process(&ticket, event, user, 300).await.ok(202);
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "PAYMENT_NOT_CREATED");
        house.rest().await;
        assert_eq!(
            house.said(&saga.to_string()).await[2..],
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
        assert_eq!(house.points(user).await, 300);
        sells_the_ticket_to_the_next(house, event).await;
    })
    .await;
}

impl House {
    /// An answer to a saga that has not begun is nobody's: a person throws it away.
    pub async fn discard_only_dead_letter(&self) {
        let letter = self.dead_letter("WAITING").await;
        let path = format!("/dead-letter/{}", letter["id"].as_str().unwrap());
        assert_eq!(
            self.delete(&path).await.ok(200)["state"],
            json!("DISCARDED")
        );
    }
}

async fn sells_the_ticket_to_the_next(house: &House, event: i64) {
    house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    let next = house.user(0).await;
    let purchase = house.purchase(event, next, 0).await;
    house.paid(&purchase, "card-of-the-next").await;
    assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
}
