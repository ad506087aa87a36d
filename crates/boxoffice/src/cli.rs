//! The command line.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use messaging::Clock;
use payment::books;

use crate::{
    app::App,
    backends,
    config::{Config, DEFAULT_TOML, Flags},
    dead_letters::{self, DeadLetterCommand},
    demo::{self, DemoOptions},
    log,
    reconcile::{self, ReconcileArgs},
    sandbox::{self, SandboxOptions},
    services::Services,
    signals::Signals,
};

/// Sells tickets: never more than there are, and never for money without a ticket.
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

/// Stand before or behind every command.
#[derive(Debug, Args)]
struct Options {
    /// The folder of the embedded store
    #[arg(long, global = true, value_name = "DIR", env = "BOXOFFICE_DATA")]
    data: Option<PathBuf>,
    /// Where the server listens; port 0 takes one from the system
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        env = "BOXOFFICE_LISTEN"
    )]
    listen: Option<SocketAddr>,
    /// A file of settings (TOML), over the defaults. `audit` takes several: one of each service that has a store of its own
    #[arg(long, global = true, value_name = "FILE", env = "BOXOFFICE_CONFIG")]
    config: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything, or some of the services; prints `listening on http://ADDR:PORT` when ready
    Serve {
        /// Names with commas between: event, ticketing-api, ticketing-worker, user, payment-api, payment-worker,
        /// dead-letter. Fewer than all need PostgreSQL, Redis and Kafka
        #[arg(long, value_name = "NAMES")]
        services: Option<Services>,
    },
    /// Make the tables in PostgreSQL, or bring them up to date; safe while servers run, and by several at once
    Migrate,
    /// Check whether the promises are kept, in stores that may be in use; exit code 1 and a report where they are not.
    /// Repeat `--config` where services have stores of their own: their books are checked together
    Audit {
        /// For machines: the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare our payments with the gateway's transactions, settle what can be settled, and list the rest; exit code 1
    /// where something is listed
    Reconcile(ReconcileArgs),
    /// Make the payments in the store belong to the gateway that the settings name: after its address has changed, or the
    /// kind of its key. Stop every server first
    AdoptGateway,
    /// Let a crowd buy the same show from a server of its own, and tell what happened
    Demo(DemoOptions),
    /// Run only the payment gateway's sandbox, on 127.0.0.1:9090 unless `--listen` says otherwise
    Sandbox(SandboxOptions),
    /// Print every setting with its default and its meaning
    Config,
    /// Messages that a consumer could not handle
    #[command(subcommand)]
    DeadLetter(DeadLetterCommand),
}

/// Reads the command line, does what it says, and returns how it went.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            log::complain(format_args!("{error:#}"));
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
        bail!("only `audit` takes several files of settings");
    }
    if let Command::Audit { json } = cli.command {
        return runtime()?.block_on(crate::audit::command::run(configs, json));
    }
    let config = configs.remove(0);
    let listen = flags.listen;
    runtime()?.block_on(async {
        match cli.command {
            Command::Serve { .. } => serve(config).await,
            Command::Migrate => migrate(&config).await,
            Command::Reconcile(args) => reconcile::run(config, args).await,
            Command::AdoptGateway => adopt_gateway(&config).await,
            Command::Demo(options) => {
                demo::run(config, options).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Sandbox(options) => {
                sandbox::run(config, listen, options).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::DeadLetter(command) => {
                dead_letters::run(&config, command).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Config | Command::Audit { .. } => unreachable!("answered above"),
        }
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let built = runtime.enable_all().build();
    built.context("the runtime cannot be started")
}

/// The settings of each file; of none, those that stand without one.
fn load(files: &[PathBuf], flags: &Flags) -> anyhow::Result<Vec<Config>> {
    if files.is_empty() {
        return Ok(vec![Config::load(None, environment(), flags)?]);
    }
    let load = |file: &PathBuf| {
        Config::load(Some(file), environment(), flags).with_context(|| file.display().to_string())
    };
    files.iter().map(load).collect()
}

/// A variable whose name or value is not text is nobody's setting.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let done = backends::migrate(config).await?;
    for step in &done {
        writeln!(io::stdout(), "{step}")?;
    }
    if done.is_empty() {
        writeln!(io::stdout(), "everything is up to date")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn adopt_gateway(config: &Config) -> anyhow::Result<ExitCode> {
    let store = backends::open_existing(config).await?;
    let before = books::adopt(&store, &config.payment, Clock::System.now()).await?;
    let now = config.payment.gateway_identity();
    let before = before.map_or_else(|| "no gateway".to_owned(), |it| it.to_string());
    writeln!(
        io::stdout(),
        "the payments belonged to {before}, and belong to {now} now"
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let log = log::start(&config.log)?;
    // Before anyone is told that it is ready: a signal from then on is heard.
    let mut signals = Signals::listen()?;
    let mut app = App::serve(config, &log).await?;
    log::say(format_args!("listening on {}", app.url()));
    let failure = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            None
        }
        reason = app.failed() => Some(reason),
    };
    app.stop().await;
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => {
            tracing::error!(reason, "the process cannot go on");
            Ok(ExitCode::FAILURE)
        }
    }
}
