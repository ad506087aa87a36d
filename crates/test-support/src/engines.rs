//! PostgreSQL, Redis and Kafka for the tests. A shared engine is the server that the environment names, or one that a
//! script of the repository starts once for each test process. An [`Engine`] of its own is for a test that crashes it.
//! A started server runs until its standard input is closed, so it ends with the test process, however that ends.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio_postgres::NoTls;

/// A server that a script of the repository has started.
pub struct Engine {
    pub name: &'static str,
    /// Its URL, or for Kafka its address.
    pub address: String,
    folder: PathBuf,
    /// Its standard input is open as long as this value lives.
    _process: Child,
}

/// The URL of the shared PostgreSQL, or `BOXOFFICE_TEST_POSTGRES_URL`.
pub fn postgres_url() -> &'static str {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    shared(&SHARED, "postgres", "BOXOFFICE_TEST_POSTGRES_URL")
}

/// The URL of the shared Redis, or `BOXOFFICE_TEST_REDIS_URL`.
pub fn redis_url() -> &'static str {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    shared(&SHARED, "redis", "BOXOFFICE_TEST_REDIS_URL")
}

/// The address of the shared Kafka broker, or `BOXOFFICE_TEST_KAFKA`.
pub fn kafka_brokers() -> &'static str {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    shared(&SHARED, "kafka", "BOXOFFICE_TEST_KAFKA")
}

enum Shared {
    Given(String),
    Started(Engine),
}

fn shared(cell: &'static OnceLock<Shared>, name: &'static str, variable: &str) -> &'static str {
    let engine = cell.get_or_init(|| match std::env::var(variable) {
        Ok(address) => Shared::Given(address),
        Err(_) => Shared::Started(Engine::start(name, "")),
    });
    match engine {
        Shared::Given(address) => address,
        Shared::Started(engine) => &engine.address,
    }
}

/// A name that no other test on a shared engine uses: for a schema, and as a prefix of keys, topics and groups.
pub fn unique_name(prefix: &str) -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (process, start) = (std::process::id(), since_epoch.subsec_nanos());
    format!("{prefix}_{process:x}_{start:x}_{number}")
}

/// The repository's script that starts an engine.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/{name}"))
}

impl Engine {
    /// Starts a server, which blocks. `advertised` are the ports that Kafka advertises, one for each further listener.
    pub fn start(name: &'static str, advertised: &str) -> Self {
        // The script creates its folder here; the server's own user must be able to enter it.
        let home = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        let mut process = Command::new("sh")
            .args(["-c", "\"$0\" run; rmdir \"$TMPDIR\""])
            .arg(script(name))
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
        let mut folders = fs::read_dir(&home).unwrap().map(|it| it.unwrap().path());
        let folder = folders.find(|it| it.join("port").is_file()).unwrap();
        Self {
            name,
            address,
            folder,
            _process: process,
        }
    }

    /// The address on which it listens.
    pub fn socket(&self) -> SocketAddr {
        let start = self.address.find("127.0.0.1:").unwrap();
        let socket = self.address[start..].split('/').next().unwrap();
        socket.parse().unwrap()
    }

    /// Its URL, with the address of a proxy.
    pub fn address_through(&self, proxy: SocketAddr) -> String {
        let socket = self.socket().to_string();
        self.address.replace(&socket, &proxy.to_string())
    }

    /// Kafka's listeners for the advertised ports, in their order.
    pub fn advertised_listeners(&self) -> Vec<SocketAddr> {
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
        let mut script = Command::new(script(self.name));
        script.arg(command).arg(&self.folder);
        script.stdin(Stdio::null()).stdout(Stdio::null());
        let running = tokio::task::spawn_blocking(move || script.status());
        let status = running.await.unwrap().unwrap();
        assert!(status.success(), "scripts/{} {command}", self.name);
    }
}

/// Drops a schema when it is dropped itself.
pub struct PostgresSchema {
    pub url: String,
    pub name: String,
}

impl PostgresSchema {
    /// A schema that no other test uses, which is not created yet.
    pub fn unique() -> Self {
        Self::unique_at(postgres_url())
    }

    pub fn unique_at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            name: unique_name("test"),
        }
    }
}

impl Drop for PostgresSchema {
    fn drop(&mut self) {
        run_sql(
            &self.url,
            format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name),
        );
    }
}

/// Runs SQL and waits for it. Does nothing if the server is down.
pub fn run_sql(url: &str, sql: String) {
    with_postgres(url, async move |client| {
        client.batch_execute(&sql).await.unwrap()
    });
}

/// The one number that a query returns.
pub fn query_number(url: &str, sql: &'static str) -> i64 {
    let query = async move |client: tokio_postgres::Client| {
        let row = client.query_one(sql, &[]).await.unwrap();
        row.get(0)
    };
    with_postgres(url, query).expect("the server is up")
}

/// Works on its own thread, since the caller may be a task that must not block. `None` if the server is down.
fn with_postgres<T: Send + 'static>(
    url: &str,
    work: impl AsyncFnOnce(tokio_postgres::Client) -> T + Send + 'static,
) -> Option<T> {
    let url = url.to_owned();
    let working = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.ok()?;
            let driver = tokio::spawn(connection);
            let result = work(client).await;
            driver.await.unwrap().unwrap();
            Some(result)
        })
    });
    working.join().unwrap()
}

/// Deletes every Redis key with this prefix, as a restart without data does.
pub async fn empty_redis(url: &str, prefix: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script =
        "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end";
    let mut delete = redis::cmd("EVAL");
    delete.arg(script).arg(0).arg(format!("{prefix}:*"));
    let _: () = delete.query_async(&mut connection).await.unwrap();
}
