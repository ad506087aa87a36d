//! The demo's report: waits until nothing is in progress, prints the results, and checks the promises from outside (by
//! HTTP) and from inside (by the audit of the data folder).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    api::{Api, Progress, Stock},
    buyer::{Buyer, Visit},
    polling::poll_until,
    sale::Sale,
    statistics::{PointsStatistics, SaleStatistics},
};
use crate::{
    audit::{self, Report},
    log,
};

/// Reads under way at once.
const AT_ONCE: usize = 16;
const EXPIRED: &str = "RESERVATION_EXPIRED";

/// What is known at the end.
struct Findings {
    statistics: SaleStatistics,
    points: PointsStatistics,
    /// Unpaid reservations that expired.
    expired: u64,
    stock: Stock,
    audit: Report,
}

/// # Errors
/// If something does not end in time, or a promise is broken.
pub async fn print(api: &Api, sale: &Sale, buyers: &[Buyer], data: &Path) -> anyhow::Result<()> {
    log::print_line("waiting until nothing is in progress");
    let findings = Findings::collect(api, sale, buyers, data).await?;
    log::print_line(format_args!("\nWhat happened\n{}", findings.table(sale)));
    log::print_line(format_args!(
        "\nThe audit of {}\n{}",
        data.display(),
        findings.audit.to_table()
    ));
    log::print_line("\nThe promises, seen by the buyers");
    let promises = findings.promises(sale);
    for (is_kept, promise) in &promises {
        log::print_line(format_args!(
            "{} {promise}",
            if *is_kept { "kept  " } else { "BROKEN" }
        ));
    }
    let is_broken = promises.iter().any(|(is_kept, _)| !is_kept);
    if is_broken || !findings.audit.violations.is_empty() {
        bail!("a promise is broken: see the lines BROKEN and VIOLATION above");
    }
    Ok(())
}

impl Findings {
    async fn collect(
        api: &Api,
        sale: &Sale,
        buyers: &[Buyer],
        data: &Path,
    ) -> anyhow::Result<Self> {
        let stock = poll_until("every reservation to be paid or to expire", async || {
            let stock = api.stock(sale.show.event_id).await?;
            Ok(stock.filter(|stock| stock.waiting == 0 && stock.sold == stock.completed))
        });
        stock.await?;
        let audit = poll_until("all messages and sagas to end", async || {
            let report = audit(data.to_owned()).await?;
            Ok(Some(report).filter(is_quiet))
        });
        let audit = audit.await?;
        let stock = api
            .stock(sale.show.event_id)
            .await?
            .context("the server no longer knows the event on sale")?;
        Ok(Self {
            statistics: SaleStatistics::of(&sale.visits, sale.rush.0),
            points: count_points(api, buyers).await?,
            expired: count_expired(api, sale).await?,
            stock,
            audit,
        })
    }

    fn table(&self, sale: &Sale) -> Table {
        let Self {
            statistics,
            points,
            expired,
            ..
        } = self;
        let number = |amount: u64| amount.to_string();
        let mut rows = vec![
            ("buyers".to_owned(), number(statistics.buyers)),
            (
                "reservations granted".to_owned(),
                number(statistics.granted),
            ),
        ];
        let by = |what: &str, counts: &BTreeMap<String, u64>| {
            let row = |(name, count): (&String, &u64)| (format!("{what}: {name}"), number(*count));
            counts.iter().map(row).collect::<Vec<_>>()
        };
        rows.extend(by("refused", &statistics.refused));
        rows.extend(by("purchases compensated", &statistics.compensated));
        let again = statistics.bought - statistics.bought_in_rush;
        let counted = [
            ("cards declined", number(statistics.declined)),
            (
                "... and then paid with another",
                number(statistics.paid_with_another_card),
            ),
            ("reservations never paid", number(statistics.unpaid)),
            ("... that expired", number(*expired)),
            ("bought from the queue", number(again)),
            ("purchases completed", number(statistics.bought)),
            ("tickets issued", self.stock.sold.to_string()),
            ("purchases refunded", number(statistics.refunded)),
            ("points used", points.used().to_string()),
            ("points reserved and restored", points.restored.to_string()),
            ("money taken (won)", statistics.money.to_string()),
            (
                "time of the rush",
                format!("{:.2} s", sale.rush.1.as_secs_f64()),
            ),
            ("purchases a second in the rush", pace(statistics, sale)),
            (
                "time of the on-sale",
                format!("{:.2} s", sale.wall_time.as_secs_f64()),
            ),
        ];
        rows.extend(counted.map(|(what, value)| (what.to_owned(), value)));
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_header(["what", "how many"]);
        for (what, value) in rows {
            table.add_row([what, value]);
        }
        table
    }

    /// Each promise, and whether it is kept.
    fn promises(&self, sale: &Sale) -> [(bool, String); 4] {
        let Self {
            statistics,
            points,
            expired,
            stock,
            ..
        } = self;
        let bought = i64::try_from(statistics.bought).unwrap_or(i64::MAX);
        let value = bought.saturating_mul(sale.show.price.get());
        let Stock {
            quantity,
            waiting,
            completed,
            available,
            sold,
        } = *stock;
        [
            (
                bought == sold && sold <= quantity,
                format!("tickets of the buyers {bought} = sold {sold} <= quantity {quantity}"),
            ),
            (
                quantity == available + waiting + completed && statistics.unpaid == *expired,
                format!(
                    "quantity {quantity} = available {available} + waiting {waiting} + completed {completed}, \
                     and all {} unpaid reservations expired",
                    statistics.unpaid
                ),
            ),
            (
                points.used() == statistics.points_spent,
                format!(
                    "points used {} = points spent on tickets {}",
                    points.used(),
                    statistics.points_spent
                ),
            ),
            (
                statistics.money + points.used() == value,
                format!(
                    "money {} + points {} = price of the tickets {value}",
                    statistics.money,
                    points.used()
                ),
            ),
        ]
    }
}

fn pace(statistics: &SaleStatistics, sale: &Sale) -> String {
    let seconds = sale.rush.1.as_secs_f64().max(f64::EPSILON);
    format!("{:.0}", statistics.bought_in_rush as f64 / seconds)
}

async fn audit(data: PathBuf) -> anyhow::Result<Report> {
    let audited = tokio::task::spawn_blocking(move || audit::audit(&data)).await;
    audited
        .context("the audit panicked")?
        .context("cannot audit the data folder")
}

fn is_quiet(report: &Report) -> bool {
    let counts = &report.counts;
    counts.messages_under_way == 0 && counts.open_sagas == counts.parked_sagas
}

async fn count_points(api: &Api, buyers: &[Buyer]) -> anyhow::Result<PointsStatistics> {
    let ledgers = stream::iter(buyers.iter().map(|buyer| api.ledger(buyer.user_id)));
    let count = async |mut points: PointsStatistics, entries: Vec<_>| {
        points.add(&entries);
        Ok(points)
    };
    ledgers
        .buffer_unordered(AT_ONCE)
        .try_fold(PointsStatistics::default(), count)
        .await
}

/// How many of the unpaid reservations expired.
async fn count_expired(api: &Api, sale: &Sale) -> anyhow::Result<u64> {
    let unpaid = sale.visits.iter().filter_map(Visit::unpaid_ticket);
    let progress = stream::iter(unpaid.map(|ticket_id| api.progress(ticket_id)));
    // A reservation without a purchase expired too: none is left waiting.
    let count = async |expired: u64, progress: Result<Progress, _>| {
        let is_expired = progress.map_or(true, |it| it.failure.as_deref() == Some(EXPIRED));
        Ok(expired + u64::from(is_expired))
    };
    progress.buffer_unordered(AT_ONCE).try_fold(0, count).await
}
