//! The deployment under load: all services in one process on a data folder, or several processes over PostgreSQL, Redis
//! and Kafka, all on this machine.

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

/// The processes of one copy if each service runs alone, and the schema of each.
const SEPARATE_PROCESSES: [(&str, &str); 5] = [
    ("event", "event"),
    ("user,dead-letter", "users"),
    ("ticketing-api", "ticketing"),
    ("ticketing-worker", "ticketing"),
    ("payment-api,payment-worker", "payment"),
];
const SECRET_KEY: &str = "test_sk_load";
/// The settings of each process over the engines.
const SETTINGS: &[(&str, &str)] = &[
    ("STORE__BACKEND", "postgres"),
    ("BUS__BACKEND", "kafka"),
    ("TICKETING__RESERVATIONS", "redis"),
    ("MESSAGING__INBOX_RETENTION_SECS", "120000"),
    ("PAYMENT__SANDBOX", "false"),
    ("PAYMENT__GATEWAY__SECRET_KEY", SECRET_KEY),
];

/// Which processes run, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    Folder,
    /// This many processes with all services, over one schema.
    Engines(usize),
    /// This many processes of each service, over one schema per service.
    Apart(usize),
}

pub struct Deployment {
    servers: Vec<Server>,
    copies: Vec<Addresses>,
    /// The copy that the next client uses.
    next: AtomicUsize,
    /// The payment gateway's sandbox, if it is a process of its own.
    gateway: Option<Server>,
    /// Last, so that they are dropped after the processes.
    engines: Vec<Engine>,
}

impl Deployment {
    pub fn open(topology: Topology) -> anyhow::Result<Self> {
        match topology {
            Topology::Folder => {
                let server = Server::start()?;
                Ok(Self {
                    copies: vec![Addresses::one(&server.address)],
                    servers: vec![server],
                    next: AtomicUsize::default(),
                    gateway: None,
                    engines: Vec::new(),
                })
            }
            Topology::Engines(copies) => Self::over_engines(copies, &[("all", "boxoffice")]),
            Topology::Apart(copies) => Self::over_engines(copies, &SEPARATE_PROCESSES),
        }
    }

    fn over_engines(copies: usize, processes: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut deployment = Self {
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
        for (_, schema) in processes {
            migrate(&deployment.settings(schema))?;
        }
        for _ in 0..copies {
            let mut addresses = Vec::new();
            for (services, schema) in processes {
                let command = ["serve", "--services", services];
                let server = Server::start_with(&command, &deployment.settings(schema))?;
                addresses.push((*services, server.address.clone()));
                deployment.servers.push(server);
            }
            let of = |service: &str| {
                let found = addresses
                    .iter()
                    .find(|(services, _)| services.starts_with(service) || *services == "all");
                found
                    .map(|(_, address)| address.clone())
                    .with_context(|| format!("no process runs {service}"))
            };
            deployment.copies.push(Addresses {
                event: of("event")?,
                user: of("user")?,
                ticketing: of("ticketing-api")?,
                payment: of("payment")?,
            });
        }
        Ok(deployment)
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

    /// A client of the next copy, as a round-robin proxy chooses it.
    pub fn client(&self) -> Client {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.copies.len();
        Client::new(self.copies[place].clone())
    }

    /// Registers an event, and returns its id once it is on sale.
    pub async fn event_on_sale(&self, quantity: i64, price: i64) -> anyhow::Result<i64> {
        let mut client = self.client();
        let event = json!({ "name": "show", "ticketQuantity": quantity, "price": price });
        let event = client.post_json("/event", &event, 201).await?;
        let id = event["id"]
            .as_i64()
            .context("the event's response has no id")?;
        // Consumers may still be joining their groups.
        let deadline = Instant::now() + Duration::from_secs(60);
        while client.get(&format!("/ticketing/event/{id}")).await?.0 != 200 {
            ensure!(
                Instant::now() < deadline,
                "event {id} is not on sale after 60 s"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(id)
    }

    /// CPU time used so far, in seconds, by the program, the gateway, each engine and this process.
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
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", binary()))?;
    ensure!(
        output.status.success(),
        "migrate: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The CPU time between two samples, in microseconds per operation, as text.
pub fn cpu_each(before: &[(&str, f64)], after: &[(&str, f64)], operations: f64) -> String {
    let parts = before
        .iter()
        .zip(after)
        .map(|((name, before), (_, after))| {
            format!("{name} {:.0}", (after - before) / operations * 1e6)
        });
    let parts: Vec<_> = parts.collect();
    format!("{} µs", parts.join(", "))
}
