//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Outcome;

/// Whether somebody wants this process to end.
#[derive(Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        signals.register()?;
        Ok(signals)
    }

    /// Installs the signal handlers; until then signals end the process at once.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn register(&self) -> io::Result<()> {
        signal_hook::flag::register(SIGINT, self.interrupted.clone())?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register_conditional_shutdown(signal, 130, self.stop.clone())?;
            signal_hook::flag::register(signal, self.stop.clone())?;
        }
        Ok(())
    }

    /// Set once a signal came.
    #[must_use]
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// How a command that stopped for a signal ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.interrupted.load(Ordering::Relaxed) {
            Outcome::Interrupted
        } else {
            Outcome::Stopped
        }
    }
}
