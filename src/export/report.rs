//! The result of an export, as JSON and text.

use std::fmt::{self, Display};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{PrecisionComparison, TOLERANCE};
use crate::model_metadata::Precision;
use crate::observer::Observer;
use crate::score::Failure;

/// What an export wrote.
#[derive(Debug)]
pub enum ExportReport {
    /// A checkpoint as an ONNX file.
    Model(Box<ExportedModel>),
    /// An exported file with other thresholds.
    Thresholds {
        from: PathBuf,
        out: PathBuf,
        thresholds: Vec<f32>,
    },
}

/// A checkpoint that was written as an ONNX file.
#[derive(Debug)]
pub struct ExportedModel {
    /// The checkpoint directory.
    pub from: PathBuf,
    pub out: PathBuf,
    pub precision: Precision,
    /// Width of the output of embeddings, if the file has it.
    pub embeddings: Option<usize>,
    /// Largest difference between the probabilities of Burn and of the engine in float32.
    pub difference: f32,
    /// The engine that verified the file.
    pub engine: String,
    /// Size of the file.
    pub bytes: usize,
    /// For a precision below float32.
    pub reduced: Option<PrecisionReport>,
}

/// How a model of lower precision was made, and how it compares with float32.
#[derive(Debug)]
pub struct PrecisionReport {
    /// What was rewritten, in words.
    pub summary: String,
    pub comparison: PrecisionComparison,
    /// Whether the comparison used synthetic inputs, because no images were given.
    pub synthetic_inputs: bool,
    /// Size of the float32 model.
    pub fp32_bytes: usize,
}

impl ExportReport {
    /// Returns the calibration images that could not be read.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        match self {
            Self::Model(model) => model.failures(),
            Self::Thresholds { .. } => &[],
        }
    }

    /// Returns the report as one JSON document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Model(model) => model.to_json(),
            Self::Thresholds {
                from,
                out,
                thresholds,
            } => json!({"from": from, "out": out, "thresholds": thresholds}),
        }
    }
}

impl ExportedModel {
    fn failures(&self) -> &[Failure] {
        let reduced = self.reduced.as_ref();
        reduced.map_or(&[], |reduced| &reduced.comparison.failures)
    }

    /// Warns of each of the `images` that could not be read.
    pub(super) fn warn_of_failures(&self, images: usize, observer: &dyn Observer) {
        let failures = self.failures();
        for Failure { id, file, error } in failures {
            observer.warn(&format!("{id}: {file} {error}"));
        }
        if !failures.is_empty() {
            observer.warn(&format!(
                "{} of {images} samples in --calibrate could not be read and were left out",
                failures.len()
            ));
        }
    }

    fn to_json(&self) -> Value {
        let mut document = json!({
            "from": self.from,
            "out": self.out,
            "precision": self.precision,
            "embeddings": self.embeddings,
            "largest_difference": self.difference,
            "tolerance": TOLERANCE,
            "engine": self.engine,
            "bytes": self.bytes,
        });
        if let Some(reduced) = &self.reduced {
            let change = &reduced.comparison;
            document["compared_with_fp32"] = json!({
                "summary": reduced.summary,
                "images": change.images,
                "images_from": reduced.images_from(),
                "failed": change.failures.len(),
                "largest_change": change.largest,
                "mean_change": change.mean,
                "decisions_changed": change.flipped,
                "fp32_bytes": reduced.fp32_bytes,
                "fp32_images_per_s": change.speed[0],
                "images_per_s": change.speed[1],
                "fp32_macro_f1": change.macro_f1.map(|both| both[0]),
                "macro_f1": change.macro_f1.map(|both| both[1]),
            });
        }
        document
    }
}

impl PrecisionReport {
    fn images_from(&self) -> &'static str {
        if self.synthetic_inputs {
            "synthetic inputs; pass real images with --calibrate DIR"
        } else {
            "the images of --calibrate"
        }
    }
}

impl Display for ExportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::Thresholds { from, out, .. } => write!(
                f,
                "{} → {}: new thresholds, graph and weights unchanged",
                from.display(),
                out.display()
            ),
        }
    }
}

impl Display for ExportedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        write!(
            f,
            "{} → {}: largest difference from Burn {:.1e} (at most {TOLERANCE:.0e}), {}\n\
             size        {:.1} MB",
            self.from.display(),
            self.out.display(),
            self.difference,
            self.engine,
            megabytes(self.bytes)
        )?;
        if let Some(reduced) = &self.reduced {
            write!(f, ", fp32 {:.1} MB", megabytes(reduced.fp32_bytes))?;
        }
        if let Some(width) = self.embeddings {
            write!(f, "\nembeddings  {width} features per image")?;
        }
        if let Some(reduced) = &self.reduced {
            write!(f, "\n{reduced}\n{}", engines(self.precision))?;
        }
        Ok(())
    }
}

impl Display for PrecisionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = &self.comparison;
        let [full, reduced] = change.speed;
        write!(
            f,
            "rewritten   {}\n\
             speed       {reduced:.1} images/s, fp32 {full:.1}\n\
             change      probabilities by {:.1e} at most, {:.1e} on average; {:.2}% of decisions, over \
             {} images",
            self.summary,
            change.largest,
            change.mean,
            change.flipped * 100.0,
            change.images
        )?;
        if let Some([full, reduced]) = change.macro_f1 {
            write!(f, "\nmacro-F1    {reduced:.4}, fp32 {full:.4}")?;
        }
        write!(f, "\nmeasured    on {}", self.images_from())
    }
}

/// Returns which engines run a file of this precision well.
fn engines(precision: Precision) -> &'static str {
    match precision {
        Precision::Fp32 => "",
        Precision::Fp16 => {
            "engines     for ONNX Runtime; tract has no fast float16 kernels and is about fifty times \
             slower than with fp32"
        }
        Precision::Int8 => "engines     for ONNX Runtime; in tract no faster than fp32",
    }
}
