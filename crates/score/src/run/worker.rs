//! A worker that scores samples from a stream: `rgby score --worker`.

use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::output_files::apply_argmax;
use super::{ScoreModels, ScoreRunError};
use crate::staging::StagedFiles;
use crate::stream::{Request, RequestReader, ResponseRows, ResponseWriter, StreamError};
use crate::{
    Decision, EngineOptions, ScoreObserver, ScoreSource, ScoreTable, Scorer, output, score_batches,
};
use rgby_store::StoreOptions;

/// How often the stop flag is checked while no request arrives.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Configuration of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    pub models: ScoreModels,
    /// Maximum size of an encoded record batch in bytes; two are in memory at once.
    pub max_batch_bytes: u64,
    pub engine: EngineOptions,
    pub store: StoreOptions,
    /// When set, the running request is finished and no further one is read.
    pub stop: Arc<AtomicBool>,
}

/// Result of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerReport {
    pub samples: usize,
    /// Samples whose response has an error instead of probabilities.
    pub failed: usize,
    pub seconds: f64,
    /// Whether `stop` was set.
    pub stopped: bool,
}

/// Reads record batches of samples from `input` and writes one response for each to `output`, both
/// as Arrow IPC streams, until `input` ends or `stop` is set.
///
/// `input` is read on its own thread, which ends with the process if `stop` is set meanwhile.
///
/// # Errors
///
/// `input` is not a stream of samples, `output` cannot be written, or the engine is not available
/// or fails. Unreadable samples are no error; their response says why.
pub fn run_worker(
    config: &WorkerConfig,
    input: impl Read + Send + 'static,
    output: impl Write,
    observer: &dyn ScoreObserver,
) -> Result<WorkerReport, ScoreRunError> {
    let mut staged = StagedFiles::new(config.store.clone());
    let files = config.models.stage(&mut staged)?;
    let ensemble = config.models.open(&files, false)?;
    let decision = config.models.decision(&ensemble);
    let mut scorer = Scorer::start(&ensemble, &config.engine, observer)?;
    if let Some(note) = config.models.note() {
        observer.note(&note);
    }
    observer.ready()?;
    let mut responses = ResponseWriter::open(BufWriter::new(output), &ensemble.spec().classes)?;
    let requests = read_ahead(input, ensemble.stains(), config.max_batch_bytes)?;
    let start = Instant::now();
    let mut report = WorkerReport::default();
    while let Some(request) = next(&requests, &config.stop)? {
        let table = respond(&mut scorer, &request, &mut responses, &decision)?;
        report.samples += table.ids.len();
        report.failed += table.failures.len();
    }
    ignore_broken_pipe(responses.finish())?;
    report.seconds = start.elapsed().as_secs_f64();
    report.stopped = config.stop.load(Ordering::Relaxed);
    Ok(report)
}

/// A reader that has all responses may close the pipe before the end of the stream.
fn ignore_broken_pipe(finished: Result<(), StreamError>) -> Result<(), StreamError> {
    match finished {
        Err(StreamError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        finished => finished,
    }
}

/// A message from the reading thread: a request, the end of the stream, or an error.
type ReadResult = Result<Option<Request>, StreamError>;

/// Reads `input` on its own thread: the next request while one is scored, so that `stop` is noticed
/// while no request arrives.
fn read_ahead(
    input: impl Read + Send + 'static,
    stains: Vec<String>,
    limit: u64,
) -> io::Result<Receiver<ReadResult>> {
    // The reader waits until its request is taken, so that there are never more than two.
    let (sender, requests) = bounded::<ReadResult>(0);
    let read = move || {
        let all = || -> Result<(), StreamError> {
            let stream = RequestReader::open(input, &stains, limit)?;
            for request in stream.into_iter().flatten() {
                if sender.send(Ok(Some(request?))).is_err() {
                    break;
                }
            }
            Ok(())
        };
        // Sending fails only if the worker has ended.
        let _ = sender.send(all().map(|()| None));
    };
    thread::Builder::new().name("stdin".into()).spawn(read)?;
    Ok(requests)
}

/// Returns the next request, or `None` at the end of the stream or if `stop` is set.
fn next(
    requests: &Receiver<ReadResult>,
    stop: &AtomicBool,
) -> Result<Option<Request>, ScoreRunError> {
    while !stop.load(Ordering::Relaxed) {
        match requests.recv_timeout(STOP_POLL) {
            Ok(request) => return Ok(request?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ScoreRunError::ReaderGone),
        }
    }
    Ok(None)
}

/// Scores all samples of a request, even if the worker is to stop, and writes the response.
fn respond(
    scorer: &mut Scorer,
    request: &Request,
    responses: &mut ResponseWriter<impl Write>,
    decision: &Decision,
) -> Result<ScoreTable, ScoreRunError> {
    let samples = request.samples();
    let mut table = ScoreTable {
        ids: request.ids().map(str::to_owned).collect(),
        probabilities: Vec::with_capacity(samples.len()),
        failures: Vec::new(),
    };
    let source = ScoreSource {
        samples: &samples,
        files: request,
        stop: &AtomicBool::new(false),
    };
    let options = scorer.options().clone();
    score_batches(scorer.engines(), source, &options, &mut |batch| {
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        Ok(())
    })?;
    let rows = ResponseRows {
        probabilities: &table.probabilities,
        predicted: &predicted(&table, decision),
        failures: &table.failures,
    };
    responses.write(request, rows)?;
    Ok(table)
}

/// Returns the numbers of the predicted classes of each sample, separated by spaces.
fn predicted(table: &ScoreTable, decision: &Decision) -> Vec<Option<String>> {
    let table = apply_argmax(table.clone(), decision);
    let text = |row: &Vec<f32>| {
        let classes = output::predicted_classes(row, &decision.thresholds);
        let classes: Vec<_> = classes.iter().map(usize::to_string).collect();
        classes.join(" ")
    };
    let rows = table.probabilities.iter();
    rows.map(|row| row.as_ref().map(text)).collect()
}
