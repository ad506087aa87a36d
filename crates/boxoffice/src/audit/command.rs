//! The command `audit`. If there are several stores, or messages at the brokers, a reading is not one moment: it may see a
//! payment and not yet its ticket. So only violations that several readings, seconds apart, agree on are reported.
//! State: none.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use contract::EventId;
use messaging::Clock;
use ticketing::ReservationsBackend;

use super::{Books, Report, Violation};
use crate::{
    backends::{self, BusBackend, StoreBackend},
    config::Config,
    output,
};

/// A violation must be in this many readings.
const READINGS_MIN: u32 = 3;
/// Further readings are made, up to this many, while the consumer groups have unhandled messages.
const READINGS_MAX: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);

/// Audits the stores of these settings and prints the report. The exit code is 1 if it has violations.
///
/// # Errors
/// If a store cannot be read.
pub async fn run(configs: Vec<Config>, json: bool) -> anyhow::Result<ExitCode> {
    are_distinct(&configs)?;
    let report = audit(configs).await?;
    output::print(json, &report, || report.to_table())?;
    Ok(output::exit_code(report.violations.is_empty()))
}

/// Rejects a store that is named twice, whose records would be counted twice.
fn are_distinct(configs: &[Config]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for config in configs {
        let postgres = &config.store.postgres;
        let store = match config.store.backend {
            StoreBackend::Sqlite => (config.data.display().to_string(), String::new()),
            StoreBackend::Postgres => (postgres.url.clone(), postgres.schema.clone()),
        };
        if !seen.insert(store) {
            bail!(
                "two --config files name the same store; if they differ, unset BOXOFFICE_STORE__POSTGRES__URL and \
                 …__SCHEMA, which override all files"
            );
        }
    }
    Ok(())
}

async fn audit(configs: Vec<Config>) -> anyhow::Result<Report> {
    let is_one_moment = is_one_moment(&configs);
    let (mut report, mut readings) = (read(&configs).await?, 1);
    while !is_one_moment && !report.violations.is_empty() && readings < READINGS_MAX {
        if readings >= READINGS_MIN && unhandled(&configs).await? == Some(0) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let again = read(&configs).await?;
        report = Report {
            violations: still(again.violations, &report.violations),
            ..again
        };
        readings += 1;
    }
    if !is_one_moment {
        report.notes.push(format!(
            "Stores read one after the other: {}; readings: {readings}. Violations in only some readings are left out.",
            configs.len()
        ));
        report.notes.extend(lag_note(unhandled(&configs).await?));
    }
    Ok(report)
}

/// Whether one snapshot contains all records, claims and messages.
fn is_one_moment(configs: &[Config]) -> bool {
    let is_alone = |it: &Config| {
        it.bus.backend == BusBackend::Local
            && it.ticketing.reservations == ReservationsBackend::Local
    };
    matches!(configs, [config] if is_alone(config))
}

fn lag_note(unhandled: Option<i64>) -> Option<String> {
    match unhandled {
        Some(0) => None,
        Some(count) => Some(format!(
            "{count} messages at the brokers are not handled yet: if this lasts, records that they will change may be \
             reported as violations."
        )),
        None => Some(
            "The number of unhandled messages at the brokers is unknown: this binary was built without Kafka."
                .to_owned(),
        ),
    }
}

/// The violations whose promise and subject were also found before; the details may differ.
fn still(now: Vec<Violation>, before: &[Violation]) -> Vec<Violation> {
    let about = |it: &Violation| (it.promise, it.subject.clone());
    let before: BTreeSet<_> = before.iter().map(about).collect();
    now.into_iter()
        .filter(|it| before.contains(&about(it)))
        .collect()
}

async fn read(configs: &[Config]) -> anyhow::Result<Report> {
    let (mut books, mut known) = (Books::default(), BTreeSet::new());
    let mut claims_are_rows = false;
    for config in configs {
        books = add_store(books, config.clone()).await?;
        let events = books.allocations.keys().copied();
        let events: Vec<EventId> = events.filter(|event| known.insert(*event)).collect();
        let claims = config.ticketing.read_claims(&events).await;
        let claims = claims.context("cannot read the claims in Redis (setting ticketing.redis)")?;
        claims_are_rows |= claims.is_none() && !events.is_empty();
        books.claims.extend(claims.unwrap_or_default());
    }
    books.claims_are_rows = claims_are_rows;
    Ok(Report::of(&books, Clock::System.now()))
}

async fn add_store(mut books: Books, config: Config) -> anyhow::Result<Books> {
    // Reading a snapshot blocks.
    let reading = tokio::task::spawn_blocking(move || {
        let read = backends::snapshot(&config).and_then(|snapshot| books.add(&snapshot));
        read.with_context(|| match config.store.backend {
            StoreBackend::Sqlite => {
                format!("cannot audit the data folder {}", config.data.display())
            }
            StoreBackend::Postgres => {
                let schema = &config.store.postgres.schema;
                format!("cannot audit the PostgreSQL schema {schema}")
            }
        })?;
        Ok(books)
    });
    reading.await?
}

/// How many messages at the brokers the groups have not handled; `None` if this binary has no Kafka support.
#[cfg(feature = "kafka")]
async fn unhandled(configs: &[Config]) -> anyhow::Result<Option<i64>> {
    let on_kafka = |it: &&Config| it.bus.backend == BusBackend::Kafka;
    let Some(config) = configs.iter().find(on_kafka) else {
        return Ok(Some(0));
    };
    let mut count = 0;
    for messaging::Group { name, topics } in super::books::subscriptions() {
        count += messaging::kafka::lag(&config.bus.kafka, name, topics)
            .await
            .with_context(|| format!("cannot read the lag of group {name} (setting bus.kafka)"))?;
    }
    Ok(Some(count))
}

#[cfg(not(feature = "kafka"))]
#[expect(
    clippy::unused_async,
    reason = "the brokers are asked where there are any"
)]
async fn unhandled(configs: &[Config]) -> anyhow::Result<Option<i64>> {
    let on_kafka = |it: &Config| it.bus.backend == BusBackend::Kafka;
    Ok((!configs.iter().any(on_kafka)).then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(subject: &str, detail: &str) -> Violation {
        Violation {
            promise: 3,
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn only_lasting_violations_are_reported_with_their_latest_detail() {
        let before = [violation("a", "three"), violation("b", "one")];
        let now = vec![violation("a", "four"), violation("c", "one")];
        assert_eq!(still(now, &before), [violation("a", "four")]);
    }
}
