//! The `dpm` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match dpm::cli::run() {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("dpm: {e:#}");
            ExitCode::from(2)
        }
    }
}
