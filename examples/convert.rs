//! Converts a pretrained ONNX file to a checkpoint: `cargo run --release --features examples
//! --example convert -- resnet50.onnx initial`.

use std::path::Path;

use anyhow::bail;
use rgby::convert::ConvertConfig;
use rgby::graph::surgery::Filter;
use rgby::model::{ConversionOptions, StemFilters};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [onnx, out] = &args[..] else {
        bail!("usage: convert FILE.onnx CHECKPOINT");
    };
    convert(Path::new(onnx), Path::new(out))
}

/// Writes a checkpoint with four channels and the 28 classes of the Human Protein Atlas.
pub fn convert(onnx: &Path, out: &Path) -> anyhow::Result<()> {
    let config = ConvertConfig {
        onnx: onnx.to_owned(),
        out: out.to_owned(),
        options: ConversionOptions {
            // Red, green and blue keep their filters; those of yellow start at zero.
            stem: StemFilters::Others(Filter::Zero),
            ..ConversionOptions::default()
        },
    };
    println!("{}", rgby::convert::convert(&config)?);
    Ok(())
}
