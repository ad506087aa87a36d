//! `GET /v1/transactions`: the approvals and cancellations of a period, page by page.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use jiff::Timestamp;
use reqwest::Url;

use super::answer::{self, Answered};
use super::caller::Caller;
use super::reply;
use crate::faults::injector::Subject;
use crate::faults::script::FaultTarget;
use crate::shared::Shared;
use crate::state::{StoredAnswer, movements};
use toss::korea;
use toss::protocol::TRANSACTIONS_MAX;

/// The documented default.
const LIMIT_DEFAULT: u32 = 100;

struct Page {
    start: Timestamp,
    end: Timestamp,
    after: Option<String>,
    limit: u32,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Answered<Response> {
    caller.authenticate(&shared)?;
    let page = read(&query.unwrap_or_default())
        .map_err(|problem| answer::named(400, "INVALID_REQUEST", problem))?;
    let fault = shared
        .faults
        .next(FaultTarget::Transactions, Subject::default());
    reply(&shared, &caller, fault, |connection| {
        find(connection, &page)
    })
    .await
}

fn find(connection: &rusqlite::Connection, page: &Page) -> rusqlite::Result<StoredAnswer> {
    let after = page.after.as_deref();
    if let Some(key) = after
        && !movements::exists(connection, key)?
    {
        let problem = "startingAfter: there is no such transaction";
        return Ok(answer::named(400, "INVALID_TRANSACTION_KEY", problem));
    }
    let window = (page.start, page.end);
    let found = movements::list(connection, window, after, page.limit)?;
    Ok(answer::json(200, &found))
}

/// # Errors
/// The problem, with the name of the parameter.
fn read(query: &str) -> Result<Page, String> {
    let parse = |query: &str| Url::parse(&format!("http://sandbox/?{query}"));
    let url = parse(query).map_err(|_| "cannot read the query".to_owned())?;
    let value = |name: &str| {
        url.query_pairs()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    };
    let date = |name: &str| {
        let text = value(name).ok_or_else(|| format!("{name}: is missing"))?;
        korea::parse_query_time(&text)
            .ok_or_else(|| format!("{name}: {text:?} is not yyyy-MM-ddTHH:mm:ss"))
    };
    let limit = match value("limit") {
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=TRANSACTIONS_MAX).contains(limit))
            .ok_or_else(|| format!("limit: {text:?} is not between 1 and {TRANSACTIONS_MAX}"))?,
        None => LIMIT_DEFAULT,
    };
    Ok(Page {
        start: date("startDate")?,
        end: date("endDate")?,
        after: value("startingAfter"),
        limit,
    })
}
