//! A Redis server for the tests: the one at `BOXOFFICE_TEST_REDIS_URL`, or one that `scripts/redis` starts once for each
//! test binary. That one runs until its standard input ends, so it stops with this process, however that ends. Each test
//! has keys of its own. Without a server the tests fail.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ticketing::redis_server::RedisSettings;

struct Server {
    url: String,
    /// Holds the server's standard input open while this process lives.
    _process: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static PREFIXES: AtomicU32 = AtomicU32::new(0);

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/redis")
}

/// The shared server, with a key prefix that no other test uses.
pub fn settings() -> RedisSettings {
    let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
    RedisSettings {
        url: SERVER.get_or_init(start).url.clone(),
        prefix: format!("test:{}:{number}", std::process::id()),
        ..RedisSettings::default()
    }
}

fn start() -> Server {
    if let Ok(url) = std::env::var("BOXOFFICE_TEST_REDIS_URL") {
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
        .expect("scripts/redis can be run");
    let mut url = String::new();
    let output = process.stdout.take().expect("the output is a pipe");
    BufReader::new(output).read_line(&mut url).unwrap();
    let url = url.trim().to_owned();
    assert!(
        url.starts_with("redis://"),
        "scripts/redis starts no server"
    );
    Server {
        url,
        _process: Some(process),
    }
}

/// Deletes everything under the prefix at once, as a restart without data does.
pub async fn empty(settings: &RedisSettings) {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script =
        "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end";
    let mut empty = redis::cmd("EVAL");
    empty
        .arg(script)
        .arg(0)
        .arg(format!("{}:*", settings.prefix));
    let _: () = empty.query_async(&mut connection).await.unwrap();
}
