//! The `rgby` program: parse, run, exit code.

use std::env;
use std::process::ExitCode;

use clap::Parser;
use rgby::cli::Cli;

fn main() -> ExitCode {
    keep_onnx_runtime_quiet();
    Cli::parse().execute()
}

/// ONNX Runtime's packages for Linux keep a data base for telemetry in the home folder. They make it
/// as the library is loaded, before its API can be told not to.
#[allow(unsafe_code, reason = "nothing else sets a variable of this process")]
fn keep_onnx_runtime_quiet() {
    const OFF: &str = "ORT_DISABLE_TELEMETRY";
    if env::var_os(OFF).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var(OFF, "1") };
    }
}
