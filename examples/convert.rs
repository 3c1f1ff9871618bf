//! A pretrained ONNX file becomes a checkpoint: `cargo run --release --features examples --example
//! convert -- resnet50.onnx initial`.

use std::path::Path;

use anyhow::{Context, bail};
use rgby::graph::{self, surgery::Filter};
use rgby::imaging::Preprocess;
use rgby::model::{Classifier, ModelConfig, Pretrained};
use rgby::model_metadata::ModelSpec;
use rgby::train::{Checkpoint, CheckpointContents, TrainDevice};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [onnx, out] = &args[..] else {
        bail!("usage: convert FILE.onnx CHECKPOINT");
    };
    convert(Path::new(onnx), Path::new(out))
}

/// Makes a checkpoint with four channels and the 28 classes of the Human Protein Atlas.
pub fn convert(onnx: &Path, out: &Path) -> anyhow::Result<()> {
    let source = graph::read(onnx).with_context(|| onnx.display().to_string())?;
    let pretrained = Pretrained::new(source)?;
    // Which of the known networks it is, whatever its exporter called its parts.
    let arch = pretrained.arch()?;
    let config = ModelConfig::new(arch, arch.native_input_size());
    let device = TrainDevice::Cpu.open().map_err(anyhow::Error::msg)?;
    let random = Classifier::new(&config, 0, &device);
    // Red, green and blue keep their filters; yellow's start at zero.
    let stem = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
    let (classifier, report) = pretrained.load(arch, &stem, random)?;
    println!("{}: {} tensors taken over", arch.name(), report.matched);
    let preprocess = Preprocess::new(&config.channels, config.input_size);
    let spec = ModelSpec::new(arch.name(), config.classes.clone(), preprocess);
    let mut checkpoint = Checkpoint::new(config, spec);
    checkpoint.unfolded = report.unfolded;
    checkpoint.save(out, CheckpointContents::weights(&classifier))?;
    Ok(())
}
