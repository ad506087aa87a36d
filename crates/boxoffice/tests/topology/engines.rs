//! PostgreSQL, Redis and Kafka, started by the repository's scripts once for this process, and gone with it. Unlike
//! the servers that other tests share these are crashed, so nobody hands them in.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

static ENGINES: OnceLock<Engines> = OnceLock::new();

pub struct Engines {
    pub postgres: Engine,
    pub redis: Engine,
    pub kafka: Engine,
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
            std::thread::scope(|scope| {
                let [postgres, redis, kafka] = ["postgres", "redis", "kafka"]
                    .map(|name| scope.spawn(move || Engine::start(name)));
                Self {
                    postgres: postgres.join().unwrap(),
                    redis: redis.join().unwrap(),
                    kafka: kafka.join().unwrap(),
                }
            })
        })
    }
}

impl Engine {
    fn start(name: &'static str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/{name}"));
        // The script makes its folder in here, which its server's own user must be able to enter.
        let home = tempfile::tempdir().unwrap().keep();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        let mut process = Command::new("sh")
            .args(["-c", "\"$0\" run; rmdir \"$TMPDIR\""])
            .arg(&script)
            .env("TMPDIR", &home)
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
