//! Whole purchases, compensations and duplicates, with a service of another make in the place of ours.

use reqwest::Method;
use serde_json::{Value, json};

use crate::company::{Company, POINTS, PRICE};

/// Everything but the user service.
const WITHOUT_USER: &str =
    "event,ticketing-api,ticketing-worker,payment-api,payment-worker,dead-letter";
/// Everything but the payment service.
const WITHOUT_PAYMENT: &str = "event,ticketing-api,ticketing-worker,user,dead-letter";
/// What every user has at the beginning.
const BALANCE: i64 = 1000;

fn ticket(process: &Value) -> String {
    process["referenceId"].as_str().unwrap().to_owned()
}

fn failure(process: &Value) -> (&str, &str) {
    let text = |name: &str| process[name].as_str().unwrap_or_default();
    (text("sagaState"), text("failure"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_service_of_another_make_serves_whole_purchases_and_compensations() {
    let mut company = Company::open(WITHOUT_USER, "user.py").await;
    let event = company.event().await;

    // Refused, before and after something was taken.
    for (user, why) in [(2, "USER_NOT_ACTIVE"), (3, "FRAUD_SUSPECTED")] {
        let ended = company.purchase(event, user, PRICE).await;
        assert_eq!(failure(&ended), ("COMPENSATED", why));
        company.stock(event, 1).await;
        assert_eq!(
            company.ask_theirs(&format!("balance {user}"))["balance"],
            BALANCE
        );
    }

    let process = company.purchase(event, 1, PRICE).await;
    assert_eq!(failure(&process), ("COMPLETED", ""));
    let left = company.ask_theirs("balance 1");
    assert_eq!(left["balance"], BALANCE - POINTS);
    let paid = json!({"paymentId": process["paymentId"], "pgPaymentId": "card-1",
        "amount": process["finalAmount"]});
    company.post("/payment/confirmed", paid).await;
    let path = format!("/ticketing/process/{}", ticket(&process));
    company
        .until(&path, |it| it["ticketStatus"] == "RESERVED")
        .await;

    company.cancel(&ticket(&process)).await;
    assert_eq!(company.ask_theirs("balance 1")["balance"], BALANCE);
    company.stock(event, 1).await;
    company.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_service_of_another_make_serves_whole_purchases_and_compensations() {
    let mut company = Company::open(WITHOUT_PAYMENT, "payment.py").await;
    let user = json!({"id": 7, "name": "Kim", "status": "ACTIVE", "points": BALANCE});
    company.post("/user", user).await;
    let event = company.event().await;
    let dear = company
        .post(
            "/event",
            json!({"name": "dear", "ticketQuantity": 1, "price": 2_000_000}),
        )
        .await;
    let dear = dear["id"].as_i64().unwrap();
    company.stock(dear, 1).await;
    let has = async |company: &Company, balance: i64| {
        company.until("/user/7", |it| it["points"] == balance).await
    };

    // It opens no payment: everything goes back.
    let ended = company.purchase(dear, 7, 2_000_000).await;
    assert_eq!(failure(&ended), ("COMPENSATED", "PAYMENT_NOT_CREATED"));
    company.stock(dear, 1).await;
    has(&company, BALANCE).await;

    // The buyer gives the reservation back: the payment is closed by the name that it was given there.
    let process = company.purchase(event, 7, PRICE).await;
    let payment = process["paymentId"].as_str().unwrap().to_owned();
    let opened = company.ask_theirs(&format!("show {payment}"));
    assert_eq!(
        (&opened["status"], &opened["ticketId"]),
        (&json!("CREATED"), &process["referenceId"])
    );
    has(&company, BALANCE - POINTS).await;
    let path = format!("/ticketing/reserve/{}", ticket(&process));
    let (status, _) = company.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, 204);
    has(&company, BALANCE).await;
    assert_eq!(
        company.ask_theirs(&format!("show {payment}"))["status"],
        "DELETED"
    );

    // Paid there, told of by domain.payment alone, and given back.
    let process = company.purchase(event, 7, PRICE).await;
    let payment = process["paymentId"].as_str().unwrap().to_owned();
    company.ask_theirs(&format!("pay {payment}"));
    let path = format!("/ticketing/process/{}", ticket(&process));
    let bought = company
        .until(&path, |it| it["ticketStatus"] == "RESERVED")
        .await;
    assert_eq!(bought["paymentId"], payment);
    company.stock(event, 0).await;
    company.cancel(&ticket(&process)).await;
    assert_eq!(
        company.ask_theirs(&format!("show {payment}"))["status"],
        "CANCELLED"
    );
    has(&company, BALANCE).await;
    company.stock(event, 1).await;
    company.close().await;
}
