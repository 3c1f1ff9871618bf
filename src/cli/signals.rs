//! SIGTERM and SIGINT: the first stops a command with its work saved, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Outcome;

/// Records whether a stop signal was received.
#[derive(Debug, Default)]
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
    #[cfg(feature = "train")]
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        signals.register()?;
        Ok(signals)
    }

    /// Installs the signal handlers; until then signals end the process at once.
    ///
    /// # Errors
    ///
    /// The system rejects a handler.
    pub fn register(&self) -> io::Result<()> {
        signal_hook::flag::register(SIGINT, self.interrupted.clone())?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, self.stop.clone())?;
            signal_hook::flag::register(signal, self.stop.clone())?;
        }
        Ok(())
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
