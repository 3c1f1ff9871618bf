//! Options of requests to stores.

use std::time::Duration;

/// Limits of requests and of prefetching.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Retries of a failed request.
    pub retries: usize,
    /// Time without data after which a request fails.
    pub timeout: Duration,
    /// Maximum number of concurrent requests.
    pub requests: usize,
    /// Bytes of files to prefetch into memory.
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
