//! The sale: all buyers reserve at once (the rush); the buyers that got SOLD_OUT queue for the tickets that are released.

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
    personas,
    polling::poll_until,
    progress_bar,
};

/// Visits under way at once.
const AT_ONCE: usize = 64;
const SHOW_NAME: &str = "Opening night";
const PRICE_WON: i64 = 50_000;

/// The result of the sale.
pub struct Sale {
    pub show: Show,
    /// In the order of their ends.
    pub visits: Vec<Visit>,
    /// How many of the visits belong to the rush, and its duration.
    pub rush: (usize, Duration),
    /// From the first visit to the last.
    pub wall_time: Duration,
}

/// Puts the show on sale.
///
/// # Errors
/// If the server refuses the event, or ticketing does not learn of it in time.
pub async fn open(api: &Api, tickets: u32) -> anyhow::Result<Show> {
    let price = Money::new(PRICE_WON).context("the price of the show")?;
    let event_id = api.register_event(SHOW_NAME, tickets, price).await?;
    poll_until("the event to be on sale", async || {
        api.stock(event_id).await
    })
    .await?;
    log::print_line(format_args!(
        "{SHOW_NAME:?} is on sale as event {event_id}: {tickets} tickets at {price} won"
    ));
    Ok(Show { event_id, price })
}

/// Registers all buyers.
///
/// # Errors
/// If the server refuses one.
pub async fn invite(api: &Api, buyers: u32) -> anyhow::Result<Vec<Buyer>> {
    let bar = progress_bar::new(u64::from(buyers), "registering buyers");
    let invited = stream::iter((0..buyers).map(personas::persona))
        .map(async |persona| {
            let user_id = api.register_user(&persona).await?;
            bar.inc(1);
            anyhow::Ok(Buyer { user_id, persona })
        })
        .buffered(AT_ONCE)
        .try_collect();
    let invited: Vec<Buyer> = invited.await?;
    bar.finish_and_clear();
    log::print_line(format_args!("{} buyers are registered", invited.len()));
    Ok(invited)
}

/// Sells until the show is sold out, or the queue is empty.
///
/// # Errors
/// If a request of a buyer fails.
pub async fn run(api: &Api, show: Show, buyers: Vec<Buyer>) -> anyhow::Result<Sale> {
    let started = Instant::now();
    let bar = progress_bar::new(buyers.len() as u64, "the rush");
    let mut visits = crowd(api, show, buyers, &bar).await?;
    bar.finish_and_clear();
    let rush = (visits.len(), started.elapsed());
    let queue: VecDeque<Buyer> = sent_away(&visits).collect();
    log::print_line(format_args!(
        "the rush is over after {:.1} s: {} buyers got SOLD_OUT and wait in the queue",
        rush.1.as_secs_f64(),
        queue.len()
    ));
    let bar = progress_bar::new(queue.len() as u64, "the queue");
    visits.extend(serve_queue(api, show, queue, &bar).await?);
    bar.finish_and_clear();
    let wall_time = started.elapsed();
    Ok(Sale {
        show,
        visits,
        rush,
        wall_time,
    })
}

/// All buyers, at most `AT_ONCE` at a time.
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

/// Whenever tickets are released, that many buyers try again. A buyer who gets none goes to the end of the queue.
async fn serve_queue(
    api: &Api,
    show: Show,
    mut queue: VecDeque<Buyer>,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Visit>> {
    let mut visits = Vec::new();
    while !queue.is_empty() {
        let free = wait_for_tickets(api, show).await?;
        if free == 0 {
            break;
        }
        let next = queue.drain(..free.min(queue.len())).collect();
        let served = crowd(api, show, next, bar).await?;
        queue.extend(sent_away(&served));
        visits.extend(served);
    }
    Ok(visits)
}

fn sent_away(visits: &[Visit]) -> impl Iterator<Item = Buyer> {
    let sent_away = visits.iter().filter(|visit| visit.is_sold_out());
    sent_away.map(|visit| visit.buyer.clone())
}

/// Waits until tickets are available, and returns how many; 0 if all are paid.
async fn wait_for_tickets(api: &Api, show: Show) -> anyhow::Result<usize> {
    let released = poll_until("a ticket to be released", async || {
        let stock = api
            .stock(show.event_id)
            .await?
            .context("the server no longer knows the event on sale")?;
        let Stock {
            quantity,
            completed,
            available,
            ..
        } = stock;
        let free = usize::try_from(available).unwrap_or(0);
        Ok((free > 0 || completed >= quantity).then_some(free))
    });
    released.await
}
