//! Files in object stores (S3, Google Cloud Storage, Azure) and on web servers.
//!
//! A [`Location`] is a command-line argument: a local path or a [`Url`]. [`Store`] lists, reads and
//! writes the objects of a URL, and [`ReadAhead`] prefetches the files of samples for the decoders.
//! The API is synchronous; the asynchronous runtime is internal.
//!
//! No error or message of this crate contains a password, a key or a token.
//!
//! Without the feature `remote`, parsing a URL of a store is an error.

mod error;
mod location;
mod location_error;
mod options;
#[cfg(feature = "remote")]
mod remote;
mod url;
#[cfg(not(feature = "remote"))]
mod without;

pub use error::{ReadFailure, StoreError, StoreErrorKind};
pub use location::Location;
pub use location_error::{LocationError, LocationErrorKind};
pub use options::StoreOptions;
#[cfg(feature = "remote")]
pub use remote::{FileNames, ObjectVersion, ReadAhead, Store};
pub use url::{Scheme, Url};
#[cfg(not(feature = "remote"))]
pub use without::{FileNames, ObjectVersion, ReadAhead, Store};
