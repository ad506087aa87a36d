//! The demo as a process: it ends well, reports what happened, and stops on SIGTERM.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

fn demo(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxoffice"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BOXOFFICE_") {
            command.env_remove(name);
        }
    }
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

/// Kills the process when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    let started = demo(data.path(), &[]).stdout(Stdio::piped()).spawn();
    let mut running = Running(started.unwrap());
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("is on sale") {
        line.clear();
        assert_ne!(
            stdout.read_line(&mut line).unwrap(),
            0,
            "it ended before its sale began"
        );
    }

    let pid = running.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );

    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{rest}");
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
