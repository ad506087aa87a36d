//! Ownership of tickets, reservations and payments: a request with a user id acts only on that user's own.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use test_support::api::Purchase;

use crate::support::{PRICE, Running, assert_problem};

const ACCOUNT: &str = r#"{"bank":"88","accountNumber":"110123456789","holderName":"Kim Mina"}"#;

impl Running {
    async fn asked(&self, method: Method, path: String, body: Option<Value>) -> Response {
        let request = self.client.request(method, self.url(&path));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// Event, owner and ticket of a reservation; the event has one more ticket.
    async fn reservation(&self) -> (i64, i64, String) {
        let event = self.event(2).await;
        let owner = self.user("ACTIVE", 0).await;
        (event, owner, self.reserved(event, owner).await)
    }

    /// Owner, payment and ticket of a purchase that waits for its payment.
    async fn payment(&self) -> (i64, String, String) {
        let (event, owner, ticket) = self.reservation().await;
        let purchase = Purchase {
            ticket: &ticket,
            event,
            user: owner,
            total_amount: PRICE,
            points: 0,
        };
        let progress = self.processed(purchase, "COMPLETED").await;
        let payment = progress["paymentId"].as_str().unwrap().to_owned();
        (owner, payment, ticket)
    }
}

#[tokio::test]
async fn only_its_owner_releases_a_reservation() {
    let it = Running::start().await;
    let (_, owner, ticket) = it.reservation().await;
    let path = format!("/ticketing/reserve/{ticket}");
    let stranger = it.asked(Method::DELETE, format!("{path}?userId={}", owner + 1), None);
    assert_problem(stranger.await, 403, "TICKET_OWNER_MISMATCH").await;
    // A misspelled parameter is refused, not ignored.
    let unknown = it.asked(Method::DELETE, format!("{path}?userid={owner}"), None);
    assert_problem(unknown.await, 400, "INVALID_REQUEST").await;
    let owner = it.asked(Method::DELETE, format!("{path}?userId={owner}"), None);
    assert_eq!(owner.await.status(), 204);
}

#[tokio::test]
async fn only_its_owner_confirms_a_payment_and_names_its_refund_account() {
    let it = Running::start().await;
    let (owner, payment, ticket) = it.payment().await;
    let stranger = owner + 1;
    let account = |user: Option<i64>| {
        let mut account: Value = serde_json::from_str(ACCOUNT).unwrap();
        if let Some(user) = user {
            account["userId"] = json!(user);
        }
        Some(account)
    };
    let path = format!("/payment/{payment}/refund-account");
    let name = |query: String, user| it.asked(Method::PUT, path.clone() + &query, account(user));
    let by_query = format!("?userId={stranger}");
    for refused in [
        name(by_query.clone(), None),
        name(by_query.clone(), Some(stranger)),
        name(String::new(), Some(stranger)),
    ] {
        assert_problem(refused.await, 403, "PAYMENT_OWNER_MISMATCH").await;
    }
    // A proxy sets the query parameter; the body cannot override it.
    let both = name(by_query.clone(), Some(owner)).await;
    assert_eq!(
        assert_problem(both, 400, "INVALID_REQUEST").await["field"],
        "userId"
    );
    for named in [
        name(format!("?userId={owner}"), None),
        name(String::new(), Some(owner)),
    ] {
        assert_eq!(named.await.status(), 204);
    }

    let confirm = |query: &str| {
        let path = format!("/payment/confirmed{query}");
        let body = json!({ "paymentId": payment, "pgPaymentId": "card-1", "amount": 1000 });
        let it = &it;
        async move { it.asked(Method::POST, path, Some(body)).await }
    };
    assert_problem(confirm(&by_query).await, 403, "PAYMENT_OWNER_MISMATCH").await;
    assert_eq!(confirm(&format!("?userId={owner}")).await.status(), 200);
    it.eventually(&format!("/ticket/{ticket}"), |it| {
        it["status"] == "RESERVED"
    })
    .await;

    // And only its owner may cancel the ticket.
    let path = format!("/ticket/{ticket}/cancel");
    for (query, body) in [
        (by_query.clone(), None),
        (by_query.clone(), Some(json!({ "reason": "mine" }))),
        (String::new(), Some(json!({ "userId": stranger }))),
    ] {
        let refused = it.asked(Method::POST, path.clone() + &query, body).await;
        assert_problem(refused, 403, "TICKET_OWNER_MISMATCH").await;
    }
    let both = it.asked(
        Method::POST,
        path.clone() + &by_query,
        Some(json!({ "userId": owner })),
    );
    assert_problem(both.await, 400, "INVALID_REQUEST").await;
    let given = it
        .asked(Method::POST, format!("{path}?userId={owner}"), None)
        .await;
    assert_eq!(given.status(), 202);
}

#[tokio::test]
async fn only_the_owner_of_a_payment_abandons_its_attempt() {
    let it = Running::start().await;
    let (owner, payment, _) = it.payment().await;
    let path = format!("/payment/{payment}/abandon?userId=");
    let stranger = it
        .asked(Method::POST, format!("{path}{}", owner + 1), None)
        .await;
    assert_problem(stranger, 403, "PAYMENT_OWNER_MISMATCH").await;
    let owner = it.asked(Method::POST, format!("{path}{owner}"), None).await;
    assert_problem(owner, 409, "PAYMENT_NOT_CONFIRMING").await;
}

/// docs/operations.md lists for every operation who may call it; a new one must be added to one of its tables.
#[tokio::test]
async fn every_operation_is_listed_with_its_allowed_callers() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let docs = include_str!("../../../../docs/operations.md");
    for (path, item) in page["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let listed = format!("`{} {path}`", method.to_uppercase());
            assert!(
                docs.contains(&listed),
                "{listed} is in no table of docs/operations.md"
            );
        }
    }
}
