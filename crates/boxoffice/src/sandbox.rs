//! The command `sandbox`: the payment gateway's sandbox alone, for anybody who integrates with Toss Payments. It owns
//! `gateway.db` in the data folder. See `docs/sandbox.md`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use messaging::ShutdownSwitch;
use toss::{KeyKind, SecretKey};
use toss_sandbox::{FaultScript, Sandbox, SandboxSettings};

use crate::{backends, config::Config, log, signals::Signals};

/// In the data folder: the charges of the sandbox.
const FILE: &str = "gateway.db";
/// The default secret key; valid nowhere else.
pub const SECRET: &str = "test_sk_sandbox";

/// The default address; not the port of `boxoffice serve`, so that both run side by side.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9090);

#[derive(Debug, Clone, Args)]
pub struct SandboxOptions {
    /// The only secret key that the sandbox accepts
    #[arg(long, value_name = "KEY", default_value = SECRET)]
    secret_key: String,
    /// Send webhooks to this URL (http only); by default none are sent
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Divide the delays between retries of a webhook by N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    webhook_speed: u32,
    /// Refuse payment keys that POST /sandbox/payments did not create
    #[arg(long)]
    strict: bool,
    /// Inject the faults of this script (JSON)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// Runs the sandbox until a signal stops it. `listen` is the flag `--listen`, not the setting.
///
/// # Errors
/// If the script or an option is invalid, the address cannot be bound, or the file cannot be opened.
pub async fn run(
    config: Config,
    listen: Option<SocketAddr>,
    options: SandboxOptions,
) -> anyhow::Result<()> {
    let _log = log::start(&config.log)?;
    let sandbox = open_by(&config.data, options)?;
    let mut signals = Signals::listen()?;
    let (switch, mut shutdown) = ShutdownSwitch::new();
    let stopped = async move { shutdown.requested().await };
    let listen = listen.unwrap_or_else(|| LISTEN.into());
    let served = sandbox.serve(listen, stopped).await;
    let (address, server) = served
        .with_context(|| format!("cannot bind {listen}; choose another address with --listen"))?;
    log::print_line(format_args!("listening on http://{address}"));
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    switch.stop();
    server.await.context("the sandbox failed while it served")
}

fn open_by(data: &Path, options: SandboxOptions) -> anyhow::Result<Sandbox> {
    let secret_key = SecretKey::new(options.secret_key);
    if secret_key.kind() == KeyKind::Live {
        bail!(
            "cannot run the sandbox with a live key in --secret-key: it charges nobody; use a test key (test_…)"
        );
    }
    let script = options.faults.as_deref().map(read).transpose()?;
    let settings = SandboxSettings {
        lenient: !options.strict,
        webhook_url: options.webhook_url,
        webhook_speed: options.webhook_speed,
        ..SandboxSettings::new(secret_key)
    };
    let sandbox = open(data, settings)?;
    if let Some(script) = script {
        sandbox.set_faults(script)?;
    }
    Ok(sandbox)
}

/// Opens the sandbox whose charges are in this data folder.
///
/// # Errors
/// If the folder cannot be created, or the file cannot be opened.
pub fn open(data: &Path, settings: SandboxSettings) -> anyhow::Result<Sandbox> {
    backends::create_folder(data)?;
    let path = data.join(FILE);
    let context = format!("cannot open the sandbox's file {}", path.display());
    let settings = SandboxSettings {
        path: Some(path),
        ..settings
    };
    Sandbox::open(settings).context(context)
}

fn read(file: &Path) -> anyhow::Result<FaultScript> {
    let name = file.display();
    let text = fs::read(file).with_context(|| format!("cannot read the fault script {name}"))?;
    FaultScript::parse(&text).with_context(|| format!("cannot parse the fault script {name}"))
}
