//! How fast this machine scores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::{BenchArgs, SAMPLES, draw};
use crate::cli::{EngineArgs, Ui};
use crate::data::Images;
use crate::imaging::Sample;
use crate::model_metadata::Precision;
use crate::report::scoring_speed;
use crate::score::{Device, Ensemble, ScoreBench, ScoreSpeed, Scorer, open_model};

/// A model and what was measured of it.
struct Measured {
    model: PathBuf,
    precision: Precision,
    engine: String,
    speed: ScoreSpeed,
}

/// Measures each model and prints it.
pub(super) fn measure(args: &BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    // Removed at the end.
    let drawn;
    let images = if let Some(images) = &args.images {
        images.clone()
    } else {
        drawn = tempfile::tempdir().context("cannot make a temporary folder")?;
        ui.note(&format!("drawing {SAMPLES} samples of 512×512 …"));
        draw(drawn.path())?;
        drawn.path().join("images")
    };
    let images = args.layout.of(&images)?;
    let measured: anyhow::Result<Vec<_>> = args
        .model
        .iter()
        .map(|model| one(args, model, &images, ui))
        .collect();
    let measured = measured?;
    if let Some(plot) = &args.plot {
        let model = measured.first().context("no model")?;
        scoring_speed(plot, &model.speed.batches)?;
        ui.note(&format!("plot: {}", plot.display()));
    }
    if args.json {
        print_json(&measured, ui)?;
    } else {
        for model in &measured {
            ui.print(&table(model))?;
        }
    }
    Ok(())
}

fn one(args: &BenchArgs, path: &Path, images: &Images, ui: &Ui) -> anyhow::Result<Measured> {
    let model = open_model("--model", path)?;
    let engine = EngineArgs {
        device: args.device.parse().map_err(anyhow::Error::msg)?,
        runner: args.runner.clone(),
        ..EngineArgs::default()
    };
    let samples: Vec<Sample> = images.find(&model.spec().preprocess.stains())?;
    let (name, precision) = (path.to_owned(), model.spec().precision);
    let ensemble = Ensemble::new(model, Vec::new())?;
    let mut scorer = Scorer::start(&ensemble, &engine.options(), &ui.scoring())?;
    let options = scorer.options().clone();
    let parts = args.rounds * (1 + 2 * args.batch_sizes.len());
    let bar = ui.progress(parts as u64, "measuring");
    let bench = ScoreBench {
        samples: &samples,
        batches: &args.batch_sizes,
        options: &options,
        rounds: args.rounds,
        time: Duration::from_secs_f64(args.seconds),
        shared_cores: scorer.started().runtimes[0].device() == Device::Cpu,
    };
    let speed = bench.measure(scorer.engines(), &|| bar.inc(1));
    bar.finish_and_clear();
    Ok(Measured {
        model: name,
        precision,
        engine: scorer.started().name.clone(),
        speed: speed?,
    })
}

fn print_json(measured: &[Measured], ui: &Ui) -> anyhow::Result<()> {
    let model = |measured: &Measured| {
        json!({
            "model": measured.model,
            "precision": measured.precision,
            "engine": measured.engine,
            "prepare": measured.speed.prepare,
            "batches": measured.speed.batches,
        })
    };
    let models: Vec<_> = measured.iter().map(model).collect();
    ui.print_json(&json!({ "models": models }))?;
    Ok(())
}

fn table(measured: &Measured) -> String {
    let speed = &measured.speed;
    let mut text = format!(
        "{} ({}) on {}\n\
         preparing images alone: {:.0} images/s, {:.2} ms of a core each\n\n\
         batch │ session: images/s  p50 ms  p95 ms  p99 ms │ end to end: images/s  of session  \
         of allowed  CPU ms/image  peak MB\n",
        measured.model.display(),
        measured.precision,
        measured.engine,
        speed.prepare.images_per_s,
        speed.prepare.core_ms_per_image,
    );
    for batch in &speed.batches {
        let (session, whole) = (batch.session, batch.end_to_end);
        let peak = whole
            .peak_rss_mb
            .map_or_else(|| "?".into(), |peak| format!("{peak:.0}"));
        text += &format!(
            "{:>5} │ {:>17.2} {:>7.1} {:>7.1} {:>7.1} │ {:>20.2} {:>11.3} {:>11.3} {:>13.1} {peak:>8}\n",
            batch.batch,
            session.images_per_s,
            session.p50_ms,
            session.p95_ms,
            session.p99_ms,
            whole.images_per_s,
            whole.images_per_s / session.images_per_s,
            whole.images_per_s / batch.allowed_images_per_s,
            whole.cpu_ms_per_image,
        );
    }
    text
}
