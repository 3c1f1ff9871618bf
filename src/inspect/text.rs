//! The description as a table for a terminal.

use std::collections::BTreeMap;
use std::fmt;

use super::{ConversionPreview, GraphSummary, GraphValue, RunHistory};
use crate::model::PretrainedReport;
use crate::model_metadata::ModelSpec;
use crate::report::EpochRow;
use crate::train::Checkpoint;

/// Maximum number of operators in the table.
const OPERATORS: usize = 12;

/// A title, rows of a label and a text, and lines below them.
pub(super) struct InspectTable {
    title: String,
    rows: Vec<(&'static str, String)>,
    below: String,
}

impl InspectTable {
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            rows: Vec::new(),
            below: String::new(),
        }
    }

    fn row(&mut self, label: &'static str, text: impl Into<String>) {
        self.rows.push((label, text.into()));
    }

    /// Adds the metadata of a model of rgby.
    pub fn spec(&mut self, spec: &ModelSpec) {
        let preprocess = &spec.preprocess;
        let provenance = &spec.provenance;
        let source = provenance.source.as_deref().unwrap_or("random weights");
        self.row("network", &spec.arch);
        self.row("channels", preprocess.channels.join(", "));
        self.row(
            "input",
            format!(
                "{}², {:?} resize, mean {:?}, std {:?}",
                preprocess.size, preprocess.resize, preprocess.mean, preprocess.std
            ),
        );
        self.row(
            "weights",
            format!(
                "{source}, {} training steps, rgby {}",
                provenance.steps, provenance.rgby_version
            ),
        );
        if !spec.precision.is_full() {
            self.row("precision", format!("{}, for scoring only", spec.precision));
        }
        if let Some(width) = spec.embeddings {
            self.row("embeddings", format!("{width} features per image"));
        }
    }

    /// Adds the progress and config of the run that a checkpoint belongs to.
    pub fn progress(&mut self, checkpoint: &Checkpoint) {
        if let Some(progress) = &checkpoint.progress {
            let best = progress.best_loss;
            let best = best.map_or_else(String::new, |loss| format!(", lowest loss {loss:.5}"));
            self.row(
                "trained",
                format!(
                    "{} epochs and {} steps{best}",
                    progress.epoch, progress.step_in_epoch
                ),
            );
        }
        if let Some(config) = &checkpoint.config {
            let (train, optimizer) = (&config.train, &config.optimizer);
            self.row(
                "config",
                format!(
                    "{:?}, learning rate {}, batch {}, {} epochs, split {}, seed {}",
                    optimizer.name,
                    optimizer.lr(),
                    train.batch_size * train.accumulate,
                    train.epochs,
                    config.data.split,
                    train.seed
                ),
            );
        }
        if checkpoint.unfolded > 0 {
            self.row(
                "unfolded",
                format!(
                    "{} BatchNorm layers; training first measures their statistics",
                    checkpoint.unfolded
                ),
            );
        }
    }

    /// Adds the metrics of a run.
    pub fn history(&mut self, run: &RunHistory) {
        self.row(
            "run",
            format!("{} epochs, {:.0} s of training", run.epochs, run.seconds),
        );
        for (label, row) in [("best", &run.best), ("last", &run.last)] {
            if let Some(row) = row {
                self.row(label, epoch(row));
            }
        }
    }

    /// Adds the contents of an ONNX graph.
    pub fn summary(&mut self, summary: &GraphSummary) {
        let opsets = summary.opsets.iter();
        let opsets: Vec<String> = opsets
            .map(|(domain, version)| format!("{} {version}", domain.escape_debug()))
            .collect();
        let producer = match summary.producer.as_str() {
            "" => "an unnamed program".to_owned(),
            name => name.escape_debug().to_string(),
        };
        self.row(
            "made by",
            format!("{producer}, IR version {}", summary.ir_version),
        );
        self.row("opset", opsets.join(", "));
        self.values("inputs", &summary.inputs);
        self.values("outputs", &summary.outputs);
        self.row("parameters", summary.parameters.to_string());
        let weights = summary.weights.iter();
        let weights: Vec<String> = weights.map(|(kind, n)| format!("{n} {kind}")).collect();
        self.row("tensors", weights.join(", "));
        for (file, tensors) in &summary.external {
            self.row(
                "external",
                format!("{tensors} tensors in {}", file.escape_debug()),
            );
        }
        let operators = summary.operators.iter().take(OPERATORS);
        let mut operators: Vec<String> = operators
            .map(|op| format!("{} {}", op.count, op.operator.escape_debug()))
            .collect();
        if summary.operators.len() > OPERATORS {
            operators.push(format!(
                "{} other kinds",
                summary.operators.len() - OPERATORS
            ));
        }
        self.row(
            "nodes",
            format!("{}: {}", summary.nodes, operators.join(", ")),
        );
        if summary.functions > 0 {
            self.row("functions", summary.functions.to_string());
        }
    }

    fn values(&mut self, label: &'static str, values: &[GraphValue]) {
        for (index, value) in values.iter().enumerate() {
            let shape = value.shape.as_ref().map_or_else(String::new, |shape| {
                format!("[{}]", shape.join(", ").escape_debug())
            });
            let text = format!("{} {}{shape}", value.name.escape_debug(), value.kind);
            self.row(if index == 0 { label } else { "" }, text);
        }
    }

    /// Adds what `rgby convert` would do.
    pub fn preview(&mut self, preview: &ConversionPreview) {
        match preview {
            ConversionPreview::Restore => {
                self.row("convert", "possible: restores the exported checkpoint");
            }
            ConversionPreview::Refuse { reason } => {
                self.row("convert", format!("not possible: {reason}"));
            }
            ConversionPreview::Convert(report) => {
                self.row("convert", format!("possible, as {}", report.arch.name()));
                self.report(report);
            }
        }
    }

    fn report(&mut self, report: &PretrainedReport) {
        let counted = [
            (report.matched, "tensors copied"),
            (report.unfolded, "BatchNorm layers unfolded"),
            (report.absorbed, "biases absorbed by BatchNorm"),
            (report.rescaled, "BatchNorm layers rescaled"),
            (report.dropped.len(), "tensors of the classifier dropped"),
        ];
        let present = counted.into_iter().filter(|(count, _)| *count > 0);
        let text: Vec<String> = present
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        self.row("", text.join(", "));
    }

    pub fn hashes(&mut self, hashes: &BTreeMap<String, String>) {
        for (file, hash) in hashes {
            self.row("sha256", format!("{hash} {file}"));
        }
    }

    /// Adds the classes with their thresholds.
    pub fn classes(&mut self, spec: &ModelSpec) {
        self.row("classes", spec.classes.len().to_string());
        for (index, (class, threshold)) in spec.classes.iter().zip(&spec.thresholds).enumerate() {
            self.below += &format!("    {index:>3}  {threshold:.3}  {class}\n");
        }
    }
}

fn epoch(row: &EpochRow) -> String {
    let valid = row.valid_loss;
    let valid = valid.map_or_else(String::new, |loss| format!("validation loss {loss:.5}, "));
    format!(
        "epoch {}: {valid}training loss {:.5}, macro-F1 {:.4}",
        row.epoch, row.train_loss, row.f1_mean
    )
}

impl fmt::Display for InspectTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for (label, text) in &self.rows {
            writeln!(f, "  {label:<11} {text}")?;
        }
        f.write_str(&self.below)
    }
}
