//! The command line: parses it, loads the settings, runs the command, and returns its exit code.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use messaging::Clock;
use payment::gateway_binding;

use crate::{
    app::App,
    backends,
    config::{Config, DEFAULT_TOML, Flags},
    dead_letters::{self, DeadLetterCommand},
    demo::{self, DemoOptions},
    log, output,
    reconcile::{self, ReconcileArgs},
    sandbox::{self, SandboxOptions},
    services::Services,
    signals::Signals,
};

#[derive(Debug, Parser)]
#[command(
    name = "boxoffice",
    version,
    about = "Sells tickets: never more than there are, and never for money without a ticket"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

/// The options of every command.
#[derive(Debug, Args)]
struct Options {
    /// The folder of the embedded store
    #[arg(long, global = true, value_name = "DIR", env = "BOXOFFICE_DATA")]
    data: Option<PathBuf>,
    /// The address that the server listens on; the system chooses a port for 0
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        env = "BOXOFFICE_LISTEN"
    )]
    listen: Option<SocketAddr>,
    /// A TOML file of settings that override the defaults. `audit` takes several: one for each service with its own store
    #[arg(long, global = true, value_name = "FILE", env = "BOXOFFICE_CONFIG")]
    config: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all services, or some of them; prints `listening on http://ADDR:PORT` when ready
    Serve {
        /// A comma-separated list of event, ticketing-api, ticketing-worker, user, payment-api, payment-worker,
        /// dead-letter, or `all`. A process with fewer than all needs PostgreSQL, Redis and Kafka
        #[arg(long, value_name = "NAMES")]
        services: Option<Services>,
    },
    /// Create or update the tables in PostgreSQL; safe while servers run, and if run several times at once
    Migrate,
    /// Check in the stores, also while servers run, that the promises are kept; exit code 1 if one is broken. If services
    /// have their own stores, repeat `--config` to check them together
    Audit {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the payments with the gateway's transactions, settle differences, and list those that need a person; exit
    /// code 1 if any is listed
    Reconcile(ReconcileArgs),
    /// Assign the payments in the store to the gateway of the settings, after its address or the kind of its key has
    /// changed. Stop every server first
    AdoptGateway,
    /// Start a server, simulate a sale with many buyers at once, and print a report
    Demo(DemoOptions),
    /// Run only the payment gateway's sandbox; `--listen` defaults to 127.0.0.1:9090
    Sandbox(SandboxOptions),
    /// Print each setting with its default and a description
    Config,
    /// List, show, replay or discard the messages that a consumer rejected
    #[command(subcommand)]
    DeadLetter(DeadLetterCommand),
}

/// Runs the command line's command, and returns its exit code.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            log::print_error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if matches!(cli.command, Command::Config) {
        io::stdout().write_all(DEFAULT_TOML.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let flags = Flags {
        data: cli.options.data,
        listen: cli.options.listen,
        services: match &cli.command {
            Command::Serve { services } => services.clone(),
            _ => None,
        },
    };
    let mut configs = load(&cli.options.config, &flags)?;
    if configs.len() > 1 && !matches!(cli.command, Command::Audit { .. }) {
        bail!("only `audit` accepts several --config files; pass one");
    }
    if let Command::Audit { json } = cli.command {
        return runtime()?.block_on(crate::audit::command::run(configs, json));
    }
    let config = configs.remove(0);
    let listen = flags.listen;
    runtime()?.block_on(async {
        match cli.command {
            Command::Serve { .. } => serve(config).await,
            Command::Reconcile(args) => reconcile::run(config, args).await,
            Command::Migrate => success(migrate(&config).await),
            Command::AdoptGateway => success(adopt_gateway(&config).await),
            Command::Demo(options) => success(demo::run(config, options).await),
            Command::Sandbox(options) => success(sandbox::run(config, listen, options).await),
            Command::DeadLetter(command) => success(dead_letters::run(&config, command).await),
            Command::Config | Command::Audit { .. } => unreachable!("handled above"),
        }
    })
}

fn success(done: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    done.map(|()| ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let built = runtime.enable_all().build();
    built.context("cannot start the async runtime")
}

/// The settings of each file; without files, one set of defaults, environment and flags.
fn load(files: &[PathBuf], flags: &Flags) -> anyhow::Result<Vec<Config>> {
    if files.is_empty() {
        return Ok(vec![Config::load(None, environment(), flags)?]);
    }
    let load = |file: &PathBuf| {
        Config::load(Some(file), environment(), flags).with_context(|| file.display().to_string())
    };
    files.iter().map(load).collect()
}

/// Variables that are not UTF-8 cannot be settings.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    let done = backends::migrate(config).await?;
    for step in &done {
        writeln!(io::stdout(), "{step}")?;
    }
    if done.is_empty() {
        writeln!(io::stdout(), "all tables are up to date")?;
    }
    Ok(())
}

async fn adopt_gateway(config: &Config) -> anyhow::Result<()> {
    let store = backends::open_existing(config).await?;
    let before = gateway_binding::adopt(&store, &config.payment, Clock::System.now()).await?;
    let now = config.payment.gateway_identity();
    let before = before.map_or_else(|| "no gateway".to_owned(), |it| it.to_string());
    writeln!(
        io::stdout(),
        "the payments belonged to {before}, and now belong to {now}"
    )?;
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let log = log::start(&config.log)?;
    // Before the line `listening on`, so that a signal after it stops the server cleanly.
    let mut signals = Signals::listen()?;
    let mut app = App::serve(config, &log).await?;
    log::print_line(format_args!("listening on {}", app.url()));
    let failure = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            None
        }
        reason = app.failed() => Some(reason),
    };
    app.stop().await;
    if let Some(reason) = &failure {
        tracing::error!(reason, "the process has stopped because it failed");
    }
    Ok(output::exit_code(failure.is_none()))
}
