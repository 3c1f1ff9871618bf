//! `rgby merge`: the results of all shards become what one run would have written.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::score::check_output;
use super::{Outcome, Ui};
use crate::score::{manifest_path, merge, output};

/// Merge the results of all shards into one file
///
/// The result equals that of one run without shards. Merges predictions, probabilities or
/// embeddings, one kind at a time, all CSV or all Parquet.
///
/// The manifest beside each part must match its content, and all parts must have the same models,
/// engine and options. Nothing is written unless all shards are present and each id occurs exactly
/// once. The exit code is 1 if samples failed; they are listed in FILE.errors.csv.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby merge parts/*.csv --out predictions.csv
  rgby merge scores/*.parquet --out scores.parquet --ids sample_submission.csv

Lists of failed samples (*.errors.csv) among the parts are ignored: merge finds them by itself.")]
pub struct MergeArgs {
    /// Results of `rgby score`, each with PART.manifest.json beside it
    #[arg(value_name = "PART", required = true)]
    pub parts: Vec<PathBuf>,
    /// Output file, in the format of the parts
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub out: PathBuf,
    /// CSV whose first column lists the expected ids in order [default: all ids, sorted]
    ///
    /// The parts must contain exactly these ids. The CSV has a header.
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// Exit with 0 instead of 1 if samples failed; they are still listed
    #[arg(long)]
    pub failed_ok: bool,
    /// Print a summary as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl MergeArgs {
    /// Merges the parts.
    ///
    /// # Errors
    ///
    /// They do not make up a whole, or a file cannot be read or written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        for (what, path) in [
            ("--out", self.out.clone()),
            (
                "the list of failed samples,",
                output::errors_path(&self.out),
            ),
            ("the manifest", manifest_path(&self.out)),
        ] {
            check_output(what, &path)?;
            ensure!(
                path == self.out || !self.parts.contains(&path),
                "{what} {} would be written over a part; give --out another name",
                path.display()
            );
        }
        let ids = self.ids.as_deref().map(output::read_ids).transpose()?;
        let merged = merge(&self.parts, &self.out, ids.as_deref())?;
        if !merged.proved {
            ui.warn(
                "no part has a manifest: that they are of one model, and that no shard is missing, \
                 was not checked",
            );
        }
        let (parts, rows, failed) = (merged.parts, merged.rows, merged.failed);
        let out = self.out.display();
        ui.note(&format!("{rows} rows of {parts} parts: {out}"));
        if self.json {
            ui.print_json(&json!({
                "out": self.out,
                "parts": parts,
                "rows": rows,
                "failed": failed,
                "manifests": merged.proved,
                "errors": (failed > 0).then_some(&merged.errors),
            }))?;
        }
        if failed > 0 {
            let errors = merged.errors.display();
            ui.warn(&format!(
                "{failed} of {rows} samples failed; they are listed in {errors}"
            ));
        }
        Ok(Outcome::with_failures(failed, self.failed_ok))
    }
}
