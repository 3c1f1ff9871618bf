//! Readiness of the server, and the number of accepted requests in progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::ServeError;

/// Shared state of the server's life cycle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<LifecycleState>);

#[derive(Debug)]
struct LifecycleState {
    warm: AtomicBool,
    draining: AtomicBool,
    accepted: watch::Sender<usize>,
}

/// Guard of an accepted request; dropping it marks the request as finished.
#[derive(Debug)]
pub(super) struct AcceptedRequest(Lifecycle);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(LifecycleState {
            warm: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            accepted: watch::Sender::new(0),
        }))
    }
}

impl Lifecycle {
    /// Marks the models as loaded and warmed up.
    pub fn set_warm(&self) {
        self.0.warm.store(true, Ordering::SeqCst);
    }

    /// Rejects all further requests.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Returns whether the server is shutting down.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Checks that the server accepts requests.
    ///
    /// # Errors
    ///
    /// [`ServeError::NotReady`] before the models are warmed up and during shutdown.
    pub(super) fn check_ready(&self) -> Result<(), ServeError> {
        if self.is_draining() {
            return Err(ServeError::draining());
        }
        if self.0.warm.load(Ordering::SeqCst) {
            return Ok(());
        }
        let message = "the models are being loaded; try again in a moment";
        Err(ServeError::NotReady(message.into()))
    }

    /// Accepts a request. A shutdown waits until the guard is dropped.
    ///
    /// # Errors
    ///
    /// As [`check_ready`](Self::check_ready).
    pub(super) fn accept(&self) -> Result<AcceptedRequest, ServeError> {
        // Counted before the check: a shutdown in between sees either the count or a rejection.
        self.0.accepted.send_modify(|count| *count += 1);
        let accepted = AcceptedRequest(self.clone());
        self.check_ready()?;
        Ok(accepted)
    }

    /// Returns the number of accepted requests in progress.
    #[must_use]
    pub fn accepted(&self) -> usize {
        *self.0.accepted.borrow()
    }

    /// Waits until all accepted requests are finished.
    pub async fn all_finished(&self) {
        let mut accepted = self.0.accepted.subscribe();
        // The sender lives as long as `self`.
        let _ = accepted.wait_for(|count| *count == 0).await;
    }
}

impl Drop for AcceptedRequest {
    fn drop(&mut self) {
        self.0.0.accepted.send_modify(|count| *count -= 1);
    }
}
