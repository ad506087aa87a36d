//! The first request to the brokers. If it fails, the error names the setting that is wrong: librdkafka retries whatever
//! the cause, and reports the cause by callbacks only. State: the cause that was reported.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext},
};

use super::{KafkaSettings, OpenError, REQUEST_SECS_MAX};

/// How long one attempt waits for its answer, and then for the cause of its failure.
const ATTEMPT_MILLIS: u64 = 500;
const CAUSE_MILLIS: u64 = 20;

/// The metadata of these topics, in their order. It requests one topic at a time, because the only other request lists all
/// topics of the brokers, which may be thousands. Blocks the calling thread.
///
/// # Errors
/// [`OpenError`] that names the setting: at once if the brokers reject the connection, after 20 s if they are unreachable.
pub(super) fn metadata(
    settings: &KafkaSettings,
    brokers: &str,
    names: &[String],
) -> Result<Vec<Metadata>, OpenError> {
    let opened = settings
        .client(brokers)
        // A producer's request for the metadata of a missing topic would otherwise create it, with the brokers' defaults.
        .set("allow.auto.create.topics", "false")
        // librdkafka logs a closed connection at this level only.
        .set_log_level(RDKafkaLogLevel::Info)
        .create_with_context(FailureListener::default());
    // An unreadable file or an unknown mechanism: the text names it.
    let client: BaseProducer<FailureListener> = opened
        .map_err(|error| OpenError::kafka(format_args!("the settings under security: {error}")))?;
    let until = Instant::now() + Duration::from_secs(REQUEST_SECS_MAX);
    let fetched = names
        .iter()
        .map(|name| fetch(&client, brokers, name, until));
    fetched.collect()
}

fn fetch(
    client: &BaseProducer<FailureListener>,
    brokers: &str,
    name: &str,
    until: Instant,
) -> Result<Metadata, OpenError> {
    loop {
        let fetched = client
            .client()
            .fetch_metadata(Some(name), Duration::from_millis(ATTEMPT_MILLIS));
        let error = match fetched {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        client.poll(Duration::from_millis(CAUSE_MILLIS));
        let cause = client.context().cause();
        let setting = cause.as_ref().and_then(ConnectionFailure::setting);
        if let (Some(cause), Some(setting)) = (&cause, setting) {
            return Err(OpenError::kafka(format_args!(
                "the setting {setting} does not suit the brokers {brokers}: {}",
                cause.text
            )));
        }
        if Instant::now() >= until {
            let text = cause.map_or_else(|| error.to_string(), |cause| cause.text);
            return Err(OpenError::kafka(format_args!(
                "the brokers {brokers} do not answer: {text}"
            )));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ConnectionFailure {
    code: Option<RDKafkaErrorCode>,
    text: String,
}

impl ConnectionFailure {
    /// The setting to correct; `None` if a retry may succeed.
    fn setting(&self) -> Option<&'static str> {
        let says = |words: &str| self.text.contains(words);
        match self.code {
            Some(RDKafkaErrorCode::Authentication) => {
                Some("security.sasl_username, security.sasl_password or security.sasl_mechanism")
            }
            Some(RDKafkaErrorCode::SSL) if says("certificate verify failed") => {
                Some("security.ssl_ca_location")
            }
            Some(RDKafkaErrorCode::SSL) => Some("security.protocol"),
            // The broker sends an alert after the handshake if it does not accept the client's certificate.
            Some(_) | None if says("SSL alert") => Some("security.ssl_certificate_location"),
            // A broker that expects TLS disconnects at the first plaintext request.
            Some(_) | None if says("Disconnected") && says("APIVERSION_QUERY") => {
                Some("security.protocol")
            }
            Some(_) | None => None,
        }
    }
}

/// Keeps the first failure that names a setting, or else the last failure.
#[derive(Default)]
struct FailureListener(Mutex<Option<ConnectionFailure>>);

impl FailureListener {
    fn record(&self, code: Option<RDKafkaErrorCode>, text: &str) {
        let mut cause = self.0.lock();
        if cause
            .as_ref()
            .and_then(ConnectionFailure::setting)
            .is_none()
        {
            let text = text.to_owned();
            *cause = Some(ConnectionFailure { code, text });
        }
    }

    fn cause(&self) -> Option<ConnectionFailure> {
        self.0.lock().clone()
    }
}

impl ClientContext for FailureListener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        // The caller reports the failure. A connection that the broker closed is only logged, never passed to `error`.
        tracing::debug!(facility, text, "librdkafka");
        if facility == "FAIL" {
            self.record(None, text);
        }
    }

    fn error(&self, error: KafkaError, text: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        self.record(code, text);
    }
}

impl ProducerContext for FailureListener {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn the_request_for_a_missing_topic_does_not_create_it() {
        // given brokers that create a topic if the client's metadata request allows it
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("known", 3, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let names = ["missing".to_owned(), "known".to_owned()];
        let settings = KafkaSettings::default();
        for _ in 0..2 {
            let fetched = metadata(&settings, &brokers, &names).unwrap();
            let topics = fetched.iter().flat_map(|it| it.topics());
            let partitions: Vec<_> = topics
                .map(|topic| (topic.name(), topic.partitions().len()))
                .collect();
            assert_eq!(partitions, [("missing", 0), ("known", 3)]);
        }
    }
}
