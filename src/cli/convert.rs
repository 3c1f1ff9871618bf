//! `rgby convert`: converts an ONNX file to a checkpoint.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::{Outcome, Ui};
use crate::convert::{ConvertConfig, convert};
use crate::data::read_class_names;
use crate::labels::names_for;
use crate::model::{Arch, ConversionOptions, StemFilters};

/// Convert a pretrained 3-channel ONNX file to a multi-channel checkpoint
///
/// The RGB filters stay bit-identical, the filters of further channels start at zero, and the
/// classifier is replaced. Weights are matched by graph structure, not by name, so files of any
/// exporter work: with BatchNorm kept or folded, channels first or last, in half precision, with
/// external data. An unknown network is an error that names the first node that differs.
///
/// A file of `rgby export` becomes the checkpoint that it was exported from, including the head.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby convert --onnx resnet50.onnx --out initial\n  \
    rgby convert --onnx densenet121.onnx --channels dna,er,rna,agp,mito --stem BGR00 \\\n    \
    --labels-from classes.csv --out initial-plate\n\n\
    docs/pretrained.md describes how to get a pretrained file."
)]
pub struct ConvertArgs {
    /// Network architecture of the file, or `auto` to detect it
    ///
    /// One of resnet50, resnet50-v1, inception-resnet-v2 and densenet121.
    #[arg(long, value_name = "NAME", default_value_t = ArchChoice::Auto)]
    pub arch: ArchChoice,
    /// Pretrained ONNX file, or file of `rgby export`
    #[arg(long, value_name = "FILE")]
    pub onnx: PathBuf,
    /// Output checkpoint directory
    #[arg(long, value_name = "CKPT")]
    pub out: PathBuf,
    /// Initial filters of the channels: zero, red or mean, or one letter per channel
    ///
    /// zero, red and mean set the filters of additional channels. The channels named red, green and
    /// blue (or else the first three) keep their pretrained filters. Letters are R, G, B, M (mean of the three) and 0,
    /// for example RGBR.
    #[arg(long, default_value_t = StemFilters::default())]
    pub stem: StemFilters,
    /// Stains, or sums such as red/2+yellow/2, in input order [default: red,green,blue,yellow]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub channels: Option<Vec<String>>,
    /// Number of classes [default: the 28 named classes of the Human Protein Atlas]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub classes: Option<u16>,
    /// CSV with class names in a column `Name`, or labels file `Id,Target`
    #[arg(long, value_name = "CSV", conflicts_with = "classes")]
    pub labels_from: Option<PathBuf>,
    /// Random seed of the new head
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print the report as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// `--arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchChoice {
    /// Detect the network from the graph.
    Auto,
    Known(Arch),
}

impl FromStr for ArchChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        Arch::from_str(text, false).map(Self::Known).map_err(|_| {
            let names: Vec<&str> = Arch::IMPORTED.iter().map(|arch| arch.name()).collect();
            format!("use auto, {}", names.join(", "))
        })
    }
}

impl fmt::Display for ArchChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Known(arch) => arch.name(),
        })
    }
}

impl ConvertArgs {
    /// Converts the file and prints the report.
    ///
    /// # Errors
    ///
    /// The file does not fit, or the checkpoint cannot be written; then there is no checkpoint.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let classes = match (&self.labels_from, self.classes) {
            (Some(path), _) => Some(read_class_names(path)?),
            (None, count) => count.map(names_for),
        };
        let config = ConvertConfig {
            onnx: self.onnx.clone(),
            out: self.out.clone(),
            options: ConversionOptions {
                arch: match self.arch {
                    ArchChoice::Auto => None,
                    ArchChoice::Known(arch) => Some(arch),
                },
                stem: self.stem.clone(),
                channels: self.channels.clone(),
                classes,
                seed: self.seed,
            },
        };
        let report = convert(&config)?;
        if self.json {
            ui.print_json(&report.to_json()?)?;
        } else {
            ui.note(&report.to_string());
        }
        Ok(Outcome::Done)
    }
}
