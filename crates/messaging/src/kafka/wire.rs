//! A message as a Kafka record, by the CloudEvents Kafka protocol binding (version 1.0.2, binary mode): attributes as
//! `ce_` headers, the payload as the value. Pure.

use crate::Timestamp;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};

use crate::{
    Message, TraceContext,
    message::{Reissue, indexable},
    trace,
};

/// The extension that marks a dead letter on its way back to one group.
const REISSUE: &str = "ce_reissue";

/// The trace as the tracing of a transport says it, and as the CloudEvents extension for distributed tracing does: the
/// first is the way that the record took, where somebody between has changed it.
const TRACES: [&str; 2] = [trace::HEADER, "ce_traceparent"];

pub(super) fn headers(message: &Message, source: &str) -> OwnedHeaders {
    let time = message.time.to_string();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &message.id),
        ("ce_type", &message.topic),
        ("ce_source", source),
        ("ce_time", &time),
        ("content-type", "application/json"),
    ];
    let mut all = OwnedHeaders::new_with_capacity(headers.len() + 3);
    for (key, value) in headers {
        all = all.insert(Header {
            key,
            value: Some(value),
        });
    }
    if let Some(reissue) = &message.reissue {
        let text = serde_json::to_string(reissue).expect("a reissue has string keys only");
        all = all.insert(Header {
            key: REISSUE,
            value: Some(&text),
        });
    }
    if let Some(trace) = message.trace {
        let text = trace.text();
        for key in TRACES {
            all = all.insert(Header {
                key,
                value: Some(text.as_str()),
            });
        }
    }
    all
}

/// What arrived. A record of somebody else's may lack any header: its place names it then, which is as stable. Names are
/// such that every store and index takes them, whatever was sent.
pub(super) fn message(record: &BorrowedMessage<'_>, topic: &str) -> Message {
    let header = |name: &str| {
        let headers = record.headers()?;
        let found = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let place = || format!("{topic}/{}/{}", record.partition(), record.offset());
    let arrived = || Timestamp::from_millis(record.timestamp().to_millis().unwrap_or(0));
    Message {
        id: header("ce_id")
            .filter(|id| !id.is_empty())
            .map_or_else(place, |id| indexable(id).into_owned()),
        topic: topic.to_owned(),
        key: indexable(&text(record.key())).into_owned(),
        subject: None,
        time: header("ce_time")
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(arrived),
        payload: text(record.payload()),
        trace: TRACES
            .into_iter()
            .filter_map(header)
            .find_map(TraceContext::parse),
        reissue: header(REISSUE).and_then(reissue),
    }
}

fn reissue(text: &str) -> Option<Reissue> {
    let sent: Reissue = serde_json::from_str(text).ok()?;
    Some(Reissue {
        message_id: indexable(&sent.message_id).into_owned(),
        ..sent
    })
}

/// Bytes that are no text, or a NUL among them, cannot be parsed as JSON later, and are rejected there with a reason. No
/// store would take them.
fn text(bytes: Option<&[u8]>) -> String {
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    text.replace('\0', "\u{FFFD}")
}
