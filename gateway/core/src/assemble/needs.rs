//! What a resource refers to.

use crate::{
    config::{
        Cluster, ClusterChoice, Discovery, DownstreamTls, FilterChain, Listener, RouteSource, RouteTable, RouteTarget,
        SecretRef, SecretSource, TcpCluster, Terminal, TlsCommon, TransportSocket, ValidationSource,
    },
    wire::Kind,
};
use smallvec::SmallVec;
use std::sync::Arc;

/// What kind of thing is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Load,
    Routes,
    Secret,
    /// A secret of the proxy's own: needed, but not subscribed to.
    OwnSecret,
}

impl Need {
    /// What to subscribe to for it.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Load => Some(Kind::Load),
            Self::Routes => Some(Kind::Routes),
            Self::Secret => Some(Kind::Secret),
            Self::OwnSecret => None,
        }
    }
}

/// Names that must be here before something can be used.
pub(super) struct Needs<'a>(SmallVec<[(Need, &'a Arc<str>); 8]>);

impl<'a> Needs<'a> {
    pub(super) fn of_cluster(cluster: &'a Cluster) -> Self {
        let mut needs = Self(SmallVec::new());
        if let Discovery::Eds(load) = &cluster.discovery {
            needs.put(Need::Load, load);
        }
        needs.transport(&cluster.transport);
        for transport in &cluster.transport_matches {
            needs.transport(&transport.transport);
        }
        needs
    }

    pub(super) fn of_listener(listener: &'a Listener) -> Self {
        let mut needs = Self(SmallVec::new());
        for chain in chains(listener) {
            if let Some(tls) = &chain.tls {
                needs.downstream(tls);
            }
            if let Terminal::Http(hcm) = &chain.terminal
                && let RouteSource::Named(name) = &hcm.routes
            {
                needs.put(Need::Routes, name);
            }
        }
        needs
    }

    /// Clusters that a listener names without a route table of its own name.
    pub(super) fn clusters_of_listener(listener: &'a Listener, mut each: impl FnMut(&'a str)) {
        for chain in chains(listener) {
            match &chain.terminal {
                Terminal::Http(hcm) => {
                    if let RouteSource::Inline(table) = &hcm.routes {
                        Self::clusters_of_routes(table, &mut each);
                    }
                }
                Terminal::Tcp(tcp) => match &tcp.cluster {
                    TcpCluster::One(name) => each(name),
                    TcpCluster::Weighted(all) => all.iter().for_each(|(name, _, _)| each(name)),
                },
            }
        }
    }

    pub(super) fn clusters_of_routes(table: &'a RouteTable, mut each: impl FnMut(&'a str)) {
        for route in table.hosts.iter().flat_map(|host| &host.routes) {
            let RouteTarget::Forward(action) = &route.target else { continue };
            match &action.cluster {
                ClusterChoice::One(name) => each(name),
                ClusterChoice::Header(_) => {}
                ClusterChoice::Weighted { clusters, .. } => clusters.iter().for_each(|c| each(&c.name)),
            }
        }
    }

    pub(super) fn each(&self, mut each: impl FnMut(Need, &'a Arc<str>)) {
        for (kind, name) in &self.0 {
            each(*kind, name);
        }
    }

    fn put(&mut self, kind: Need, name: &'a Arc<str>) {
        // A name counts once per resource, so that giving it back is symmetric whatever the order.
        if !self.0.contains(&(kind, name)) {
            self.0.push((kind, name));
        }
    }

    fn transport(&mut self, transport: &'a TransportSocket) {
        match transport {
            TransportSocket::Tls(tls) => self.tls(&tls.common),
            TransportSocket::ProxyProtocol(_, inner) => self.transport(inner),
            TransportSocket::Raw | TransportSocket::Internal(_) => {}
        }
    }

    fn downstream(&mut self, tls: &'a DownstreamTls) {
        self.tls(&tls.common);
    }

    fn tls(&mut self, common: &'a TlsCommon) {
        for certificate in &common.certificates {
            if let SecretRef::Named(source, name) = certificate {
                self.secret(*source, name);
            }
        }
        match &common.validation {
            Some(ValidationSource::Named(source, name) | ValidationSource::Combined(_, source, name)) => {
                self.secret(*source, name)
            }
            Some(ValidationSource::Inline(_)) | None => {}
        }
    }

    fn secret(&mut self, source: SecretSource, name: &'a Arc<str>) {
        let need = match source {
            SecretSource::Ads => Need::Secret,
            SecretSource::Own => Need::OwnSecret,
        };
        self.put(need, name);
    }
}

fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    listener.chains.iter().chain(&listener.default_chain)
}
