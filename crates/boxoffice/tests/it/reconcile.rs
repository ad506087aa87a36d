//! The command `reconcile`, on a folder and through the server that has it open.

use std::{path::Path, process::Output};

use messaging::ShutdownSwitch;
use serde_json::Value;
use toss::{Client, Confirm, GatewayOutcome, SecretKey, Settings};
use toss_sandbox::{Sandbox, SandboxSettings};

use crate::program::{boxoffice, serve, text};

/// The secret of the program's built-in sandbox.
const SECRET: &str = "test_sk_sandbox";

/// Charges an order at the sandbox of a folder without a server.
async fn charge(folder: &Path, order: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sandbox = Sandbox::open(SandboxSettings {
        path: Some(folder.join("gateway.db")),
        ..SandboxSettings::new(SecretKey::new(SECRET))
    });
    let (switch, mut shutdown) = ShutdownSwitch::new();
    let stopped = async move { shutdown.requested().await };
    let any = ([127, 0, 0, 1], 0).into();
    let (address, served) = sandbox.unwrap().serve(any, stopped).await.unwrap();
    let gateway = Client::new(&Settings {
        base_url: format!("http://{address}"),
        secret_key: SecretKey::new(SECRET),
        ..Settings::default()
    });
    let confirm = Confirm {
        payment_key: format!("pg-{order}"),
        order_id: order.to_owned(),
        amount: 500,
        idempotency_key: order.to_owned(),
        test_code: None,
    };
    let outcome = gateway.unwrap().confirm(&confirm).await;
    assert!(
        matches!(outcome, GatewayOutcome::Approved(_)),
        "{outcome:?}"
    );
    switch.stop();
    served.await.unwrap();
}

fn reconcile(folder: &Path, arguments: &[&str]) -> Output {
    let data = folder.to_str().unwrap();
    let all = [&["reconcile", "--data", data], arguments].concat();
    boxoffice(&all).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

#[tokio::test]
async fn books_are_reconciled_equally_on_the_folder_and_through_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();

    // Given equal books; the start has stored the sandbox as their gateway.
    serve(folder).stop("-TERM");
    let clean = reconcile(folder, &[]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
    assert!(text(&clean.stdout).contains("Nothing differs."));

    // When the gateway has a charge for an unknown order.
    charge(folder, "another-shops-order").await;
    let on_folder = reconcile(folder, &["--json"]);
    assert_eq!(on_folder.status.code(), Some(1));
    let on_folder = json(&on_folder);
    assert_eq!(on_folder["missingHere"], 1, "{on_folder}");
    let difference = &on_folder["differences"][0];
    assert_eq!(difference["orderId"], "another-shops-order");
    assert!(
        !folder.join("server.addr").exists(),
        "the server has stopped"
    );

    // Then a server reports the same difference and stores the reports.
    let serving = serve(folder);
    let output = reconcile(folder, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["differences"], on_folder["differences"]);
    let table = text(&reconcile(folder, &[]).stdout);
    assert!(
        table.contains("another-shops-order") && table.contains("The books differ."),
        "{table}"
    );
    let past = reconcile(folder, &["--from", "2026-01-01", "--to", "2026-01-02"]);
    assert_eq!(past.status.code(), Some(0), "{}", text(&past.stderr));
    let long = reconcile(folder, &["--from", "2025-01-01", "--to", "2026-01-02"]);
    assert_eq!(long.status.code(), Some(1));
    assert!(
        text(&long.stderr).contains("31 days"),
        "{}",
        text(&long.stderr)
    );
    serving.stop("-TERM");
}

#[test]
fn a_missing_folder_cannot_be_reconciled() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let refused = reconcile(&missing, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is no data folder"));
    assert!(!missing.exists());
}
