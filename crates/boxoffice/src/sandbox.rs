//! The gateway's sandbox alone, for anybody who integrates with Toss Payments: nothing of Boxoffice runs beside it.
//! It owns `gateway.db` in the data folder. See `docs/sandbox.md`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use messaging::ShutdownSwitch;
use payment::{
    gateway::{KeyKind, SecretKey},
    sandbox::{Sandbox, SandboxSettings, Script},
};

use crate::{
    app::{SANDBOX_FILE, SANDBOX_SECRET},
    config::Config,
    log,
    signals::Signals,
};

/// Beside `boxoffice serve`, which listens on another port of this machine.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9090);

#[derive(Debug, Clone, Args)]
pub struct SandboxOptions {
    /// The only secret key that it accepts
    #[arg(long, value_name = "KEY", default_value = SANDBOX_SECRET)]
    secret_key: String,
    /// Where webhooks go (http only); nowhere by default
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Divides the waits before a webhook is sent again
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    webhook_speed: u32,
    /// Refuse payment keys that were not made by POST /sandbox/payments
    #[arg(long)]
    strict: bool,
    /// A fault script (JSON)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

/// Runs the sandbox until it is told to stop. `listen` is what was asked for, not what a server listens on.
///
/// # Errors
/// Where the script is wrong, a setting cannot work, or the address or the file cannot be had.
pub async fn run(
    config: Config,
    listen: Option<SocketAddr>,
    options: SandboxOptions,
) -> anyhow::Result<()> {
    let _log = log::start(&config.log)?;
    let sandbox = open(&config.data, options)?;
    let mut signals = Signals::listen()?;
    let (switch, shutdown) = ShutdownSwitch::new();
    let listen = listen.unwrap_or_else(|| LISTEN.into());
    let served = sandbox.serve(listen, shutdown).await;
    let (address, server) = served.with_context(|| format!("listen: {listen} cannot be had"))?;
    log::say(format_args!("listening on http://{address}"));
    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    switch.stop();
    server.await.context("the sandbox has failed")
}

fn open(data: &Path, options: SandboxOptions) -> anyhow::Result<Sandbox> {
    if SecretKey::new(options.secret_key.clone()).kind() == KeyKind::Live {
        bail!("--secret-key: a sandbox takes no live key, because who has one means real money");
    }
    let script = options.faults.as_deref().map(read).transpose()?;
    fs::create_dir_all(data)
        .with_context(|| format!("the data folder {} cannot be made", data.display()))?;
    let path = data.join(SANDBOX_FILE);
    let settings = SandboxSettings {
        path: Some(path.clone()),
        lenient: !options.strict,
        webhook_url: options.webhook_url,
        webhook_speed: options.webhook_speed,
        ..SandboxSettings::new(SecretKey::new(options.secret_key))
    };
    let sandbox = Sandbox::open(settings)
        .with_context(|| format!("the sandbox in {} cannot be opened", path.display()))?;
    if let Some(script) = script {
        sandbox.play(script)?;
    }
    Ok(sandbox)
}

fn read(file: &Path) -> anyhow::Result<Script> {
    let name = file.display();
    let text = fs::read(file).with_context(|| format!("the fault script {name} cannot be read"))?;
    Script::parse(&text).with_context(|| format!("the fault script {name} cannot be played"))
}
