//! The program `boxoffice`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Only a binary that was built for crash tests has failpoints; it reads them from the environment.
    let _failpoints = fail::has_failpoints().then(fail::FailScenario::setup);
    boxoffice::cli::main()
}
