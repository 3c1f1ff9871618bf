//! `rgby convert`: a pretrained three-channel ONNX export becomes a four-channel checkpoint.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use super::{Outcome, Ui};
use crate::fsx;
use crate::graph::{self, surgery::Stem};
use crate::imaging::Preprocess;
use crate::model::{Arch, Classifier, ConvertReport, ModelConfig, convert};
use crate::spec::{ModelSpec, Provenance};
use crate::train::Checkpoint;

/// Turn a pretrained 3-channel ONNX export into a 4-channel checkpoint
///
/// The RGB filters are kept bit for bit, the yellow ones start at zero; the classifier is
/// replaced. Weights are found by the structure of the graph, not by names; a file that is not
/// the network is refused, with the first node that differs.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby convert --arch resnet50 --onnx resnet50.onnx --out initial\n\n\
    onnx/README.md says how to get a pretrained file."
)]
pub struct ConvertArgs {
    /// The network that the file holds
    #[arg(long, value_enum)]
    pub arch: Arch,
    /// The pretrained file
    #[arg(long, value_name = "FILE")]
    pub onnx: PathBuf,
    /// Folder of the checkpoint
    #[arg(long, value_name = "CKPT")]
    pub out: PathBuf,
    /// Filters of the yellow channel: none, a copy of red's, or the mean of all three
    #[arg(long, value_enum, default_value = "zero")]
    pub stem: StemChoice,
    /// Number of classes; the 28 of the Human Protein Atlas have names
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub classes: u16,
    /// Seed of the new head's weights
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `--stem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum StemChoice {
    /// All zero.
    #[default]
    Zero,
    /// As red's.
    Red,
    /// The mean of red's, green's and blue's.
    Mean,
}

impl From<StemChoice> for Stem {
    fn from(choice: StemChoice) -> Self {
        match choice {
            StemChoice::Zero => Self::Zero,
            StemChoice::Red => Self::Red,
            StemChoice::Mean => Self::Mean,
        }
    }
}

impl ConvertArgs {
    /// Converts.
    ///
    /// # Errors
    ///
    /// The file does not fit, or the checkpoint cannot be written; nothing is left behind.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let file = self.onnx.display();
        ensure!(
            !self.out.is_file(),
            "{} is a file; --out names the folder of the checkpoint",
            self.out.display()
        );
        let source = graph::read(&self.onnx).with_context(|| file.to_string())?;
        let mut config = ModelConfig::new(self.arch, self.default_size());
        if self.classes != 28 {
            let name = |class| format!("Class {class}");
            config.classes = (0..self.classes).map(name).collect();
        }
        let classifier = Classifier::new(&config, self.seed, &Device::flex());
        let (classifier, report) = convert(source, self.arch, self.stem.into(), classifier)
            .with_context(|| file.to_string())?;
        let sha256 = fsx::sha256_file(&self.onnx)?;
        let spec = ModelSpec {
            arch: self.arch.name().into(),
            thresholds: vec![0.5; config.classes.len()],
            classes: config.classes.clone(),
            preprocess: Preprocess::new(&config.channels, config.input_size),
            provenance: Provenance {
                rgby_version: env!("CARGO_PKG_VERSION").into(),
                source: self
                    .onnx
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
                source_sha256: Some(sha256.clone()),
                steps: 0,
            },
        };
        Checkpoint::new(config, spec).save(&self.out, &classifier, None)?;
        if self.json {
            let mut value = serde_json::to_value(&report)?;
            value["source_sha256"] = sha256.into();
            ui.print_json(&value)?;
        } else {
            ui.note(&self.describe(&report, &sha256));
        }
        Ok(Outcome::Done)
    }

    /// Input size of the pretrained network; a training config replaces it.
    fn default_size(&self) -> u32 {
        if self.arch == Arch::InceptionResNetV2 {
            299
        } else {
            224
        }
    }

    fn describe(&self, report: &ConvertReport, sha256: &str) -> String {
        let yellow = match self.stem {
            StemChoice::Zero => "yellow zero",
            StemChoice::Red => "yellow as red",
            StemChoice::Mean => "yellow the mean of RGB",
        };
        let (stem, shape) = &report.widened;
        format!(
            "{}: {} (sha256 {})\n  matched   {} tensors, bit for bit\n  widened   {stem} to \
             {shape:?}, {yellow}\n  dropped   {}\n  new       head of {} classes\n  backbone  {} \
             parameters → {}",
            self.onnx.display(),
            self.arch.name(),
            &sha256[..12],
            report.matched,
            report.dropped.join(", "),
            self.classes,
            report.backbone_parameters,
            self.out.display()
        )
    }
}
