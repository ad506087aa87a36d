//! The end of the demo: waits until nothing is under way, tells what happened, and checks the promises from outside
//! (by HTTP) and from inside (by the audit of the data folder).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    api::{Api, Progress, Stock},
    buyer::{Buyer, End},
    patience::until,
    sale::Sale,
    tally::{PointsTally, Tally},
};
use crate::{
    audit::{self, Report},
    log,
};

/// Reads under way at once.
const AT_ONCE: usize = 16;
const LAPSED: &str = "RESERVATION_EXPIRED";

/// What is known when all is over.
struct Findings {
    tally: Tally,
    points: PointsTally,
    /// Reservations that were not paid, and were seen to be on sale again.
    lapsed: u64,
    stock: Stock,
    audit: Report,
}

/// # Errors
/// Where something does not come to its end, or a promise is broken.
pub async fn tell(api: &Api, sale: &Sale, buyers: &[Buyer], data: &Path) -> anyhow::Result<()> {
    log::say("waiting until nothing is under way");
    let findings = Findings::collect(api, sale, buyers, data).await?;
    log::say(format_args!("\nWhat happened\n{}", findings.table(sale)));
    log::say(format_args!(
        "\nThe audit of {}\n{}",
        data.display(),
        findings.audit.to_table()
    ));
    log::say("\nThe promises, seen by the buyers");
    let promises = findings.promises(sale);
    for (is_kept, promise) in &promises {
        log::say(format_args!(
            "{} {promise}",
            if *is_kept { "kept  " } else { "BROKEN" }
        ));
    }
    let is_broken = promises.iter().any(|(is_kept, _)| !is_kept);
    if is_broken || !findings.audit.violations.is_empty() {
        bail!("checking the promises: one is broken, see above");
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
        let stock = until("every reservation to be paid or to lapse", async || {
            let stock = api.stock(sale.show.event_id).await?;
            Ok(stock.filter(|stock| stock.waiting == 0 && stock.sold == stock.completed))
        });
        stock.await?;
        let audit = until("everything under way to end", async || {
            let report = audit(data.to_owned()).await?;
            Ok(Some(report).filter(is_quiet))
        });
        let audit = audit.await?;
        let stock = api
            .stock(sale.show.event_id)
            .await?
            .context("reading the stock")?;
        Ok(Self {
            tally: Tally::of(&sale.visits, sale.rush.0),
            points: count_points(api, buyers).await?,
            lapsed: count_lapsed(api, sale).await?,
            stock,
            audit,
        })
    }

    fn table(&self, sale: &Sale) -> Table {
        let Self {
            tally,
            points,
            lapsed,
            ..
        } = self;
        let number = |amount: u64| amount.to_string();
        let mut rows = vec![
            ("buyers".to_owned(), number(tally.buyers)),
            ("reservations granted".to_owned(), number(tally.granted)),
        ];
        let by = |what: &str, counts: &BTreeMap<String, u64>| {
            let row = |(name, count): (&String, &u64)| (format!("{what}: {name}"), number(*count));
            counts.iter().map(row).collect::<Vec<_>>()
        };
        rows.extend(by("refused", &tally.refused));
        rows.extend(by("purchases taken back", &tally.compensated));
        let again = tally.bought - tally.bought_in_rush;
        let counted = [
            ("cards declined", number(tally.declined)),
            (
                "... and then paid with another",
                number(tally.paid_with_another_card),
            ),
            ("reservations never paid", number(tally.unpaid)),
            ("... that lapsed", number(*lapsed)),
            ("bought in line, of what came back", number(again)),
            ("purchases completed", number(tally.bought)),
            ("tickets issued", self.stock.sold.to_string()),
            ("purchases refunded", number(tally.refunded)),
            ("points used", points.used().to_string()),
            ("points taken and given back", points.restored.to_string()),
            ("money taken (won)", tally.money.to_string()),
            (
                "time of the rush",
                format!("{:.2} s", sale.rush.1.as_secs_f64()),
            ),
            ("purchases a second in the rush", pace(tally, sale)),
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

    /// Each with whether it is kept.
    fn promises(&self, sale: &Sale) -> [(bool, String); 4] {
        let Self {
            tally,
            points,
            lapsed,
            stock,
            ..
        } = self;
        let bought = i64::try_from(tally.bought).unwrap_or(i64::MAX);
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
                format!("tickets in hand {bought} = sold {sold} <= quantity {quantity}"),
            ),
            (
                quantity == available + waiting + completed && tally.unpaid == *lapsed,
                format!(
                    "quantity {quantity} = available {available} + waiting {waiting} + completed {completed}, \
                     and all {} reservations that were not paid lapsed",
                    tally.unpaid
                ),
            ),
            (
                points.used() == tally.points_spent,
                format!(
                    "points used {} = points spent on tickets {}",
                    points.used(),
                    tally.points_spent
                ),
            ),
            (
                tally.money + points.used() == value,
                format!(
                    "money {} + points {} = price of the tickets {value}",
                    tally.money,
                    points.used()
                ),
            ),
        ]
    }
}

fn pace(tally: &Tally, sale: &Sale) -> String {
    let seconds = sale.rush.1.as_secs_f64().max(f64::EPSILON);
    format!("{:.0}", tally.bought_in_rush as f64 / seconds)
}

async fn audit(data: PathBuf) -> anyhow::Result<Report> {
    let audited = tokio::task::spawn_blocking(move || audit::audit(&data)).await;
    audited
        .context("the audit did not end")?
        .context("auditing the data folder")
}

fn is_quiet(report: &Report) -> bool {
    let counts = &report.counts;
    counts.messages_under_way == 0 && counts.open_sagas == counts.parked_sagas
}

async fn count_points(api: &Api, buyers: &[Buyer]) -> anyhow::Result<PointsTally> {
    let ledgers = stream::iter(buyers.iter().map(|buyer| api.ledger(buyer.user_id)));
    let count = async |mut points: PointsTally, entries: Vec<_>| {
        points.add(&entries);
        Ok(points)
    };
    ledgers
        .buffer_unordered(AT_ONCE)
        .try_fold(PointsTally::default(), count)
        .await
}

/// Of those that were not paid, how many are seen to have lapsed.
async fn count_lapsed(api: &Api, sale: &Sale) -> anyhow::Result<u64> {
    let unpaid = sale.visits.iter().filter_map(|visit| match visit.end {
        End::Unpaid { ticket_id } => Some(ticket_id),
        End::LeftOut | End::Compensated { .. } | End::Refunded | End::Bought { .. } => None,
    });
    let progress = stream::iter(unpaid.map(|ticket_id| api.progress(ticket_id)));
    // A reservation whose purchase never started has lapsed too: none is left waiting.
    let has_lapsed = async |lapsed: u64, progress: Result<Progress, _>| {
        let is_lapsed = progress.map_or(true, |it| it.failure.as_deref() == Some(LAPSED));
        Ok(lapsed + u64::from(is_lapsed))
    };
    progress
        .buffer_unordered(AT_ONCE)
        .try_fold(0, has_lapsed)
        .await
}
