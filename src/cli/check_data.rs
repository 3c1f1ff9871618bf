//! `rgby check-data`: what is wrong with a data set.

mod text;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};

use super::{LabelledArgs, Outcome, Ui};
use crate::atomic_file;
use crate::data::{Check, Checked, Expected, ProblemKind, Severity, read_class_names};
use crate::imaging::{CHANNELS, Preprocess};
use crate::labels::{hpa_classes, names_for};

/// Validate a labelled data set before training
///
/// Reads every line of the labels and decodes every image.
///
/// Errors set the exit code to 1: missing channels, unreadable files, different sizes within a
/// sample, duplicate ids or images, unknown or empty labels. Warnings leave it at 0: rare classes,
/// images without labels, constant or dark channels.
///
/// Also prints class counts and the mean and standard deviation of each channel. A config accepts
/// them as `data.mean` and `data.std`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby check-data --images train/ --labels train.csv
  rgby check-data --images plate.csv --labels labels.csv --channels dna,er,rna,agp,mito \\
    --labels-from classes.csv --json
  rgby check-data --images train/ --labels train.csv --allow empty-label --out problems.csv

docs/checking-data.md lists the kinds of problems and how to fix them.")]
pub struct CheckDataArgs {
    #[command(flatten)]
    pub data: LabelledArgs,
    /// Stains that each sample must have: `model.channels` of the training config
    #[arg(long, value_name = "CHANNELS", value_delimiter = ',', default_values_t = CHANNELS.map(str::to_owned))]
    pub channels: Vec<String>,
    /// Number of classes [default: the 28 named classes of the Human Protein Atlas]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub classes: Option<u16>,
    /// CSV with class names in a column `Name`
    #[arg(long, value_name = "CSV", conflicts_with = "classes")]
    pub labels_from: Option<PathBuf>,
    /// Kinds of errors to report as warnings
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub allow: Vec<ProblemKind>,
    /// CSV output with every problem: `Severity,Kind,Id,File,Problem,Mend`
    #[arg(long, value_name = "FILE.csv")]
    pub out: Option<PathBuf>,
    /// Maximum number of problems to print per kind; --out and --json contain all
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub show: usize,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl CheckDataArgs {
    /// Checks and says what was found.
    ///
    /// # Errors
    ///
    /// The labels or images cannot be read at all, or `--out` cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let preprocess = Preprocess::new(&self.channels, 1);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        let expected = Expected {
            stains: preprocess.stains(),
            classes: self.class_names()?,
        };
        if let Some(out) = &self.out {
            let folder = out.parent().filter(|folder| *folder != Path::new(""));
            ensure!(
                folder.is_none_or(Path::is_dir) && !out.is_dir(),
                "--out {} cannot be written: name a file in a folder that is there",
                out.display()
            );
        }
        let images = self.data.images()?;
        let check = Check::begin(&images, &self.data.labels, expected)?;
        let bar = ui.progress(check.samples() as u64, "checking");
        let mut checked = check.finish(&|| bar.inc(1));
        bar.finish_and_clear();
        checked.allow(&self.allow);
        if let Some(path) = &self.out {
            write_problems(path, &checked)?;
        }
        if self.json {
            ui.print_json(&self.document(&checked)?)?;
        } else {
            ui.print(&text::describe(&checked, self.show, self.out.as_deref()))?;
        }
        let errors = checked.count(Severity::Error);
        Ok(Outcome::with_failures(errors, false))
    }

    /// All that was found, as JSON.
    fn document(&self, checked: &Checked) -> anyhow::Result<Value> {
        let mut kinds = serde_json::Map::new();
        for problems in checked.problems.chunk_by(|a, b| a.kind == b.kind) {
            let kind = problems[0].kind;
            kinds.insert(
                kind.name().to_owned(),
                json!({
                    "count": problems.len(),
                    "severity": problems[0].severity,
                    "mend": kind.hint(),
                }),
            );
        }
        let mut document = serde_json::to_value(checked)?;
        document["images"] = json!(self.data.images);
        document["labels"] = json!(self.data.labels);
        document["errors"] = checked.count(Severity::Error).into();
        document["warnings"] = checked.count(Severity::Warning).into();
        document["kinds"] = kinds.into();
        Ok(document)
    }

    fn class_names(&self) -> anyhow::Result<Vec<String>> {
        if let Some(path) = &self.labels_from {
            return Ok(read_class_names(path)?);
        }
        Ok(self.classes.map_or_else(hpa_classes, names_for))
    }
}

fn write_problems(path: &Path, checked: &Checked) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["Severity", "Kind", "Id", "File", "Problem", "Mend"])?;
    for problem in &checked.problems {
        writer.write_record([
            text::severity(problem.severity),
            problem.kind.name(),
            &problem.id,
            &problem.file,
            &problem.message,
            problem.kind.hint(),
        ])?;
    }
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    Ok(atomic_file::write_atomic(path, &bytes)?)
}
