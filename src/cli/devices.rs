//! `rgby devices`: what `--device` can name here.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Outcome, Ui};
use crate::score::{Runtime, RuntimeOptions};
#[cfg(feature = "train")]
use crate::train::Found;

/// Say which devices this build can use on this machine, to train and to score
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby devices --json")]
pub struct DevicesArgs {
    /// ONNX Runtime's library, if it is not where it would be found
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl DevicesArgs {
    /// Looks for devices and lists them.
    ///
    /// # Errors
    ///
    /// A library of ONNX Runtime that was named cannot be used.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let runtime = Runtime::start(&RuntimeOptions {
            ort_lib: self.ort_lib.clone(),
            ..RuntimeOptions::default()
        })?;
        if self.json {
            ui.print_json(
                &json!({ "training": training_json(), "scoring": scoring_json(runtime) }),
            )?;
        } else {
            ui.print(&format!("{}{}", training_text(), scoring_text(runtime)))?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(feature = "train")]
fn training_json() -> Value {
    let found = Found::all().into_iter().map(|found| {
        json!({
            "device": found.device.to_string(),
            "kind": found.kind,
            "name": found.name.as_ref().ok(),
            "error": found.name.as_ref().err(),
        })
    });
    let missing = Found::none_of().into_iter();
    let missing = missing.map(|(kind, reason)| json!({ "kind": kind, "reason": reason }));
    json!({ "devices": found.collect::<Vec<_>>(), "missing": missing.collect::<Vec<_>>() })
}

#[cfg(feature = "train")]
fn training_text() -> String {
    let mut text = "training\n".to_owned();
    for found in Found::all() {
        let name = match found.name {
            Ok(name) => format!("{name}, {}", found.kind),
            Err(reason) => format!("{}, out of order: {reason}", found.kind),
        };
        text += &format!("  {:<9} {name}\n", found.device.to_string());
    }
    for (kind, reason) in Found::none_of() {
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
    "training: this rgby only scores; build it with the feature `train`\n".to_owned()
}

fn scoring_json(runtime: Runtime) -> Value {
    json!({
        "engine": runtime.engine(),
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
