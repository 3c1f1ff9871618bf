//! SIGTERM and SIGINT: the first stops a command with its work saved, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Outcome;

/// Records whether a stop signal was received.
#[derive(Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Signals {
    /// Registers the signal handlers.
    ///
    /// # Errors
    ///
    /// The system rejects a handler.
    pub fn listen() -> io::Result<Self> {
        let signals = Self {
            stop: Arc::default(),
            interrupted: Arc::default(),
        };
        signal_hook::flag::register(SIGINT, signals.interrupted.clone())?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, signals.stop.clone())?;
            signal_hook::flag::register(signal, signals.stop.clone())?;
        }
        Ok(signals)
    }

    /// Returns the flag that is set by the first signal.
    #[must_use]
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Returns the outcome of a command that was stopped by a signal.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.interrupted.load(Ordering::Relaxed) {
            Outcome::Interrupted
        } else {
            Outcome::Stopped
        }
    }
}
