//! PostgreSQL, Redis and Kafka, started by the repository's scripts once for this process, and gone with it. Unlike
//! the servers that other tests share these are crashed, so nobody hands them in.
//!
//! A client of Kafka goes where the broker says that it is. So the broker has a listener for each process, and says of
//! it where that process' road begins.

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

/// Processes that can have a road to Kafka.
pub const PLACES: usize = 11;
static ENGINES: OnceLock<Engines> = OnceLock::new();

pub struct Engines {
    pub postgres: Engine,
    pub redis: Engine,
    pub kafka: Engine,
    /// To Kafka, one for each process.
    pub kafka_roads: Vec<Arc<Proxy>>,
}

pub struct Engine {
    pub name: &'static str,
    script: PathBuf,
    folder: PathBuf,
    pub address: String,
    /// Its standard input stays open as long as this process lives.
    _process: Child,
}

impl Engines {
    /// The engines of this process. Blocks while they start.
    pub fn get() -> &'static Self {
        ENGINES.get_or_init(|| {
            let roads: Vec<_> = (0..PLACES).map(|_| Proxy::open(|| None)).collect();
            let ports = roads.iter().map(|road| road.address.port().to_string());
            let ports = &ports.collect::<Vec<_>>().join(" ");
            let engines = std::thread::scope(|scope| {
                let [postgres, redis, kafka] = ["postgres", "redis", "kafka"]
                    .map(|name| scope.spawn(move || Engine::start(name, ports)));
                Self {
                    postgres: postgres.join().unwrap(),
                    redis: redis.join().unwrap(),
                    kafka: kafka.join().unwrap(),
                    kafka_roads: roads.into_iter().map(Arc::new).collect(),
                }
            });
            for (road, goal) in engines.kafka_roads.iter().zip(engines.kafka.listeners()) {
                road.lead_to(goal);
            }
            engines
        })
    }
}

impl Engine {
    fn start(name: &'static str, advertised: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/{name}"));
        // The script makes its folder in here, which its server's own user must be able to enter.
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

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        let (_, behind) = self
            .address
            .split_at(self.address.find("127.0.0.1:").unwrap());
        behind.split('/').next().unwrap().parse().unwrap()
    }

    /// Its address, at the beginning of a road.
    pub fn address_by(&self, road: &Proxy) -> String {
        let (there, here) = (self.socket().to_string(), road.address.to_string());
        self.address.replace(&there, &here)
    }

    /// The listeners of Kafka that were made for roads, in their order.
    fn listeners(&self) -> Vec<SocketAddr> {
        let ports = fs::read_to_string(self.folder.join("advertised")).unwrap();
        let ports = ports.split_whitespace().map(|it| it.parse().unwrap());
        ports
            .map(|port: u16| ([127, 0, 0, 1], port).into())
            .collect()
    }

    /// Ends it at once, as a power cut would. Redis keeps nothing.
    pub async fn crash(&self) {
        self.run("crash").await;
    }

    /// Brings it back at the same address.
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
