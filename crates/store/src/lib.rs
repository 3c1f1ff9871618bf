//! Files elsewhere: object stores (S3, Google Cloud Storage, Azure) and web servers.
//!
//! A [`Location`] is what a command line names: a path of this machine, or a [`Url`]. [`Store`]
//! lists, reads and writes what a URL names, and [`ReadAhead`] has the files of samples in memory
//! before the decoders ask for them. All that is asynchronous stays in here: callers are threads,
//! and wait.
//!
//! Nothing secret leaves this module: no error and no message holds a password, a key or a token.
//!
//! Without the feature `remote`, URLs are refused where they are parsed, and a [`Store`] cannot be.

mod error;
mod location;
mod options;
#[cfg(feature = "remote")]
mod remote;
mod url;
#[cfg(not(feature = "remote"))]
mod without;

pub use error::{ReadFailure, StoreError, StoreErrorKind};
pub use location::{Location, LocationError, LocationErrorKind};
pub use options::StoreOptions;
#[cfg(feature = "remote")]
pub use remote::{FileNames, ObjectVersion, ReadAhead, Store};
pub use url::{Scheme, Url};
#[cfg(not(feature = "remote"))]
pub use without::{FileNames, ObjectVersion, ReadAhead, Store};
