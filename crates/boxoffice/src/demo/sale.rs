//! The on-sale: everybody comes at once; those for whom nothing is left wait in line for what comes back.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Context;
use contract::Money;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;

use crate::log;

use super::{
    api::{Api, Stock},
    buyer::{Buyer, Show, Visit, visit},
    cast,
    patience::until,
    progress,
};

/// Visits under way at once.
const AT_ONCE: usize = 64;
const SHOW_NAME: &str = "Opening night";
const PRICE_WON: i64 = 50_000;

/// What happened.
pub struct Sale {
    pub show: Show,
    /// In the order in which they ended.
    pub visits: Vec<Visit>,
    /// How many of the visits are of the rush, and how long it took.
    pub rush: (usize, Duration),
    /// From the first visit to the last.
    pub wall_time: Duration,
}

/// Puts the show on sale.
///
/// # Errors
/// Where the server refuses, or ticketing does not hear of it.
pub async fn open(api: &Api, tickets: u32) -> anyhow::Result<Show> {
    let price = Money::new(PRICE_WON).context("the price of the show")?;
    let event_id = api.register_event(SHOW_NAME, tickets, price).await?;
    until("ticketing to hear of the event", async || {
        api.stock(event_id).await
    })
    .await?;
    log::say(format_args!(
        "{SHOW_NAME:?} is on sale as event {event_id}: {tickets} tickets at {price} won"
    ));
    Ok(Show { event_id, price })
}

/// Registers everybody.
///
/// # Errors
/// Where the server refuses one.
pub async fn invite(api: &Api, buyers: u32) -> anyhow::Result<Vec<Buyer>> {
    let bar = progress::bar(u64::from(buyers), "registering buyers");
    let invited = stream::iter((0..buyers).map(cast::part))
        .map(async |part| {
            let user_id = api.register_user(&part).await?;
            bar.inc(1);
            anyhow::Ok(Buyer { user_id, part })
        })
        .buffered(AT_ONCE)
        .try_collect();
    let invited: Vec<Buyer> = invited.await?;
    bar.finish_and_clear();
    log::say(format_args!("{} buyers are registered", invited.len()));
    Ok(invited)
}

/// Sells until the show is sold out, or nobody waits any more.
///
/// # Errors
/// Where the server fails a buyer.
pub async fn run(api: &Api, show: Show, buyers: Vec<Buyer>) -> anyhow::Result<Sale> {
    let started = Instant::now();
    let bar = progress::bar(buyers.len() as u64, "the rush");
    let mut visits = crowd(api, show, buyers, &bar).await?;
    bar.finish_and_clear();
    let rush = (visits.len(), started.elapsed());
    let line: VecDeque<Buyer> = sent_away(&visits).collect();
    log::say(format_args!(
        "the rush is over after {:.1} s: {} were told SOLD_OUT and wait in line",
        rush.1.as_secs_f64(),
        line.len()
    ));
    let bar = progress::bar(line.len() as u64, "the line");
    visits.extend(serve_line(api, show, line, &bar).await?);
    bar.finish_and_clear();
    let wall_time = started.elapsed();
    Ok(Sale {
        show,
        visits,
        rush,
        wall_time,
    })
}

/// All of them at once, or nearly.
async fn crowd(
    api: &Api,
    show: Show,
    buyers: Vec<Buyer>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Visit>> {
    stream::iter(buyers)
        .map(|buyer| visit(api, show, buyer))
        .buffer_unordered(AT_ONCE)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await
}

/// As often as tickets come back, as many try again. Who finds nothing even so goes to the end.
async fn serve_line(
    api: &Api,
    show: Show,
    mut line: VecDeque<Buyer>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Visit>> {
    let mut visits = Vec::new();
    while !line.is_empty() {
        let free = wait_for_tickets(api, show).await?;
        if free == 0 {
            break;
        }
        let next = line.drain(..free.min(line.len())).collect();
        let served = crowd(api, show, next, bar).await?;
        line.extend(sent_away(&served));
        visits.extend(served);
    }
    Ok(visits)
}

fn sent_away(visits: &[Visit]) -> impl Iterator<Item = Buyer> {
    let sent_away = visits.iter().filter(|visit| visit.is_sold_out());
    sent_away.map(|visit| visit.buyer.clone())
}

/// How many tickets can be had; 0 where all are paid, and none will come back.
async fn wait_for_tickets(api: &Api, show: Show) -> anyhow::Result<usize> {
    let come_back = until("a ticket to come back", async || {
        let stock = api
            .stock(show.event_id)
            .await?
            .context("the stock is gone")?;
        let Stock {
            quantity,
            completed,
            available,
            ..
        } = stock;
        let free = usize::try_from(available).unwrap_or(0);
        Ok((free > 0 || completed >= quantity).then_some(free))
    });
    come_back.await
}
