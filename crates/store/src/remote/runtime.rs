//! The asynchronous runtime of all stores of the process.

use std::sync::OnceLock;
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

/// Enough to decrypt some gigabytes per second.
const MAX_THREADS: usize = 4;

/// Returns the runtime; the first call starts it.
pub(super) fn get() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let start = || {
        // Fails only if a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Builder::new_multi_thread()
            .worker_threads(threads.min(MAX_THREADS))
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start threads: {error}"))
    };
    RUNTIME.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// Runs `future` to completion on the calling thread.
///
/// # Panics
///
/// If [`get`] never succeeded, or on a thread of an asynchronous runtime.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    started().block_on(future)
}

/// Spawns `future`.
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
        Err(error) => panic!("`Store::open` started the runtime: {error}"),
    }
}
