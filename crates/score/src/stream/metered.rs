//! A reader that gives no more than it may.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes, since somebody set this to 0.
    pub(super) taken: Cell<u64>,
    /// Whether there was an end.
    pub(super) ended: Cell<bool>,
}

/// Gives at most `limit` bytes until those taken are set back.
#[derive(Debug)]
pub(super) struct Metered<R> {
    pub(super) from: R,
    pub(super) meter: Rc<Meter>,
    pub(super) limit: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Meter { taken, ended } = &*self.meter;
        let left = self.limit.saturating_sub(taken.get());
        if left == 0 {
            return Err(io::Error::other("there is more than may be"));
        }
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut out[..most])?;
        taken.set(taken.get() + count as u64);
        ended.set(count == 0 && most > 0);
        Ok(count)
    }
}
