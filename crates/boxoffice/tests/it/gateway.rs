//! Payments belong to the gateway that charged them: no other one is queried about them, and the sandbox is no fallback.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
};

use messaging::{Metrics, Store};
use test_support::process::ServerProcess;

use crate::program::{boxoffice, text};

/// Addresses without a listener.
const GATEWAY: &str = "http://127.0.0.1:9";
const MOVED: &str = "http://127.0.0.1:10";

fn command(folder: &Path, command: &[&str]) -> Command {
    let data = folder.to_str().unwrap();
    boxoffice(&[command, &["--data", data, "--listen", "127.0.0.1:0"]].concat())
}

/// The command with an external gateway.
fn at(gateway: &str, mut command: Command) -> Command {
    command
        .env("BOXOFFICE_PAYMENT__SANDBOX", "false")
        .env("BOXOFFICE_PAYMENT__GATEWAY__BASE_URL", gateway)
        .env("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "test_sk_secret");
    command
}

fn serve_once(command: Command) {
    let serving = ServerProcess::start(command);
    serving.stop("-TERM");
}

#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for word in words {
        assert!(printed.contains(word), "{word:?} is missing: {printed}");
    }
    assert!(!printed.contains("sk_secret"), "{printed}");
}

#[test]
fn no_command_queries_the_sandbox_about_payments_of_another_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    serve_once(at(GATEWAY, command(folder, &["serve"])));

    let both = [
        "the gateway at http://127.0.0.1:9 with a test key",
        "the built-in sandbox",
        "payment.gateway.base_url",
        "adopt-gateway",
    ];
    for arguments in [&["reconcile"], &["serve"]] {
        let refused = command(folder, arguments).output().unwrap();
        assert_refused(&refused, &both);
    }
    assert!(!folder.join("gateway.db").exists(), "a sandbox was opened");

    // With the server's settings the command queries that gateway, which does not answer.
    let asked = at(GATEWAY, command(folder, &["reconcile"])).output();
    assert_refused(&asked.unwrap(), &["did not list its transactions"]);
}

#[test]
fn no_other_gateway_is_queried_about_payments_of_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    serve_once(command(folder.path(), &["serve"]));

    let refused = at(GATEWAY, command(folder.path(), &["serve"])).output();
    assert_refused(&refused.unwrap(), &["the built-in sandbox", GATEWAY]);
    let clean = command(folder.path(), &["reconcile"]).output().unwrap();
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
}

#[test]
fn payments_without_a_gateway_are_reconciled_only_if_the_settings_name_one() {
    // An earlier version of the program stored no gateway.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tables = boxoffice::app::tables();
    drop(
        Store::open_embedded(
            boxoffice::backends::data_folder(folder),
            &tables,
            Metrics::unregistered(),
        )
        .unwrap(),
    );

    let refused = command(folder, &["reconcile"]).output().unwrap();
    assert_refused(&refused, &["payment.sandbox = false", "serve them once"]);
    assert!(!folder.join("gateway.db").exists(), "a sandbox was opened");

    let asked = at(GATEWAY, command(folder, &["reconcile"])).output();
    assert_refused(&asked.unwrap(), &["did not list its transactions"]);
    // The command has stored the gateway.
    let refused = command(folder, &["serve"]).output().unwrap();
    assert_refused(&refused, &[GATEWAY]);
}

#[test]
fn a_moved_gateway_is_adopted_only_by_a_persons_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    serve_once(at(GATEWAY, command(folder, &["serve"])));
    let refused = at(MOVED, command(folder, &["serve"])).output().unwrap();
    assert_refused(&refused, &[GATEWAY, MOVED, "adopt-gateway"]);

    let adopted = at(MOVED, command(folder, &["adopt-gateway"])).output();
    let adopted = adopted.unwrap();
    assert_eq!(adopted.status.code(), Some(0), "{}", text(&adopted.stderr));
    let printed = text(&adopted.stdout);
    assert!(
        printed.contains(GATEWAY) && printed.contains(MOVED),
        "{printed}"
    );

    serve_once(at(MOVED, command(folder, &["serve"])));
    let refused = at(GATEWAY, command(folder, &["serve"])).output().unwrap();
    assert_refused(&refused, &[GATEWAY, MOVED]);
    let nowhere = command(&folder.join("none"), &["adopt-gateway"]).output();
    assert_refused(&nowhere.unwrap(), &["there is no data folder"]);
}

#[test]
fn only_a_start_with_the_sandbox_warns_and_warns_once() {
    let folder = tempfile::tempdir().unwrap();
    let warnings = |mut command: Command| {
        let path = folder.path().join("log");
        command.stderr(File::create(&path).unwrap());
        serve_once(command);
        let log = fs::read_to_string(&path).unwrap();
        let warns = |line: &&str| line.contains("WARN") && line.contains("no money is taken");
        log.lines().filter(warns).count()
    };
    for _ in 0..2 {
        assert_eq!(
            warnings(command(&folder.path().join("sandbox"), &["serve"])),
            1
        );
    }
    let other = folder.path().join("other");
    assert_eq!(warnings(at(GATEWAY, command(&other, &["serve"]))), 0);
}

#[test]
fn the_sandbox_refuses_a_live_key() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["sandbox", "--secret-key", "live_sk_secret"];
    let refused = command(folder.path(), &arguments).output().unwrap();
    assert_refused(&refused, &["--secret-key"]);
}
