//! Where a request went.
//!
//! Owns the record only, made of plain texts, so that two traces can be compared and read.

use std::net::SocketAddr;

/// One proxy on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hop {
    /// `SITE/POD`, `SITE/ingress` or `SITE/east-west`.
    pub proxy: String,
    /// The listener that took the connection.
    pub listener: String,
    /// The filter chain; empty when it has no name.
    pub chain: String,
    /// The identity of the client, when it showed one and it was verified here.
    pub peer: Option<String>,
    /// The protocol that TLS agreed on here; `None`: no TLS was ended here.
    pub alpn: Option<String>,
    /// The server name of the client's hello, when somebody looked.
    pub sni: String,
    /// The virtual host; empty where bytes are forwarded.
    pub host: String,
    /// The route; empty when it has no name.
    pub route: String,
    /// The cluster; empty when the request was answered here.
    pub cluster: String,
    /// The endpoint.
    pub to: Option<SocketAddr>,
}

/// A request as the application saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// `Host`.
    pub authority: String,
    /// With query.
    pub path: String,
    /// In order.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// At an application.
    Workload {
        /// Its site.
        site: String,
        /// Its pod.
        pod: String,
        /// The port that its manifest names.
        port: u16,
        /// What arrived.
        seen: Seen,
    },
    /// At a server outside of the mesh.
    Outside {
        /// Host or address.
        host: String,
        /// Port.
        port: u16,
        /// What arrived.
        seen: Seen,
    },
    /// A proxy answered.
    Reply {
        /// Which.
        by: String,
        /// Status.
        status: u16,
        /// `location`, for redirects.
        location: Option<String>,
        /// Body.
        body: String,
        /// Response code details.
        details: String,
        /// Milliseconds of an injected delay.
        delay: u64,
    },
    /// A connection could not be made or was closed.
    Lost {
        /// Who noticed it: the proxy at which the connection failed.
        at: String,
        /// Why.
        why: String,
    },
}

/// A request's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The proxies, first to last.
    pub hops: Vec<Hop>,
    /// The end.
    pub end: End,
}

impl Trace {
    /// `SITE/POD` of the application that was reached; empty when none was.
    #[must_use]
    pub fn pod(&self) -> String {
        match &self.end {
            End::Workload { site, pod, .. } => format!("{site}/{pod}"),
            End::Outside { .. } | End::Reply { .. } | End::Lost { .. } => String::new(),
        }
    }

    /// Status of a proxy's answer; 200 for an application's.
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.end {
            End::Workload { .. } | End::Outside { .. } => 200,
            End::Reply { status, .. } => *status,
            End::Lost { .. } => 503,
        }
    }

    /// What the application or the server saw.
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        match &self.end {
            End::Workload { seen, .. } | End::Outside { seen, .. } => Some(seen),
            End::Reply { .. } | End::Lost { .. } => None,
        }
    }

    /// Names of the proxies on the way.
    #[must_use]
    pub fn proxies(&self) -> Vec<&str> {
        self.hops.iter().map(|hop| hop.proxy.as_str()).collect()
    }

    /// The identity that the last proxy verified.
    #[must_use]
    pub fn peer(&self) -> Option<&str> {
        self.hops.last()?.peer.as_deref()
    }
}
