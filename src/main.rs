//! The `rgby` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use rgby::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute()
}
