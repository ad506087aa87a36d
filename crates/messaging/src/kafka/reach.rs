//! The first word with the brokers: whether they answer, and where they do not, which setting is in the way. librdkafka
//! goes on trying whatever the reason is, and tells it beside the question only. State: what it told.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext},
};

use super::{ANSWER_SECS_MAX, KafkaSettings, OpenError};

/// How long one attempt waits, and how long for the reason of its failure.
const ATTEMPT_MILLIS: u64 = 500;
const REASON_MILLIS: u64 = 20;

/// What the brokers of these addresses have. Waits on the thread that asks.
///
/// # Errors
/// [`OpenError`] that names the setting: at once where the brokers refuse, after a while where they are
/// away.
pub(super) fn metadata(settings: &KafkaSettings, brokers: &str) -> Result<Metadata, OpenError> {
    let opened = settings
        .client(brokers)
        // A connection that is closed is told of at this level only.
        .set_log_level(RDKafkaLogLevel::Info)
        .create_with_context(Listening::default());
    // A file that cannot be read, a mechanism that nobody knows: the text names it.
    let client: BaseProducer<Listening> = opened
        .map_err(|error| OpenError::of(format_args!("the settings under security: {error}")))?;
    let until = Instant::now() + Duration::from_secs(ANSWER_SECS_MAX);
    loop {
        let asked = client
            .client()
            .fetch_metadata(None, Duration::from_millis(ATTEMPT_MILLIS));
        let error = match asked {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        client.poll(Duration::from_millis(REASON_MILLIS));
        let reason = client.context().reason();
        let setting = reason.as_ref().and_then(Reason::setting);
        if let (Some(reason), Some(setting)) = (&reason, setting) {
            return Err(OpenError::of(format_args!(
                "the setting {setting} does not suit the brokers {brokers}: {}",
                reason.text
            )));
        }
        if Instant::now() >= until {
            let text = reason.map_or_else(|| error.to_string(), |reason| reason.text);
            return Err(OpenError::of(format_args!(
                "the brokers {brokers} do not answer: {text}"
            )));
        }
    }
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    code: Option<RDKafkaErrorCode>,
    text: String,
}

impl Reason {
    /// The setting to look at, where trying again cannot help.
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
            // The other side speaks after the handshake, so it is our certificate that it does not like.
            Some(_) | None if says("SSL alert") => Some("security.ssl_certificate_location"),
            // Who waits for the first words of TLS hangs up on any others.
            Some(_) | None if says("Disconnected") && says("APIVERSION_QUERY") => {
                Some("security.protocol")
            }
            Some(_) | None => None,
        }
    }
}

/// Keeps the first reason that names a setting, or else the last one.
#[derive(Default)]
struct Listening(Mutex<Option<Reason>>);

impl Listening {
    fn keep(&self, code: Option<RDKafkaErrorCode>, text: &str) {
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        if kept.as_ref().and_then(Reason::setting).is_none() {
            let text = text.to_owned();
            *kept = Some(Reason { code, text });
        }
    }

    fn reason(&self) -> Option<Reason> {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }
}

impl ClientContext for Listening {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        // The caller tells of it. A connection that the other side closed is not told of as an error.
        tracing::debug!(facility, text, "librdkafka");
        if facility == "FAIL" {
            self.keep(None, text);
        }
    }

    fn error(&self, error: KafkaError, text: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        self.keep(code, text);
    }
}

impl ProducerContext for Listening {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
