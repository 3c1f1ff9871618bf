//! `rgby bench --model`: speed of scoring.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::{BenchArgs, SAMPLES, generate_samples};
use crate::cli::{EngineArgs, Ui};
use crate::data::Images;
use crate::report::scoring_speed;
use crate::score::{Device, Ensemble, ModelSpeed, ScoreBench, Scorer, open_model};

/// Measures each model and prints the results.
pub(super) fn bench(args: &BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    // Holds generated samples until the end.
    let folder;
    let images = if let Some(images) = &args.images {
        images.clone()
    } else {
        folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        ui.note(&format!("generating {SAMPLES} samples of 512×512 …"));
        generate_samples(folder.path())?;
        folder.path().join("images")
    };
    let images = args.layout.of(&images)?;
    let models = args.model.iter();
    let speeds = models
        .map(|model| bench_model(args, model, &images, ui))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let (Some(plot), Some(first)) = (&args.plot, speeds.first()) {
        scoring_speed(plot, &first.speed.batches)?;
        ui.note(&format!("plot: {}", plot.display()));
    }
    if args.json {
        ui.print_json(&json!({ "models": speeds }))?;
    } else {
        for speed in &speeds {
            ui.print(&table(speed))?;
        }
    }
    Ok(())
}

fn bench_model(
    args: &BenchArgs,
    path: &Path,
    images: &Images,
    ui: &Ui,
) -> anyhow::Result<ModelSpeed> {
    let engine = EngineArgs {
        device: args.device.parse().map_err(anyhow::Error::msg)?,
        runner: args.runner.clone(),
        ..EngineArgs::default()
    };
    let model = open_model("--model", path)?;
    let samples = images.find(&model.spec().preprocess.stains())?;
    let precision = model.spec().precision;
    let ensemble = Ensemble::new(model, Vec::new())?;
    let mut scorer = Scorer::start(&ensemble, &engine.options(), &ui.scoring())?;
    let options = scorer.options().clone();
    let bench = ScoreBench {
        samples: &samples,
        batches: &args.batch_sizes,
        options: &options,
        rounds: args.rounds,
        time: Duration::from_secs_f64(args.seconds),
        shared_cores: scorer.started().runtimes[0].device() == Device::Cpu,
    };
    let bar = ui.progress(bench.measurements() as u64, "measuring");
    let speed = bench.measure(scorer.engines(), &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(ModelSpeed {
        model: path.to_owned(),
        precision,
        engine: scorer.started().name.clone(),
        speed: speed?,
    })
}

fn table(model: &ModelSpeed) -> String {
    let speed = &model.speed;
    let mut text = format!(
        "{} ({}) on {}\n\
         preprocessing alone: {:.0} images/s, {:.2} ms of one core per image\n\n\
         batch │ session: images/s  p50 ms  p95 ms  p99 ms │ end to end: images/s  of session  \
         of bound    CPU ms/image  peak MB\n",
        model.model.display(),
        model.precision,
        model.engine,
        speed.prepare.images_per_s,
        speed.prepare.core_ms_per_image,
    );
    for batch in &speed.batches {
        let (session, end_to_end) = (batch.session, batch.end_to_end);
        let peak = end_to_end
            .peak_rss_mb
            .map_or_else(|| "?".into(), |peak| format!("{peak:.0}"));
        text += &format!(
            "{:>5} │ {:>17.2} {:>7.1} {:>7.1} {:>7.1} │ {:>20.2} {:>11.3} {:>11.3} {:>13.1} {peak:>8}\n",
            batch.batch,
            session.images_per_s,
            session.p50_ms,
            session.p95_ms,
            session.p99_ms,
            end_to_end.images_per_s,
            end_to_end.images_per_s / session.images_per_s,
            end_to_end.images_per_s / batch.allowed_images_per_s,
            end_to_end.cpu_ms_per_image,
        );
    }
    text + "\nof bound: share of the speed that session and preprocessing together allow\n"
}
