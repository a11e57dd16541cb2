//! What a resource refers to.

use crate::{
    config::{
        Cluster, ClusterChoice, Discovery, DownstreamTls, FetchTimeout, FilterChain, Listener, RouteSource, RouteTable,
        RouteTarget, Scope, ScopeIndex, ScopeTable, SecretRef, SecretSource, TcpCluster, Terminal, TlsCommon,
        TransportSocket, ValidationSource,
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
    Extension,
    /// An extension for which a default serves until it comes.
    LateExtension,
}

impl Need {
    /// What to subscribe to for it.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Load => Some(Kind::Load),
            Self::Routes => Some(Kind::Routes),
            Self::Secret => Some(Kind::Secret),
            Self::OwnSecret => None,
            Self::Extension | Self::LateExtension => Some(Kind::Extension),
        }
    }
}

/// Names that must be here before something can be used.
pub(super) struct Needs<'a>(SmallVec<[(Need, &'a Arc<str>, FetchTimeout); 8]>);

impl<'a> Needs<'a> {
    pub(super) fn of_cluster(cluster: &'a Cluster) -> Self {
        let mut needs = Self(SmallVec::new());
        if let Discovery::Eds(load) = &cluster.discovery {
            needs.put(Need::Load, load, cluster.fetch_timeout);
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
            if let Terminal::Http(hcm) = &chain.terminal {
                match &hcm.routes {
                    RouteSource::Named(name) => needs.put(Need::Routes, name, hcm.fetch_timeout),
                    RouteSource::Scoped(scoped) => {
                        let scopes = scoped.scopes.iter().flat_map(ScopeIndex::iter);
                        scopes.for_each(|scope| needs.scope(scope, hcm.fetch_timeout));
                    }
                    RouteSource::Inline(_) => {}
                }
            }
        }
        for place in super::extend::places(listener) {
            let need = if place.waits { Need::Extension } else { Need::LateExtension };
            needs.put(need, &place.resource, place.fetch_timeout);
        }
        needs
    }

    pub(super) fn of_scope(scope: &'a Scope) -> Self {
        let mut needs = Self(SmallVec::new());
        needs.scope(scope, FetchTimeout::default());
        needs
    }

    fn scope(&mut self, scope: &'a Scope, wait: FetchTimeout) {
        if let ScopeTable::Named(name) = &scope.routes {
            self.put(Need::Routes, name, wait);
        }
    }

    /// True when a listener takes scopes that come one by one.
    pub(super) fn scopes(listener: &Listener) -> bool {
        chains(listener).any(|chain| match &chain.terminal {
            Terminal::Http(hcm) => matches!(&hcm.routes, RouteSource::Scoped(scoped) if scoped.scopes.is_none()),
            Terminal::Tcp(_) => false,
        })
    }

    /// Route tables that are written in a listener.
    pub(super) fn tables_of_listener(listener: &'a Listener) -> impl Iterator<Item = &'a RouteTable> {
        chains(listener).filter_map(|chain| match &chain.terminal {
            Terminal::Http(hcm) => match &hcm.routes {
                RouteSource::Inline(table) => Some(&**table),
                RouteSource::Named(_) | RouteSource::Scoped(_) => None,
            },
            Terminal::Tcp(_) => None,
        })
    }

    /// Clusters that a listener names without a route table of its own name.
    pub(super) fn clusters_of_listener(listener: &'a Listener, mut each: impl FnMut(&'a Arc<str>)) {
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

    pub(super) fn clusters_of_routes(table: &'a RouteTable, mut each: impl FnMut(&'a Arc<str>)) {
        for route in table.hosts.iter().flat_map(|host| &host.routes) {
            let RouteTarget::Forward(action) = &route.target else { continue };
            match &action.cluster {
                ClusterChoice::One(name) => each(name),
                ClusterChoice::Header(_) => {}
                ClusterChoice::Weighted { clusters, .. } => clusters.iter().for_each(|c| each(&c.name)),
            }
        }
    }

    pub(super) fn each(&self, mut each: impl FnMut(Need, &'a Arc<str>, FetchTimeout)) {
        for (kind, name, wait) in &self.0 {
            each(*kind, name, *wait);
        }
    }

    fn put(&mut self, kind: Need, name: &'a Arc<str>, wait: FetchTimeout) {
        // A name counts once per resource, so that giving it back is symmetric whatever the order.
        match self.0.iter_mut().find(|(other, known, _)| *other == kind && *known == name) {
            Some((_, _, told)) => *told = told.or_longer(wait),
            None => self.0.push((kind, name, wait)),
        }
    }

    fn transport(&mut self, transport: &'a TransportSocket) {
        match transport {
            TransportSocket::Tls(tls) | TransportSocket::Quic(tls) => self.tls(&tls.common),
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
                self.secret(*source, name, common.fetch_timeout);
            }
        }
        match &common.validation {
            Some(ValidationSource::Named(source, name) | ValidationSource::Combined(_, source, name)) => {
                self.secret(*source, name, common.fetch_timeout)
            }
            Some(ValidationSource::Inline(_)) | None => {}
        }
    }

    fn secret(&mut self, source: SecretSource, name: &'a Arc<str>, wait: FetchTimeout) {
        let need = match source {
            SecretSource::Ads => Need::Secret,
            SecretSource::Own => Need::OwnSecret,
        };
        self.put(need, name, wait);
    }
}

pub(super) fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    listener.chains.iter().chain(&listener.default_chain)
}
