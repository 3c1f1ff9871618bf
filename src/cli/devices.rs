//! `rgby devices`: available devices and engines.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Outcome, Ui};
use crate::memory;
use crate::score::{Runtime, RuntimeOptions, available_threads};
#[cfg(feature = "train")]
use crate::train::DetectedDevice;

/// List the devices and the engine that this build can use for training and scoring
///
/// Prints cores, vector instructions, memory, and the devices that `rgby train --device` accepts.
/// For `rgby score` it prints the engine: ONNX Runtime with its version, path and supported devices,
/// or the embedded tract and the reason for it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby devices --json")]
pub struct DevicesArgs {
    /// Path of the ONNX Runtime library [default: search for it]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl DevicesArgs {
    /// Finds and prints the devices.
    ///
    /// # Errors
    ///
    /// The library of --ort-lib cannot be used.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let runtime = Runtime::start(&RuntimeOptions {
            ort_lib: self.ort_lib.clone(),
            ..RuntimeOptions::default()
        })?;
        if self.json {
            ui.print_json(&json!({
                "machine": machine_json(),
                "training": training_json(),
                "scoring": scoring_json(runtime),
            }))?;
        } else {
            let parts = [machine_text(), training_text(), scoring_text(runtime)];
            ui.print(&parts.concat())?;
        }
        Ok(Outcome::Done)
    }
}

fn machine_json() -> Value {
    json!({
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "cores": available_threads(),
        "vector_instructions": vector_instructions(),
        "memory_bytes": memory::total(),
        "available_memory_bytes": memory::available(),
    })
}

fn machine_text() -> String {
    let gigabytes = |bytes: Option<usize>| {
        bytes.map_or_else(|| "unknown".into(), |b| format!("{:.1} GB", b as f64 / 1e9))
    };
    format!(
        "machine\n  system    {} on {}\n  cores     {}\n  vectors   {}\n  memory    {}, {} of it \
         free\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
        available_threads(),
        vector_instructions().join(", "),
        gigabytes(memory::total()),
        gigabytes(memory::available()),
    )
}

/// Returns the vector instructions of the processor that the engines use.
#[cfg(target_arch = "x86_64")]
fn vector_instructions() -> Vec<&'static str> {
    let has = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    let available = has.into_iter().filter(|&(_, available)| available);
    available.map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_instructions() -> Vec<&'static str> {
    // NEON is part of aarch64; other architectures are not detected.
    if cfg!(target_arch = "aarch64") {
        vec!["neon"]
    } else {
        Vec::new()
    }
}

#[cfg(feature = "train")]
fn training_json() -> Value {
    let found = DetectedDevice::all().into_iter().map(|found| {
        json!({
            "device": found.device.to_string(),
            "kind": found.kind,
            "name": found.name.as_ref().ok(),
            "error": found.name.as_ref().err(),
        })
    });
    let missing = DetectedDevice::missing().into_iter();
    let missing = missing.map(|(kind, reason)| json!({ "kind": kind, "reason": reason }));
    json!({ "devices": found.collect::<Vec<_>>(), "missing": missing.collect::<Vec<_>>() })
}

#[cfg(feature = "train")]
fn training_text() -> String {
    let mut text = "training\n".to_owned();
    for found in DetectedDevice::all() {
        let name = match found.name {
            Ok(name) => format!("{name}, {}", found.kind),
            Err(reason) => format!("{}, not usable: {reason}", found.kind),
        };
        text += &format!("  {:<9} {name}\n", found.device.to_string());
    }
    for (kind, reason) in DetectedDevice::missing() {
        text += &format!("  {kind:<9} none: {reason}\n");
    }
    text
}

#[cfg(not(feature = "train"))]
fn training_json() -> Value {
    Value::Null
}

#[cfg(not(feature = "train"))]
fn training_text() -> String {
    "training: not available, build rgby with the feature `train`\n".to_owned()
}

fn scoring_json(runtime: Runtime) -> Value {
    json!({
        "engine": runtime.engine(),
        "version": runtime.version(),
        "library": runtime.library(),
        "devices": runtime.device_kinds(),
        "notice": runtime.notice(),
    })
}

fn scoring_text(runtime: Runtime) -> String {
    let mut text = format!(
        "scoring\n  engine    {}\n  built for {}\n",
        runtime.engine(),
        runtime.device_kinds().join(", ")
    );
    if let Some(notice) = runtime.notice() {
        text += &format!("  {notice}\n");
    }
    text
}
