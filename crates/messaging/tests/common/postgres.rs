//! A PostgreSQL server for the tests: the one that `BOXOFFICE_TEST_POSTGRES_URL` names, or one that
//! `scripts/postgres` starts, once for each test binary. That one serves until its standard input ends, so it goes
//! when this process goes, however that happens. Each test has a schema of its own, dropped afterwards. Where no
//! server can be had, the tests fail.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use messaging::PostgresSettings;

struct Server {
    url: String,
    /// Holds the server's standard input open as long as this process lives.
    _process: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static SCHEMAS: AtomicU32 = AtomicU32::new(0);

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres")
}

/// The URL of the server.
pub fn url() -> &'static str {
    &SERVER.get_or_init(start).url
}

fn start() -> Server {
    if let Ok(url) = std::env::var("BOXOFFICE_TEST_POSTGRES_URL") {
        return Server {
            url,
            _process: None,
        };
    }
    let mut process = Command::new(script())
        .arg("run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/postgres can be run");
    let mut url = String::new();
    let output = process.stdout.take().expect("the output is a pipe");
    BufReader::new(output).read_line(&mut url).unwrap();
    let url = url.trim().to_owned();
    assert!(
        url.starts_with("postgres://"),
        "scripts/postgres starts no server"
    );
    Server {
        url,
        _process: Some(process),
    }
}

/// A schema that nobody else uses.
pub struct Schema {
    pub settings: PostgresSettings,
}

impl Schema {
    pub fn new() -> Self {
        Self::at(url())
    }

    pub fn at(url: &str) -> Self {
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let settings = PostgresSettings {
            url: url.to_owned(),
            schema: format!("test_{}_{number}", std::process::id()),
            ..PostgresSettings::default()
        };
        Self { settings }
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop_schema = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.settings.schema);
        run(&self.settings.url, drop_schema);
    }
}

/// Runs SQL and waits for it, wherever this is called.
pub fn run(url: &str, sql: String) {
    connected(url, async move |client| {
        client.batch_execute(&sql).await.unwrap()
    });
}

/// Asks for one number.
pub fn count(url: &str, sql: &'static str) -> i64 {
    let ask = async move |client: tokio_postgres::Client| {
        let row = client.query_one(sql, &[]).await.unwrap();
        row.get(0)
    };
    connected(url, ask).expect("the server can be reached")
}

/// On a thread of its own, since the caller may be one that must not wait. `None` where the server is away.
fn connected<T: Send + 'static>(
    url: &str,
    work: impl AsyncFnOnce(tokio_postgres::Client) -> T + Send + 'static,
) -> Option<T> {
    let url = url.to_owned();
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
            let (client, connection) = connected.ok()?;
            let driver = tokio::spawn(connection);
            let worked = work(client).await;
            driver.await.unwrap().unwrap();
            Some(worked)
        })
    });
    running.join().unwrap()
}
