//! How types depend on each other: in which order they are sent, what waits for what. The order is data, so that the
//! publishers hold no type names. Used by both halves.

use std::sync::Arc;

/// Type URLs of Envoy's resources.
pub mod types {
    /// Upstreams.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// Endpoints of upstreams.
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// Listeners.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// Routes by scope.
    pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
    /// Routes.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// Virtual hosts on demand.
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    /// Extension configurations.
    pub const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    /// Certificates and trust bundles.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    /// Runtime layers.
    pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
}

/// How one type behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent properties of a type, not states of one machine
pub struct Rule {
    /// The type.
    pub type_url: Arc<str>,
    /// A first request without names asks for everything.
    pub wildcard: bool,
    /// What is absent from a state-of-the-world response, or removed in a delta response, is dropped by the reader.
    /// Otherwise the reader keeps it until it unsubscribes.
    pub full_state: bool,
    /// Sent only when no addition of this other type is unsent or unanswered, because it may refer to it. A removal
    /// of the other type in turn waits until this type is settled.
    pub refers_to: Option<Arc<str>>,
    /// Sent again, even if unchanged, under the name of every resource of this other type that is sent: the reader
    /// waits for it.
    pub follows: Option<Arc<str>>,
    /// Sent again in a new stream even when the reader says that it holds the newest version: its resource of the type
    /// that this one follows may still be waiting.
    pub resent_on_resume: bool,
}

impl Rule {
    fn new(type_url: &str, wildcard: bool, full_state: bool) -> Self {
        Self {
            type_url: type_url.into(),
            wildcard,
            full_state,
            refers_to: None,
            follows: None,
            resent_on_resume: false,
        }
    }

    fn refers_to(mut self, other: &str) -> Self {
        self.refers_to = Some(other.into());
        self
    }
}

/// The types of a stream in the order in which they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    rules: Vec<Rule>,
    /// About how many bytes of bodies one delta response holds at most (one resource always fits).
    pub batch_bytes: usize,
}

impl Plan {
    /// For Envoy and gRPC clients. Envoy's behaviour shapes it: an upstream that changed waits for endpoints that
    /// nobody asks for again, and the acknowledgement of upstreams is held back until they are warm, so endpoints
    /// and secrets never wait for it, but listeners and routes do.
    #[must_use]
    pub fn envoy() -> Self {
        let mut plan = Self::quiet();
        for rule in &mut plan.rules {
            if &*rule.type_url == types::ENDPOINT {
                rule.follows = Some(types::CLUSTER.into());
                rule.resent_on_resume = true;
            }
        }
        plan
    }

    /// For readers that keep endpoints when an upstream changes, such as our own gateway: nothing is sent twice.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            rules: vec![
                Rule::new(types::CLUSTER, true, true),
                Rule::new(types::ENDPOINT, false, false),
                Rule::new(types::LISTENER, true, true).refers_to(types::CLUSTER),
                Rule::new(types::SCOPED_ROUTE, true, true).refers_to(types::CLUSTER),
                Rule::new(types::ROUTE, false, false).refers_to(types::CLUSTER),
                Rule::new(types::VIRTUAL_HOST, true, true).refers_to(types::CLUSTER),
                Rule::new(types::EXTENSION, false, false),
                Rule::new(types::SECRET, false, false),
                Rule::new(types::RUNTIME, false, false),
            ],
            batch_bytes: usize::MAX,
        }
    }

    /// Independent types, all of them whole, in the given order.
    #[must_use]
    pub fn independent(types: &[&str], batch_bytes: usize) -> Self {
        Self { rules: types.iter().map(|url| Rule::new(url, true, true)).collect(), batch_bytes }
    }

    /// The position and the behaviour of a type. One that is not planned comes last and is independent.
    #[must_use]
    pub fn rule(&self, type_url: &str) -> (usize, Rule) {
        let found = self.rules.iter().enumerate().find(|(_, rule)| &*rule.type_url == type_url);
        match found {
            Some((rank, rule)) => (rank, rule.clone()),
            None => (self.rules.len(), Rule::new(type_url, true, true)),
        }
    }
}
