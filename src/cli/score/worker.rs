//! `rgby score --worker`: samples come by stdin, and their probabilities go to stdout.

use std::io::{self, BufWriter, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::super::scorer::Scorer;
use super::super::signals::Signals;
use super::super::{Outcome, Stage, Ui};
use super::ScoreArgs;
use super::outputs::decidable;
use crate::score::stream::{Request, RequestReader, ResponseRows, ResponseWriter, StreamError};
use crate::score::{Decision, ScoreSource, ScoreTable, output, score_to};

/// How often somebody who waits for samples looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Samples that come by stdin.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Read samples from stdin and write probabilities to stdout, as Arrow IPC streams
    ///
    /// Each record batch gets one response, until stdin ends; see docs/worker.md.
    #[arg(long, conflicts_with_all = [
        "images", "pattern", "channel", "ids", "out", "scores", "embeddings", "shard", "shards",
        "resume", "part_size", "max_errors", "json",
    ])]
    pub worker: bool,
    /// Maximum size of a record batch in MiB; two are in memory at once
    // More than 2047 would be more than a column of answers can hold.
    #[arg(long, value_name = "MIB", default_value_t = 512, conflicts_with_all = ["images", "out"], value_parser = clap::value_parser!(u16).range(1..=2047))]
    pub worker_batch_mib: u16,
}

impl WorkerArgs {
    /// Most bytes of a batch.
    fn limit(&self) -> u64 {
        u64::from(self.worker_batch_mib) << 20
    }
}

/// What was done so far.
#[derive(Default)]
struct Done {
    samples: usize,
    failed: usize,
}

impl ScoreArgs {
    /// Answers on stdout what comes by stdin, until that ends.
    ///
    /// # Errors
    ///
    /// What comes is no stream of samples, stdout cannot be written, or the engine cannot be had
    /// or fails; samples that cannot be read are no error but in the answers.
    pub(super) fn work(&self, stage: &mut Stage, ui: &Ui) -> anyhow::Result<Outcome> {
        ensure!(
            !io::stdin().is_terminal() && !io::stdout().is_terminal(),
            "--worker reads and writes Arrow IPC streams, which a terminal cannot; start it from a \
             program, as docs/worker.md shows"
        );
        let here = self.staged(stage)?;
        let ensemble = here.ensemble()?;
        let decision = here.decision(&ensemble);
        let mut scorer = here.start(&ensemble, ui)?;
        let signals = Signals::listen()?;
        let stdout = BufWriter::new(io::stdout().lock());
        let mut answers = ResponseWriter::open(stdout, &ensemble.spec().classes)?;
        let requests = read_ahead(ensemble.stains(), here.worker.limit())?;
        let start = Instant::now();
        let mut done = Done::default();
        while let Some(request) = next(&requests, signals.stop())? {
            let table = answer(&mut scorer, &request, &mut answers, &decision)?;
            done.samples += table.ids.len();
            done.failed += table.failures.len();
        }
        ended(answers.finish())?;
        let Done { samples, failed } = done;
        let seconds = start.elapsed().as_secs_f64();
        ui.note(&format!(
            "{samples} samples, {failed} failed, {seconds:.1} s"
        ));
        if signals.stop().load(Ordering::Relaxed) {
            return Ok(signals.outcome());
        }
        if failed > 0 {
            ui.warn(&format!(
                "{failed} of {samples} samples failed; their `error` says why"
            ));
        }
        Ok(Outcome::with_failures(failed, here.failed_ok))
    }
}

/// Whoever has all answers and closes the pipe before they end is served.
fn ended(finished: Result<(), StreamError>) -> Result<(), StreamError> {
    match finished {
        Err(StreamError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        finished => finished,
    }
}

/// What comes from the thread that reads stdin: a batch, the stream's end or what is wrong with it.
type Read = Result<Option<Request>, StreamError>;

/// Reads stdin on a thread of its own: the next batch while one is scored, and so that a signal is
/// heard while nothing comes.
fn read_ahead(stains: Vec<String>, limit: u64) -> io::Result<Receiver<Read>> {
    // Whoever reads waits until the batch is taken, so that there are never more than two.
    let (to, requests) = bounded::<Read>(0);
    let read = move || {
        let all = || -> Result<(), StreamError> {
            let stream = RequestReader::open(io::stdin().lock(), &stains, limit)?;
            for request in stream.into_iter().flatten() {
                if to.send(Ok(Some(request?))).is_err() {
                    break;
                }
            }
            Ok(())
        };
        // Where nobody waits any more, the process is about to end.
        let _ = to.send(all().map(|()| None));
    };
    thread::Builder::new().name("stdin".into()).spawn(read)?;
    Ok(requests)
}

/// The next batch; none if there is no other, or `stop` was set.
fn next(requests: &Receiver<Read>, stop: &AtomicBool) -> anyhow::Result<Option<Request>> {
    while !stop.load(Ordering::Relaxed) {
        match requests.recv_timeout(LOOK) {
            Ok(request) => return Ok(request?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                bail!(
                    "the thread that reads stdin ended unexpectedly; this is a bug, please report it"
                )
            }
        }
    }
    Ok(None)
}

/// Scores a batch, whole even if the process is to end, and writes what comes of it.
fn answer(
    scorer: &mut Scorer,
    request: &Request,
    answers: &mut ResponseWriter<impl io::Write>,
    decision: &Decision,
) -> anyhow::Result<ScoreTable> {
    let samples = request.samples();
    let mut table = ScoreTable {
        ids: request.ids().map(str::to_owned).collect(),
        probabilities: Vec::with_capacity(samples.len()),
        failures: Vec::new(),
    };
    let from = ScoreSource {
        samples: &samples,
        files: request,
        stop: &AtomicBool::new(false),
    };
    let options = scorer.options().clone();
    score_to(scorer.engines(), from, &options, &mut |batch| {
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        Ok(())
    })?;
    let rows = ResponseRows {
        probabilities: &table.probabilities,
        predicted: &predicted(&table, decision),
        failures: &table.failures,
    };
    answers.write(request, rows)?;
    Ok(table)
}

/// The predicted classes of each sample as text.
fn predicted(table: &ScoreTable, decision: &Decision) -> Vec<Option<String>> {
    let decidable = decidable(table.clone(), decision);
    let rows = decidable.probabilities.iter();
    let text = |row: &Vec<f32>| {
        let classes = output::predicted_classes(row, &decision.thresholds);
        let classes: Vec<_> = classes.iter().map(usize::to_string).collect();
        classes.join(" ")
    };
    rows.map(|row| row.as_ref().map(text)).collect()
}
