//! The gateway's own numbers: connections, requests, upstream trouble. Shared by all threads, read by `/metrics`.
//!
//! Never has a label that a client can choose.

use super::series::{Gauge, head};
use std::fmt::Write as _;

/// Numbers of the whole process.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Client connections open.
    pub(crate) connections: Gauge,
    /// Client connections accepted.
    pub(crate) accepted: Gauge,
    /// Client connections refused for want of room.
    pub(crate) refused: Gauge,
    /// Client handshakes that failed.
    pub(crate) handshakes_failed: Gauge,
    /// Requests under way.
    pub(crate) requests: Gauge,
    /// Upstream connections open.
    pub(crate) upstream_connections: Gauge,
    /// Upstream connections that could not be opened.
    pub(crate) upstream_failures: Gauge,
    /// Workers that opened the listeners of a first configuration.
    pub(crate) listening: Gauge,
    /// Listeners that could not be bound.
    pub(crate) unbound: Gauge,
    /// Panics that ended a connection.
    pub(crate) panics: Gauge,
}

impl Own {
    /// Writes them as an exposition.
    pub(crate) fn expose(&self, out: &mut String) {
        let rows = [
            ("tombolo_gateway_downstream_connections", "gauge", &self.connections),
            ("tombolo_gateway_downstream_connections_total", "counter", &self.accepted),
            ("tombolo_gateway_downstream_connections_refused_total", "counter", &self.refused),
            ("tombolo_gateway_downstream_handshakes_failed_total", "counter", &self.handshakes_failed),
            ("tombolo_gateway_requests_active", "gauge", &self.requests),
            ("tombolo_gateway_upstream_connections", "gauge", &self.upstream_connections),
            ("tombolo_gateway_upstream_connect_failures_total", "counter", &self.upstream_failures),
            ("tombolo_gateway_listeners_unbound", "gauge", &self.unbound),
            ("tombolo_gateway_panics_total", "counter", &self.panics),
        ];
        for (name, kind, gauge) in rows {
            head(out, name, kind);
            let _ = writeln!(out, "{name} {}", gauge.load());
        }
    }
}
