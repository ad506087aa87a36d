//! The demo as a process: it ends well, reports what happened, and stops on SIGTERM.

use std::{path::Path, process::Command};

use test_support::process::{self, ServerProcess};

fn demo(data: &Path, arguments: &[&str]) -> Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_boxoffice"));
    command.args([
        "demo",
        "--buyers",
        "60",
        "--tickets",
        "30",
        "--listen",
        "127.0.0.1:0",
        "--data",
    ]);
    command.arg(data).args(arguments);
    command
}

/// The number in the row that begins with `what`.
fn row(report: &str, what: &str) -> Option<u64> {
    let line = report
        .lines()
        .find(|line| line.starts_with(&format!("│ {what} ")))?;
    line.rsplit('┆')
        .next()?
        .trim_matches(['│', ' '])
        .parse()
        .ok()
}

#[test]
fn the_demo_sells_every_ticket_once_reports_and_ends() {
    let data = tempfile::tempdir().unwrap();

    let output = demo(data.path(), &["--exit"]).output().unwrap();

    let printed = String::from_utf8_lossy(&output.stdout);
    let logged = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}\n{logged}");
    assert!(
        printed.starts_with("listening on http://127.0.0.1:"),
        "{printed}"
    );
    let number =
        |what| row(&printed, what).unwrap_or_else(|| panic!("no row {what:?} in\n{printed}"));
    assert_eq!(number("buyers"), 60);
    assert_eq!(number("tickets issued"), number("purchases completed"));
    assert_eq!(
        number("reservations never paid"),
        number("... that expired")
    );
    assert!(number("tickets issued") <= 30, "{printed}");
    assert!(number("cards declined") > 0, "{printed}");
    assert!(number("bought from the queue") > 0, "{printed}");
    assert!(printed.contains("No violation found."), "{printed}");
    assert!(!printed.contains("BROKEN"), "{printed}");
}

#[test]
fn the_demo_stops_cleanly_in_the_middle_of_its_sale() {
    let data = tempfile::tempdir().unwrap();
    let running = ServerProcess::start(demo(data.path(), &[]));
    running.wait_until_printed("is on sale");

    let rest = running.stop("-TERM");

    assert!(!rest.contains("The promises"), "{rest}");
    assert!(!data.path().join(boxoffice::app::ADDRESS_FILE).exists());
}

#[test]
fn the_demo_charges_nobody() {
    let data = tempfile::tempdir().unwrap();

    let output = demo(data.path(), &["--exit"])
        .env("BOXOFFICE_PAYMENT__SANDBOX", "false")
        .env("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "live_sk_secret")
        .output()
        .unwrap();

    let refusal = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{refusal}");
    assert!(refusal.contains("payment.sandbox"), "{refusal}");
    assert!(output.stdout.is_empty());
}
