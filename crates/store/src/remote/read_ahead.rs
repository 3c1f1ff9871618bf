//! Prefetching of files into memory.
//!
//! Decoding threads announce the files that they will read next. These are requested concurrently
//! and kept in memory up to a limit, so that the network is busy while files are decoded. A file
//! that was not announced is fetched when it is read.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;

use super::super::ReadFailure;
use super::gate::{ConnectionGate, MemoryBudget};
use super::{Store, StoreError, StoreErrorKind, StoreState, runtime};

/// Files requested or in memory, per concurrent request.
const FILES_PER_REQUEST: usize = 16;
/// Larger buffers are not reused.
const MAX_REUSED: usize = 64 << 20;
/// How often a waiting thread checks the stop flag.
const STOP_POLL: Duration = Duration::from_millis(100);
/// How long to wait for a file after the stop flag is set.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait for another file to succeed before a denied file counts as a denied store.
const NEIGHBOURS: Duration = Duration::from_secs(5);

/// Prefetches the files of a folder.
#[derive(Debug)]
pub struct ReadAhead {
    shared: Arc<StoreState>,
    stop: Arc<AtomicBool>,
    memory: MemoryBudget,
    files: Mutex<HashMap<String, PrefetchedFile>>,
    progress: Arc<PrefetchState>,
}

/// State shared by requests and waiting threads.
#[derive(Debug, Default)]
struct PrefetchState {
    /// Buffers of files that were read, for reuse.
    buffers: Mutex<Vec<Vec<u8>>>,
    fetched: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// A file that is requested or in memory. Dropping it ends the request.
#[derive(Debug)]
struct PrefetchedFile {
    outcome: Receiver<Result<LoadedFile, StoreError>>,
    wanted: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for PrefetchedFile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct LoadedFile {
    bytes: Vec<u8>,
    /// Released when the file is read.
    _memory: Option<OwnedSemaphorePermit>,
}

impl ReadAhead {
    /// Prefetches from the folder `store` until `stop` is set.
    #[must_use]
    pub fn new(store: &Store, stop: Arc<AtomicBool>) -> Self {
        Self {
            memory: MemoryBudget::new(store.shared.options.read_ahead),
            shared: store.shared.clone(),
            stop,
            files: Mutex::default(),
            progress: Arc::default(),
        }
    }

    /// Announces files that will be read now; at most `limit` bytes of each. All are requested
    /// concurrently, whatever the limit of prefetching.
    pub fn want<'a>(&self, names: impl Iterator<Item = &'a str>, limit: u64) {
        self.request_up_to(usize::MAX, names, limit);
    }

    /// Announces files that will be read next, in this order; at most `limit` bytes of each.
    pub fn expect<'a>(&self, names: impl Iterator<Item = &'a str>, limit: u64) {
        self.request_up_to(self.max_files(), names, limit);
    }

    fn request_up_to<'a>(&self, most: usize, names: impl Iterator<Item = &'a str>, limit: u64) {
        let mut files = lock(&self.files);
        for name in names {
            if files.len() >= most || self.stop.load(Ordering::Relaxed) {
                break;
            }
            if !files.contains_key(name) {
                files.insert(name.to_owned(), self.request(name, limit));
            }
        }
    }

    /// Drops files that will not be read after all.
    pub fn forget<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut files = lock(&self.files);
        for name in names {
            files.remove(name);
        }
    }

    /// Reads a file into `bytes`, replacing its contents; waits for the file if necessary.
    ///
    /// # Errors
    ///
    /// The file cannot be read after all retries. If the store does not respond to a probe either,
    /// or has not returned a single file, the error is [`ReadFailure::Store`].
    pub fn read(&self, name: &str, limit: u64, bytes: &mut Vec<u8>) -> Result<(), ReadFailure> {
        let file = lock(&self.files).remove(name);
        let file = file.unwrap_or_else(|| self.request(name, limit));
        file.wanted.notify_one();
        match self.wait(&file.outcome)? {
            Ok(mut loaded) => {
                mem::swap(bytes, &mut loaded.bytes);
                let mut buffers = lock(&self.progress.buffers);
                let room = buffers.len() < self.shared.options.requests;
                if room && loaded.bytes.capacity() <= MAX_REUSED {
                    buffers.push(loaded.bytes);
                }
                Ok(())
            }
            Err(error) => Err(self.classify(error)),
        }
    }

    /// Maximum number of files requested or in memory: as many as fit, at the mean size so far.
    fn max_files(&self) -> usize {
        let requests = self.shared.options.requests.max(1);
        let fetched = self.progress.fetched.load(Ordering::Relaxed);
        if fetched == 0 {
            return requests;
        }
        let mean = self.progress.fetched_bytes.load(Ordering::Relaxed) / fetched;
        let fitting = self.shared.options.read_ahead / mean.max(1);
        (fitting as usize).clamp(1, requests * FILES_PER_REQUEST)
    }

    /// Starts a request for a file.
    fn request(&self, name: &str, limit: u64) -> PrefetchedFile {
        let (sender, outcome) = bounded(1);
        let wanted = Arc::<Notify>::default();
        let request = FileRequest {
            shared: self.shared.clone(),
            progress: self.progress.clone(),
            name: name.to_owned(),
            limit,
            gate: ConnectionGate::new(self.memory.clone(), wanted.clone()),
        };
        PrefetchedFile {
            outcome,
            wanted,
            task: runtime::spawn(request.run(sender)),
        }
    }

    /// Waits for the end of a request, or for `stop`.
    fn wait(
        &self,
        outcome: &Receiver<Result<LoadedFile, StoreError>>,
    ) -> Result<Result<LoadedFile, StoreError>, ReadFailure> {
        let mut stopped: Option<Instant> = None;
        loop {
            match outcome.recv_timeout(STOP_POLL) {
                Ok(outcome) => return Ok(outcome),
                // A request without an outcome was aborted with the runtime.
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

    /// Determines whether only this file or the whole store is affected.
    fn classify(&self, error: StoreError) -> ReadFailure {
        if error.kind.affects_only_the_object() {
            return ReadFailure::File(error);
        }
        if self.stop.load(Ordering::Relaxed) {
            return ReadFailure::Stopped;
        }
        if let Err(error) = runtime::wait(self.shared.probe()) {
            return ReadFailure::Store(error);
        }
        // Permission to list does not imply permission to read.
        if matches!(error.kind, StoreErrorKind::Denied { .. }) && !self.any_fetched() {
            return ReadFailure::Store(error);
        }
        ReadFailure::File(error)
    }

    /// Whether any file was read; waits a little for running requests.
    fn any_fetched(&self) -> bool {
        let start = Instant::now();
        loop {
            if self.progress.fetched.load(Ordering::Relaxed) > 0 {
                return true;
            }
            if start.elapsed() > NEIGHBOURS || self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(STOP_POLL);
        }
    }
}

struct FileRequest {
    shared: Arc<StoreState>,
    progress: Arc<PrefetchState>,
    name: String,
    limit: u64,
    gate: ConnectionGate,
}

impl FileRequest {
    async fn run(mut self, outcome: Sender<Result<LoadedFile, StoreError>>) {
        let mut bytes = lock(&self.progress.buffers).pop().unwrap_or_default();
        let fetched = self
            .shared
            .fetch(&self.name, self.limit, &mut bytes, &mut self.gate);
        let loaded = match fetched.await {
            Ok(_) => {
                let size = bytes.len() as u64;
                self.progress
                    .fetched_bytes
                    .fetch_add(size, Ordering::Relaxed);
                self.progress.fetched.fetch_add(1, Ordering::Relaxed);
                Ok(LoadedFile {
                    bytes,
                    _memory: self.gate.into_held(),
                })
            }
            Err(error) => Err(error),
        };
        // The receiver is gone if the file was dropped.
        let _ = outcome.send(loaded);
    }
}

/// A panic while a lock is held leaves the data consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
