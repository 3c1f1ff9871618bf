//! A run from a checkpoint: `cargo run --release --features examples --example train --
//! configs/resnet50-rgby.toml initial train train.csv runs/first`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use rgby::data::{Dataset, Images};
use rgby::model::WeightTransfer;
use rgby::report::{EpochRow, TimingRow};
use rgby::train::{
    Config, RunEnd, RunOrigin, StepReport, TrainDevice, TrainJob, TrainingObserver, train,
};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let paths: Vec<&Path> = args.iter().map(Path::new).collect();
    let [config, checkpoint, images, labels, out] = paths[..] else {
        bail!("usage: train CONFIG.toml CHECKPOINT IMAGES LABELS.csv RUN");
    };
    let config = Config::read(config, &[])?;
    start(config, checkpoint, (images, labels), out)?;
    Ok(())
}

/// Trains until the config's last epoch; `out` then holds what `rgby train` would have written.
pub fn start(
    config: Config,
    checkpoint: &Path,
    (images, labels): (&Path, &Path),
    out: &Path,
) -> anyhow::Result<RunEnd> {
    let stains = config.preprocess().stains();
    let classes = config.model.classes.len();
    let dataset = Dataset::open(&Images::plain(images), labels, &stains, classes)?;
    let job = TrainJob {
        config,
        dataset: Arc::new(dataset),
        cache: None,
        features: None,
        from: Some((checkpoint.to_owned(), WeightTransfer::Backbone)),
        recalibrate: 0,
        origin: RunOrigin {
            rgby_version: env!("CARGO_PKG_VERSION").into(),
            device: "cpu".into(),
            images: images.display().to_string(),
            labels: labels.display().to_string(),
            from: Some(checkpoint.display().to_string()),
            ..RunOrigin::default()
        },
        out: out.to_owned(),
        resume: false,
        checkpoint_every: None,
        device: TrainDevice::Cpu.open().map_err(anyhow::Error::msg)?,
        // Set from another thread, it ends the run with everything saved.
        stop: &AtomicBool::new(false),
    };
    Ok(train(job, &Print)?)
}

/// Sees the run as it goes.
struct Print;

impl TrainingObserver for Print {
    fn step(&self, _: &StepReport) {}

    fn epoch(&self, row: &EpochRow, _: &TimingRow) {
        println!("epoch {}: loss {:.4}", row.epoch, row.train_loss);
    }

    fn note(&self, text: &str) {
        println!("{text}");
    }
}
