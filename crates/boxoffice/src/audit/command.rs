//! The command `audit`. Books of several stores are read one after the other, and messages between processes lie at the
//! brokers: one reading may see a payment and not yet its ticket. So what one reading finds is only believed when later
//! ones, some seconds apart, find it too. State: none.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use contract::EventId;
use messaging::Clock;
use ticketing::{ReservationsBackend, reservations::Claims};

use super::{Books, Report, Violation};
use crate::{
    backends::{self, BusBackend, StoreBackend},
    config::Config,
};

/// Readings that must find the same before it is told.
const READINGS_MIN: u32 = 3;
/// Readings while the groups still have something to handle that was there before.
const READINGS_MAX: u32 = 12;
const PAUSE: Duration = Duration::from_secs(5);

/// Audits the stores that these settings name, prints the report, and returns whether nothing was found.
///
/// # Errors
/// Where a store cannot be read.
pub async fn run(configs: Vec<Config>, json: bool) -> anyhow::Result<ExitCode> {
    are_distinct(&configs)?;
    let report = audit(configs).await?;
    let text = if json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.to_table()
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same store read twice would pass for two.
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
                "two of the files name the same store. A variable of the environment stands over every file: \
                 is BOXOFFICE_STORE__POSTGRES__URL or …__SCHEMA set?"
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
            "Stores read one after the other: {}; readings: {readings}. What only some readings found was under way.",
            configs.len()
        ));
        report.notes.extend(lag_note(unhandled(&configs).await?));
    }
    Ok(report)
}

/// Whether everything that is decided lies in one store.
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
            "{count} messages at the brokers are not handled yet: where that lasts, what they change may be told as violated."
        )),
        None => Some(
            "How many messages at the brokers are not handled yet is not known: this program was built without Kafka."
                .to_owned(),
        ),
    }
}

/// What is found now and was found before, of the same thing. How much is wrong may have changed.
fn still(now: Vec<Violation>, before: &[Violation]) -> Vec<Violation> {
    let about = |it: &Violation| (it.promise, it.subject.clone());
    let before: BTreeSet<_> = before.iter().map(about).collect();
    now.into_iter()
        .filter(|it| before.contains(&about(it)))
        .collect()
}

async fn read(configs: &[Config]) -> anyhow::Result<Report> {
    // A snapshot is read on a thread that may wait.
    let owned = configs.to_vec();
    let reading = tokio::task::spawn_blocking(move || {
        let read = |config: &Config| -> anyhow::Result<Books> {
            let books = backends::snapshot(config).and_then(|it| Books::read_all(&[it]));
            books.with_context(|| match config.store.backend {
                StoreBackend::Sqlite => format!("{} cannot be audited", config.data.display()),
                StoreBackend::Postgres => {
                    let schema = &config.store.postgres.schema;
                    format!("the store cannot be audited (schema {schema})")
                }
            })
        };
        owned.iter().map(read).collect::<anyhow::Result<Vec<_>>>()
    });
    let mut all = Books::default();
    for (config, mut books) in configs.iter().zip(reading.await??) {
        let events: Vec<EventId> = books.allocations.keys().copied().collect();
        let is_on_redis = config.ticketing.reservations == ReservationsBackend::Redis;
        books.claims_are_rows = !is_on_redis && !books.allocations.is_empty();
        if is_on_redis && !events.is_empty() {
            books.claims = Claims::read_all(&config.ticketing.redis, &events)
                .await
                .context("what Redis says cannot be audited")?;
        }
        all.add(books);
    }
    Ok(Report::of(&all, Clock::System.now()))
}

/// Messages at the brokers that their groups have yet to handle; `None` where this program cannot ask.
#[cfg(feature = "kafka")]
async fn unhandled(configs: &[Config]) -> anyhow::Result<Option<i64>> {
    let on_kafka = |it: &&Config| it.bus.backend == BusBackend::Kafka;
    let Some(config) = configs.iter().find(on_kafka) else {
        return Ok(Some(0));
    };
    let mut count = 0;
    for (group, topics) in super::books::subscriptions() {
        count += messaging::kafka::lag(&config.bus.kafka, group, topics)
            .await
            .context("the setting bus.kafka")?;
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
    fn what_passed_between_two_readings_is_not_told_and_what_lasts_is_told_as_it_is_now() {
        let before = [violation("a", "three"), violation("b", "one")];
        let now = vec![violation("a", "four"), violation("c", "one")];
        assert_eq!(still(now, &before), [violation("a", "four")]);
    }
}
