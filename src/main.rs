//! The `rgby` program: parses arguments, runs the command, returns the exit code.

use std::env;
use std::process::ExitCode;

use clap::Parser;
use rgby::cli::Cli;
use rgby::memory;

fn main() -> ExitCode {
    memory::allow_allocator_settings();
    disable_onnx_runtime_telemetry();
    Cli::parse().execute()
}

/// Disables ONNX Runtime's telemetry by its environment variable.
///
/// The Linux packages create a telemetry database in the home directory while the library loads,
/// before its API can disable that.
#[allow(
    unsafe_code,
    reason = "set_var is unsafe; this is its only call in the program"
)]
fn disable_onnx_runtime_telemetry() {
    const OFF: &str = "ORT_DISABLE_TELEMETRY";
    if env::var_os(OFF).is_none() {
        // SAFETY: no other thread is running yet.
        unsafe { env::set_var(OFF, "1") };
    }
}
