//! Runs PostgreSQL, Redis and Kafka by the repository's scripts, each in a temporary folder, and stops them on drop.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::server::cpu_secs;

pub struct Engine {
    pub name: &'static str,
    pub address: String,
    script: PathBuf,
    folder: PathBuf,
    _home: TempDir,
}

impl Engine {
    pub fn start(name: &'static str) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/{name}"));
        let home = TempDir::new()?;
        // PostgreSQL runs as another user, which must be able to enter the folder.
        fs::set_permissions(home.path(), Permissions::from_mode(0o755))?;
        let mut engine = Self {
            name,
            address: String::new(),
            script,
            folder: home.path().join(name),
            _home: home,
        };
        engine.address = engine.run("start")?;
        Ok(engine)
    }

    fn run(&self, command: &str) -> anyhow::Result<String> {
        let output = Command::new(&self.script)
            .arg(command)
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "scripts/{} {command}", self.name);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// CPU time of its process and its children, in seconds.
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        let file = match self.name {
            "postgres" => "data/postmaster.pid",
            _ => "pid",
        };
        let text = fs::read_to_string(self.folder.join(file))?;
        let pid = text.lines().next().unwrap_or_default().trim();
        let pid: u32 = pid.parse().context("the pid file holds no process id")?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut secs = cpu_secs(pid)?;
        for child in children.split_whitespace() {
            // If a child has ended since, its time is counted in its parent's.
            secs += cpu_secs(child.parse()?).unwrap_or(0.0);
        }
        Ok(secs)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.run("stop") {
            eprintln!("{error}");
        }
    }
}
