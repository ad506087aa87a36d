//! Every refusal, by its status and its code. None changes anything: the audit and the stock say so.

use serde_json::{Value, json};

use crate::{
    desk::{PRICE, confirmation, stock},
    gateway::Mood,
    house::{HOLD_SECS, House, OPENING, play},
};

const UNKNOWN: &str = "0192f0c1-2f00-7abc-8def-0123456789ab";

#[tokio::test]
async fn a_reservation_is_refused_by_the_first_reason_that_holds() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(0).await);
        house
            .reserve(event + 1, user)
            .await
            .refused(404, "EVENT_NOT_FOUND");
        let purchase = house.purchase(event, user, 0).await;
        house
            .reserve(event, user)
            .await
            .refused(409, "ALREADY_RESERVED");
        house.paid(&purchase, "card-1").await;
        house
            .reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
        house.reserved(event, house.user(0).await).await;
        let late = house.user(0).await;
        house.reserve(event, late).await.refused(409, "SOLD_OUT");
        assert_eq!(house.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_reserved_from_the_opening_of_the_sale_until_just_before_its_close() {
    play(async |house: &mut House| {
        let body = json!({
            "name": "Show", "ticketQuantity": 2, "price": PRICE,
            "saleOpensAt": OPENING.plus_secs(10), "saleClosesAt": OPENING.plus_secs(20),
        });
        let event = house.post("/event", body).await.ok(201)["id"]
            .as_i64()
            .unwrap();
        house.stock_becomes(event, stock(2, 0, 0, 2)).await;
        let (one, other) = (house.user(0).await, house.user(0).await);
        house.pass(9).await;
        house
            .reserve(event, one)
            .await
            .refused(409, "SALE_NOT_OPEN");
        house.pass(1).await;
        house.reserved(event, one).await;
        house.clock.advance_millis(9_999);
        house.reserved(event, other).await;
        house.clock.advance_millis(1);
        let late = house.user(0).await;
        house
            .reserve(event, late)
            .await
            .refused(409, "SALE_NOT_OPEN");
    })
    .await;
}

#[tokio::test]
async fn a_purchase_is_refused_that_does_not_fit_its_reservation() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(0).await);
        house
            .process(UNKNOWN, event, user, 0)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let ticket = house.reserved(event, user).await;
        let stranger = house.user(0).await;
        let refused = house.process(&ticket, event, stranger, 0).await;
        refused.refused(404, "RESERVATION_NOT_FOUND");
        let refused = house
            .process(UNKNOWN, event, user, 0)
            .await
            .refused(400, "TICKET_MISMATCH");
        assert_eq!(refused["field"], "ticketId");
        let mut body = json!({
            "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE - 1,
        });
        let refused = house.post("/ticketing/process", body.clone()).await;
        assert_eq!(
            refused.refused(400, "PRICE_MISMATCH")["field"],
            "totalAmount"
        );
        body["totalAmount"] = json!(PRICE);
        body["point"] = json!(PRICE + 1);
        let refused = house.post("/ticketing/process", body).await;
        assert_eq!(refused.refused(400, "INVALID_REQUEST")["field"], "point");
        let path = format!("/ticketing/process/{ticket}");
        house.get(&path).await.refused(404, "PROCESS_NOT_FOUND");

        let purchase = house.processed(&ticket, event, user, 0).await;
        house
            .process(&ticket, event, user, 0)
            .await
            .refused(409, "ALREADY_PROCESSING");
        house.paid(&purchase, "card-1").await;
        house
            .process(&ticket, event, user, 0)
            .await
            .refused(409, "ALREADY_PROCESSING");
        let late = house.reserved(event, stranger).await;
        house.clock.advance_millis(HOLD_SECS * 1000 + 1);
        let refused = house.process(&late, event, stranger, 0).await;
        refused.refused(409, "DEADLINE_PASSED");
    })
    .await;
}

#[tokio::test]
async fn a_payment_is_refused_that_is_not_the_one_that_was_opened() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(0).await);
        let purchase = house.purchase(event, user, 0).await;
        let path = "/payment/confirmed";
        let altered = |name: &str, value: Value| {
            let mut body = confirmation(&purchase, "card-1");
            body[name] = value;
            body
        };
        let unknown = altered("paymentId", json!(UNKNOWN));
        house
            .post(path, unknown)
            .await
            .refused(404, "PAYMENT_NOT_FOUND");
        let cheap = altered("amount", json!(PRICE - 1));
        house
            .post(path, cheap)
            .await
            .refused(400, "AMOUNT_MISMATCH");
        let stranger = altered("userId", json!(house.user(0).await));
        house
            .post(path, stranger)
            .await
            .refused(403, "PAYMENT_OWNER_MISMATCH");
        let malformed = altered("pgPaymentId", json!("../secret"));
        let refused = house
            .post(path, malformed)
            .await
            .refused(400, "INVALID_REQUEST");
        assert_eq!(refused["field"], "pgPaymentId");
        assert_eq!(house.payment_history(&purchase).await, ["CREATED"]);

        house.gateway.turn(Mood::Away);
        house.pay(&purchase, "card-1").await.ok(202);
        house
            .pay(&purchase, "card-1")
            .await
            .refused(409, "CONFIRMATION_IN_PROGRESS");
        house.gateway.turn(Mood::Well);
        house.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        // The same charge is told again, whoever lost the answer; another one is refused.
        house.pay(&purchase, "card-1").await.ok(200);
        house
            .pay(&purchase, "card-2")
            .await
            .refused(409, "ALREADY_CONFIRMED");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_a_code_of_its_own() {
    play(async |house: &mut House| {
        for (path, code) in [
            ("/event/1", "EVENT_NOT_FOUND"),
            ("/ticketing/event/1", "EVENT_NOT_FOUND"),
            ("/user/1", "USER_NOT_FOUND"),
            ("/user/1/points", "USER_NOT_FOUND"),
            (
                &format!("/ticketing/process/{UNKNOWN}"),
                "PROCESS_NOT_FOUND",
            ),
            (&format!("/process/{UNKNOWN}"), "PROCESS_NOT_FOUND"),
            (&format!("/ticket/{UNKNOWN}"), "TICKET_NOT_FOUND"),
            (&format!("/payment/{UNKNOWN}"), "PAYMENT_NOT_FOUND"),
            (&format!("/saga/{UNKNOWN}"), "SAGA_NOT_FOUND"),
            (&format!("/dead-letter/{UNKNOWN}"), "DEAD_LETTER_NOT_FOUND"),
        ] {
            house.get(path).await.refused(404, code);
        }
        for (path, code) in [
            (format!("/saga/{UNKNOWN}/resume"), "SAGA_NOT_FOUND"),
            (
                format!("/dead-letter/{UNKNOWN}/replay"),
                "DEAD_LETTER_NOT_FOUND",
            ),
        ] {
            house.post(&path, Value::Null).await.refused(404, code);
        }
        house
            .release(UNKNOWN)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let discarded = house.delete(&format!("/dead-letter/{UNKNOWN}")).await;
        discarded.refused(404, "DEAD_LETTER_NOT_FOUND");
        let points = json!({ "amount": 1 });
        house
            .post("/user/1/points", points)
            .await
            .refused(404, "USER_NOT_FOUND");
        let event = json!({ "name": "Show", "ticketQuantity": 1, "version": 1 });
        house
            .put("/event/1", event)
            .await
            .refused(404, "EVENT_NOT_FOUND");
        let user = json!({ "name": "Buyer", "status": "ACTIVE", "version": 1 });
        house
            .put("/user/1", user)
            .await
            .refused(404, "USER_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_change_by_who_has_not_seen_the_last_one_and_a_second_user_of_an_id_are_conflicts() {
    play(async |house: &mut House| {
        let user = json!({ "id": 7, "name": "Buyer" });
        house.post("/user", user.clone()).await.ok(201);
        house.post("/user", user).await.refused(409, "USER_EXISTS");
        let stale = json!({ "name": "Other", "status": "INACTIVE", "version": 9 });
        house
            .put("/user/7", stale)
            .await
            .refused(409, "VERSION_CONFLICT");
        let event = house.event(1).await;
        let stale = json!({ "name": "Other", "ticketQuantity": 9, "version": 9 });
        house
            .put(&format!("/event/{event}"), stale)
            .await
            .refused(409, "VERSION_CONFLICT");
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn a_bad_body_is_refused_by_the_name_of_its_field() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        for (path, body, field) in [
            (
                "/event",
                r#"{"name":"Show","ticketQuantity":-1}"#,
                "ticketQuantity",
            ),
            ("/event", r#"{"name":" ","ticketQuantity":1}"#, "name"),
            (
                "/event",
                r#"{"name":"Show","ticketQuantity":1,"price":-1}"#,
                "price",
            ),
            (
                "/event",
                r#"{"name":"Show","ticketQuantity":1,"seats":1}"#,
                "seats",
            ),
            ("/user", r#"{"name":"Buyer","points":-1}"#, "points"),
            ("/user", r#"{"name":"Buyer","status":"GOD"}"#, "status"),
            (
                "/ticketing/reserve",
                r#"{"eventId":"one","userId":1}"#,
                "eventId",
            ),
            ("/ticketing/reserve", r#"{"eventId":1}"#, "userId"),
            ("/ticketing/process", r#"{"ticketId":"x"}"#, "ticketId"),
            ("/payment/confirmed", r#"{"paymentId":"x"}"#, "paymentId"),
            ("/ticketing/reserve", "{", "body"),
        ] {
            let refused = house
                .post_text(path, body)
                .await
                .refused(400, "INVALID_REQUEST");
            assert_eq!(refused["field"], field, "{path} {body}");
        }
        let refused = house
            .get("/ticket/not-a-uuid")
            .await
            .refused(400, "INVALID_REQUEST");
        assert_eq!(refused["field"], "ticketId");
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
        assert_eq!(
            house.get("/event").await.ok(200)["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    })
    .await;
}

/// PostgreSQL stores no text with the character U+0000: it is refused at the door, on every store.
#[tokio::test]
async fn a_text_with_nul_is_refused_and_its_field_is_named() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let purchase = house.purchase(event, user, 0).await;
        let webhook = |payment: &str, status: &str| {
            json!({
                "eventType": "PAYMENT_STATUS_CHANGED",
                "data": { "orderId": payment, "paymentKey": "key", "status": status },
            })
        };
        let payment = &purchase.payment;
        for (path, body, field) in [
            (
                "/event",
                json!({"name": "Show\0", "ticketQuantity": 1}),
                "name",
            ),
            ("/user", json!({"name": "\0"}), "name"),
            (
                "/payment/webhook/toss",
                webhook(payment, "DONE\0"),
                "data.status",
            ),
            (
                "/payment/webhook/toss",
                webhook("\0", "DONE"),
                "data.orderId",
            ),
            (
                "/payment/confirmed",
                json!({"paymentId": payment, "pgPaymentId": "card\0", "amount": PRICE}),
                "pgPaymentId",
            ),
            ("/payment/stray/pg%00/refund", json!({}), "pgPaymentId"),
        ] {
            let refused = house.post(path, body).await;
            let refused = refused.refused(400, "INVALID_REQUEST");
            assert_eq!(refused["field"], field, "{path}");
        }
        for (path, field) in [
            ("/payment/stray?after=%00", "after"),
            ("/payment/stray?limit=1&after=a%00b", "after"),
            ("/payment/reconciliation?after=%00", "after"),
            ("/event?%00=1", "\\0"),
            ("/ticket/%00", "ticketId"),
        ] {
            let refused = house.get(path).await.refused(400, "INVALID_REQUEST");
            assert_eq!(refused["field"], field, "{path}");
        }
        house.paid(&purchase, "card-1").await;
    })
    .await;
}

#[tokio::test]
async fn in_the_grace_time_every_call_says_that_the_deadline_has_passed() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(0).await);
        let path = format!("/ticketing/reserve?eventId={event}&userId={user}");
        house.get(&path).await.refused(404, "RESERVATION_NOT_FOUND");
        let purchase = house.purchase(event, user, 0).await;
        let late = house.user(0).await;
        let ticket = house.reserved(event, late).await;
        let path = format!("/ticketing/reserve?eventId={event}&userId={late}");
        let held = house.get(&path).await.ok(200);
        assert_eq!(held["ticketId"], ticket.as_str());
        assert_eq!(
            (&held["state"], &held["price"]),
            (&json!("WAITING"), &json!(1_000))
        );

        house.clock.advance_millis(HOLD_SECS * 1000 + 1);
        let lost = house.reserve(event, late).await;
        for problem in [
            &lost.body["expiresAt"],
            &house.get(&path).await.body["expiresAt"],
        ] {
            assert_eq!(problem, &held["expiresAt"]);
        }
        assert_eq!(lost.body["ticketId"], ticket.as_str());
        lost.refused(409, "ALREADY_RESERVED");
        assert_eq!(house.get(&path).await.ok(200)["state"], "EXPIRED");
        let refused = house.process(&ticket, event, late, 0).await;
        refused.refused(409, "DEADLINE_PASSED");
        let refused = house.pay(&purchase, "card-1").await;
        refused.refused(409, "DEADLINE_PASSED");

        // Who does not want to wait gives it back.
        house.release(&ticket).await.ok(204);
        house.reserved(event, late).await;
    })
    .await;
}

#[tokio::test]
async fn what_points_pay_in_full_is_confirmed_without_a_name_of_the_gateways() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(1_000).await);
        let purchase = house.purchase(event, user, 1_000).await;
        let unpaid = json!({ "paymentId": purchase.payment, "amount": 5 });
        let told = house.post("/payment/confirmed", unpaid).await;
        assert_eq!(told.body["field"], "pgPaymentId");
        told.refused(400, "INVALID_REQUEST");

        let free = json!({ "paymentId": purchase.payment, "amount": 0 });
        let told = house.post("/payment/confirmed", free.clone()).await.ok(200);
        assert_eq!(told["succeeded"], true);
        house.ticket_becomes(&purchase, "RESERVED").await;
        let again = house.post("/payment/confirmed", free).await.ok(200);
        assert_eq!(again["succeeded"], true);
        assert_eq!(house.gateway.books().payments, 0);
    })
    .await;
}

#[tokio::test]
async fn an_address_with_a_slash_at_its_end_is_the_one_without() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        let shown = house.get(&format!("/event/{event}")).await.ok(200);
        assert_eq!(house.get(&format!("/event/{event}/")).await.ok(200), shown);
        house.get("/event/?limit=1").await.ok(200);
        house.get("/nowhere/").await.refused(404, "NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_webhook_without_its_texts_is_told_which_one_is_missing() {
    play(async |house: &mut House| {
        let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": { "orderId": 5 } });
        let told = house.post("/payment/webhook/toss", body).await;
        let problem = told.refused(400, "INVALID_REQUEST");
        assert_eq!(problem["field"], "data.orderId");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("the webhook has no text in its field data.orderId"),
            "{detail}"
        );
    })
    .await;
}
