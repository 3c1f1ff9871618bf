//! Logging of a run to an MLflow tracking server.

mod client;
mod parameters;
mod server_run;
mod url;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::client::{MlflowClient, MlflowError};
use self::server_run::ServerRun;
use super::{TrackedRun, TrackingNotice, TrackingStatus};
use crate::report::{EpochRow, ReportError, TimingRow, read_rows};

pub use self::url::MlflowUrl;

/// Delay after the first failure; each further failure doubles it.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_mins(1);
/// Maximum number of attempts after the end of the run.
const FINAL_ATTEMPTS: u32 = 3;
/// Maximum time that the process waits for these attempts.
const FINAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Posts a run from a separate thread while it trains. Only [`end`](Self::end) waits for the
/// server.
#[derive(Debug)]
pub struct Mlflow {
    shared: Arc<WorkerShared>,
}

/// State shared by the training thread and the posting thread.
#[derive(Debug, Default)]
struct WorkerShared {
    state: Mutex<WorkerState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WorkerState {
    /// Number of finished epochs.
    done: u32,
    /// How the run ended; `None` while it trains.
    end: Option<TrackingStatus>,
    /// Number of epochs on the server.
    posted: u32,
    /// Whether the posting thread has ended.
    finished: bool,
    /// Error of the last attempt; `None` if it succeeded.
    error: Option<String>,
    /// Messages for the user, in order.
    notices: Vec<TrackingNotice>,
}

impl WorkerShared {
    fn lock(&self) -> MutexGuard<'_, WorkerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, update: impl FnOnce(&mut WorkerState)) {
        update(&mut self.lock());
        self.changed.notify_all();
    }

    fn notify(&self, notice: TrackingNotice) {
        self.lock().notices.push(notice);
    }

    /// Waits until `condition` holds, at most for `timeout`.
    fn wait(
        &self,
        timeout: Duration,
        condition: impl Fn(&WorkerState) -> bool,
    ) -> MutexGuard<'_, WorkerState> {
        let result = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !condition(state));
        result.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }
}

impl Mlflow {
    /// Starts the thread that posts the run, of which `done` epochs are finished.
    ///
    /// # Errors
    ///
    /// The settings in the environment are invalid, or the thread cannot be started. An unreachable
    /// server is not an error.
    pub fn start(url: &MlflowUrl, run: TrackedRun, done: u32) -> Result<Self, String> {
        let shared = Arc::new(WorkerShared::default());
        shared.lock().done = done;
        let worker = MlflowWorker {
            client: MlflowClient::new(url)?,
            server: url.to_string(),
            run,
            server_run: None,
            warned: false,
            link_shown: false,
            shared: shared.clone(),
        };
        let thread = thread::Builder::new().name("mlflow".into());
        thread.spawn(|| worker.work()).map_err(|error| {
            format!("the thread that posts to MLflow cannot be started: {error}")
        })?;
        Ok(Self { shared })
    }

    /// Reports that `done` epochs are finished and recorded in the run directory.
    pub fn epoch(&self, done: u32) {
        self.shared.update(|state| state.done = done);
    }

    /// Returns the messages since the last call.
    #[must_use]
    pub fn notices(&self) -> Vec<TrackingNotice> {
        std::mem::take(&mut self.shared.lock().notices)
    }

    /// Posts the remaining epochs and the status, and waits at most 10 seconds. Returns the
    /// remaining messages, including a warning about data that could not be posted.
    #[must_use]
    pub fn end(self, status: TrackingStatus) -> Vec<TrackingNotice> {
        self.shared.update(|state| state.end = Some(status));
        let mut state = self.shared.wait(FINAL_TIMEOUT, |state| state.finished);
        let mut notices = std::mem::take(&mut state.notices);
        if state.finished && state.error.is_none() {
            return notices;
        }
        let error = state.error.as_deref().unwrap_or("the server is too slow");
        let missing = state.done.saturating_sub(state.posted);
        let what = match missing {
            0 => "the end of the run".to_owned(),
            1 => "1 epoch".to_owned(),
            missing => format!("{missing} epochs"),
        };
        notices.push(TrackingNotice::Warning(format!(
            "MLflow: {what} could not be posted ({error}); run the same command with --resume to \
             post the missing data"
        )));
        notices
    }
}

/// The posting thread.
struct MlflowWorker {
    client: MlflowClient,
    server: String,
    run: TrackedRun,
    server_run: Option<ServerRun>,
    /// Whether the user was warned about a failure.
    warned: bool,
    /// Whether the link to the run was shown.
    link_shown: bool,
    shared: Arc<WorkerShared>,
}

impl MlflowWorker {
    fn work(mut self) {
        let (mut delay, mut final_attempts) = (MIN_RETRY_DELAY, 0);
        loop {
            let posted = self.server_run.as_ref().map(|run| run.posted);
            let (done, end) = {
                // Until the run exists on the server, there is always something to post.
                let due = |state: &WorkerState| {
                    state.end.is_some() || posted.is_none_or(|posted| posted < state.done)
                };
                let state = self.shared.wait(MAX_RETRY_DELAY, due);
                (state.done, state.end)
            };
            let error = self.post(done, end).err();
            let posted = self.server_run.as_ref().map(|run| run.posted);
            self.shared.update(|state| {
                state.posted = posted.unwrap_or(state.posted);
                state.error = error.as_ref().map(ToString::to_string);
            });
            final_attempts += u32::from(end.is_some());
            if end.is_some() && (error.is_none() || final_attempts == FINAL_ATTEMPTS) {
                return self.shared.update(|state| state.finished = true);
            }
            let Some(error) = error else {
                delay = MIN_RETRY_DELAY;
                continue;
            };
            self.handle_failure(&error);
            let retry_at = Instant::now() + delay;
            delay = (delay * 2).min(MAX_RETRY_DELAY);
            if end.is_some() {
                thread::sleep(MIN_RETRY_DELAY / 2);
            } else {
                let left = retry_at.saturating_duration_since(Instant::now());
                drop(self.shared.wait(left, |state| state.end.is_some()));
            }
        }
    }

    /// Posts everything that is due.
    fn post(&mut self, done: u32, end: Option<TrackingStatus>) -> Result<(), MlflowError> {
        let server_run = match &mut self.server_run {
            Some(server_run) => server_run,
            none => none.insert(ServerRun::open(&self.client, &self.server, &self.run)?),
        };
        if !self.link_shown {
            self.link_shown = true;
            let notice = format!(
                "MLflow: {}/#/experiments/{}/runs/{}",
                self.server, server_run.experiment_id, server_run.run_id
            );
            self.shared.notify(TrackingNotice::Note(notice));
        }
        if server_run.posted < done {
            let rows = rows(&self.run)?;
            server_run.post(&self.client, &rows, done)?;
        }
        if let Some(status) = end {
            server_run.end(&self.client, status)?;
            if let Some(reason) = server_run.upload(&self.client, &self.run.folder)? {
                let notice = format!("MLflow: {reason}");
                self.shared.notify(TrackingNotice::Note(notice));
            }
        }
        Ok(())
    }

    /// Warns the user about the first failure. The next attempt starts by asking the server what it
    /// has, because a failed request may still have taken effect.
    fn handle_failure(&mut self, error: &MlflowError) {
        self.server_run = None;
        if !std::mem::replace(&mut self.warned, true) {
            let notice = format!(
                "MLflow at {}: {error}; training continues, and missing data is posted when the \
                 server works again",
                self.server
            );
            self.shared.notify(TrackingNotice::Warning(notice));
        }
    }
}

/// Reads the epochs from the run's files.
fn rows(run: &TrackedRun) -> Result<Vec<(EpochRow, TimingRow)>, MlflowError> {
    let convert = |error: ReportError| MlflowError::new(error.to_string());
    let rows: Vec<EpochRow> = read_rows(&run.folder.join("metrics.csv")).map_err(convert)?;
    let timing: Vec<TimingRow> = read_rows(&run.folder.join("timing.csv")).map_err(convert)?;
    Ok(rows.into_iter().zip(timing).collect())
}
