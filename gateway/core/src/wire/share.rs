//! Equal parts of resources become one: ten thousand clusters that say the same about HTTP need not say it ten thousand times.
//!
//! Owns what was seen. Never changes what a resource means. Used by whoever decodes many resources.

use super::Resource;
use crate::config::{
    CircuitBreakers, Cluster, ClusterChoice, ClusterLoad, Discovery, LbSettings, Listener, OutlierDetection,
    RetryPolicy, Route, RouteSource, RouteTable, RouteTarget, Terminal, UpstreamHttp, VirtualHost,
};
use ahash::AHashSet;
use std::sync::Arc;

/// Names are looked through for those that nobody else holds any more when there are so many …
const FEW_NAMES: usize = 4096;

/// What was seen: all names, and of larger parts the last one, since neighbours resemble each other.
#[derive(Debug, Default)]
pub struct Sharing {
    names: AHashSet<Arc<str>>,
    /// … and again when there are so many.
    sweep_at: usize,
    http: Last<UpstreamHttp>,
    lb: Last<LbSettings>,
    breakers: Last<CircuitBreakers>,
    outlier: Last<OutlierDetection>,
    retry: Last<RetryPolicy>,
}

#[derive(Debug)]
struct Last<T>(Option<Arc<T>>);

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Last<T> {
    fn share(&mut self, part: &mut Arc<T>) {
        match &self.0 {
            Some(last) if Arc::ptr_eq(last, part) => {}
            Some(last) if **last == **part => *part = Arc::clone(last),
            _ => self.0 = Some(Arc::clone(part)),
        }
    }
}

impl Sharing {
    /// Puts parts that were seen before in the place of equal ones. Only in what nobody else holds yet.
    pub fn share(&mut self, resource: &mut Resource) {
        match resource {
            Resource::Cluster(cluster) => Arc::get_mut(cluster).into_iter().for_each(|cluster| self.cluster(cluster)),
            Resource::Load(load) => self.load(load),
            Resource::Listener(listener) => {
                Arc::get_mut(listener).into_iter().for_each(|listener| self.listener(listener));
            }
            Resource::Routes(table) => self.table(table),
            Resource::Host(host) => {
                if let Some(host) = Arc::get_mut(host).and_then(|dynamic| Arc::get_mut(&mut dynamic.host)) {
                    self.host(host);
                }
            }
            Resource::Secret(..) | Resource::Scope(_) | Resource::Extension(..) | Resource::Runtime(..) => {}
        }
        self.sweep();
    }

    /// A name that was seen before, or this one from now on.
    pub fn name(&mut self, name: &mut Arc<str>) {
        match self.names.get(name) {
            Some(known) => *name = Arc::clone(known),
            None => drop(self.names.insert(Arc::clone(name))),
        }
    }

    fn sweep(&mut self) {
        if self.names.len() > self.sweep_at.max(FEW_NAMES) {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = self.names.len() * 2;
        }
    }

    fn cluster(&mut self, cluster: &mut Cluster) {
        self.name(&mut cluster.name);
        self.name(&mut cluster.alt_stat_name);
        self.http.share(&mut cluster.http);
        self.lb.share(&mut cluster.lb);
        self.breakers.share(&mut cluster.breakers);
        cluster.outlier.iter_mut().for_each(|outlier| self.outlier.share(outlier));
        match &mut cluster.discovery {
            Discovery::Eds(name) => self.name(name),
            Discovery::Static(load) | Discovery::StrictDns(load, _) | Discovery::LogicalDns(load, _) => self.load(load),
            Discovery::Aggregate(members) => members.iter_mut().for_each(|member| self.name(member)),
            Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) => {}
        }
    }

    fn load(&mut self, load: &mut Arc<ClusterLoad>) {
        let Some(load) = Arc::get_mut(load) else { return };
        self.name(&mut load.name);
        let localities = load.priorities.iter_mut().flat_map(|priority| &mut priority.localities);
        for endpoint in localities.flat_map(|locality| &mut locality.endpoints).filter_map(Arc::get_mut) {
            self.name(&mut endpoint.hostname);
            self.name(&mut endpoint.health_check_hostname);
        }
    }

    fn listener(&mut self, listener: &mut Listener) {
        for chain in listener.chains.iter_mut().chain(&mut listener.default_chain).filter_map(Arc::get_mut) {
            let Terminal::Http(hcm) = &mut chain.terminal else { continue };
            if let Some(RouteSource::Inline(table)) = Arc::get_mut(hcm).map(|hcm| &mut hcm.routes) {
                self.table(table);
            }
        }
    }

    fn table(&mut self, table: &mut Arc<RouteTable>) {
        let hosts = Arc::get_mut(table).and_then(|table| Arc::get_mut(&mut table.hosts));
        hosts.into_iter().flatten().for_each(|host| self.host(host));
    }

    fn host(&mut self, host: &mut VirtualHost) {
        host.retry.iter_mut().for_each(|retry| self.retry.share(retry));
        host.routes.iter_mut().filter_map(Arc::get_mut).for_each(|route| self.route(route));
    }

    fn route(&mut self, route: &mut Route) {
        self.name(&mut route.name);
        self.name(&mut route.stat_prefix);
        let RouteTarget::Forward(action) = &mut route.target else { return };
        action.retry.iter_mut().for_each(|retry| self.retry.share(retry));
        match &mut action.cluster {
            ClusterChoice::One(name) => self.name(name),
            ClusterChoice::Weighted { clusters, .. } => clusters.iter_mut().for_each(|one| self.name(&mut one.name)),
            ClusterChoice::Header(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Kind, decode};
    use prost::Message as _;
    use tombolo_controlplane_api::xds::envoy::config::{
        cluster::v3::Cluster as ClusterMessage,
        route::v3::{
            self as pb, Route as RouteMessage, RouteAction, RouteConfiguration, route::Action,
            route_action::ClusterSpecifier, route_match::PathSpecifier,
        },
    };

    fn cluster(sharing: &mut Sharing, name: &str) -> Arc<Cluster> {
        let body = ClusterMessage { name: name.into(), ..Default::default() }.encode_to_vec();
        let mut resource = decode(Kind::Cluster, name, &body).unwrap();
        sharing.share(&mut resource);
        let Resource::Cluster(cluster) = resource else { panic!() };
        cluster
    }

    fn table(sharing: &mut Sharing, cluster: &str) -> Arc<RouteTable> {
        let route = RouteMessage {
            r#match: Some(pb::RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".into())),
                ..Default::default()
            }),
            action: Some(Action::Route(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
                ..Default::default()
            })),
            ..Default::default()
        };
        let host =
            pb::VirtualHost { name: "h".into(), domains: vec!["h".into()], routes: vec![route], ..Default::default() };
        let body = RouteConfiguration { name: "t".into(), virtual_hosts: vec![host], ..Default::default() };
        let mut resource = decode(Kind::Routes, "t", &body.encode_to_vec()).unwrap();
        sharing.share(&mut resource);
        let Resource::Routes(table) = resource else { panic!() };
        table
    }

    #[test]
    fn equal_parts_become_one() {
        let mut sharing = Sharing::default();
        let (one, other) = (cluster(&mut sharing, "a"), cluster(&mut sharing, "b"));
        assert!(Arc::ptr_eq(&one.http, &other.http) && Arc::ptr_eq(&one.lb, &other.lb));
        assert!(Arc::ptr_eq(&one.breakers, &other.breakers));
        let routes = table(&mut sharing, "a");
        let RouteTarget::Forward(action) = &routes.hosts[0].routes[0].target else { panic!() };
        let ClusterChoice::One(name) = &action.cluster else { panic!() };
        assert!(Arc::ptr_eq(name, &one.name));
    }

    #[test]
    fn names_that_nobody_holds_are_forgotten() {
        let mut sharing = Sharing::default();
        let kept = cluster(&mut sharing, "kept");
        for n in 0..FEW_NAMES * 3 {
            drop(cluster(&mut sharing, &n.to_string()));
        }
        assert!(sharing.names.len() <= FEW_NAMES + 4, "{}", sharing.names.len());
        assert!(Arc::ptr_eq(&cluster(&mut sharing, "kept").name, &kept.name));
    }
}
