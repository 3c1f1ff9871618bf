//! `rgby inspect`: what a checkpoint, run or model file is.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::{Outcome, Ui};
use crate::fsx;
use crate::graph::{self, tensor::numel};
use crate::score::ModelFile;
use crate::spec::ModelSpec;
use crate::train::{Checkpoint, resolve};

/// Say what a checkpoint, run or exported model is
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby inspect model.onnx")]
pub struct InspectArgs {
    /// Checkpoint, run or exported model
    #[arg(value_name = "CKPT|RUN|FILE")]
    pub path: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

impl InspectArgs {
    /// Inspects.
    ///
    /// # Errors
    ///
    /// It is none of the three, or damaged.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let (spec, rest) = if self.path.is_dir() {
            let dir = resolve(&self.path)?;
            let checkpoint = Checkpoint::open(&dir)?;
            let rest = json!({
                "path": dir,
                "model": checkpoint.model,
                "progress": checkpoint.progress,
                "sha256": checkpoint.files,
            });
            (checkpoint.spec, rest)
        } else {
            model_file(&self.path)?
        };
        if self.json {
            let mut document = rest;
            document["spec"] = serde_json::to_value(&spec)?;
            ui.print_json(&document)?;
        } else {
            ui.print(&describe(&spec, &rest))?;
        }
        Ok(Outcome::Done)
    }
}

fn model_file(path: &Path) -> anyhow::Result<(ModelSpec, Value)> {
    let spec = ModelFile::open(path)?.spec().as_ref().clone();
    let model = graph::read(path).with_context(|| path.display().to_string())?;
    let parameters: usize = model
        .graph
        .initializer
        .iter()
        .filter_map(|tensor| numel(tensor).ok())
        .sum();
    let rest = json!({
        "path": path,
        "parameters": parameters,
        "nodes": model.graph.node.len(),
        "sha256": { "file": fsx::sha256_file(path)? },
    });
    Ok((spec, rest))
}

fn describe(spec: &ModelSpec, rest: &Value) -> String {
    let preprocess = &spec.preprocess;
    let source = spec
        .provenance
        .source
        .as_deref()
        .unwrap_or("random weights");
    let mut text = format!(
        "{}\n  network     {}\n  channels    {}\n  input       {}², {:?} resize, mean {:?}, std \
         {:?}\n  weights     {source}, {} training steps, rgby {}\n",
        rest["path"].as_str().unwrap_or_default(),
        spec.arch,
        preprocess.channels.join(", "),
        preprocess.size,
        preprocess.resize,
        preprocess.mean,
        preprocess.std,
        spec.provenance.steps,
        spec.provenance.rgby_version,
    );
    if let Some(parameters) = rest["parameters"].as_u64() {
        text += &format!("  parameters  {parameters}\n");
    }
    if !spec.precision.is_full() {
        text += &format!("  precision   {}, for scoring only\n", spec.precision);
    }
    if let Some(width) = spec.embeddings {
        text += &format!("  embeddings  {width} features an image\n");
    }
    for (file, hash) in rest["sha256"].as_object().into_iter().flatten() {
        text += &format!(
            "  sha256      {} {file}\n",
            hash.as_str().unwrap_or_default()
        );
    }
    text += &format!("  classes     {}\n", spec.classes.len());
    for (index, (class, threshold)) in spec.classes.iter().zip(&spec.thresholds).enumerate() {
        text += &format!("    {index:>3}  {threshold:.3}  {class}\n");
    }
    text
}
