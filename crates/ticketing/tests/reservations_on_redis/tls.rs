//! TLS to Redis: the server is verified, and the client authenticates.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use test_support::{Polling, eventually};
use ticketing::{
    RedisSettings,
    redis_server::{ConnectError, RedisServer},
};

use crate::redis_place;

/// A server that has not started by then has failed.
const POLLING: Polling = Polling {
    interval: Duration::from_millis(10),
    timeout: Duration::from_secs(20),
};

/// A server with a certificate for `localhost`, an authority of its own, and one user.
struct TlsServer {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl TlsServer {
    fn start() -> Self {
        // Checks that Redis is installed.
        let _ = redis_place::settings();
        let folder = TempDir::new().unwrap();
        make_certificate(folder.path());
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let config = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ndir {folder}\nsave \"\"\n\
             tls-cert-file {folder}/cert.pem\ntls-key-file {folder}/key.pem\ntls-ca-cert-file {folder}/cert.pem\n\
             tls-auth-clients no\nuser default off\nuser seller on >hush ~* &* +@all\n",
            folder = folder.path().display()
        );
        fs::write(folder.path().join("redis.conf"), config).unwrap();
        let process = Command::new("redis-server")
            .arg(folder.path().join("redis.conf"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process,
            folder,
            port,
        }
    }

    fn settings(&self) -> RedisSettings {
        RedisSettings {
            url: format!("rediss://localhost:{}", self.port),
            username: Some("seller".to_owned()),
            password: Some("hush".to_owned()),
            ca_file: Some(self.folder.path().join("cert.pem")),
            ..redis_place::settings()
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-keyout", "key.pem"])
        .args(["-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[tokio::test]
async fn a_server_is_reached_over_tls_with_user_and_password() {
    let server = TlsServer::start();
    let is_starting = |error: &ConnectError| {
        let is_starting = matches!(error, ConnectError::Unreachable(error) if error.is_io_error());
        assert!(is_starting, "{error:?}");
    };
    let connected = eventually(POLLING, "the server starts", async || {
        let connected = RedisServer::connect(&server.settings()).await;
        connected.inspect_err(is_starting)
    });
    let connected = connected.await;
    let pong: String = connected.ask(&redis::cmd("PING")).await.unwrap();
    assert_eq!(pong, "PONG");

    let others = RedisSettings {
        ca_file: None,
        ..server.settings()
    };
    let refused = RedisServer::connect(&others).await.err().unwrap();
    assert!(
        matches!(refused, ConnectError::Unreachable(_)),
        "its authority is not trusted: {refused:?}"
    );
    let wrong = RedisSettings {
        password: Some("wrong".to_owned()),
        ..server.settings()
    };
    let refused = RedisServer::connect(&wrong).await.err().unwrap();
    assert!(matches!(refused, ConnectError::Unreachable(_)));
}
