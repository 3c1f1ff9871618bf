//! Reuse of memory between operations.
//!
//! Every training step allocates the same few hundred sizes. New memory from the system costs a
//! page fault for every 4 kB and is zeroed. Here, an operation reuses a buffer that an earlier one
//! has released, without clearing it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Buffer length below which the allocator is equally fast.
const SMALL: usize = 16 * 1024;

/// Unused buffers, in the order of their release.
static FREE: Mutex<VecDeque<Vec<f32>>> = Mutex::new(VecDeque::new());

/// Returns a buffer of `length` unspecified values.
///
/// If no unused buffer has this length, at least as many values of older buffers are freed first.
/// The total size of all buffers therefore never exceeds the peak demand.
pub(super) fn take(length: usize) -> Vec<f32> {
    if length >= SMALL {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = free.iter().rposition(|buffer| buffer.len() == length) {
            return free.remove(index).unwrap_or_default();
        }
        let mut freed = 0;
        while freed < length
            && let Some(oldest) = free.pop_front()
        {
            freed += oldest.len();
        }
    }
    vec![0.0; length]
}

/// Releases a buffer for reuse.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.len() >= SMALL {
        FREE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(buffer);
    }
}
