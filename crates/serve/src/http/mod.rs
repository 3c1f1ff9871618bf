//! What all protocols over HTTP share: whom they let in, how they read bodies, what they count and
//! log.

mod body;
mod layers;
mod leftover;
mod origin;

use std::sync::Arc;

pub use self::body::BodyLimits;
pub(super) use self::body::{Bodies, ReadBody};
pub(super) use self::layers::{Label, Protocol, RequestOutcome, around};
use super::{ApiKeys, Service};

/// What stands between the connections and a protocol's handlers.
#[derive(Debug, Clone)]
pub struct RequestGate {
    pub(super) service: Arc<Service>,
    pub(super) bodies: Arc<Bodies>,
    keys: Option<Arc<ApiKeys>>,
    /// The names of a server that only its own machine reaches.
    names: Option<Arc<[String]>>,
}

impl RequestGate {
    /// A gate before `service`, for all or for those who have a key. What it is cloned for shares
    /// its room for bodies.
    #[must_use]
    pub fn new(service: Arc<Service>, keys: Option<Arc<ApiKeys>>, limits: BodyLimits) -> Self {
        Self {
            service,
            bodies: Arc::new(Bodies::new(limits)),
            keys,
            names: None,
        }
    }

    /// Has browsers refused that call the server by another name than `names`, `localhost` or an
    /// address: for servers that only their own machine reaches.
    #[must_use]
    pub fn known_as(self, names: &[String]) -> Self {
        Self {
            names: Some(names.into()),
            ..self
        }
    }
}
