//! The command `reconcile`. The server that has the store open does it; where there is none, one is started for it,
//! without a door to the outside, and stopped again. It asks the gateway that the payments belong to, and no other. So it is where several processes share a schema: beside them. Two
//! comparisons of the same payments at once settle each at most once, by versions and idempotency keys.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use contract::Timestamp;
use messaging::{Record, StoreError};
use payment::{
    reconcile::{Difference, Report},
    record::{OrphanChargeRecord, PaymentRecord},
};
use reqwest::Client;
use serde::{Deserialize, Serialize};

use crate::{
    app::{ADDRESS_FILE, App},
    audit::books,
    backends::{self, BusBackend},
    config::Config,
    log,
    server::reachable,
};

/// How long a server that was started for it waits until what was settled is handled, refunds included.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(20);
const REFUND_WANTED: &str = "refund = 'REQUESTED'";

#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// RFC 3339, or a day, which begins at midnight UTC; 24 hours before the end where it is left out
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<Timestamp>,
    /// As --from, and not included; now where it is left out
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<Timestamp>,
    /// For machines: the report as JSON
    #[arg(long)]
    json: bool,
}

/// What the server is request for.
#[derive(Debug, Serialize)]
struct ReconcileRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    detail: String,
}

/// The server's own reconciliation, on schedule, comes first: it is waited for so often,
const TURNS_MAX: u32 = 240;
/// so long each time.
const TURN_WAIT: Duration = Duration::from_millis(500);

/// Reconciles, prints the report, and returns whether nothing is left for a person.
///
/// # Errors
/// Where neither the folder nor its server can be had, or the gateway does not answer.
pub async fn run(config: Config, args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    backends::must_exist(&config)?;
    let request = ReconcileRequest {
        from: args.from,
        to: args.to,
    };
    let report = reconcile(config, &request).await?;
    let text = if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        to_table(&report)
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn reconcile(config: Config, request: &ReconcileRequest) -> anyhow::Result<Report> {
    if config.bus.backend == BusBackend::Kafka {
        return beside_others(config, request).await;
    }
    let data = config.data.clone();
    match by_a_server_of_its_own(alone(config), request).await {
        Err(error) if error.downcast_ref::<StoreError>().is_some() => {
            match fs::read_to_string(data.join(ADDRESS_FILE)) {
                Ok(address) => ask_server(&address, request).await,
                Err(_) => Err(error),
            }
        }
        done => done,
    }
}

async fn by_a_server_of_its_own(
    config: Config,
    request: &ReconcileRequest,
) -> anyhow::Result<Report> {
    let app = App::start_again(config.clone()).await?;
    let report = ask(app.address(), request).await;
    if report.is_ok() {
        wait_until_quiet(&app, config).await;
    }
    app.stop().await;
    report
}

/// As one more `payment-api`, in a folder of its own: the others keep their addresses in theirs.
async fn beside_others(config: Config, request: &ReconcileRequest) -> anyhow::Result<Report> {
    if config.payment.sandbox {
        bail!(
            "the setting payment.sandbox is true: each process has a gateway of its own, and this one's knows no charge"
        );
    }
    let name = format!("boxoffice-reconcile-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let config = Config {
        data: folder.clone(),
        services: "payment-api".parse()?,
        ..alone(config)
    };
    let report = by_a_server_of_its_own(config, request).await;
    if let Err(error) = fs::remove_dir(&folder) {
        log::print_error(format_args!(
            "{} cannot be removed: {error}",
            folder.display()
        ));
    }
    report
}

/// The settings of a server for this one purpose.
fn alone(mut config: Config) -> Config {
    config.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.payment.reconcile_every_secs = 0;
    // Nobody waits for this request but this process.
    config.http.request_timeout_millis = u64::from(u32::MAX);
    config
}

async fn ask_server(address: &str, request: &ReconcileRequest) -> anyhow::Result<Report> {
    let address: SocketAddr = address
        .trim()
        .parse()
        .with_context(|| format!("{ADDRESS_FILE} does not hold an address"))?;
    ask(reachable(address), request).await
}

async fn ask(address: SocketAddr, request: &ReconcileRequest) -> anyhow::Result<Report> {
    // The client wants to know who would encrypt, though nothing is encrypted here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build()?;
    let url = format!("http://{address}/payment/reconciliation");
    let body = serde_json::to_vec(request)?;
    for _ in 0..TURNS_MAX {
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(body.clone());
        let response = request.send().await.with_context(|| {
            format!("the server that has the data folder open does not answer at {url}")
        })?;
        if response.status().is_success() {
            return Ok(response.json().await?);
        }
        let status = response.status();
        if status.as_u16() == 504 {
            bail!(
                "it takes longer than a request may, and goes on: its report will be the newest at {url}"
            );
        }
        match response.json::<Refusal>().await {
            Ok(refusal) if refusal.code == "RECONCILIATION_RUNNING" => {
                tokio::time::sleep(TURN_WAIT).await;
            }
            Ok(refusal) => bail!(refusal.detail),
            Err(_) => bail!("{url} answered {status}"),
        }
    }
    bail!("another reconciliation runs, and does not end: its report will be the newest at {url}")
}

/// Waits until every consumer has handled what was settled, and what is to go back has gone.
async fn wait_until_quiet(app: &App, config: Config) {
    let mut committed = app.store().committed();
    let quiet = async {
        loop {
            committed.borrow_and_update();
            match is_quiet(app, &config).await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    log::print_error(format_args!(
                        "whether everything is handled cannot be read: {error}"
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
        log::print_error("not everything is handled yet; the next start goes on with it");
    }
}

async fn is_quiet(app: &App, config: &Config) -> Result<bool, StoreError> {
    let config = config.clone();
    // A snapshot is read on a thread that may wait.
    let reading = tokio::task::spawn_blocking(move || {
        let snapshot = backends::snapshot(&config)?;
        for (group, topics) in books::subscriptions() {
            if !snapshot.pending(group, topics)?.is_empty() {
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
        let wanted = store.count_by(table, "refund", Some(REFUND_WANTED)).await?;
        if !wanted.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let midnight = format!("{text}T00:00:00Z");
    text.parse()
        .or_else(|_| midnight.parse())
        .map_err(|_| format!("{text:?} is neither RFC 3339, such as 2026-11-22T09:00:00+09:00, nor a day, such as 2026-11-22"))
}

/// The report for people.
#[must_use]
pub fn to_table(report: &Report) -> String {
    let counts = &report.summary.counts;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["what", "how many"]);
    for (what, how_many) in [
        ("payments that agree", counts.matched),
        ("payments by points alone", counts.free_payments),
        ("payments put right", counts.settled),
        ("payments under way", counts.under_way),
        ("charges that are none of ours", counts.missing_here),
        (
            "payments that the gateway does not know",
            counts.missing_there,
        ),
        ("payments of another amount", counts.different_amount),
        ("payments of another status", counts.different_status),
        ("refunds that need a person", counts.parked_refunds),
        ("payments not request about", counts.not_asked),
        ("rows that could not be read", counts.unreadable),
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
    fn a_time_is_an_instant_or_a_day() {
        let day = instant("2026-11-22").unwrap();
        assert_eq!(day.to_string(), "2026-11-22T00:00:00.000Z");
        assert_eq!(instant("2026-11-22T09:00:00+09:00").unwrap(), day);
        let refusal = instant("yesterday").unwrap_err();
        assert!(refusal.contains("yesterday"), "{refusal}");
    }
}
