//! A message as a Kafka record, by the CloudEvents Kafka protocol binding (version 1.0.2, binary mode): attributes as
//! `ce_` headers, the payload as the value. Pure.

use crate::Timestamp;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message as _, OwnedHeaders};

use crate::{
    Message, TraceContext,
    message::{Reissue, indexable},
    trace,
};

/// The extension attribute of a dead letter that is reissued to one group.
const REISSUE: &str = "ce_reissue";

/// The W3C header, and that of the CloudEvents extension for distributed tracing. If they differ, the first one counts: an
/// intermediary that continues the trace updates that one.
const TRACE_HEADERS: [&str; 2] = [trace::HEADER, "ce_traceparent"];

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
        let text = trace.to_string();
        for key in TRACE_HEADERS {
            all = all.insert(Header {
                key,
                value: Some(&text),
            });
        }
    }
    all
}

/// A record as a message. A foreign producer may omit any header: a record without `ce_id` is identified by topic,
/// partition and offset. Ids and keys that a database index cannot hold are replaced by their digests.
pub(super) fn decode(record: &BorrowedMessage<'_>, topic: &str) -> Message {
    let header = |name: &str| {
        let headers = record.headers()?;
        let found = headers.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    };
    let position = || format!("{topic}/{}/{}", record.partition(), record.offset());
    let record_time = || Timestamp::from_millis(record.timestamp().to_millis().unwrap_or(0));
    Message {
        id: header("ce_id")
            .filter(|id| !id.is_empty())
            .map_or_else(position, |id| indexable(id).into_owned()),
        topic: topic.to_owned(),
        key: indexable(&text(record.key())).into_owned(),
        subject: None,
        time: header("ce_time")
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(record_time),
        payload: text(record.payload()),
        trace: TRACE_HEADERS
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

/// Replaces invalid UTF-8 and NUL, which no store accepts, by U+FFFD.
fn text(bytes: Option<&[u8]>) -> String {
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    text.replace('\0', "\u{FFFD}")
}
