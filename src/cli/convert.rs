//! `rgby convert`: an ONNX file becomes a checkpoint to train from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use super::stem::StemChoice;
use super::{Outcome, Ui};
use crate::atomic_file;
use crate::data::read_class_names;
use crate::graph::{self, ModelProto};
use crate::imaging::Preprocess;
use crate::labels::names_for;
use crate::model::{Arch, Classifier, ConvertReport, Exported, ModelConfig, Pretrained};
use crate::model_metadata::ModelSpec;
use crate::train::{Checkpoint, CheckpointContents};

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
    /// A word applies to all channels except those named red, green and blue (or else the first
    /// three), which keep their pretrained filters. Letters are R, G, B, M (mean of the three) and 0,
    /// for example RGBR.
    #[arg(long, default_value_t = StemChoice::default())]
    pub stem: StemChoice,
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
    /// Whichever network the file holds.
    Auto,
    /// This one, or an error.
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
    /// Conversion of `onnx` with every choice left to its default.
    #[must_use]
    pub fn new(onnx: PathBuf, out: PathBuf) -> Self {
        Self {
            arch: ArchChoice::Auto,
            onnx,
            out,
            stem: StemChoice::default(),
            channels: None,
            classes: None,
            labels_from: None,
            seed: 0,
            json: false,
        }
    }

    /// Converts.
    ///
    /// # Errors
    ///
    /// The file does not fit, or the checkpoint cannot be written; nothing is left behind.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        ensure!(
            !self.out.is_file(),
            "{} is a file; --out names the folder of the checkpoint",
            self.out.display()
        );
        let source = graph::read(&self.onnx).with_context(|| self.onnx.display().to_string())?;
        if Exported::is(&source) {
            self.restore(source, ui)
        } else {
            self.convert(source, ui)
        }
    }

    /// A pretrained network.
    fn convert(&self, source: ModelProto, ui: &Ui) -> anyhow::Result<Outcome> {
        let file = || self.onnx.display().to_string();
        let pretrained = Pretrained::new(source).with_context(file)?;
        let arch = match self.arch {
            ArchChoice::Known(arch) => arch,
            ArchChoice::Auto => pretrained.arch().with_context(file)?,
        };
        let config = self.config(arch)?;
        let filters = self.stem.filters(&config.channels)?;
        let classifier = Classifier::new(&config, self.seed, &Device::flex());
        let (classifier, report) = pretrained
            .load(arch, &filters, classifier)
            .with_context(file)?;
        drop(pretrained);
        let sha256 = atomic_file::sha256_file(&self.onnx)?;
        let preprocess = Preprocess::new(&config.channels, config.input_size);
        let mut spec = ModelSpec::new(arch.name(), config.classes.clone(), preprocess);
        let name = self.onnx.file_name();
        spec.provenance.source = name.map(|name| name.to_string_lossy().into_owned());
        spec.provenance.source_sha256 = Some(sha256.clone());
        let table = self.describe(&report, &config, &sha256)?;
        let mut checkpoint = Checkpoint::new(config, spec);
        checkpoint.unfolded = report.unfolded;
        checkpoint.save(&self.out, CheckpointContents::weights(&classifier))?;
        if self.json {
            let mut value = serde_json::to_value(&report)?;
            value["source_sha256"] = sha256.into();
            ui.print_json(&value)?;
        } else {
            ui.note(&table);
        }
        Ok(Outcome::Done)
    }

    /// A network that rgby exported: nothing of it is changed.
    fn restore(&self, source: ModelProto, ui: &Ui) -> anyhow::Result<Outcome> {
        let file = self.onnx.display();
        let given = [
            ("--channels", self.channels.is_some()),
            ("--classes", self.classes.is_some()),
            ("--labels-from", self.labels_from.is_some()),
            ("--stem", self.stem != StemChoice::default()),
        ];
        if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
            bail!(
                "{file} was exported by rgby and keeps its channels and classes; leave out {flag} \
                 (retraining may replace its head)"
            );
        }
        let exported = Exported::new(source).with_context(|| file.to_string())?;
        let arch = exported.config.arch;
        ensure!(
            matches!(self.arch, ArchChoice::Auto) || self.arch == ArchChoice::Known(arch),
            "{file} holds {}; leave out --arch",
            arch.name()
        );
        let classifier = exported.load().with_context(|| file.to_string())?;
        let sha256 = atomic_file::sha256_file(&self.onnx)?;
        let checkpoint = Checkpoint::new(exported.config, exported.spec);
        let (classes, steps) = (
            checkpoint.spec.classes.len(),
            checkpoint.spec.provenance.steps,
        );
        checkpoint.save(&self.out, CheckpointContents::weights(&classifier))?;
        if self.json {
            ui.print_json(&serde_json::json!({
                "arch": arch,
                "restored": true,
                "classes": classes,
                "steps": steps,
                "source_sha256": sha256,
            }))?;
        } else {
            ui.note(&format!(
                "{file}: {} as rgby exported it (sha256 {})\n  restored  backbone, head of {classes} \
                 classes, thresholds and preprocessing, after {steps} steps → {}",
                arch.name(),
                &sha256[..12],
                self.out.display()
            ));
        }
        Ok(Outcome::Done)
    }

    fn config(&self, arch: Arch) -> anyhow::Result<ModelConfig> {
        let mut config = ModelConfig::new(arch, arch.native_input_size());
        if let Some(channels) = &self.channels {
            config.channels.clone_from(channels);
        }
        if let Some(count) = self.classes {
            config.classes = names_for(count);
        }
        if let Some(path) = &self.labels_from {
            config.classes = read_class_names(path)?;
        }
        config.validate().map_err(anyhow::Error::msg)?;
        let preprocess = Preprocess::new(&config.channels, config.input_size);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        Ok(config)
    }

    fn describe(
        &self,
        report: &ConvertReport,
        config: &ModelConfig,
        sha256: &str,
    ) -> anyhow::Result<String> {
        let (stem, shape) = &report.widened;
        let mut rows = vec![
            (
                "matched",
                format!("{} tensors, bit for bit", report.matched),
            ),
            (
                "widened",
                format!(
                    "{stem} to {shape:?}: {}",
                    self.stem.describe(&config.channels)?
                ),
            ),
        ];
        if report.unfolded > 0 {
            let note = "BatchNorm layers that were folded into convolutions; training first \
                        measures their statistics";
            rows.push(("unfolded", format!("{} {note}", report.unfolded)));
        }
        if report.absorbed > 0 {
            let note = "convolution biases, into the BatchNorm after them";
            rows.push(("absorbed", format!("{} {note}", report.absorbed)));
        }
        if report.rescaled > 0 {
            let note = "BatchNorm layers, for another epsilon or factor";
            rows.push(("rescaled", format!("{} {note}", report.rescaled)));
        }
        rows.push(("dropped", list(&report.dropped)));
        rows.push(("left out", list(&report.left_out)));
        rows.push(("new", format!("head of {} classes", config.classes.len())));
        rows.push((
            "backbone",
            format!(
                "{} parameters → {}",
                report.backbone_parameters,
                self.out.display()
            ),
        ));
        let rows = rows
            .iter()
            .map(|(key, value)| format!("\n  {key:<9} {value}"));
        Ok(format!(
            "{}: {} (sha256 {}){}",
            self.onnx.display(),
            report.arch.name(),
            &sha256[..12],
            rows.collect::<String>()
        ))
    }
}

/// A few of the names, and how many there are.
fn list(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names if names.len() <= 4 => names.join(", "),
        names => format!("{}, {} and {} more", names[0], names[1], names.len() - 2),
    }
}

/// A checkpoint that was made of an ONNX file.
pub(super) struct Unpacked {
    /// Holds `checkpoint`, as long as this lives.
    pub folder: TempDir,
    /// The file is a pretrained network without a head for these classes, not one that rgby
    /// exported.
    pub pretrained: bool,
}

/// Makes a checkpoint of an ONNX file: of an exported one with all that is in it, of a pretrained
/// one for `channels`, as `rgby convert` does if it is told nothing else.
///
/// # Errors
///
/// The file is damaged, or of no known network.
pub(super) fn unpack(onnx: &Path, channels: &[String], ui: &Ui) -> anyhow::Result<Unpacked> {
    let source = graph::read(onnx).with_context(|| onnx.display().to_string())?;
    let folder = tempfile::tempdir()?;
    let mut args = ConvertArgs::new(onnx.to_owned(), folder.path().join("checkpoint"));
    let pretrained = !Exported::is(&source);
    let quiet = Ui::new(true);
    if pretrained {
        ui.note(&format!(
            "{} is a pretrained network; the channels of its stem: {} (`rgby convert` has other \
             choices)",
            onnx.display(),
            args.stem.describe(channels)?
        ));
        args.channels = Some(channels.to_vec());
        args.convert(source, &quiet)?;
    } else {
        args.restore(source, &quiet)?;
    }
    Ok(Unpacked { folder, pretrained })
}
