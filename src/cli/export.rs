//! `rgby export`: a checkpoint becomes one ONNX file.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use clap::Args;
use serde_json::{Value, json};

use super::{Outcome, Ui};
use crate::data::read_labels;
use crate::export::{
    ExportMetadata, ExportReport, ExportRequest, Inputs, PrecisionComparison, TOLERANCE, export,
    replace_spec,
};
use crate::imaging::find_samples;
use crate::model::{Classifier, WeightTransfer};
use crate::model_metadata::{ModelSpec, Precision, ThresholdFile};
use crate::score::{EngineChoice, Failure, ModelFile, Runtime, RuntimeOptions};
use crate::train::{Checkpoint, resolve};

/// Write a checkpoint as one self-contained ONNX file
///
/// The file's metadata contains classes, thresholds, channels, size and normalization. Before the
/// file is written, its outputs in the serving engine are compared with those of Burn.
///
/// fp16 and int8 files are smaller and for scoring only: BatchNorm is folded into the convolutions,
/// so they cannot be retrained. Their size, speed and change of probabilities against float32 are
/// measured with ONNX Runtime and printed.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby export --from runs/first --out model.onnx
  rgby export --from runs/first --out small.onnx --precision int8 \\
    --calibrate valid/images --labels valid.csv
  rgby export --from runs/first --out model.onnx --thresholds report/thresholds.json
  rgby export --from model.onnx --out tuned.onnx --thresholds report/thresholds.json")]
pub struct ExportArgs {
    /// Checkpoint, or run whose best checkpoint is exported
    ///
    /// With --thresholds an exported file is accepted as well; only its thresholds change.
    #[arg(long, value_name = "CKPT|RUN|FILE")]
    pub from: PathBuf,
    /// Output ONNX file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Thresholds for the file: `thresholds.json` of `rgby eval --tune-thresholds --out`
    #[arg(long, value_name = "JSON")]
    pub thresholds: Option<PathBuf>,
    /// Precision of weights and computation
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Folder of about a hundred or more typical images, for int8 calibration
    ///
    /// fp16 and int8 are compared with fp32 on these images.
    #[arg(long, value_name = "DIR")]
    pub calibrate: Option<PathBuf>,
    /// CSV with labels of the --calibrate images, `Id,Target`; prints macro-F1 before and after
    #[arg(long, value_name = "CSV", requires = "calibrate")]
    pub labels: Option<PathBuf>,
    /// Add an output `embeddings` with the pooled features before the head
    #[arg(long)]
    pub with_embeddings: bool,
    /// Engine that checks the file: onnxruntime, tract or auto
    ///
    /// `auto` uses ONNX Runtime if its library is found, else the embedded tract.
    #[arg(long, value_name = "ENGINE", default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Path of the ONNX Runtime library [default: search for it]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl ExportArgs {
    /// Exports.
    ///
    /// # Errors
    ///
    /// The checkpoint does not load, the engines disagree, a lower precision changes too much, or
    /// the file cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.check()?;
        if self.from.is_file() {
            return self.rewrite(ui);
        }
        let dir = resolve(&self.from)?;
        let checkpoint = Checkpoint::open(&dir)?;
        let mut spec = checkpoint.spec.clone();
        self.set_thresholds(&mut spec, ui)?;
        spec.embeddings = self
            .with_embeddings
            .then(|| checkpoint.model.pooled_width());
        let runtime = Runtime::start(&RuntimeOptions {
            engine: self.engine,
            ort_lib: self.ort_lib.clone(),
            ..RuntimeOptions::default()
        })?;
        if let Some(notice) = runtime.notice() {
            ui.note(notice);
        }
        let classes = spec.classes.len();
        let labels = self.labels.as_deref();
        let order = ExportRequest {
            description: ExportMetadata {
                config: &checkpoint.model,
                spec: &spec,
            },
            precision: self.precision,
            inputs: self.inputs(&spec, ui)?,
            labels: labels.map(|csv| read_labels(csv, classes)).transpose()?,
            path: &self.out,
        };
        // Capturing a network leaves it unusable, so that the check gets one of its own.
        let load = || {
            let fresh = Classifier::new(&checkpoint.model, 0, &Device::flex());
            Checkpoint::load(&dir, fresh, WeightTransfer::All)
        };
        let made = export(&load()?, &load()?, &order, runtime)?;
        if self.json {
            ui.print_json(&self.to_json(&dir, &made, &order, runtime))?;
        } else {
            ui.note(&self.to_text(&dir, &made, &order, runtime));
        }
        let failures = made.reduced.iter().flat_map(|(_, change)| &change.failures);
        let failed = list(failures, order.inputs.len(), ui);
        Ok(Outcome::with_failures(failed, false))
    }

    /// Checks what was asked for before any work.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.out.is_dir(),
            "{} is a folder; --out names a file",
            self.out.display()
        );
        ensure!(
            self.calibrate.is_none() || !self.precision.is_full(),
            "--calibrate is for --precision int8 and fp16; fp32 is what they are compared with"
        );
        ensure!(
            self.calibrate.is_some() || self.precision != Precision::Int8,
            "--precision int8 needs --calibrate DIR: some hundred typical images, on which it sees \
             the range of each layer's numbers"
        );
        Ok(())
    }

    /// Puts the thresholds of `--thresholds` into `spec`.
    fn set_thresholds(&self, spec: &mut ModelSpec, ui: &Ui) -> anyhow::Result<()> {
        let Some(path) = &self.thresholds else {
            return Ok(());
        };
        let file = ThresholdFile::read(path)?;
        spec.thresholds = file.for_classes(&spec.classes, path)?;
        ui.note(&format!(
            "thresholds  {}, tuned on {} samples (--tune-thresholds {})",
            path.display(),
            file.samples,
            file.method
        ));
        if file.keep_argmax {
            ui.note(
                "            tuned for decisions that always keep the most probable class: score with \
                 --keep-argmax",
            );
        }
        Ok(())
    }

    /// An exported file with other thresholds.
    fn rewrite(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let from = self.from.display();
        ensure!(
            self.thresholds.is_some(),
            "--from {from} is a file; name a checkpoint or run, or new thresholds for an exported \
             file with --thresholds"
        );
        ensure!(
            self.precision.is_full() && !self.with_embeddings,
            "--from {from} is an exported file, of which only the thresholds can be replaced; for \
             --precision or --with-embeddings name the checkpoint or run that it was made from"
        );
        let mut spec = ModelFile::open(&self.from)?.spec().as_ref().clone();
        self.set_thresholds(&mut spec, ui)?;
        replace_spec(&self.from, &spec, &self.out)?;
        if self.json {
            let thresholds = json!(spec.thresholds);
            ui.print_json(&json!({"from": self.from, "out": self.out, "thresholds": thresholds}))?;
        } else {
            ui.note(&format!(
                "{from} → {}: other thresholds, all else the same",
                self.out.display()
            ));
        }
        Ok(Outcome::Done)
    }

    fn inputs(&self, spec: &ModelSpec, ui: &Ui) -> anyhow::Result<Inputs> {
        let preprocess = spec.preprocess.clone();
        let Some(dir) = &self.calibrate else {
            return Ok(Inputs::made_up(preprocess));
        };
        let samples = find_samples(dir, &preprocess.stains()).context("--calibrate")?;
        let bar = ui.progress(samples.len() as u64, "calibrating, comparing");
        let inputs = Inputs::of_samples(samples, preprocess);
        Ok(inputs.watched(move |done| bar.set_position(done as u64)))
    }

    fn to_json(
        &self,
        dir: &Path,
        made: &ExportReport,
        order: &ExportRequest,
        runtime: Runtime,
    ) -> Value {
        let mut document = json!({
            "from": dir,
            "out": self.out,
            "precision": self.precision,
            "embeddings": order.description.spec.embeddings,
            "largest_difference": made.difference,
            "tolerance": TOLERANCE,
            "engine": runtime.describe(),
            "bytes": made.bytes[1],
        });
        let Some((summary, change)) = &made.reduced else {
            return document;
        };
        document["compared_with_fp32"] = json!({
            "summary": summary,
            "images": change.images,
            "images_from": images_from(&order.inputs),
            "failed": change.failures.len(),
            "largest_change": change.largest,
            "mean_change": change.mean,
            "decisions_changed": change.flipped,
            "fp32_bytes": made.bytes[0],
            "fp32_images_per_s": change.speed[0],
            "images_per_s": change.speed[1],
            "fp32_macro_f1": change.macro_f1.map(|both| both[0]),
            "macro_f1": change.macro_f1.map(|both| both[1]),
        });
        document
    }

    fn to_text(
        &self,
        dir: &Path,
        made: &ExportReport,
        order: &ExportRequest,
        runtime: Runtime,
    ) -> String {
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        let mut text = format!(
            "{} → {}: largest difference from Burn {:.1e} (at most {TOLERANCE:.0e}), {}\n\
             size        {:.1} MB",
            dir.display(),
            self.out.display(),
            made.difference,
            runtime.describe(),
            megabytes(made.bytes[1])
        );
        if made.reduced.is_some() {
            text += &format!(", fp32 {:.1} MB", megabytes(made.bytes[0]));
        }
        if let Some(width) = order.description.spec.embeddings {
            text += &format!("\nembeddings  {width} features an image");
        }
        if let Some((summary, change)) = &made.reduced {
            text += &format!("\n{}", compared(summary, change));
            text += &format!("\nmeasured    on {}", images_from(&order.inputs));
            text += &format!("\n{}", engines(self.precision));
        }
        text
    }
}

/// Lists those of `all` images that could not be read; returns their number.
fn list<'a>(failures: impl Iterator<Item = &'a Failure>, all: usize, ui: &Ui) -> usize {
    let mut failed = 0;
    for Failure { id, file, error } in failures {
        ui.warn(&format!("{id}: {file} {error}"));
        failed += 1;
    }
    if failed > 0 {
        ui.warn(&format!(
            "{failed} of {all} samples in --calibrate could not be read and were left out"
        ));
    }
    failed
}

fn compared(summary: &str, change: &PrecisionComparison) -> String {
    let [full, other] = change.speed;
    let mut text = format!(
        "made        {summary}\n\
         speed       {other:.1} images/s, fp32 {full:.1}\n\
         change      probabilities by {:.1e} at most, {:.1e} on average; {:.2}% of decisions, over \
         {} images",
        change.largest,
        change.mean,
        change.flipped * 100.0,
        change.images
    );
    if let Some([full, other]) = change.macro_f1 {
        text += &format!("\nmacro-F1    {other:.4}, fp32 {full:.4}");
    }
    text
}

fn images_from(inputs: &Inputs) -> &'static str {
    if inputs.are_made_up() {
        "made-up inputs; name real images with --calibrate DIR"
    } else {
        "the images of --calibrate"
    }
}

/// What runs a file of this precision.
fn engines(precision: Precision) -> &'static str {
    match precision {
        Precision::Fp32 => "",
        Precision::Fp16 => {
            "runs        in ONNX Runtime; in tract, which has no fast kernels for it, some fifty \
             times slower than fp32"
        }
        Precision::Int8 => "runs        in ONNX Runtime; in tract no faster than fp32",
    }
}
