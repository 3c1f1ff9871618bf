//! The threads that speak to stores, one set for the whole process.

use std::sync::OnceLock;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

/// More would only help to decrypt more than some gigabytes a second.
const MOST_THREADS: usize = 4;

/// The runtime; the first call starts it.
pub(super) fn get() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start = || {
        // Refused only if another one was chosen before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(threads.min(MOST_THREADS))
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| format!("its threads cannot be started: {error}"))
    };
    RUNTIME.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// Runs `future` to its end on the calling thread.
///
/// # Panics
///
/// If [`get`] never succeeded, or on a thread of an asynchronous runtime.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    started().block_on(future)
}

/// Starts `future` beside the calling thread.
///
/// # Panics
///
/// If [`get`] never succeeded.
pub(super) fn spawn<F>(future: F) -> AbortHandle
where
    F: Future<Output = ()> + Send + 'static,
{
    started().spawn(future).abort_handle()
}

fn started() -> &'static Runtime {
    match get() {
        Ok(runtime) => runtime,
        Err(error) => panic!("the runtime was there when the store was opened: {error}"),
    }
}
