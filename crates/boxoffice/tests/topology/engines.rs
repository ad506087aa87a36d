//! PostgreSQL, Redis and Kafka, started by the repository's scripts once for this test process, which they do not
//! outlive. Unlike the servers that other tests share, these are crashed, so the environment cannot name them.
//!
//! A Kafka client connects to the address that the broker advertises. So the broker has one listener for each process,
//! and advertises the address of that process's proxy for it.

use std::sync::{Arc, OnceLock};

use test_support::engines::Engine;

use crate::proxy::Proxy;

/// Maximal number of processes with a proxy to Kafka.
pub const KAFKA_ROUTES: usize = 11;
static ENGINES: OnceLock<Engines> = OnceLock::new();

pub struct Engines {
    pub postgres: Engine,
    pub redis: Engine,
    pub kafka: Engine,
    /// Proxies to Kafka, one for each process.
    pub kafka_routes: Vec<Arc<Proxy>>,
}

impl Engines {
    /// Starts the engines at the first call, which blocks.
    pub fn get() -> &'static Self {
        ENGINES.get_or_init(|| {
            let routes: Vec<_> = (0..KAFKA_ROUTES).map(|_| Proxy::open(|| None)).collect();
            let ports = routes.iter().map(|route| route.address.port().to_string());
            let ports = &ports.collect::<Vec<_>>().join(" ");
            let engines = std::thread::scope(|scope| {
                let [postgres, redis, kafka] = ["postgres", "redis", "kafka"]
                    .map(|name| scope.spawn(move || Engine::start(name, ports)));
                Self {
                    postgres: postgres.join().unwrap(),
                    redis: redis.join().unwrap(),
                    kafka: kafka.join().unwrap(),
                    kafka_routes: routes.into_iter().map(Arc::new).collect(),
                }
            });
            for (route, target) in engines
                .kafka_routes
                .iter()
                .zip(engines.kafka.advertised_listeners())
            {
                route.set_target(target);
            }
            engines
        })
    }
}
