//! A reader that gives no more than it may.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes that were read since somebody set this to 0.
pub(super) type Taken = Rc<Cell<u64>>;

/// Gives at most `limit` bytes until `taken` is set back.
#[derive(Debug)]
pub(super) struct Metered<R> {
    pub(super) from: R,
    pub(super) taken: Taken,
    pub(super) limit: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.limit.saturating_sub(self.taken.get());
        if left == 0 {
            return Err(io::Error::other("there is more than may be"));
        }
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut out[..most])?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}
