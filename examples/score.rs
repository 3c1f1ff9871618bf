//! Classes of a folder of images: `cargo run --release --features examples --example score --
//! model.onnx test`.

use std::path::Path;

use anyhow::bail;
use rgby::data::Images;
use rgby::imaging::DecodeLimits;
use rgby::score::{Engine, ModelFile, OrtEngine, PipelineOptions, Runtime, RuntimeOptions, score};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, images] = &args[..] else {
        bail!("usage: score MODEL.onnx IMAGES");
    };
    for (id, classes) in predict(Path::new(model), Path::new(images))? {
        println!("{id}: {}", classes.join(", "));
    }
    Ok(())
}

/// The classes of each sample whose probability reaches the model's threshold, by the sample's id.
pub fn predict(model: &Path, images: &Path) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let model = ModelFile::open(model)?;
    let spec = model.spec().clone();
    // ONNX Runtime if it is found, else the embedded engine.
    let runtime = Runtime::start(&RuntimeOptions::default())?;
    println!("on {}", runtime.describe());
    let engine = OrtEngine::load(runtime, &model, 2)?;
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(engine)];
    let samples = Images::plain(images).find(&spec.preprocess.stains())?;
    let options = PipelineOptions {
        batch: 8,
        decode_threads: 2,
        limits: DecodeLimits::default(),
        whole_batches: false,
    };
    let table = score(&mut engines, &samples, &options, &|_done| {})?;
    for failure in &table.failures {
        eprintln!("{}: {}", failure.id, failure.error);
    }
    let named = |row: &Vec<f32>| {
        let classes = row.iter().zip(&spec.thresholds).zip(&spec.classes);
        let present = classes.filter(|((p, threshold), _)| p >= threshold);
        present.map(|(_, name)| name.clone()).collect()
    };
    let scored = table.ids.into_iter().zip(&table.probabilities);
    let scored = scored.filter_map(|(id, row)| Some((id, named(row.as_ref()?))));
    Ok(scored.collect())
}
