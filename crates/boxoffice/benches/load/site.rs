//! What is measured: everything in one process on one folder, or copies of the program over PostgreSQL, Redis and
//! Kafka, all on this machine.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::{
    client::{Addresses, Client},
    engines::Engine,
    server::{Server, binary},
};

/// The processes of one copy where the services run apart, and the schema of each.
const APART: [(&str, &str); 5] = [
    ("event", "event"),
    ("user,dead-letter", "users"),
    ("ticketing-api", "ticketing"),
    ("ticketing-worker", "ticketing"),
    ("payment-api,payment-worker", "payment"),
];
const SECRET_KEY: &str = "test_sk_load";
/// What every process over the engines is told.
const SETTINGS: &[(&str, &str)] = &[
    ("STORE__BACKEND", "postgres"),
    ("BUS__BACKEND", "kafka"),
    ("TICKETING__RESERVATIONS", "redis"),
    ("MESSAGING__INBOX_RETENTION_SECS", "120000"),
    ("PAYMENT__SANDBOX", "false"),
    ("PAYMENT__GATEWAY__SECRET_KEY", SECRET_KEY),
];

/// Over what the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Folder,
    /// So many processes with all services, over one schema.
    Engines(usize),
    /// So many processes of each service, over a schema for each.
    Apart(usize),
}

pub struct Site {
    servers: Vec<Server>,
    copies: Vec<Addresses>,
    /// Which copy the next client speaks to.
    next: AtomicUsize,
    /// The payment gateway's sandbox, where it is a process of its own.
    gateway: Option<Server>,
    /// Last, so that they end after the processes.
    engines: Vec<Engine>,
}

impl Site {
    pub fn open(over: Over) -> anyhow::Result<Self> {
        match over {
            Over::Folder => {
                let server = Server::start()?;
                Ok(Self {
                    copies: vec![Addresses::one(&server.address)],
                    servers: vec![server],
                    next: AtomicUsize::default(),
                    gateway: None,
                    engines: Vec::new(),
                })
            }
            Over::Engines(copies) => Self::over_engines(copies, &[("all", "boxoffice")]),
            Over::Apart(copies) => Self::over_engines(copies, &APART),
        }
    }

    fn over_engines(copies: usize, cast: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut site = Self {
            servers: Vec::new(),
            copies: Vec::new(),
            next: AtomicUsize::default(),
            gateway: Some(Server::start_with(
                &["sandbox", "--secret-key", SECRET_KEY],
                &[],
            )?),
            engines: ["postgres", "redis", "kafka"]
                .into_iter()
                .map(Engine::start)
                .collect::<Result<_, _>>()?,
        };
        for (_, schema) in cast {
            migrate(&site.settings(schema))?;
        }
        for _ in 0..copies {
            let mut addresses = Vec::new();
            for (services, schema) in cast {
                let command = ["serve", "--services", services];
                let server = Server::start_with(&command, &site.settings(schema))?;
                addresses.push((*services, server.address.clone()));
                site.servers.push(server);
            }
            let of = |service: &str| {
                let found = addresses
                    .iter()
                    .find(|(services, _)| services.starts_with(service) || *services == "all");
                found
                    .map(|(_, address)| address.clone())
                    .context("no such process")
            };
            site.copies.push(Addresses {
                event: of("event")?,
                user: of("user")?,
                ticketing: of("ticketing-api")?,
                payment: of("payment")?,
            });
        }
        Ok(site)
    }

    fn settings(&self, schema: &str) -> Vec<(String, String)> {
        let gateway = self.gateway.as_ref().map(|it| &it.address);
        let address = |name: &str| {
            let engine = self.engines.iter().find(|it| it.name == name);
            engine.map_or_else(String::new, |it| it.address.clone())
        };
        let own = [
            ("STORE__POSTGRES__URL", address("postgres")),
            ("STORE__POSTGRES__SCHEMA", schema.to_owned()),
            ("BUS__KAFKA__BROKERS", address("kafka")),
            ("TICKETING__REDIS__URL", address("redis")),
            (
                "PAYMENT__GATEWAY__BASE_URL",
                gateway.map_or_else(String::new, |it| format!("http://{it}")),
            ),
        ];
        let fixed = SETTINGS
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let all = fixed.chain(own);
        all.map(|(name, value)| (format!("BOXOFFICE_{name}"), value))
            .collect()
    }

    /// A buyer who speaks to the next copy, as a proxy would share them out.
    pub fn client(&self) -> Client {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.copies.len();
        Client::new(self.copies[place].clone())
    }

    /// Registers an event and returns its id once it is on sale.
    pub async fn event_on_sale(&self, quantity: i64, price: i64) -> anyhow::Result<i64> {
        let mut client = self.client();
        let event = json!({ "name": "show", "ticketQuantity": quantity, "price": price });
        let event = client.post_json("/event", &event, 201).await?;
        let id = event["id"].as_i64().context("the event has no id")?;
        // Consumers may still be joining their groups.
        let deadline = Instant::now() + Duration::from_secs(60);
        while client.get(&format!("/ticketing/event/{id}")).await?.0 != 200 {
            ensure!(Instant::now() < deadline, "the event did not come on sale");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(id)
    }

    /// Processor time used so far, in seconds, by the program, and by whatever else takes part.
    pub fn cpu_secs(&self) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let mut program = 0.0;
        for server in &self.servers {
            program += server.cpu_secs()?;
        }
        let mut used = vec![("boxoffice", program)];
        if let Some(gateway) = &self.gateway {
            used.push(("gateway", gateway.cpu_secs()?));
        }
        for engine in &self.engines {
            used.push((engine.name, engine.cpu_secs()?));
        }
        used.push(("load", crate::server::cpu_secs(std::process::id())?));
        Ok(used)
    }
}

fn migrate(settings: &[(String, String)]) -> anyhow::Result<()> {
    let mut command = Command::new(binary());
    command
        .arg("migrate")
        .envs(settings.iter().map(|(name, value)| (name, value)));
    let output = command.output().context("the binary cannot be started")?;
    ensure!(
        output.status.success(),
        "migrate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What was used between two looks, in microseconds for each of so many things, for people.
pub fn each(before: &[(&str, f64)], after: &[(&str, f64)], things: f64) -> String {
    let parts = before
        .iter()
        .zip(after)
        .map(|((name, before), (_, after))| {
            format!("{name} {:.0}", (after - before) / things * 1e6)
        });
    let parts: Vec<_> = parts.collect();
    format!("{} µs", parts.join(", "))
}
