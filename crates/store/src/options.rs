//! How stores are spoken to.

use std::time::Duration;

/// How much is asked for at a time, and for how long.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How often a request that failed is made again.
    pub retries: usize,
    /// How long a store may send nothing before a request has failed.
    pub timeout: Duration,
    /// Requests under way at a time.
    pub requests: usize,
    /// Bytes of files that are kept in memory ahead of the decoders.
    pub read_ahead: u64,
}

impl Default for StoreOptions {
    /// 8 retries, 30 seconds, 64 requests, 256 MiB.
    fn default() -> Self {
        Self {
            retries: 8,
            timeout: Duration::from_secs(30),
            requests: 64,
            read_ahead: 256 << 20,
        }
    }
}
