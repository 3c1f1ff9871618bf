//! Trains a run from a checkpoint or ONNX file: `cargo run --release --features examples --example
//! train -- configs/resnet50-rgby.toml initial train train.csv runs/first`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::bail;
use rgby::data::{Dataset, Images};
use rgby::report::{EpochRow, TimingRow};
use rgby::train::{
    Config, HeadChoice, RunEnd, RunOrigin, StartingPoint, StepReport, TrainDevice, TrainJob,
    TrainingObserver, train,
};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let paths: Vec<&Path> = args.iter().map(Path::new).collect();
    let [config, checkpoint, images, labels, out] = paths[..] else {
        bail!("usage: train CONFIG.toml CHECKPOINT|FILE.onnx IMAGES LABELS.csv RUN");
    };
    let config = Config::read(config, &[])?;
    start(config, checkpoint, (images, labels), out)?;
    Ok(())
}

/// Trains all epochs of the config; writes the same files to `out` as `rgby train`.
pub fn start(
    config: Config,
    checkpoint: &Path,
    (images, labels): (&Path, &Path),
    out: &Path,
) -> anyhow::Result<RunEnd> {
    let images = Images::plain(images);
    let stains = config.preprocess().stains();
    let dataset = Dataset::open(&images, labels, &stains, config.model.classes.len())?;
    let from = StartingPoint::open(checkpoint, &config.model, HeadChoice::Auto)?;
    let device = TrainDevice::Cpu;
    let origin = RunOrigin::new(device, &images, labels, Some(&from));
    let device = device.open().map_err(anyhow::Error::msg)?;
    // If another thread sets it, the run saves its state and ends.
    let stop = AtomicBool::new(false);
    let job = TrainJob {
        from: Some(from),
        origin,
        ..TrainJob::new(config, Arc::new(dataset), out.to_owned(), device, &stop)
    };
    Ok(train(job, &Print)?)
}

/// Prints the progress of the run.
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
