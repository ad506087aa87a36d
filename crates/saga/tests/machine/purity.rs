//! The machine is a pure function, and knows nothing of any trade.

use std::fs;
use std::path::Path;

const FORBIDDEN: [&str; 12] = [
    "async",
    "await",
    "std::time",
    "SystemTime",
    "Instant",
    "rand",
    "tokio",
    "std::net",
    "std::fs",
    "thread",
    "ticket",
    "payment",
];

#[test]
fn the_source_has_no_clock_no_chance_no_waiting_and_no_domain_word() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut lines_read = 0;
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            lines_read += 1;
            for word in FORBIDDEN {
                assert!(
                    !line.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
    assert!(lines_read > 500, "only {lines_read} lines were read");
}
