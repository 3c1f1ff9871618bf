//! Whether the server is ready, and which accepted requests it still owes an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::ServeError;

/// The server's state, shared by all who need it.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    warm: AtomicBool,
    draining: AtomicBool,
    accepted: watch::Sender<usize>,
}

/// A request that was accepted and has no answer yet.
#[derive(Debug)]
pub(super) struct Accepted(Lifecycle);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(Inner {
            warm: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            accepted: watch::Sender::new(0),
        }))
    }
}

impl Lifecycle {
    /// The models are there.
    pub fn set_warm(&self) {
        self.0.warm.store(true, Ordering::SeqCst);
    }

    /// From now on no request is accepted.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Whether the server is leaving.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Whether requests are accepted.
    ///
    /// # Errors
    ///
    /// [`ServeError::NotReady`] before the warm-up is over and once the server is leaving.
    pub(super) fn check_ready(&self) -> Result<(), ServeError> {
        if self.is_draining() {
            return Err(ServeError::draining());
        }
        if self.0.warm.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = "the models are being loaded; ask again in a moment";
        Err(ServeError::NotReady(message.into()))
    }

    /// Accepts a request, which is then answered whatever comes.
    ///
    /// # Errors
    ///
    /// As [`check_ready`](Self::check_ready).
    pub(super) fn accept(&self) -> Result<Accepted, ServeError> {
        // Counted first: who drains sees either the count or a refusal.
        self.0.accepted.send_modify(|count| *count += 1);
        let accepted = Accepted(self.clone());
        self.check_ready()?;
        Ok(accepted)
    }

    /// Number of accepted requests without an answer.
    #[must_use]
    pub fn accepted(&self) -> usize {
        *self.0.accepted.borrow()
    }

    /// Waits until all accepted requests are answered.
    pub async fn all_answered(&self) {
        let mut accepted = self.0.accepted.subscribe();
        // The sender lives as long as `self`.
        let _ = accepted.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.0.accepted.send_modify(|count| *count -= 1);
    }
}
