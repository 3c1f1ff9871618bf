//! Scores a folder of images: `cargo run --release --features examples --example score --
//! model.onnx test predictions.csv`.

use std::path::Path;

use anyhow::bail;
use rgby::score::{ScoreConfig, ScoreReport, run};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, images, out] = &args[..] else {
        bail!("usage: score MODEL.onnx IMAGES OUT.csv");
    };
    let report = predict(Path::new(model), Path::new(images), Path::new(out))?;
    println!(
        "{} samples on {}, {} failed",
        report.samples, report.engine, report.failed
    );
    Ok(())
}

/// Writes the predicted classes of each sample to the CSV file `out`.
pub fn predict(model: &Path, images: &Path, out: &Path) -> anyhow::Result<ScoreReport> {
    let config = ScoreConfig::new(model, images, out);
    // `()` observes nothing; implement `ScoreObserver` to show progress.
    Ok(run(&config, &())?)
}
