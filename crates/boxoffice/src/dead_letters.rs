//! The commands for dead letters. They open the store themselves. A data folder, or the one log of a schema, that a
//! server has open is its own: then they ask that server. Processes that share a schema and Kafka let them work beside
//! them: what a person says is a Commit, checked by versions like any other.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use contract::DeadLetterId;
use messaging::{
    Bus, Clock, Metrics, Store,
    dead_letters::{self, DeadLetterState},
};
use reqwest::{Client, Method};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    app::ADDRESS_FILE,
    backends::{self, BusBackend, StoreBackend},
    config::Config,
    http::dead_letter::DeadLetterView,
    log,
    server::reachable,
};

/// How long the brokers are waited for.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// Show them in the order of their making
    List(ListArgs),
    /// Show one with its payload
    Show(OneArgs),
    /// Send its message to the consumer that rejected it again
    Replay(OneArgs),
    /// Close it without handling its message
    Discard(OneArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// The last id of the page before
    #[arg(long)]
    after: Option<DeadLetterId>,
    #[arg(long, default_value_t = web::page::LIMIT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(web::page::LIMIT_MAX)))]
    limit: u32,
    /// JSON, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    id: DeadLetterId,
    /// JSON, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StateArg {
    Waiting,
    Parked,
    Replayed,
    Resolved,
    Discarded,
}

impl From<StateArg> for DeadLetterState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Waiting => Self::Waiting,
            StateArg::Parked => Self::Parked,
            StateArg::Replayed => Self::Replayed,
            StateArg::Resolved => Self::Resolved,
            StateArg::Discarded => Self::Discarded,
        }
    }
}

/// Carries out one command and prints what came of it.
///
/// # Errors
/// Where there is no such dead letter, it is closed, or neither the store nor its server can be had.
pub async fn run(config: &Config, command: DeadLetterCommand) -> anyhow::Result<()> {
    let needs_bus = matches!(
        command,
        DeadLetterCommand::Replay(_) | DeadLetterCommand::Discard(_)
    );
    let client = OperatorClient::open(config, needs_bus).await?;
    let done = execute(&client, command).await;
    client.close().await;
    done
}

async fn execute(client: &OperatorClient, command: DeadLetterCommand) -> anyhow::Result<()> {
    match command {
        DeadLetterCommand::List(args) => {
            let letters = client.list(&args).await?;
            print(args.json, &letters, || table(&letters))
        }
        DeadLetterCommand::Show(args) => {
            let letter = client.one(Method::GET, args.id).await?;
            print(args.json, &letter, || page(&letter))
        }
        DeadLetterCommand::Replay(args) => {
            let letter = client.one(Method::POST, args.id).await?;
            print(args.json, &letter, || {
                format!("{} is sent again", letter.id)
            })
        }
        DeadLetterCommand::Discard(args) => {
            let letter = client.one(Method::DELETE, args.id).await?;
            print(args.json, &letter, || format!("{} is discarded", letter.id))
        }
    }
}

/// Who carries it out.
enum OperatorClient {
    /// Whoever commits publishes: nothing else may be running.
    Store(Store, Option<Bus>),
    Server {
        client: Client,
        url: String,
    },
}

impl OperatorClient {
    async fn open(config: &Config, needs_bus: bool) -> anyhow::Result<Self> {
        let data = &config.data;
        if config.store.backend == StoreBackend::Sqlite && !data.is_dir() {
            bail!("there is no data folder {}", data.display());
        }
        match backends::open_store(config, Metrics::unregistered()).await {
            Ok(store) if needs_bus => match backends::open_bus(config, &store).await {
                Ok(bus) => Ok(Self::Store(store, Some(bus))),
                Err(error) => {
                    log::print_error(format_args!(
                        "{error:#}: a process of this store publishes it"
                    ));
                    Ok(Self::Store(store, None))
                }
            },
            Ok(store) => Ok(Self::Store(store, None)),
            // Several processes may share what Kafka connects: none of them is meant more than another.
            Err(error) if config.bus.backend == BusBackend::Kafka => Err(error.into()),
            Err(error) => match fs::read_to_string(data.join(ADDRESS_FILE)) {
                Ok(address) => Self::server(&address),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// Publishes what was said.
    async fn close(self) {
        if let Self::Store(_, Some(bus)) = self
            && tokio::time::timeout(PUBLISH_WAIT_MAX, backends::close_bus(bus))
                .await
                .is_err()
        {
            log::print_error("not published yet; a process of this store does it");
        }
    }

    fn server(address: &str) -> anyhow::Result<Self> {
        let address: SocketAddr = address
            .trim()
            .parse()
            .with_context(|| format!("{ADDRESS_FILE} does not hold an address"))?;
        let address = reachable(address);
        // The client wants to know who would encrypt, though nothing is encrypted here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build()?;
        let url = format!("http://{address}/dead-letter");
        Ok(Self::Server { client, url })
    }

    async fn list(&self, args: &ListArgs) -> anyhow::Result<Vec<DeadLetterView>> {
        let state = args.state.map(DeadLetterState::from);
        match self {
            Self::Store(store, _) => {
                let records = dead_letters::list(store, state, args.after, args.limit).await?;
                Ok(records.into_iter().map(DeadLetterView::from).collect())
            }
            Self::Server { client, url } => {
                let mut query = format!("limit={}", args.limit);
                if let Some(state) = state {
                    query.push_str(&format!("&state={}", state_name(state)));
                }
                if let Some(after) = args.after {
                    query.push_str(&format!("&after={after}"));
                }
                let answer: Items = ask(client, Method::GET, &format!("{url}?{query}")).await?;
                Ok(answer.items)
            }
        }
    }

    /// GET shows, POST replays, DELETE discards.
    async fn one(&self, method: Method, id: DeadLetterId) -> anyhow::Result<DeadLetterView> {
        match self {
            Self::Server { client, url } if method == Method::POST => {
                ask(client, method, &format!("{url}/{id}/replay")).await
            }
            Self::Server { client, url } => ask(client, method, &format!("{url}/{id}")).await,
            Self::Store(store, _) => {
                let now = Clock::System.now();
                let record = match method {
                    Method::POST => dead_letters::replay(store, id, now).await?,
                    Method::DELETE => dead_letters::discard(store, id, now).await?,
                    _ => dead_letters::show(store, id).await?,
                };
                Ok(record.into())
            }
        }
    }
}

#[derive(Deserialize)]
struct Items {
    items: Vec<DeadLetterView>,
}

#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

async fn ask<T: DeserializeOwned>(client: &Client, method: Method, url: &str) -> anyhow::Result<T> {
    let response = client.request(method, url).send().await.with_context(|| {
        format!("the server that has the data folder open does not answer at {url}")
    })?;
    if response.status().is_success() {
        return Ok(response.json().await?);
    }
    let status = response.status();
    match response.json::<Refusal>().await {
        Ok(refusal) => Err(anyhow!(refusal.detail)),
        Err(_) => Err(anyhow!("{url} answered {status}")),
    }
}

fn print<T: serde::Serialize>(
    as_json: bool,
    value: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = if as_json {
        serde_json::to_string_pretty(value)?
    } else {
        text()
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn table(letters: &[DeadLetterView]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "id", "state", "group", "topic", "retries", "reason", "since",
    ]);
    for view in letters {
        let letter = &view.letter;
        table.add_row([
            view.id.to_string(),
            state_name(view.state),
            letter.group.clone(),
            letter.reissued_topic.clone(),
            format!("{}/{}", letter.retry_count, letter.max_retry_count),
            letter.reason.clone(),
            view.created_at.to_string(),
        ]);
    }
    table.to_string()
}

fn page(view: &DeadLetterView) -> String {
    let letter = &view.letter;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    for (name, value) in [
        ("id", view.id.to_string()),
        ("state", state_name(view.state)),
        ("reason", letter.reason.clone()),
        ("group", letter.group.clone()),
        ("topic", letter.reissued_topic.clone()),
        ("key", letter.reissued_key.clone()),
        ("message", letter.message_id.clone()),
        (
            "retries",
            format!("{} of {}", letter.retry_count, letter.max_retry_count),
        ),
        ("reissues", view.reissues.to_string()),
        ("created", view.created_at.to_string()),
        ("updated", view.updated_at.to_string()),
        ("payload", letter.reissued_payload.clone()),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    table.to_string()
}

fn state_name(state: DeadLetterState) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("a state is a string"),
    }
}
