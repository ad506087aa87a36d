//! TLS and authentication of both sides; the error of a rejected client names the setting.
#![cfg(feature = "kafka")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use std::time::{Duration, Instant};

use common::{
    Deposit, deposit,
    kafka::{Brokers, Guarded, INBOX_SECS, TOPICS, guarded},
    publish, read_all, within,
};
use messaging::{Kafka, Payload, kafka_settings::KafkaSecurity};

/// Longer than a request to the brokers may take.
const REFUSED_WITHIN: Duration = Duration::from_secs(40);

fn by_password(broker: &Guarded, mechanism: &str) -> KafkaSecurity {
    KafkaSecurity {
        protocol: Some("sasl_ssl".to_owned()),
        ssl_ca_location: broker.file("ca.pem"),
        sasl_mechanism: Some(mechanism.to_owned()),
        sasl_username: Some(broker.user.clone()),
        sasl_password: Some(broker.password.clone()),
        ..KafkaSecurity::default()
    }
}

fn by_certificate(broker: &Guarded) -> KafkaSecurity {
    KafkaSecurity {
        protocol: Some("ssl".to_owned()),
        ssl_ca_location: broker.file("ca.pem"),
        ssl_certificate_location: broker.file("client.pem"),
        ssl_key_location: broker.file("client-key.pem"),
        ..KafkaSecurity::default()
    }
}

/// Publishes with these settings, and reads the messages back.
async fn round_trip(brokers: &str, security: KafkaSecurity) {
    let place = Brokers::at(brokers, security);
    let store = place.open_silent().await;
    let kafka = place.connect(&store).await;
    publish(&store, (0..20).map(|n| deposit(&n.to_string(), n, 1))).await;
    let read = read_all(&store, "reader", &[Deposit::TOPIC]).await;
    assert_eq!(read.len(), 20);
    within("a bus closes", kafka.close()).await;
}

/// The error of opening the bus with these settings.
async fn refusal(brokers: &str, security: KafkaSecurity) -> String {
    let place = Brokers::at(brokers, security);
    let store = place.open_silent().await;
    let asked = Instant::now();
    let opened = Kafka::open(place.settings.clone(), &store, TOPICS, &[], INBOX_SECS).await;
    assert!(
        asked.elapsed() < REFUSED_WITHIN,
        "it took {:?} to refuse",
        asked.elapsed()
    );
    opened.err().unwrap().to_string()
}

#[tokio::test]
async fn a_client_connects_over_tls_by_user_name_and_password() {
    let broker = guarded();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        round_trip(&broker.sasl_ssl, by_password(broker, mechanism)).await;
    }
}

#[tokio::test]
async fn a_client_presents_its_certificate_to_a_broker_that_requires_one() {
    let broker = guarded();
    round_trip(&broker.ssl, by_certificate(broker)).await;
    let nobody = KafkaSecurity {
        ssl_certificate_location: None,
        ssl_key_location: None,
        ..by_certificate(broker)
    };
    let refused = refusal(&broker.ssl, nobody).await;
    assert!(
        refused.contains("security.ssl_certificate_location"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_error_of_a_wrong_password_names_its_setting_and_not_the_password() {
    let broker = guarded();
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let wrong = KafkaSecurity {
            sasl_password: Some("quite-wrong".to_owned()),
            ..by_password(broker, mechanism)
        };
        let refused = refusal(&broker.sasl_ssl, wrong).await;
        assert!(refused.contains("security.sasl_password"), "{refused}");
        assert!(!refused.contains("quite-wrong"), "{refused}");
    }
}

#[tokio::test]
async fn a_broker_with_an_untrusted_certificate_is_rejected() {
    let broker = guarded();
    let of_another = KafkaSecurity {
        ssl_ca_location: broker.file("other-ca.pem"),
        ..by_password(broker, "PLAIN")
    };
    let refused = refusal(&broker.sasl_ssl, of_another).await;
    assert!(refused.contains("security.ssl_ca_location"), "{refused}");
    // Nor is the certificate signed by an authority of the system.
    let of_the_system = KafkaSecurity {
        ssl_ca_location: None,
        ..by_password(broker, "PLAIN")
    };
    let refused = refusal(&broker.sasl_ssl, of_the_system).await;
    assert!(refused.contains("security.ssl_ca_location"), "{refused}");
    let missing = KafkaSecurity {
        ssl_ca_location: broker.file("nowhere.pem"),
        ..by_password(broker, "PLAIN")
    };
    let refused = refusal(&broker.sasl_ssl, missing).await;
    assert!(refused.contains("ssl.ca.location"), "{refused}");
}

#[tokio::test]
async fn the_error_of_a_plaintext_client_of_a_tls_broker_names_the_protocol() {
    let refused = refusal(&guarded().sasl_ssl, KafkaSecurity::default()).await;
    assert!(refused.contains("security.protocol"), "{refused}");
}
