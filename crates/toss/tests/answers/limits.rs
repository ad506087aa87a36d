//! What is refused before anything is sent.

use toss::{ChargeStatus, Client, GatewayOutcome, Protocol, SecretKey, Settings};

use crate::peer::*;

#[tokio::test]
async fn an_idempotency_key_of_300_characters_is_sent_whole_and_a_longer_one_not_at_all() {
    let peer = Peer::replying(vec![replies(200, &payment("DONE"))]).await;
    let gateway = peer.client();
    let mut asked = confirm();
    asked.idempotency_key = "k".repeat(301);
    assert_eq!(
        declined_with(gateway.confirm(&asked).await),
        "INVALID_IDEMPOTENCY_KEY"
    );
    let mut given_back = cancel(None);
    given_back.idempotency_key = "k".repeat(301);
    assert_eq!(
        declined_with(gateway.cancel(&given_back).await),
        "INVALID_IDEMPOTENCY_KEY"
    );
    assert_eq!(peer.received(), [""; 0], "nothing was sent");

    asked.idempotency_key = "k".repeat(300);
    let approved = GatewayOutcome::Approved(charge(ChargeStatus::Done, 1_000));
    assert_eq!(gateway.confirm(&asked).await, approved);
    let header = format!("\r\nidempotency-key: {}\r\n", asked.idempotency_key);
    assert!(peer.received()[0].contains(&header));
}

#[test]
fn a_limit_that_cannot_work_is_refused_by_its_name_and_its_range() {
    let good = Settings {
        secret_key: SecretKey::new(SECRET),
        ..Settings::default()
    };
    assert!(Client::new(&good).is_ok());
    let refused = |change: fn(&mut Settings)| {
        let mut settings = good.clone();
        change(&mut settings);
        Client::new(&settings).unwrap_err().to_string()
    };
    let millis = "_timeout_millis must be from 1 to 600000";
    let connections = "the gateway's max_connections must be from 1 to 65535";
    assert_eq!(
        refused(|it| it.connect_timeout_millis = 0),
        format!("the gateway's connect{millis}")
    );
    assert_eq!(
        refused(|it| it.connect_timeout_millis = 600_001),
        format!("the gateway's connect{millis}")
    );
    assert_eq!(
        refused(|it| it.request_timeout_millis = 0),
        format!("the gateway's request{millis}")
    );
    assert_eq!(
        refused(|it| it.request_timeout_millis = u64::MAX),
        format!("the gateway's request{millis}")
    );
    assert_eq!(refused(|it| it.max_connections = 0), connections);
    assert_eq!(refused(|it| it.max_connections = usize::MAX), connections);
    assert_eq!(
        refused(|it| it.lookup_retries = 11),
        "the gateway's lookup_retries must be from 0 to 10"
    );
}

#[test]
fn an_unknown_protocol_is_refused() {
    let settings: Settings = serde_json::from_str(r#"{"protocol": "toss"}"#).unwrap();
    assert_eq!(settings.protocol, Protocol::Toss);
    let error = serde_json::from_str::<Settings>(r#"{"protocol": "telepathy"}"#).unwrap_err();
    assert!(error.to_string().contains("telepathy"), "{error}");
}
