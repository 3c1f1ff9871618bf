//! Files in memory before they are asked for.
//!
//! The threads that decode say which files they will read next; requests for those are under way
//! side by side, and what has come waits in memory, as much as may be. So the line is busy while
//! files are decoded. A file that nobody announced is fetched when it is asked for.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;

use super::super::ReadFailure;
use super::gate::{ConnectionGate, Memory};
use super::{Store, StoreError, StoreErrorKind, StoreState, runtime};

/// Files under way or in memory, for each request that may be under way.
const AHEAD: usize = 16;
/// Larger buffers are not kept for the next file.
const KEPT: usize = 64 << 20;
/// How often a waiting thread looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long a file is still waited for once the process shall end.
const GRACE: Duration = Duration::from_secs(10);
/// How long a denied file waits for another one to be had.
const NEIGHBOURS: Duration = Duration::from_secs(5);

/// Reads files of a folder ahead of the threads that want them.
#[derive(Debug)]
pub struct ReadAhead {
    shared: Arc<StoreState>,
    stop: Arc<AtomicBool>,
    memory: Memory,
    files: Mutex<HashMap<String, Ahead>>,
    common: Arc<Common>,
}

/// What the requests share with those who wait for them.
#[derive(Debug, Default)]
struct Common {
    /// Buffers of files that were taken.
    buffers: Mutex<Vec<Vec<u8>>>,
    had: AtomicU64,
    had_bytes: AtomicU64,
}

/// A file that is under way or in memory. Dropped, its request ends.
#[derive(Debug)]
struct Ahead {
    outcome: Receiver<Result<Loaded, StoreError>>,
    wanted: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Loaded {
    bytes: Vec<u8>,
    /// Given back when the file is taken.
    _memory: Option<OwnedSemaphorePermit>,
}

impl ReadAhead {
    /// Reads from `store`, a folder, until `stop` is set.
    #[must_use]
    pub fn new(store: &Store, stop: Arc<AtomicBool>) -> Self {
        Self {
            memory: Memory::of(store.shared.options.read_ahead),
            shared: store.shared.clone(),
            stop,
            files: Mutex::default(),
            common: Arc::default(),
        }
    }

    /// Says which files will be read now; at most `limit` bytes of each. All are fetched side by
    /// side, however much is read ahead.
    pub fn want<'a>(&self, names: impl Iterator<Item = &'a str>, limit: u64) {
        self.begin_up_to(usize::MAX, names, limit);
    }

    /// Says which files will be read next, in this order; at most `limit` bytes of each.
    pub fn expect<'a>(&self, names: impl Iterator<Item = &'a str>, limit: u64) {
        self.begin_up_to(self.most(), names, limit);
    }

    fn begin_up_to<'a>(&self, most: usize, names: impl Iterator<Item = &'a str>, limit: u64) {
        let mut files = lock(&self.files);
        for name in names {
            if files.len() >= most || self.stop.load(Ordering::Relaxed) {
                break;
            }
            if !files.contains_key(name) {
                files.insert(name.to_owned(), self.begin(name, limit));
            }
        }
    }

    /// Says that these files will not be read after all.
    pub fn forget<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut files = lock(&self.files);
        for name in names {
            files.remove(name);
        }
    }

    /// Reads a file into `bytes`, whose contents are lost; waits for it if it is not there yet.
    ///
    /// # Errors
    ///
    /// The file cannot be had, with all retries. Whose fault that is, the store is asked: if it
    /// does not answer either, or has not given a single file, it is the store's.
    pub fn read(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> Result<(), ReadFailure> {
        let ahead = lock(&self.files).remove(name);
        let ahead = ahead.unwrap_or_else(|| self.begin(name, limit));
        ahead.wanted.notify_one();
        match self.wait(&ahead.outcome)? {
            Ok(mut loaded) => {
                mem::swap(bytes, &mut loaded.bytes);
                let mut buffers = lock(&self.common.buffers);
                let room = buffers.len() < self.shared.options.requests;
                if room && loaded.bytes.capacity() <= KEPT {
                    buffers.push(loaded.bytes);
                }
                Ok(())
            }
            Err(error) => Err(self.whose_fault(error)),
        }
    }

    /// Files that may be under way or in memory: as many as fit, if they are like those before.
    fn most(&self) -> usize {
        let requests = self.shared.options.requests.max(1);
        let had = self.common.had.load(Ordering::Relaxed);
        if had == 0 {
            return requests;
        }
        let mean = self.common.had_bytes.load(Ordering::Relaxed) / had;
        let fitting = self.shared.options.read_ahead / mean.max(1);
        (fitting as usize).clamp(1, requests * AHEAD)
    }

    /// Begins to fetch a file.
    fn begin(&self, name: &str, limit: u64) -> Ahead {
        let (sender, outcome) = bounded(1);
        let wanted = Arc::<Notify>::default();
        let request = FileRequest {
            shared: self.shared.clone(),
            common: self.common.clone(),
            name: name.to_owned(),
            limit,
            gate: ConnectionGate::new(self.memory.clone(), wanted.clone()),
        };
        Ahead {
            outcome,
            wanted,
            task: runtime::spawn(request.run(sender)),
        }
    }

    /// Waits for a request to end, or for the process to have to.
    fn wait(
        &self,
        outcome: &Receiver<Result<Loaded, StoreError>>,
    ) -> Result<Result<Loaded, StoreError>, ReadFailure> {
        let mut stopped: Option<Instant> = None;
        loop {
            match outcome.recv_timeout(LOOK) {
                Ok(outcome) => return Ok(outcome),
                // Its request ends without an outcome only if it is aborted, with the runtime.
                Err(RecvTimeoutError::Disconnected) => return Err(ReadFailure::Stopped),
                Err(RecvTimeoutError::Timeout) if self.stop.load(Ordering::Relaxed) => {
                    if stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                        return Err(ReadFailure::Stopped);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Whether only this file cannot be had.
    fn whose_fault(&self, error: StoreError) -> ReadFailure {
        if error.kind.is_of_the_object() {
            return ReadFailure::File(error);
        }
        if self.stop.load(Ordering::Relaxed) {
            return ReadFailure::Stopped;
        }
        if let Err(error) = runtime::wait(self.shared.probe()) {
            return ReadFailure::Store(error);
        }
        // Who may list may still not be allowed to read: then no file can be had.
        if matches!(error.kind, StoreErrorKind::Denied { .. }) && !self.has_any() {
            return ReadFailure::Store(error);
        }
        ReadFailure::File(error)
    }

    /// Whether a file could be had; those that are under way get a little time.
    fn has_any(&self) -> bool {
        let start = Instant::now();
        loop {
            if self.common.had.load(Ordering::Relaxed) > 0 {
                return true;
            }
            if start.elapsed() > NEIGHBOURS || self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A file that is to be fetched.
struct FileRequest {
    shared: Arc<StoreState>,
    common: Arc<Common>,
    name: String,
    limit: u64,
    gate: ConnectionGate,
}

impl FileRequest {
    async fn run(mut self, outcome: Sender<Result<Loaded, StoreError>>) {
        let mut bytes = lock(&self.common.buffers).pop().unwrap_or_default();
        let fetched = self
            .shared
            .fetch(&self.name, self.limit, &mut bytes, &mut self.gate);
        let loaded = match fetched.await {
            Ok(_) => {
                let size = bytes.len() as u64;
                self.common.had_bytes.fetch_add(size, Ordering::Relaxed);
                self.common.had.fetch_add(1, Ordering::Relaxed);
                Ok(Loaded {
                    bytes,
                    _memory: self.gate.into_held(),
                })
            }
            Err(error) => Err(error),
        };
        // If nobody wants it any more, it goes.
        let _ = outcome.send(loaded);
    }
}

/// A thread that panicked while it held one of these locks left nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
