//! Shared parts of all protocols over HTTP: API keys, origin checks, reading of bodies, request
//! ids, metrics and logs.

mod body;
mod layers;
mod origin;
mod unread_body;

use std::sync::Arc;

pub use self::body::BodyLimits;
pub(super) use self::body::{BodyReader, ReadBody};
pub(super) use self::layers::{ProtocolAdapter, RequestOutcome, RouteLabel, with_layers};
use super::{ApiKeys, Service};

/// Access checks and limits that a request passes before a protocol's handlers.
#[derive(Debug, Clone)]
pub struct RequestGate {
    pub(super) service: Arc<Service>,
    pub(super) body_reader: Arc<BodyReader>,
    keys: Option<Arc<ApiKeys>>,
    /// Accepted host names, if the server listens on a loopback address.
    host_names: Option<Arc<[String]>>,
}

impl RequestGate {
    /// Creates a gate. Without `keys`, requests need no API key. Clones share the memory budget for
    /// bodies.
    #[must_use]
    pub fn new(service: Arc<Service>, keys: Option<Arc<ApiKeys>>, limits: BodyLimits) -> Self {
        Self {
            service,
            body_reader: Arc::new(BodyReader::new(limits)),
            keys,
            host_names: None,
        }
    }

    /// Accepts browsers only if they address the server by one of `names`, `localhost` or an IP
    /// address. Meant for servers on a loopback address.
    #[must_use]
    pub fn with_host_names(self, names: &[String]) -> Self {
        Self {
            host_names: Some(names.into()),
            ..self
        }
    }
}
