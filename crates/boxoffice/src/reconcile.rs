//! The command `reconcile`. If a server has the data folder open, the server reconciles; otherwise this process opens the
//! store and calls the payment service, without an HTTP server. With Kafka it runs beside the other processes. Two
//! reconciliations at once settle each payment at most once, by versions and idempotency keys. State: none.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use contract::Timestamp;
use messaging::{Clock, Record, StoreError};
use payment::{
    reconcile::{Difference, PERIOD_SECS_DEFAULT, Period, Report},
    record::{OrphanChargeRecord, PaymentRecord},
};
use reqwest::Method;
use serde::Serialize;

use crate::{
    app::HeadlessApp,
    audit::books,
    backends::{self, BusBackend},
    client::{self, ServerClient},
    config::Config,
    log, output,
};

/// How long this process waits until the settlements' messages are handled and the refunds are done.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(20);
const REFUND_REQUESTED: &str = "refund = 'REQUESTED'";
/// How often the command tries again while the server's scheduled reconciliation is running,
const TURNS_MAX: u32 = 240;
/// and the pause between two tries.
const TURN_WAIT: Duration = Duration::from_millis(500);

/// Serialized, it is the body of `POST /payment/reconciliation`.
#[derive(Debug, Args, Serialize)]
pub struct ReconcileArgs {
    /// The start: an RFC 3339 time, or a day (midnight UTC); defaults to 24 hours before the end
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    /// The end, exclusive, in the same format; defaults to now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    /// Print the report as JSON
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// Reconciles and prints the report. The exit code is 1 if it lists differences.
///
/// # Errors
/// If neither the store nor its server can be used, or the gateway does not answer.
pub async fn run(config: Config, args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    backends::must_exist(&config)?;
    let report = reconcile(config, &args).await?;
    output::print(args.json, &report, || to_table(&report))?;
    Ok(output::exit_code(report.is_clean()))
}

async fn reconcile(mut config: Config, args: &ReconcileArgs) -> anyhow::Result<Report> {
    let is_shared = config.bus.backend == BusBackend::Kafka;
    if is_shared {
        if config.payment.sandbox {
            bail!(
                "the setting payment.sandbox is true: this process would start a sandbox of its own, which has no charges; \
                 set payment.sandbox = false and payment.gateway"
            );
        }
        config.services = "payment-api".parse()?;
    }
    // The command reconciles once, not on schedule.
    config.payment.reconcile_every_secs = 0;
    // No server receives them.
    config.payment.sandbox_webhooks = false;
    match HeadlessApp::start(&config).await {
        Ok(app) => in_this_process(app, config, args).await,
        Err(error) if !is_shared && error.downcast_ref::<StoreError>().is_some() => {
            match ServerClient::of_folder(&config.data)? {
                Some(server) => by_server(&server, args).await,
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

async fn in_this_process(
    app: HeadlessApp,
    config: Config,
    args: &ReconcileArgs,
) -> anyhow::Result<Report> {
    let payment = app.payment().context("no payment service runs")?;
    let to = args.to.unwrap_or_else(|| Clock::System.now());
    let from = args.from.unwrap_or(to.plus_secs(-PERIOD_SECS_DEFAULT));
    let report = payment.reconcile(Period { from, to }).await;
    if report.is_ok() {
        wait_until_quiet(&app, config).await;
    }
    app.stop().await;
    Ok(report?)
}

async fn by_server(server: &ServerClient, args: &ReconcileArgs) -> anyhow::Result<Report> {
    let url = format!("{}/payment/reconciliation", server.url());
    for _ in 0..TURNS_MAX {
        let request = server.request(Method::POST, "/payment/reconciliation");
        let answer = client::send(request.json(args)).await;
        match answer.with_context(|| format!("cannot use the server at {}", server.url()))? {
            Ok(report) => return Ok(report),
            Err(refusal) if refusal.code == "RECONCILIATION_RUNNING" => {
                tokio::time::sleep(TURN_WAIT).await;
            }
            Err(refusal) if refusal.status == 504 => bail!(
                "the reconciliation takes longer than a request may, and continues; its report will be the newest at {url}"
            ),
            Err(refusal) => bail!(refusal.detail),
        }
    }
    bail!("another reconciliation is still running; its report will be the newest at {url}")
}

/// Waits until all messages are handled and all requested refunds are done.
async fn wait_until_quiet(app: &HeadlessApp, config: Config) {
    let mut committed = app.store().committed();
    let quiet = async {
        loop {
            committed.borrow_and_update();
            match is_quiet(app, &config).await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    log::print_error(format_args!(
                        "cannot check whether all messages are handled: {error}"
                    ));
                    return;
                }
            }
            if committed.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(QUIET_WAIT_MAX, quiet).await.is_err() {
        log::print_error("not all messages and refunds are handled yet; the next start continues");
    }
}

async fn is_quiet(app: &HeadlessApp, config: &Config) -> Result<bool, StoreError> {
    let config = config.clone();
    // Reading a snapshot blocks.
    let reading = tokio::task::spawn_blocking(move || {
        let snapshot = backends::snapshot(&config)?;
        for group in books::subscriptions() {
            if !snapshot.pending(group.name, group.topics)?.is_empty() {
                return Ok(false);
            }
        }
        Ok::<_, StoreError>(true)
    });
    let is_handled = reading
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    if !is_handled? {
        return Ok(false);
    }
    let store = app.store();
    for table in [PaymentRecord::TABLE, OrphanChargeRecord::TABLE] {
        let wanted = store
            .count_by(table, "refund", Some(REFUND_REQUESTED))
            .await?;
        if !wanted.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let midnight = format!("{text}T00:00:00Z");
    text.parse()
        .or_else(|_| midnight.parse())
        .map_err(|_| format!("{text:?} is not a time: use RFC 3339 such as 2026-11-22T09:00:00+09:00, or a day such as 2026-11-22"))
}

/// The report as text.
pub fn to_table(report: &Report) -> String {
    let counts = &report.summary.counts;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["what", "how many"]);
    for (what, how_many) in [
        ("payments that agree", counts.matched),
        ("payments by points alone", counts.free_payments),
        ("payments settled", counts.settled),
        ("payments in progress", counts.under_way),
        ("charges without a payment here", counts.missing_here),
        ("payments unknown to the gateway", counts.missing_there),
        ("payments with another amount", counts.different_amount),
        ("payments with another status", counts.different_status),
        ("refunds that need a person", counts.parked_refunds),
        ("payments not compared", counts.not_asked),
        (
            "rows of the gateway that could not be parsed",
            counts.unreadable,
        ),
    ] {
        table.add_row([what.to_owned(), how_many.to_string()]);
    }
    let (from, to) = (report.summary.from, report.summary.to);
    let mut text = format!("From {from} to {to}\n{table}");
    if !report.differences.is_empty() {
        text.push_str(&format!("\n{}", differences(&report.differences)));
    }
    if report.left_out > 0 {
        text.push_str(&format!("\n… and {} more.", report.left_out));
    }
    text.push_str(if report.is_clean() {
        "\nNothing differs."
    } else {
        "\nThe books differ."
    });
    text
}

fn differences(differences: &[Difference]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["kind", "order", "charge", "here", "gateway", "note"]);
    let side = |status: &Option<String>, amount: Option<i64>| {
        let amount = amount.map(|amount| amount.to_string());
        let parts: Vec<String> = status.clone().into_iter().chain(amount).collect();
        parts.join(" ")
    };
    for it in differences {
        table.add_row([
            it.kind.as_str().to_owned(),
            it.order_id.clone().unwrap_or_default(),
            it.pg_payment_id.clone().unwrap_or_default(),
            side(&it.ours, it.amount_ours),
            side(&it.theirs, it.amount_theirs),
            it.note.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_or_a_day() {
        let day = parse_time("2026-11-22").unwrap();
        assert_eq!(day.to_string(), "2026-11-22T00:00:00.000Z");
        assert_eq!(parse_time("2026-11-22T09:00:00+09:00").unwrap(), day);
        let refusal = parse_time("yesterday").unwrap_err();
        assert!(refusal.contains("yesterday"), "{refusal}");
    }
}
