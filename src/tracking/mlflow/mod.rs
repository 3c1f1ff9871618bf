//! A run on an MLflow tracking server.

mod client;
mod parameters;
mod session;
mod url;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::client::{MlflowClient, MlflowFault};
use self::session::Session;
use super::{Notice, Status, TrackedRun};
use crate::report::{EpochRow, ReportError, TimingRow, read_rows};

pub use self::url::MlflowUrl;

/// Wait after a first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_mins(1);
/// Tries after the run's end, and how long the process waits for them.
const LAST_TRIES: u32 = 3;
const LAST_WAIT: Duration = Duration::from_secs(10);

/// Posts a run as it goes, from a thread of its own. None of its methods but [`end`](Self::end)
/// waits for the server.
#[derive(Debug)]
pub struct Mlflow {
    shared: Arc<PosterShared>,
}

/// What the run and the thread tell each other.
#[derive(Debug, Default)]
struct PosterShared {
    state: Mutex<PosterState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PosterState {
    /// Epochs that are done.
    done: u32,
    /// How the run ended, once it has.
    end: Option<Status>,
    /// Epochs that the server has.
    posted: u32,
    /// Whether the thread is through.
    over: bool,
    /// What is wrong, as long as it is.
    fault: Option<String>,
    /// For people, in this order.
    notices: Vec<Notice>,
}

impl PosterShared {
    fn lock(&self) -> MutexGuard<'_, PosterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut PosterState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn tell(&self, notice: Notice) {
        self.lock().notices.push(notice);
    }

    /// Waits as long as `wanted` is not yet so, at most so long.
    fn wait(
        &self,
        most: Duration,
        wanted: impl Fn(&PosterState) -> bool,
    ) -> MutexGuard<'_, PosterState> {
        let result = self
            .changed
            .wait_timeout_while(self.lock(), most, |state| !wanted(state));
        result.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }
}

impl Mlflow {
    /// Begins to post the run, of which `done` epochs are done already.
    ///
    /// # Errors
    ///
    /// The environment's settings cannot be used, or the system gives no thread. A server that
    /// cannot be reached is no error.
    pub fn start(to: &MlflowUrl, run: TrackedRun, done: u32) -> Result<Self, String> {
        let shared = Arc::new(PosterShared::default());
        shared.lock().done = done;
        let poster = Poster {
            client: MlflowClient::new(to)?,
            server: to.to_string(),
            run,
            session: None,
            warned: false,
            shown: false,
            shared: shared.clone(),
        };
        let thread = thread::Builder::new().name("mlflow".into());
        thread
            .spawn(|| poster.work())
            .map_err(|error| format!("the system gives no thread to post from: {error}"))?;
        Ok(Self { shared })
    }

    /// So many epochs are done, and in the run's files.
    pub fn epoch(&self, done: u32) {
        self.shared.change(|state| state.done = done);
    }

    /// What there is to say since the last call.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.shared.lock().notices)
    }

    /// Posts the rest and how the run ended, for some seconds at most; returns what there is to
    /// say, such as what is missing.
    #[must_use]
    pub fn end(self, status: Status) -> Vec<Notice> {
        self.shared.change(|state| state.end = Some(status));
        let mut state = self.shared.wait(LAST_WAIT, |state| state.over);
        let mut notices = std::mem::take(&mut state.notices);
        if state.over && state.fault.is_none() {
            return notices;
        }
        let fault = state.fault.as_deref().unwrap_or("it is too slow");
        let missing = state.done.saturating_sub(state.posted);
        let what = match missing {
            0 => "the end of the run".to_owned(),
            1 => "1 epoch".to_owned(),
            missing => format!("{missing} epochs"),
        };
        notices.push(Notice::Warning(format!(
            "MLflow: {what} could not be posted ({fault}); the same command with --resume posts \
             what is missing"
        )));
        notices
    }
}

/// The thread.
struct Poster {
    client: MlflowClient,
    server: String,
    run: TrackedRun,
    session: Option<Session>,
    warned: bool,
    shown: bool,
    shared: Arc<PosterShared>,
}

impl Poster {
    fn work(mut self) {
        let (mut wait, mut last_tries) = (FIRST_WAIT, 0);
        loop {
            let posted = self.session.as_ref().map(|session| session.posted);
            let (done, end) = {
                // Before there is a run on the server, there is always something to do.
                let due = |state: &PosterState| {
                    state.end.is_some() || posted.is_none_or(|posted| posted < state.done)
                };
                let state = self.shared.wait(MOST_WAIT, due);
                (state.done, state.end)
            };
            let fault = self.post(done, end).err();
            let posted = self.session.as_ref().map(|session| session.posted);
            self.shared.change(|state| {
                state.posted = posted.unwrap_or(state.posted);
                state.fault = fault.as_ref().map(ToString::to_string);
            });
            last_tries += u32::from(end.is_some());
            if end.is_some() && (fault.is_none() || last_tries == LAST_TRIES) {
                return self.shared.change(|state| state.over = true);
            }
            let Some(fault) = fault else {
                wait = FIRST_WAIT;
                continue;
            };
            self.failed(&fault);
            let until = Instant::now() + wait;
            wait = (wait * 2).min(MOST_WAIT);
            if end.is_some() {
                thread::sleep(FIRST_WAIT / 2);
            } else {
                let left = until.saturating_duration_since(Instant::now());
                drop(self.shared.wait(left, |state| state.end.is_some()));
            }
        }
    }

    /// What is due now.
    fn post(&mut self, done: u32, end: Option<Status>) -> Result<(), MlflowFault> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.client, &self.server, &self.run)?),
        };
        if !self.shown {
            self.shown = true;
            let notice = format!(
                "MLflow: {}/#/experiments/{}/runs/{}",
                self.server, session.experiment_id, session.run_id
            );
            self.shared.tell(Notice::Note(notice));
        }
        if session.posted < done {
            let rows = rows(&self.run)?;
            session.post(&self.client, &rows, done)?;
        }
        if let Some(status) = end {
            session.end(&self.client, status)?;
            if let Some(left_out) = session.upload(&self.client, &self.run.folder)? {
                let notice = format!("MLflow: {left_out}");
                self.shared.tell(Notice::Note(notice));
            }
        }
        Ok(())
    }

    /// The first time, tells; the next try begins with asking the server what it has, since what
    /// failed here may have worked there.
    fn failed(&mut self, fault: &MlflowFault) {
        self.session = None;
        if !std::mem::replace(&mut self.warned, true) {
            let notice = format!(
                "MLflow at {}: {fault}; training goes on, and what is missing is posted as soon as \
                 that works",
                self.server
            );
            self.shared.tell(Notice::Warning(notice));
        }
    }
}

/// The epochs in the run's files.
fn rows(run: &TrackedRun) -> Result<Vec<(EpochRow, TimingRow)>, MlflowFault> {
    let fault = |error: ReportError| MlflowFault::new(error.to_string());
    let rows: Vec<EpochRow> = read_rows(&run.folder.join("metrics.csv")).map_err(fault)?;
    let timing: Vec<TimingRow> = read_rows(&run.folder.join("timing.csv")).map_err(fault)?;
    Ok(rows.into_iter().zip(timing).collect())
}
