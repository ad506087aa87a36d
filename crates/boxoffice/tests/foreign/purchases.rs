//! Purchases, compensations and duplicates with a foreign service in place of Boxoffice's own.

use reqwest::Method;
use serde_json::{Value, json};

use crate::deployment::{ForeignDeployment, POINTS, PRICE};

/// All services except the user service.
const WITHOUT_USER: &str =
    "event,ticketing-api,ticketing-worker,payment-api,payment-worker,dead-letter";
/// All services except the payment service.
const WITHOUT_PAYMENT: &str = "event,ticketing-api,ticketing-worker,user,dead-letter";
/// Initial points of every user.
const BALANCE: i64 = 1000;

fn ticket(process: &Value) -> String {
    process["referenceId"].as_str().unwrap().to_owned()
}

fn failure(process: &Value) -> (&str, &str) {
    let text = |name: &str| process[name].as_str().unwrap_or_default();
    (text("sagaState"), text("failure"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_user_service_handles_purchases_and_compensations() {
    let mut deployment = ForeignDeployment::open(WITHOUT_USER, "user.py").await;
    let event = deployment.event().await;

    // Refused before and after points were reserved.
    for (user, why) in [(2, "USER_NOT_ACTIVE"), (3, "FRAUD_SUSPECTED")] {
        let ended = deployment.purchase(event, user, PRICE).await;
        assert_eq!(failure(&ended), ("COMPENSATED", why));
        deployment.stock(event, 1).await;
        assert_eq!(
            deployment.ask_foreign(&format!("balance {user}"))["balance"],
            BALANCE
        );
    }

    let process = deployment.purchase(event, 1, PRICE).await;
    assert_eq!(failure(&process), ("COMPLETED", ""));
    let left = deployment.ask_foreign("balance 1");
    assert_eq!(left["balance"], BALANCE - POINTS);
    let paid = json!({"paymentId": process["paymentId"], "pgPaymentId": "card-1",
        "amount": process["finalAmount"]});
    deployment.post("/payment/confirmed", paid).await;
    let path = format!("/ticketing/process/{}", ticket(&process));
    deployment
        .until(&path, |it| it["ticketStatus"] == "RESERVED")
        .await;

    deployment.cancel(&ticket(&process)).await;
    assert_eq!(deployment.ask_foreign("balance 1")["balance"], BALANCE);
    deployment.stock(event, 1).await;
    deployment.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_payment_service_handles_purchases_and_compensations() {
    let mut deployment = ForeignDeployment::open(WITHOUT_PAYMENT, "payment.py").await;
    let user = json!({"id": 7, "name": "Kim", "status": "ACTIVE", "points": BALANCE});
    deployment.post("/user", user).await;
    let event = deployment.event().await;
    let dear = deployment
        .post(
            "/event",
            json!({"name": "dear", "ticketQuantity": 1, "price": 2_000_000}),
        )
        .await;
    let dear = dear["id"].as_i64().unwrap();
    deployment.stock(dear, 1).await;
    let has = async |deployment: &ForeignDeployment, balance: i64| {
        deployment
            .until("/user/7", |it| it["points"] == balance)
            .await
    };

    // The foreign service refuses the payment: everything is compensated.
    let ended = deployment.purchase(dear, 7, 2_000_000).await;
    assert_eq!(failure(&ended), ("COMPENSATED", "PAYMENT_NOT_CREATED"));
    deployment.stock(dear, 1).await;
    has(&deployment, BALANCE).await;

    // The buyer releases the reservation: the payment is closed by the id that the foreign service chose.
    let process = deployment.purchase(event, 7, PRICE).await;
    let payment = process["paymentId"].as_str().unwrap().to_owned();
    let opened = deployment.ask_foreign(&format!("show {payment}"));
    assert_eq!(
        (&opened["status"], &opened["ticketId"]),
        (&json!("CREATED"), &process["referenceId"])
    );
    has(&deployment, BALANCE - POINTS).await;
    let path = format!("/ticketing/reserve/{}", ticket(&process));
    let (status, _) = deployment.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, 204);
    has(&deployment, BALANCE).await;
    assert_eq!(
        deployment.ask_foreign(&format!("show {payment}"))["status"],
        "DELETED"
    );

    // Paid at the foreign service, reported by domain.payment alone, and cancelled.
    let process = deployment.purchase(event, 7, PRICE).await;
    let payment = process["paymentId"].as_str().unwrap().to_owned();
    deployment.ask_foreign(&format!("pay {payment}"));
    let path = format!("/ticketing/process/{}", ticket(&process));
    let bought = deployment
        .until(&path, |it| it["ticketStatus"] == "RESERVED")
        .await;
    assert_eq!(bought["paymentId"], payment);
    deployment.stock(event, 0).await;
    deployment.cancel(&ticket(&process)).await;
    assert_eq!(
        deployment.ask_foreign(&format!("show {payment}"))["status"],
        "CANCELLED"
    );
    has(&deployment, BALANCE).await;
    deployment.stock(event, 1).await;
    deployment.close().await;
}
