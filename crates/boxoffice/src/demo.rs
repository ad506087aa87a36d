//! The demo: the real server in this process, and a crowd that wants the same show in the same second. Everything is
//! bought through the HTTP API; at the end it is told what happened, and the promises are checked.
//!
//! It plays with the gateway's double only, with short deadlines, so that what is not paid is on sale again while the
//! crowd still waits. Where no data folder was named, it takes a fresh one under `boxoffice-data`.
//!
//! - [`cast`]: who comes; [`buyer`]: one buyer's way; [`sale`]: all of them; [`api`]: the API as they see it
//! - [`tally`] and [`report`]: what happened

mod api;
mod buyer;
mod cast;
mod patience;
mod progress;
mod report;
mod sale;
mod tally;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use messaging::Clock;

use crate::{
    app::App,
    config::{Config, Flags},
    log,
    signals::Signals,
};
use api::Api;

/// Where a demo keeps its data when no folder was named.
const FOLDER: &str = "boxoffice-data";
/// The deadline that a buyer sees: the crowd waits in line for what is not paid until then.
const HOLD_TTL_SECS: i64 = 3;
/// Longer than the gateway's timeout, as for every server.
const HOLD_GRACE_SECS: i64 = 2;
const GATEWAY_TIMEOUT_MILLIS: u64 = 1_500;
/// An attempt that nothing is known of is written off within the patience of the crowd.
const GIVE_UP_AFTER_MILLIS: u64 = 5_000;

#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// People who want a ticket
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=100_000))]
    buyers: u32,
    /// Tickets on sale
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=1_000_000))]
    tickets: u32,
    /// End after the report, rather than go on serving
    #[arg(long)]
    exit: bool,
}

/// Runs the demo, and serves until it is told to stop.
///
/// # Errors
/// Where the server cannot start or fails, a buyer is not served, or a promise is broken.
pub async fn run(config: Config, options: DemoOptions) -> anyhow::Result<()> {
    let config = set_the_stage(config)?;
    let data = config.data.clone();
    let log = log::start(&config.log)?;
    let mut stop = Signals::listen()?;
    let started = App::serve(config, &log).await;
    let mut app = started.context("starting the server")?;
    log::say(format_args!("listening on {}", app.url()));
    log::say(format_args!("the data is in {}", data.display()));
    let ended = perform(&mut app, &mut stop, &data, &options).await;
    app.stop().await;
    ended
}

async fn perform(
    app: &mut App,
    stop: &mut Signals,
    data: &Path,
    options: &DemoOptions,
) -> anyhow::Result<()> {
    let address = app.address();
    tokio::select! {
        told = play(address, data, options) => told?,
        _ = stop.next() => return Ok(()),
        reason = app.failed() => bail!(reason),
    }
    if options.exit {
        return Ok(());
    }
    tokio::select! {
        _ = stop.next() => Ok(()),
        reason = app.failed() => bail!(reason),
    }
}

async fn play(address: SocketAddr, data: &Path, options: &DemoOptions) -> anyhow::Result<()> {
    let api = Api::at(address)?;
    let show = sale::open(&api, options.tickets).await?;
    let buyers = sale::invite(&api, options.buyers).await?;
    let sale = sale::run(&api, show, buyers.clone()).await?;
    report::tell(&api, &sale, &buyers, data).await?;
    if !options.exit {
        let (url, event_id) = (api.url(), show.event_id);
        log::say(format_args!(
            "\nLook around until Ctrl-C: {url}/docs, {url}/console, \
             curl {url}/ticketing/event/{event_id}, curl '{url}/saga?state=COMPENSATED', curl {url}/metrics"
        ));
    }
    Ok(())
}

/// What a demo sets, whatever the settings say.
fn set_the_stage(mut config: Config) -> anyhow::Result<Config> {
    if !config.payment.sandbox {
        bail!("a demo charges nobody: the setting payment.sandbox must be true");
    }
    let defaults = Config::load(None, [], &Flags::default())?;
    if config.data == defaults.data {
        config.data = fresh_folder();
    }
    if config.log.level == defaults.log.level {
        config.log.level = "warn".to_owned();
    }
    config.payment.forward_test_codes = true;
    config.payment.give_up_after_millis = GIVE_UP_AFTER_MILLIS;
    config.payment.gateway.request_timeout_millis = GATEWAY_TIMEOUT_MILLIS;
    config.ticketing.hold_ttl_secs = HOLD_TTL_SECS;
    config.ticketing.hold_grace_secs = HOLD_GRACE_SECS;
    Ok(config)
}

/// Named by the time, to the millisecond.
fn fresh_folder() -> PathBuf {
    let now = Clock::System.now().to_string();
    let stamp: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
    Path::new(FOLDER).join(format!("demo-{stamp}"))
}
