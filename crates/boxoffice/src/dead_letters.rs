//! The commands for dead letters. They work on the store directly, or through the server that has the data folder open.
//! Processes that share PostgreSQL and Kafka do not exclude them: each change is a Commit, whose versions are checked.
//! State: none.

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use contract::DeadLetterId;
use messaging::{
    Bus, Clock, Metrics, Store,
    dead_letters::{self, DeadLetterState},
};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    backends::{self, BusBackend},
    client::{self, ServerClient},
    config::Config,
    http::dead_letter::DeadLetterView,
    log,
    output::print,
};

/// How long a command waits until its message is published.
const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List dead letters, the oldest first
    List(ListArgs),
    /// Show a dead letter with its payload
    Show(OneArgs),
    /// Send the message again to the consumer group that rejected it
    Replay(OneArgs),
    /// Close a dead letter without handling its message
    Discard(OneArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only dead letters in this state
    #[arg(long, value_parser = states())]
    state: Option<DeadLetterState>,
    /// The last id of the previous page
    #[arg(long)]
    after: Option<DeadLetterId>,
    /// How many to list
    #[arg(long, default_value_t = web::page::LIMIT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(web::page::LIMIT_MAX)))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    id: DeadLetterId,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn states() -> impl TypedValueParser<Value = DeadLetterState> {
    let names = ["waiting", "parked", "replayed", "resolved", "discarded"];
    let names = PossibleValuesParser::new(names);
    names.try_map(|name| serde_json::from_value(name.to_uppercase().into()))
}

/// Runs one command and prints its result.
///
/// # Errors
/// If the dead letter does not exist or is closed, or neither the store nor its server can be used.
pub async fn run(config: &Config, command: DeadLetterCommand) -> anyhow::Result<()> {
    let publishes = matches!(
        command,
        DeadLetterCommand::Replay(_) | DeadLetterCommand::Discard(_)
    );
    let client = OperatorClient::open(config, publishes).await?;
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
                format!("the message of {} is sent again", letter.id)
            })
        }
        DeadLetterCommand::Discard(args) => {
            let letter = client.one(Method::DELETE, args.id).await?;
            print(args.json, &letter, || format!("{} is discarded", letter.id))
        }
    }
}

/// Where the commands are executed.
enum OperatorClient {
    /// In this process. The bus publishes the messages of a command that publishes.
    Store(Store, Option<Bus>),
    Server(ServerClient),
}

impl OperatorClient {
    async fn open(config: &Config, publishes: bool) -> anyhow::Result<Self> {
        backends::must_exist(config)?;
        let store = match backends::open_store(config, Metrics::unregistered()).await {
            Ok(store) => store,
            // Several processes share such a store; none of them has it open alone.
            Err(error) if config.bus.backend == BusBackend::Kafka => return Err(error.into()),
            Err(error) => {
                let server = ServerClient::of_folder(&config.data)?;
                return server.map(Self::Server).ok_or_else(|| error.into());
            }
        };
        if !publishes {
            return Ok(Self::Store(store, None));
        }
        match backends::open_bus(config, &store).await {
            Ok(bus) => Ok(Self::Store(store, Some(bus))),
            Err(error) => {
                log::print_error(format_args!(
                    "{error:#}; the relay of a running process will publish the message"
                ));
                Ok(Self::Store(store, None))
            }
        }
    }

    /// Waits until the messages are published.
    async fn close(self) {
        if let Self::Store(_, Some(bus)) = self
            && tokio::time::timeout(PUBLISH_WAIT_MAX, bus.close())
                .await
                .is_err()
        {
            log::print_error(
                "the message is not published yet; the relay of a running process will publish it",
            );
        }
    }

    async fn list(&self, args: &ListArgs) -> anyhow::Result<Vec<DeadLetterView>> {
        match self {
            Self::Store(store, _) => {
                let records = dead_letters::list(store, args.state, args.after, args.limit).await?;
                Ok(records.into_iter().map(DeadLetterView::from).collect())
            }
            Self::Server(server) => {
                let mut path = format!("/dead-letter?limit={}", args.limit);
                if let Some(state) = args.state {
                    path.push_str(&format!("&state={}", state_name(state)));
                }
                if let Some(after) = args.after {
                    path.push_str(&format!("&after={after}"));
                }
                let page: Items = ask(server, Method::GET, &path).await?;
                Ok(page.items)
            }
        }
    }

    /// GET shows, POST replays, DELETE discards.
    async fn one(&self, method: Method, id: DeadLetterId) -> anyhow::Result<DeadLetterView> {
        match self {
            Self::Server(server) if method == Method::POST => {
                ask(server, method, &format!("/dead-letter/{id}/replay")).await
            }
            Self::Server(server) => ask(server, method, &format!("/dead-letter/{id}")).await,
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

async fn ask<T: DeserializeOwned>(
    server: &ServerClient,
    method: Method,
    path: &str,
) -> anyhow::Result<T> {
    let answer = client::send(server.request(method, path)).await;
    answer
        .with_context(|| format!("cannot use the server at {}", server.url()))?
        .map_err(|refusal| anyhow!(refusal.detail))
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
