//! The command `demo`: the real server in this process, and simulated buyers who want the same show in the same second.
//! They buy through the HTTP API; at the end the demo prints a report and checks the promises.
//!
//! It uses only the gateway's sandbox, with short deadlines, so that unpaid tickets are on sale again while other buyers
//! still wait. Without `--data` it creates a new folder under `boxoffice-data`.
//!
//! - [`personas`]: the buyers' behaviours; [`buyer`]: one buyer's purchase; [`sale`]: all buyers; [`api`]: the HTTP API
//! - [`statistics`] and [`report`]: the results

mod api;
mod buyer;
mod personas;
mod polling;
mod progress_bar;
mod report;
mod sale;
mod statistics;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use messaging::Clock;

use crate::{
    app::App,
    client::ServerClient,
    config::{Config, Flags},
    log,
    signals::Signals,
};
use api::Api;

/// Holds the data folders of demos.
const FOLDER: &str = "boxoffice-data";
/// Short, because the queue waits for unpaid reservations to expire.
const HOLD_TTL_SECS: i64 = 3;
/// Longer than the gateway's timeout, as for every server.
const HOLD_GRACE_SECS: i64 = 2;
const GATEWAY_TIMEOUT_MILLIS: u64 = 1_500;
/// Shorter than the time for which a buyer polls.
const GIVE_UP_AFTER_MILLIS: u64 = 5_000;

#[derive(Debug, Clone, Args)]
pub struct DemoOptions {
    /// How many buyers want a ticket
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u32).range(1..=100_000))]
    buyers: u32,
    /// How many tickets are on sale
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(1..=1_000_000))]
    tickets: u32,
    /// Exit after the report; without it, the server keeps running
    #[arg(long)]
    exit: bool,
}

/// Runs the demo, then serves until a signal stops it.
///
/// # Errors
/// If the server cannot start or fails, a request fails, or a promise is broken.
pub async fn run(config: Config, options: DemoOptions) -> anyhow::Result<()> {
    let config = demo_settings(config)?;
    let data = config.data.clone();
    let log = log::start(&config.log)?;
    let mut stop = Signals::listen()?;
    let started = App::serve(config, &log).await;
    let mut app = started.context("cannot start the demo's server")?;
    log::print_line(format_args!("listening on {}", app.url()));
    log::print_line(format_args!("the data is in {}", data.display()));
    let ended = run_until_stopped(&mut app, &mut stop, &data, &options).await;
    app.stop().await;
    ended
}

async fn run_until_stopped(
    app: &mut App,
    stop: &mut Signals,
    data: &Path,
    options: &DemoOptions,
) -> anyhow::Result<()> {
    let address = app.address();
    tokio::select! {
        done = run_sale(address, data, options) => done?,
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

async fn run_sale(address: SocketAddr, data: &Path, options: &DemoOptions) -> anyhow::Result<()> {
    let api = Api::new(ServerClient::at(address)?);
    let show = sale::open(&api, options.tickets).await?;
    let buyers = sale::invite(&api, options.buyers).await?;
    let sale = sale::run(&api, show, buyers.clone()).await?;
    report::print(&api, &sale, &buyers, data).await?;
    if !options.exit {
        let (url, event_id) = (api.url(), show.event_id);
        log::print_line(format_args!(
            "\nLook around until Ctrl-C: {url}/docs, {url}/console, \
             curl {url}/ticketing/event/{event_id}, curl '{url}/saga?state=COMPENSATED', curl {url}/metrics"
        ));
    }
    Ok(())
}

/// Overrides the settings that the demo depends on.
fn demo_settings(mut config: Config) -> anyhow::Result<Config> {
    if !config.payment.sandbox {
        bail!(
            "cannot run the demo with payment.sandbox = false: it would charge real cards; set payment.sandbox = true"
        );
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

/// A folder named after the time, to the millisecond.
fn fresh_folder() -> PathBuf {
    let now = Clock::System.now().to_string();
    let stamp: String = now.chars().filter(char::is_ascii_alphanumeric).collect();
    Path::new(FOLDER).join(format!("demo-{stamp}"))
}
