//! What keeps files that are read ahead within their share of memory.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pieces of this size, so that the count fits into 32 bits.
const PIECE: u64 = 1024;

/// Memory for files that nobody has asked for yet.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pieces: Arc<Semaphore>,
    total: u32,
}

impl Memory {
    pub(super) fn of(bytes: u64) -> Self {
        let pieces = (bytes / PIECE).clamp(1, u64::from(u32::MAX / 16));
        Self {
            pieces: Arc::new(Semaphore::new(pieces as usize)),
            total: pieces as u32,
        }
    }

    /// A file that is larger than all of the memory takes all of it.
    fn pieces_of(&self, size: u64) -> u32 {
        size.div_ceil(PIECE).min(u64::from(self.total)) as u32
    }
}

/// Where a file waits for memory before its body is read.
#[derive(Debug)]
pub(super) struct ConnectionGate {
    /// `None` if there is always room, and once it was passed.
    memory: Option<Memory>,
    /// Notified once somebody waits for the file.
    wanted: Arc<Notify>,
    held: Option<OwnedSemaphorePermit>,
}

impl ConnectionGate {
    /// One that is always open.
    pub(super) fn open() -> Self {
        Self {
            memory: None,
            wanted: Arc::default(),
            held: None,
        }
    }

    /// One of a file that is read ahead.
    pub(super) fn new(memory: Memory, wanted: Arc<Notify>) -> Self {
        Self {
            memory: Some(memory),
            wanted,
            held: None,
        }
    }

    /// Whether there is room for `size` bytes at once, which the file holds from now on.
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

    /// Waits until there is room for `size` bytes, or the file is wanted: were it to wait then, what
    /// is read ahead of it would hold the memory that it waits for.
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

    /// What the file holds of the memory.
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
    fn who_is_wanted_waits_for_nobody_and_the_rest_for_memory() {
        runtime::get().unwrap();
        let memory = Memory::of(4 * PIECE);
        let gate = |wanted: &Arc<Notify>| ConnectionGate::new(memory.clone(), wanted.clone());
        let [first, second, third] = [(); 3].map(|()| Arc::<Notify>::default());
        // More than there is takes all there is.
        let mut held = gate(&first);
        assert!(held.is_open(9 * PIECE));
        let (mut waits, mut urgent) = (gate(&second), gate(&third));
        assert!(!waits.is_open(1));
        runtime::wait(async {
            let time = Duration::from_millis(50);
            assert!(tokio::time::timeout(time, waits.pass(1)).await.is_err());
            // Said before anybody waits, it counts all the same.
            third.notify_one();
            urgent.pass(PIECE).await;
        });
        assert!(urgent.into_held().is_none());
        drop(held.into_held());
        let mut next = gate(&first);
        assert!(
            next.is_open(4 * PIECE) && next.is_open(PIECE),
            "once it was passed it is open"
        );
        assert!(ConnectionGate::open().is_open(u64::MAX));
    }
}
