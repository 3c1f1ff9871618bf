//! `rgby check-data`: validates a labelled data set.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;

use super::{LabelledArgs, Outcome, Ui};
use crate::data::{CheckConfig, ProblemKind, Severity, check_data, read_class_names};
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
    /// Checks the data set and prints the report.
    ///
    /// # Errors
    ///
    /// The labels or images cannot be read at all, or `--out` cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let preprocess = Preprocess::new(&self.channels, 1);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        if let Some(out) = &self.out {
            let folder = out.parent().filter(|folder| *folder != Path::new(""));
            ensure!(
                folder.is_none_or(Path::is_dir) && !out.is_dir(),
                "cannot write --out {}: it is a folder, or its parent folder does not exist",
                out.display()
            );
        }
        let config = CheckConfig {
            images: self.data.images()?,
            labels: self.data.labels.clone(),
            stains: preprocess.stains(),
            classes: self.class_names()?,
            allow: self.allow.clone(),
        };
        let report = check_data(&config, &ui.observer())?;
        if let Some(path) = &self.out {
            report.write_csv(path)?;
        }
        if self.json {
            ui.print_json(&report.to_json()?)?;
        } else {
            ui.print(&report.to_text(self.show, self.out.as_deref()))?;
        }
        Ok(Outcome::with_failures(report.count(Severity::Error), false))
    }

    fn class_names(&self) -> anyhow::Result<Vec<String>> {
        if let Some(path) = &self.labels_from {
            return Ok(read_class_names(path)?);
        }
        Ok(self.classes.map_or_else(hpa_classes, names_for))
    }
}
