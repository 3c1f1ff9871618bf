//! Memory that goes from one operation to the next.
//!
//! A training step asks for the same few hundred sizes again and again. Fresh memory of the system
//! costs a page fault for every 4 kB and is zeroed there; here the next operation gets what an
//! earlier one no longer needs, as it is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Values below which the allocator is as good.
const SMALL: usize = 16 * 1024;

/// Buffers that nobody uses, in the order in which they came back.
static FREE: Mutex<VecDeque<Vec<f32>>> = Mutex::new(VecDeque::new());

/// A buffer of `length` values that hold anything.
///
/// Where no free buffer has that length, as many values as are asked for are given back to the
/// system first: together, all buffers take no more than was once needed at a time.
pub(super) fn take(length: usize) -> Vec<f32> {
    if length >= SMALL {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = free.iter().rposition(|buffer| buffer.len() == length) {
            return free.remove(place).unwrap_or_default();
        }
        let mut spared = 0;
        while spared < length
            && let Some(oldest) = free.pop_front()
        {
            spared += oldest.len();
        }
    }
    vec![0.0; length]
}

/// Takes a buffer back.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.len() >= SMALL {
        FREE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(buffer);
    }
}
