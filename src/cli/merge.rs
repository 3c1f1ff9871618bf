//! `rgby merge`: merges the results of all shards.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Outcome, Ui};
use crate::score::{MergeConfig, merge};
use crate::store::StoreOptions;

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
    /// As [`merge`].
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let config = MergeConfig {
            parts: self.parts.clone(),
            out: self.out.clone(),
            ids: self.ids.clone(),
            store: StoreOptions::default(),
        };
        let report = merge(&config, &ui.scoring())?;
        let (parts, rows, failed) = (report.parts, report.rows, report.failed);
        let (out, errors) = (report.out.display(), report.errors.display());
        ui.note(&format!("{rows} rows of {parts} parts: {out}"));
        if self.json {
            ui.print_json(&json!({
                "out": out.to_string(),
                "parts": parts,
                "rows": rows,
                "failed": failed,
                "manifests": report.proved,
                "errors": (failed > 0).then(|| errors.to_string()),
            }))?;
        }
        if failed > 0 {
            ui.warn(&format!(
                "{failed} of {rows} samples failed; they are listed in {errors}"
            ));
        }
        Ok(Outcome::with_failures(failed, self.failed_ok))
    }
}
