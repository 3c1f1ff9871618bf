//! Memory limit of prefetched files.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pieces of this size, so that the count fits into 32 bits.
const PIECE: u64 = 1024;

/// Memory for prefetched files.
#[derive(Debug, Clone)]
pub(super) struct MemoryBudget {
    pieces: Arc<Semaphore>,
    total: u32,
}

impl MemoryBudget {
    pub(super) fn new(bytes: u64) -> Self {
        let pieces = (bytes / PIECE).clamp(1, u64::from(u32::MAX / 16));
        Self {
            pieces: Arc::new(Semaphore::new(pieces as usize)),
            total: pieces as u32,
        }
    }

    /// A file larger than the whole budget takes all of it.
    fn pieces_of(&self, size: u64) -> u32 {
        size.div_ceil(PIECE).min(u64::from(self.total)) as u32
    }
}

/// Makes a file wait for memory before its body is read.
#[derive(Debug)]
pub(super) struct ConnectionGate {
    /// `None` without a limit, and once the gate was passed.
    memory: Option<MemoryBudget>,
    /// Notified when a thread waits for the file.
    wanted: Arc<Notify>,
    held: Option<OwnedSemaphorePermit>,
}

impl ConnectionGate {
    /// Returns a gate without a limit.
    pub(super) fn open() -> Self {
        Self {
            memory: None,
            wanted: Arc::default(),
            held: None,
        }
    }

    /// Returns the gate of a prefetched file.
    pub(super) fn new(memory: MemoryBudget, wanted: Arc<Notify>) -> Self {
        Self {
            memory: Some(memory),
            wanted,
            held: None,
        }
    }

    /// Reserves `size` bytes if they are free now; returns whether they were.
    pub(super) fn is_open(&mut self, size: u64) -> bool {
        let Some(memory) = &self.memory else {
            return true;
        };
        let pieces = memory.pieces_of(size);
        let Ok(permit) = memory.pieces.clone().try_acquire_many_owned(pieces) else {
            return false;
        };
        self.held = Some(permit);
        self.memory = None;
        true
    }

    /// Waits until `size` bytes are free or a thread waits for the file. In the second case,
    /// waiting on would deadlock: prefetched files hold the memory, and are read only after this
    /// one.
    pub(super) async fn pass(&mut self, size: u64) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        let pieces = memory.pieces_of(size);
        tokio::select! {
            biased;
            permit = memory.pieces.acquire_many_owned(pieces) => self.held = permit.ok(),
            () = self.wanted.notified() => {}
        }
    }

    /// Returns the memory that the file holds.
    pub(super) fn into_held(self) -> Option<OwnedSemaphorePermit> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::runtime;
    use super::*;

    #[test]
    fn an_awaited_file_skips_the_memory_limit() {
        runtime::get().unwrap();
        let memory = MemoryBudget::new(4 * PIECE);
        let gate = |wanted: &Arc<Notify>| ConnectionGate::new(memory.clone(), wanted.clone());
        let [first, second, third] = [(); 3].map(|()| Arc::<Notify>::default());
        // A file larger than the budget takes all of it.
        let mut held = gate(&first);
        assert!(held.is_open(9 * PIECE));
        let (mut waits, mut urgent) = (gate(&second), gate(&third));
        assert!(!waits.is_open(1));
        runtime::wait(async {
            let time = Duration::from_millis(50);
            assert!(tokio::time::timeout(time, waits.pass(1)).await.is_err());
            // A notification before the wait is not lost.
            third.notify_one();
            urgent.pass(PIECE).await;
        });
        assert!(urgent.into_held().is_none());
        drop(held.into_held());
        let mut next = gate(&first);
        assert!(
            next.is_open(4 * PIECE) && next.is_open(PIECE),
            "a gate stays open once passed"
        );
        assert!(ConnectionGate::open().is_open(u64::MAX));
    }
}
