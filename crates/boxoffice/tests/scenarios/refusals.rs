//! Every refusal with its status and code. No refusal changes anything, as audit and stock show.

use serde_json::{Value, json};

use crate::{
    actions::{PRICE, confirmation, stock},
    gateway::GatewayMode,
    test_app::{HOLD_SECS, OPENING, TestApp, on_every_deployment},
};

const UNKNOWN: &str = "0192f0c1-2f00-7abc-8def-0123456789ab";

#[tokio::test]
async fn a_reservation_is_refused_by_the_first_reason_that_holds() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(0).await);
        app.reserve(event + 1, user)
            .await
            .refused(404, "EVENT_NOT_FOUND");
        let purchase = app.purchase(event, user, 0).await;
        app.reserve(event, user)
            .await
            .refused(409, "ALREADY_RESERVED");
        app.paid(&purchase, "card-1").await;
        app.reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
        app.reserved(event, app.user(0).await).await;
        let late = app.user(0).await;
        app.reserve(event, late).await.refused(409, "SOLD_OUT");
        assert_eq!(app.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_reserved_from_the_opening_of_the_sale_until_just_before_its_close() {
    on_every_deployment(async |app: &mut TestApp| {
        let body = json!({
            "name": "Show", "ticketQuantity": 2, "price": PRICE,
            "saleOpensAt": OPENING.plus_secs(10), "saleClosesAt": OPENING.plus_secs(20),
        });
        let event = app.post("/event", body).await.ok(201)["id"]
            .as_i64()
            .unwrap();
        app.stock_becomes(event, stock(2, 0, 0, 2)).await;
        let (one, other) = (app.user(0).await, app.user(0).await);
        app.advance(9).await;
        app.reserve(event, one).await.refused(409, "SALE_NOT_OPEN");
        app.advance(1).await;
        app.reserved(event, one).await;
        app.clock.advance_millis(9_999);
        app.reserved(event, other).await;
        app.clock.advance_millis(1);
        let late = app.user(0).await;
        app.reserve(event, late).await.refused(409, "SALE_NOT_OPEN");
    })
    .await;
}

#[tokio::test]
async fn a_purchase_that_does_not_match_its_reservation_is_refused() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(0).await);
        app.process(UNKNOWN, event, user, 0)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let ticket = app.reserved(event, user).await;
        let stranger = app.user(0).await;
        let refused = app.process(&ticket, event, stranger, 0).await;
        refused.refused(404, "RESERVATION_NOT_FOUND");
        let refused = app
            .process(UNKNOWN, event, user, 0)
            .await
            .refused(400, "TICKET_MISMATCH");
        assert_eq!(refused["field"], "ticketId");
        let mut body = json!({
            "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE - 1,
        });
        let refused = app.post("/ticketing/process", body.clone()).await;
        assert_eq!(
            refused.refused(400, "PRICE_MISMATCH")["field"],
            "totalAmount"
        );
        body["totalAmount"] = json!(PRICE);
        body["point"] = json!(PRICE + 1);
        let refused = app.post("/ticketing/process", body).await;
        assert_eq!(refused.refused(400, "INVALID_REQUEST")["field"], "point");
        let path = format!("/ticketing/process/{ticket}");
        app.get(&path).await.refused(404, "PROCESS_NOT_FOUND");

        let purchase = app.processed(&ticket, event, user, 0).await;
        let says_where_to_look = |refused: Value| {
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains("GET /ticketing/process/"), "{detail}");
        };
        let again = app.process(&ticket, event, user, 0).await;
        says_where_to_look(again.refused(409, "ALREADY_PROCESSING"));
        app.paid(&purchase, "card-1").await;
        let again = app.process(&ticket, event, user, 0).await;
        says_where_to_look(again.refused(409, "ALREADY_PROCESSING"));
        let late = app.reserved(event, stranger).await;
        app.clock.advance_millis(HOLD_SECS * 1000 + 1);
        let refused = app.process(&late, event, stranger, 0).await;
        refused.refused(409, "DEADLINE_PASSED");
    })
    .await;
}

#[tokio::test]
async fn a_confirmation_that_does_not_match_its_payment_is_refused() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(0).await);
        let purchase = app.purchase(event, user, 0).await;
        let path = "/payment/confirmed";
        let altered = |name: &str, value: Value| {
            let mut body = confirmation(&purchase, "card-1").body;
            body[name] = value;
            body
        };
        let unknown = altered("paymentId", json!(UNKNOWN));
        app.post(path, unknown)
            .await
            .refused(404, "PAYMENT_NOT_FOUND");
        let cheap = altered("amount", json!(PRICE - 1));
        app.post(path, cheap).await.refused(400, "AMOUNT_MISMATCH");
        let stranger = altered("userId", json!(app.user(0).await));
        app.post(path, stranger)
            .await
            .refused(403, "PAYMENT_OWNER_MISMATCH");
        let malformed = altered("pgPaymentId", json!("../secret"));
        let refused = app
            .post(path, malformed)
            .await
            .refused(400, "INVALID_REQUEST");
        assert_eq!(refused["field"], "pgPaymentId");
        assert_eq!(app.payment_history(&purchase).await, ["CREATED"]);

        app.gateway.set_mode(GatewayMode::Unreachable);
        app.pay(&purchase, "card-1").await.ok(202);
        app.pay(&purchase, "card-1")
            .await
            .refused(409, "CONFIRMATION_IN_PROGRESS");
        app.gateway.set_mode(GatewayMode::Normal);
        app.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        // The same charge gets the same answer again; another one is refused.
        app.pay(&purchase, "card-1").await.ok(200);
        app.pay(&purchase, "card-2")
            .await
            .refused(409, "ALREADY_CONFIRMED");
    })
    .await;
}

#[tokio::test]
async fn everything_missing_has_its_own_not_found_code() {
    on_every_deployment(async |app: &mut TestApp| {
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
            app.get(path).await.refused(404, code);
        }
        for (path, code) in [
            (format!("/saga/{UNKNOWN}/resume"), "SAGA_NOT_FOUND"),
            (
                format!("/dead-letter/{UNKNOWN}/replay"),
                "DEAD_LETTER_NOT_FOUND",
            ),
        ] {
            app.post(&path, Value::Null).await.refused(404, code);
        }
        app.release(UNKNOWN)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let discarded = app.delete(&format!("/dead-letter/{UNKNOWN}")).await;
        discarded.refused(404, "DEAD_LETTER_NOT_FOUND");
        let points = json!({ "amount": 1 });
        app.post("/user/1/points", points)
            .await
            .refused(404, "USER_NOT_FOUND");
        let event = json!({ "name": "Show", "ticketQuantity": 1, "version": 1 });
        app.put("/event/1", event)
            .await
            .refused(404, "EVENT_NOT_FOUND");
        let user = json!({ "name": "Buyer", "status": "ACTIVE", "version": 1 });
        app.put("/user/1", user)
            .await
            .refused(404, "USER_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_stale_change_and_a_second_user_with_one_id_are_conflicts() {
    on_every_deployment(async |app: &mut TestApp| {
        let user = json!({ "id": 7, "name": "Buyer" });
        app.post("/user", user.clone()).await.ok(201);
        app.post("/user", user).await.refused(409, "USER_EXISTS");
        let stale = json!({ "name": "Other", "status": "INACTIVE", "version": 9 });
        app.put("/user/7", stale)
            .await
            .refused(409, "VERSION_CONFLICT");
        let event = app.event(1).await;
        let stale = json!({ "name": "Other", "ticketQuantity": 9, "version": 9 });
        app.put(&format!("/event/{event}"), stale)
            .await
            .refused(409, "VERSION_CONFLICT");
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn a_bad_body_is_refused_with_the_name_of_its_field() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
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
            let refused = app
                .post_text(path, body)
                .await
                .refused(400, "INVALID_REQUEST");
            assert_eq!(refused["field"], field, "{path} {body}");
        }
        let refused = app
            .get("/ticket/not-a-uuid")
            .await
            .refused(400, "INVALID_REQUEST");
        assert_eq!(refused["field"], "ticketId");
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
        assert_eq!(
            app.get("/event").await.ok(200)["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    })
    .await;
}

/// PostgreSQL stores no text with the character U+0000: the API refuses it on every store.
#[tokio::test]
async fn a_text_with_nul_is_refused_with_the_name_of_its_field() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let purchase = app.purchase(event, user, 0).await;
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
            let refused = app.post(path, body).await;
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
            let refused = app.get(path).await.refused(400, "INVALID_REQUEST");
            assert_eq!(refused["field"], field, "{path}");
        }
        app.paid(&purchase, "card-1").await;
    })
    .await;
}

#[tokio::test]
async fn in_the_grace_period_every_call_reports_the_passed_deadline() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(0).await);
        let path = format!("/ticketing/reserve?eventId={event}&userId={user}");
        app.get(&path).await.refused(404, "RESERVATION_NOT_FOUND");
        let purchase = app.purchase(event, user, 0).await;
        let late = app.user(0).await;
        let ticket = app.reserved(event, late).await;
        let path = format!("/ticketing/reserve?eventId={event}&userId={late}");
        let held = app.get(&path).await.ok(200);
        assert_eq!(held["ticketId"], ticket.as_str());
        assert_eq!(
            (&held["state"], &held["price"]),
            (&json!("WAITING"), &json!(1_000))
        );

        app.clock.advance_millis(HOLD_SECS * 1000 + 1);
        let lost = app.reserve(event, late).await;
        for problem in [
            &lost.body["expiresAt"],
            &app.get(&path).await.body["expiresAt"],
        ] {
            assert_eq!(problem, &held["expiresAt"]);
        }
        assert_eq!(lost.body["ticketId"], ticket.as_str());
        lost.refused(409, "ALREADY_RESERVED");
        assert_eq!(app.get(&path).await.ok(200)["state"], "EXPIRED");
        let refused = app.process(&ticket, event, late, 0).await;
        refused.refused(409, "DEADLINE_PASSED");
        let refused = app.pay(&purchase, "card-1").await;
        refused.refused(409, "DEADLINE_PASSED");

        // The buyer may release it instead of waiting.
        app.release(&ticket).await.ok(204);
        app.reserved(event, late).await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_made_with_points_is_confirmed_without_a_gateway_payment_id() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(1_000).await);
        let purchase = app.purchase(event, user, 1_000).await;
        let unpaid = json!({ "paymentId": purchase.payment, "amount": 5 });
        let answer = app.post("/payment/confirmed", unpaid).await;
        assert_eq!(answer.body["field"], "pgPaymentId");
        answer.refused(400, "INVALID_REQUEST");

        let free = json!({ "paymentId": purchase.payment, "amount": 0 });
        let answer = app.post("/payment/confirmed", free.clone()).await.ok(200);
        assert_eq!(answer["succeeded"], true);
        app.ticket_becomes(&purchase, "RESERVED").await;
        let again = app.post("/payment/confirmed", free).await.ok(200);
        assert_eq!(again["succeeded"], true);
        assert_eq!(app.gateway.books().payments, 0);
    })
    .await;
}

#[tokio::test]
async fn a_path_with_a_trailing_slash_is_the_path_without_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
        let shown = app.get(&format!("/event/{event}")).await.ok(200);
        assert_eq!(app.get(&format!("/event/{event}/")).await.ok(200), shown);
        app.get("/event/?limit=1").await.ok(200);
        app.get("/nowhere/").await.refused(404, "NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_webhook_with_a_missing_field_is_refused_with_its_name() {
    on_every_deployment(async |app: &mut TestApp| {
        let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": { "orderId": 5 } });
        let answer = app.post("/payment/webhook/toss", body).await;
        let problem = answer.refused(400, "INVALID_REQUEST");
        assert_eq!(problem["field"], "data.orderId");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("the webhook has no text in the field data.orderId"),
            "{detail}"
        );
    })
    .await;
}
