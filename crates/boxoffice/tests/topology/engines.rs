//! PostgreSQL, Redis and Kafka, started by the repository's scripts once for this test process, which they do not
//! outlive. Unlike the servers that other tests share, these are crashed, so the environment cannot name them.
//!
//! A Kafka client connects to the address that the broker advertises. So the broker has one listener for each process,
//! and advertises the address of that process's proxy for it.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};

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

pub struct Engine {
    pub name: &'static str,
    script: PathBuf,
    folder: PathBuf,
    pub address: String,
    /// The server runs as long as its standard input is open.
    _process: Child,
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
            for (route, target) in engines.kafka_routes.iter().zip(engines.kafka.listeners()) {
                route.set_target(target);
            }
            engines
        })
    }
}

impl Engine {
    fn start(name: &'static str, advertised: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/{name}"));
        // The script creates its folder here; the server's own user must be able to enter it.
        let home = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        let mut process = Command::new("sh")
            .args(["-c", "\"$0\" run; rmdir \"$TMPDIR\""])
            .arg(&script)
            .env("TMPDIR", &home)
            .env("BOXOFFICE_KAFKA_ADVERTISED", advertised)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        assert!(address.contains(':'), "scripts/{name} starts no server");
        let made = fs::read_dir(&home).unwrap().map(|it| it.unwrap().path());
        let folder = made
            .into_iter()
            .find(|it| it.join("port").is_file())
            .unwrap();
        Self {
            name,
            script,
            folder,
            address,
            _process: process,
        }
    }

    /// The address on which it listens.
    pub fn socket(&self) -> SocketAddr {
        let (_, consumer_lag) = self
            .address
            .split_at(self.address.find("127.0.0.1:").unwrap());
        consumer_lag.split('/').next().unwrap().parse().unwrap()
    }

    /// Its URL, with the address of a proxy.
    pub fn address_through(&self, route: &Proxy) -> String {
        let (there, here) = (self.socket().to_string(), route.address.to_string());
        self.address.replace(&there, &here)
    }

    /// Kafka's listeners behind the proxies, in their order.
    fn listeners(&self) -> Vec<SocketAddr> {
        let ports = fs::read_to_string(self.folder.join("advertised")).unwrap();
        let ports = ports.split_whitespace().map(|it| it.parse().unwrap());
        ports
            .map(|port: u16| ([127, 0, 0, 1], port).into())
            .collect()
    }

    /// Kills it without a clean stop. Redis keeps no data.
    pub async fn crash(&self) {
        self.run("crash").await;
    }

    /// Starts it again at the same address.
    pub async fn restart(&self) {
        self.run("start").await;
    }

    async fn run(&self, command: &'static str) {
        let mut script = Command::new(&self.script);
        script.arg(command).arg(&self.folder);
        script.stdin(Stdio::null()).stdout(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || script.status());
        let status = ran.await.unwrap().unwrap();
        assert!(status.success(), "{} {command}", self.script.display());
    }
}
