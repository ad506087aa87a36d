//! The program `boxoffice`.

use std::process::ExitCode;

/// Commits are allocated where a request is handled and freed on the store's writer thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Only binaries built for crash tests have failpoints; they read them from the environment.
    let _failpoints = fail::has_failpoints().then(fail::FailScenario::setup);
    boxoffice::cli::main()
}
