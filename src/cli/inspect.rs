//! `rgby inspect`: what a checkpoint, a run or any ONNX file is.

mod onnx;
mod run;
mod text;
mod verdict;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Outcome, Ui};
use crate::train::{Checkpoint, resolve};
use run::Course;
use text::Table;

/// Describe a checkpoint, a run or an ONNX file
///
/// For any ONNX file: inputs, outputs, operators and weights, and whether `rgby convert` accepts
/// it, with what would be unfolded or the first node that differs. For a file of `rgby export`, also
/// classes, thresholds, preprocessing and provenance. For a run, its config and progress.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby inspect model.onnx
  rgby inspect runs/first --json")]
pub struct InspectArgs {
    /// Checkpoint, run or ONNX file
    #[arg(value_name = "CKPT|RUN|FILE")]
    pub path: PathBuf,
    /// Print the result as one JSON document on stdout
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
        let (document, table) = if self.path.is_dir() {
            self.folder()?
        } else {
            self.file()?
        };
        if self.json {
            ui.print_json(&document)?;
        } else {
            ui.print(&table.to_string())?;
        }
        Ok(Outcome::Done)
    }

    /// A checkpoint, or a run, of which the best checkpoint is described.
    fn folder(&self) -> anyhow::Result<(serde_json::Value, Table)> {
        let dir = resolve(&self.path)?;
        let checkpoint = Checkpoint::open(&dir)?;
        let course = Course::of(&self.path)?;
        let mut table = Table::new(&dir.display().to_string());
        table.spec(&checkpoint.spec);
        table.progress(&checkpoint);
        if let Some(course) = &course {
            table.course(course);
        }
        table.hashes(&checkpoint.files);
        table.classes(&checkpoint.spec);
        let document = json!({
            "kind": if course.is_some() { "run" } else { "checkpoint" },
            "path": dir,
            "spec": checkpoint.spec,
            "model": checkpoint.model,
            "config": checkpoint.config,
            "progress": checkpoint.progress,
            "unfolded": checkpoint.unfolded,
            "run": course,
            "sha256": checkpoint.files,
        });
        Ok((document, table))
    }

    /// An ONNX file.
    fn file(&self) -> anyhow::Result<(serde_json::Value, Table)> {
        let path = &self.path;
        let found = onnx::File::open(path)?;
        let hashes = [("file".to_owned(), found.sha256.clone())].into();
        let mut table = Table::new(&path.display().to_string());
        if let Some(spec) = &found.spec {
            table.spec(spec);
        }
        table.summary(&found.summary);
        table.verdict(&found.verdict);
        table.hashes(&hashes);
        if let Some(spec) = &found.spec {
            table.classes(spec);
        }
        let document = json!({
            "kind": "onnx",
            "path": path,
            "spec": found.spec,
            "parameters": found.summary.parameters,
            "nodes": found.summary.nodes,
            "onnx": found.summary,
            "convert": found.verdict,
            "sha256": hashes,
        });
        Ok((document, table))
    }
}
