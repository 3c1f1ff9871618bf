//! The pipeline with engines and loaders that misbehave on purpose.

mod echo;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use self::echo::{Echo, EchoFault, echo, new_echo};
use super::job::Load;
use super::*;
use crate::InferenceOutput;
use crate::model_metadata::ModelSpec;
use rgby_imaging::CHANNELS;

fn samples(count: usize) -> Vec<Sample> {
    let channels: Arc<[String]> = [CHANNELS[0].to_owned()].into();
    (0..count)
        .map(|i| Sample {
            id: i.to_string(),
            channels: channels.clone(),
            files: vec![None],
            picks: Arc::default(),
        })
        .collect()
}

/// Runs the pipeline on `count` samples; the loader writes the sample's number / 1000.
fn run(
    engines: &mut [Box<dyn Engine>],
    count: usize,
    (batch, decoders): (usize, usize),
    load: &Load,
) -> Result<ScoreTable, ScoreError> {
    let samples = samples(count);
    let never = AtomicBool::new(false);
    let job = job(&samples, batch, load, &never);
    let mut table = ScoreTable {
        ids: samples.iter().map(|sample| sample.id.clone()).collect(),
        probabilities: Vec::new(),
        failures: Vec::new(),
    };
    let done = job.run(engines, decoders, &mut |batch| {
        assert_eq!(batch.first, table.probabilities.len());
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        Ok(())
    })?;
    assert_eq!(done, count);
    Ok(table)
}

fn job<'a>(
    samples: &'a [Sample],
    batch: usize,
    load: &'a Load,
    stop: &'a AtomicBool,
) -> PipelineJob<'a> {
    PipelineJob {
        source: ScoreSource {
            samples,
            files: &LocalFiles,
            stop,
        },
        max_file_bytes: 0,
        batch,
        input_len: 4,
        load,
        next: Mutex::new(0),
        taken: Mutex::new(0),
        failed: AtomicBool::new(false),
        whole_batches: false,
    }
}

/// Records the size of each batch.
struct BatchSizeRecorder(Echo, Arc<Mutex<Vec<usize>>>);

impl Engine for BatchSizeRecorder {
    fn spec(&self) -> &ModelSpec {
        self.0.spec()
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        self.1.lock().unwrap().push(batch);
        self.0.infer(images, batch)
    }
}

#[test]
fn pads_batches_to_the_same_size() {
    let (samples, never) = (samples(10), AtomicBool::new(false));
    let sizes = Arc::default();
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(BatchSizeRecorder(
        new_echo(0, None),
        Arc::clone(&sizes),
    ))];
    let mut job = job(&samples, 4, &every_third_fails, &never);
    job.whole_batches = true;
    let mut found = Vec::new();
    job.run(&mut engines, 2, &mut |batch| {
        found.extend(batch.probabilities);
        Ok(())
    })
    .unwrap();
    let wanted = |i: usize| (!i.is_multiple_of(3)).then(|| vec![i as f32 / 1000.0]);
    assert_eq!(found, (0..10).map(wanted).collect::<Vec<_>>());
    assert_eq!(*sizes.lock().unwrap(), [4, 4, 4]);
}

fn number(sample: &Sample, out: &mut [f32]) -> Result<(), LoadError> {
    out.fill(sample.id.parse::<f32>().map_err(|_| broken(sample))? / 1000.0);
    Ok(())
}

fn every_third_fails(sample: &Sample, out: &mut [f32]) -> Result<(), LoadError> {
    out.fill(9.0); // what a failed sample leaves behind must not be scored
    if sample.id.parse::<usize>().unwrap() % 3 == 0 {
        return Err(broken(sample));
    }
    number(sample, out)
}

fn broken(sample: &Sample) -> LoadError {
    LoadError::Sample(Failure {
        id: sample.id.clone(),
        file: "f".into(),
        error: "broken".into(),
    })
}

#[test]
fn results_are_in_order_for_all_pipeline_options() {
    for (engines, batch, decoders) in [(1, 1, 1), (1, 7, 3), (3, 4, 2), (2, 1000, 4), (4, 3, 1)] {
        let mut engines: Vec<_> = (0..engines).map(|_| echo(0, None)).collect();
        let table = run(&mut engines, 100, (batch, decoders), &every_third_fails).unwrap();
        assert_eq!(table.ids.len(), 100);
        for (i, row) in table.probabilities.iter().enumerate() {
            let wanted = (i % 3 != 0).then(|| vec![i as f32 / 1000.0]);
            assert_eq!(row, &wanted, "sample {i}");
        }
        let failed: Vec<_> = table
            .failures
            .iter()
            .map(|f| f.id.parse::<usize>().unwrap())
            .collect();
        assert_eq!(failed, (0..100).step_by(3).collect::<Vec<_>>());
    }
}

#[test]
fn no_samples_and_only_bad_samples_are_no_error() {
    let table = run(&mut [echo(0, None)], 0, (4, 2), &number).unwrap();
    assert!(table.ids.is_empty() && table.failures.is_empty());
    let fail = |sample: &Sample, _: &mut [f32]| Err(broken(sample));
    // An engine that were run on an empty batch would divide by zero.
    let table = run(&mut [echo(0, None)], 9, (4, 2), &fail).unwrap();
    assert_eq!(table.failures.len(), 9);
    assert!(table.probabilities.iter().all(Option::is_none));
}

#[test]
fn an_engine_error_or_panic_ends_everything() {
    for engines in [1, 3] {
        for (fault, wanted) in [
            (EchoFault::Error, "out of memory"),
            (EchoFault::Panic, "kernel bug"),
        ] {
            let mut engines: Vec<_> = (1..engines).map(|_| echo(0, None)).collect();
            engines.push(echo(0, Some((1, fault))));
            let slow = |sample: &Sample, out: &mut [f32]| {
                thread::sleep(Duration::from_millis(1));
                number(sample, out)
            };
            let start = Instant::now();
            let error = run(&mut engines, 100_000, (2, 3), &slow)
                .unwrap_err()
                .to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the rest was not dropped"
            );
        }
    }
}

#[test]
fn a_decoder_panic_ends_everything() {
    let load = |sample: &Sample, out: &mut [f32]| {
        assert_ne!(sample.id, "40", "decoder bug");
        number(sample, out)
    };
    for decoders in [1, 4] {
        let error = run(
            &mut [echo(0, None), echo(0, None)],
            100_000,
            (2, decoders),
            &load,
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("decoding") && error.contains("decoder bug"),
            "{error}"
        );
    }
}

#[test]
fn all_decoders_fill_a_batch_together_and_take_samples_in_order() {
    let (together, order) = (Barrier::new(4), Mutex::new(Vec::new()));
    let load = |sample: &Sample, out: &mut [f32]| {
        order
            .lock()
            .unwrap()
            .push(sample.id.parse::<usize>().unwrap());
        // Passes only once there are four at work.
        together.wait();
        number(sample, out)
    };
    run(&mut [echo(0, None)], 48, (16, 4), &load).unwrap();
    for (step, taken) in order.into_inner().unwrap().chunks(4).enumerate() {
        assert!(taken.iter().all(|index| index / 4 == step), "{taken:?}");
    }
}

#[test]
fn decoding_and_inference_overlap() {
    let engine = new_echo(10, None);
    let (busy, overlaps) = (engine.busy.clone(), AtomicU32::new(0));
    let slow = |sample: &Sample, out: &mut [f32]| {
        // Half as long as the engine takes, so that it ends in the middle of its work.
        thread::sleep(Duration::from_millis(5));
        overlaps.fetch_add(busy.load(Ordering::SeqCst).into(), Ordering::SeqCst);
        number(sample, out)
    };
    run(&mut [Box::new(engine)], 30, (1, 1), &slow).unwrap();
    // One after the other, no sample would be ready while the engine is at work.
    let overlaps = overlaps.into_inner();
    assert!(
        overlaps >= 10,
        "{overlaps} of 30 samples were decoded during inference"
    );
}

#[test]
fn decoders_do_not_run_ahead_without_bound() {
    let engine = new_echo(2, None);
    let (loaded, ahead) = (AtomicU32::new(0), AtomicU32::new(0));
    let given = engine.given.clone();
    let count = |sample: &Sample, out: &mut [f32]| {
        let loaded = loaded.fetch_add(1, Ordering::SeqCst) + 1;
        let waiting = loaded.saturating_sub(given.load(Ordering::SeqCst));
        ahead.fetch_max(waiting, Ordering::SeqCst);
        number(sample, out)
    };
    run(&mut [Box::new(engine)], 200, (1, 3), &count).unwrap();
    // Four that decoders have begun, one in the queue, and one between queue and engine.
    let ahead = ahead.into_inner();
    assert!((1..=6).contains(&ahead), "{ahead} batches ahead");
}

#[test]
fn no_engines_or_files_is_an_error() {
    let options = PipelineOptions {
        batch: 4,
        decode_threads: 2,
        limits: DecodeLimits::default(),
        whole_batches: false,
    };
    assert!(matches!(
        score_samples(&mut [], &[], &options, &|_| ()),
        Err(ScoreError::NoEngine)
    ));
    let table = score_samples(&mut [echo(0, None)], &samples(3), &options, &|_| ()).unwrap();
    assert_eq!(table.failures.len(), 3);
    assert_eq!(table.failures[1].id, "1");
    assert!(
        table.failures[1].error.contains("no image file"),
        "{:?}",
        table.failures[1]
    );
}

#[test]
fn a_stop_finishes_running_batches_and_leaves_no_gap() {
    let samples = samples(1000);
    let stop = AtomicBool::new(false);
    let job = job(&samples, 3, &number, &stop);
    let mut engines = [echo(1, None), echo(3, None), echo(2, None)];
    let mut seen = Vec::new();
    let done = job.run(&mut engines, 2, &mut |batch| {
        seen.extend(batch.probabilities);
        stop.store(seen.len() >= 60, Ordering::Relaxed);
        Ok(())
    });
    let done = done.unwrap();
    assert!(
        (60..1000).contains(&done) && done.is_multiple_of(3),
        "{done}"
    );
    assert_eq!(seen.len(), done);
    for (number, row) in seen.into_iter().enumerate() {
        assert_eq!(row, Some(vec![number as f32 / 1000.0]));
    }
}

#[test]
fn an_error_of_the_sink_ends_everything() {
    let samples = samples(100_000);
    let never = AtomicBool::new(false);
    let job = job(&samples, 2, &number, &never);
    let mut taken = 0;
    let error = job.run(&mut [echo(0, None), echo(0, None)], 2, &mut |_| {
        taken += 1;
        Err(io::Error::other("the disk is full"))
    });
    assert!(error.unwrap_err().to_string().contains("the disk is full"));
    assert_eq!(taken, 1);
}

#[test]
fn a_failed_file_source_is_no_failure_of_a_sample() {
    let samples = samples(20);
    let stop = AtomicBool::new(false);
    let gone = |sample: &Sample, out: &mut [f32]| match sample.id.parse() {
        Ok(9..) => Err(LoadError::Files(io::Error::other("the store is gone"))),
        _ => number(sample, out),
    };
    let mut done = 0;
    let mut sink = |batch: BatchScores| {
        assert!(batch.failures.is_empty());
        done += batch.probabilities.len();
        Ok(())
    };
    let ended = job(&samples, 4, &gone, &stop).run(&mut [echo(0, None)], 1, &mut sink);
    assert!(matches!(ended, Err(ScoreError::Files(_))), "{ended:?}");
    assert!(done <= 8, "{done}");
    // A process that shall end leaves the rest to another.
    let stopping = |sample: &Sample, out: &mut [f32]| {
        stop.fetch_or(sample.id == "9", Ordering::Relaxed);
        gone(sample, out)
    };
    let ended = job(&samples, 4, &stopping, &stop).run(&mut [echo(0, None)], 1, &mut |_| Ok(()));
    assert_eq!(ended.unwrap(), 8);
}
