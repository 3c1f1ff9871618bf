//! A reader with a limit.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Counts the bytes of a [`LimitedReader`].
#[derive(Debug, Default)]
pub(super) struct ByteCounter {
    /// Bytes since the last reset to 0.
    pub(super) taken: Cell<u64>,
    /// Whether the end was reached.
    pub(super) ended: Cell<bool>,
}

/// Returns at most `limit` bytes until the counter is reset.
#[derive(Debug)]
pub(super) struct LimitedReader<R> {
    pub(super) from: R,
    pub(super) counter: Rc<ByteCounter>,
    pub(super) limit: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ByteCounter { taken, ended } = &*self.counter;
        let left = self.limit.saturating_sub(taken.get());
        if left == 0 {
            return Err(io::Error::other("more bytes than the limit"));
        }
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut out[..most])?;
        taken.set(taken.get() + count as u64);
        ended.set(count == 0 && most > 0);
        Ok(count)
    }
}
