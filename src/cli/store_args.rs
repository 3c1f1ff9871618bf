//! How object stores are spoken to: flags of the commands that read or write them.

use std::time::Duration;

use clap::Args;

use crate::store::StoreOptions;

/// Object store options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Object stores")]
pub struct StoreArgs {
    /// MiB of image files to prefetch into memory
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub read_ahead: u32,
    /// Maximum number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub store_requests: u16,
    /// Retries of a failed request, with increasing delays
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(..=100))]
    pub store_retries: u8,
    /// Seconds without data after which a request fails
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub store_timeout: u16,
}

impl StoreArgs {
    /// The options that they stand for.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            retries: self.store_retries.into(),
            timeout: Duration::from_secs(self.store_timeout.into()),
            requests: self.store_requests.into(),
            read_ahead: u64::from(self.read_ahead) << 20,
        }
    }
}
