//! `boxoffice sandbox` as a process: one line when it is ready, its own folder, a clean stop, clear refusals.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
};

use test_support::process::{self, ServerProcess};

fn boxoffice(arguments: &[&str], data: &Path) -> Command {
    let mut command = process::command(env!("CARGO_BIN_EXE_boxoffice"));
    command
        .args(["sandbox", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .args(arguments);
    command
}

/// Sends one request on its own connection; returns the status line of the answer.
fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    // `test_sk_mine:` in base64.
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\
         authorization: Basic dGVzdF9za19taW5lOg==\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[test]
fn the_sandbox_prints_one_line_answers_by_its_options_and_stops_on_either_signal() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new");
    let confirm = r#"{"paymentKey":"key-1","orderId":"order-1","amount":1000}"#;
    for (signal, options, expected) in [
        ("-TERM", &["--strict"][..], "HTTP/1.1 404 Not Found"),
        ("-INT", &[][..], "HTTP/1.1 200 OK"),
    ] {
        let arguments = [&["--secret-key", "test_sk_mine"], options].concat();
        let process = ServerProcess::start(boxoffice(&arguments, &data));
        let url = process.url();
        let address = url.strip_prefix("http://").unwrap();
        let answered = post(address, "/v1/payments/confirm", confirm);
        assert_eq!(answered, expected, "{signal}");
        assert_eq!(process.stop(signal), "", "more than one line was printed");
    }
    let files: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        files.iter().all(|file| file.starts_with("gateway.db")),
        "{files:?}"
    );
}

fn assert_refused(output: &Output, printed: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        printed.iter().all(|printed| text.contains(printed)),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn an_invalid_argument_of_the_sandbox_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script.json");
    fs::write(
        &script,
        r#"{"rules":[{"on":"lookup","fault":"doThen500"},{"on":"confirm","fault":"reorder"}]}"#,
    )
    .unwrap();
    let script = script.to_str().unwrap();
    let with_script = boxoffice(&["--faults", script], folder.path()).output();
    assert_refused(&with_script.unwrap(), &[script, "rules[1].fault"]);

    let missing = folder.path().join("missing.json");
    let missing = missing.to_str().unwrap();
    let without = boxoffice(&["--faults", missing], folder.path()).output();
    assert_refused(&without.unwrap(), &[missing]);

    let address = ["--webhook-url", "https://shop.example"];
    let with_address = boxoffice(&address, folder.path()).output();
    assert_refused(&with_address.unwrap(), &["http://"]);
}
