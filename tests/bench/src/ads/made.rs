//! The resources that are made up: the same ones as the file variant of the race has.

use super::Settings;
use anyhow::{Result, bail};
use prost::{Message, Name};
use std::{collections::HashMap, sync::Arc};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                Address, AggregatedConfigSource, ConfigSource, SocketAddress, address,
                config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                Route, RouteAction, RouteConfiguration, RouteMatch, Vhds, VirtualHost, route, route_action,
                route_match::PathSpecifier,
            },
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter,
            },
        },
    },
    google::protobuf::{Any, Duration, UInt32Value},
};

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Cluster,
    Load,
    Listener,
    Routes,
    Host,
}

/// Name, version and body.
pub(super) type One = (Arc<str>, u32, Vec<u8>);

impl Kind {
    pub(super) fn named(word: &str) -> Result<Self> {
        Ok(match word {
            "cluster" => Self::Cluster,
            "load" => Self::Load,
            "host" => Self::Host,
            _ => bail!("{word:?} is not cluster, load or host"),
        })
    }

    pub(super) fn of(type_url: &str) -> Option<Self> {
        let all = [Self::Cluster, Self::Load, Self::Listener, Self::Routes, Self::Host];
        all.into_iter().find(|kind| kind.type_url() == type_url)
    }

    pub(super) fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Load => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Host => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        }
    }

    /// Asked for without names.
    pub(super) fn comes_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::Host)
    }
}

/// What there is, as far as it is not as it was in the beginning.
#[derive(Debug, Clone)]
pub(super) struct Made {
    settings: Settings,
    revisions: HashMap<(Kind, usize), u32>,
    newest: u32,
}

fn host_name(index: usize) -> String {
    format!("svc-{index}.ns.svc.cluster.local")
}

fn cluster_name(index: usize) -> String {
    format!("outbound|80||{}", host_name(index))
}

fn index_of(name: &str) -> Option<usize> {
    name.split("svc-").nth(1)?.split('.').next()?.parse().ok()
}

const TABLE: &str = "80";

impl Made {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, revisions: HashMap::new(), newest: 0 }
    }

    pub(super) fn all(&self, kind: Kind) -> Vec<One> {
        match kind {
            Kind::Listener => vec![("all".into(), 0, self.listener().encode_to_vec())],
            Kind::Routes => vec![self.routes()],
            Kind::Host if !self.settings.one_by_one => Vec::new(),
            Kind::Cluster | Kind::Load | Kind::Host => (0..self.settings.count).map(|at| self.one(kind, at)).collect(),
        }
    }

    pub(super) fn named(&self, kind: Kind, names: &[String]) -> Vec<One> {
        match kind {
            Kind::Routes => self.all(kind),
            _ => names.iter().filter_map(|name| index_of(name)).map(|at| self.one(kind, at)).collect(),
        }
    }

    /// Something else is said of one of them. A virtual host of a table changes the table.
    pub(super) fn change(&mut self, kind: Kind, index: usize, revision: u32) -> (Kind, One) {
        self.newest = revision;
        self.revisions.insert((kind, index), revision);
        match kind {
            Kind::Host if !self.settings.one_by_one => (Kind::Routes, self.routes()),
            _ => (kind, self.one(kind, index)),
        }
    }

    fn one(&self, kind: Kind, index: usize) -> One {
        let revision = self.revisions.get(&(kind, index)).copied().unwrap_or_default();
        match kind {
            Kind::Cluster => (cluster_name(index).into(), revision, cluster(index, revision).encode_to_vec()),
            Kind::Load => {
                (cluster_name(index).into(), revision, load(index, revision, self.settings.backend).encode_to_vec())
            }
            _ => (format!("{TABLE}/{}", host_name(index)).into(), revision, host(index, revision).encode_to_vec()),
        }
    }

    fn routes(&self) -> One {
        let revision = |at| self.revisions.get(&(Kind::Host, at)).copied().unwrap_or_default();
        let mut table = RouteConfiguration { name: TABLE.into(), ..RouteConfiguration::default() };
        if self.settings.one_by_one {
            table.vhds = Some(Vhds { config_source: Some(ads()) });
        } else {
            table.virtual_hosts = (0..self.settings.count).map(|at| host(at, revision(at))).collect();
        }
        (TABLE.into(), self.newest, table.encode_to_vec())
    }

    fn listener(&self) -> Listener {
        let router = HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
            ..HttpFilter::default()
        };
        let manager = HttpConnectionManager {
            stat_prefix: "scale".into(),
            http_filters: vec![router],
            route_specifier: Some(RouteSpecifier::Rds(Rds {
                config_source: Some(ads()),
                route_config_name: TABLE.into(),
            })),
            ..HttpConnectionManager::default()
        };
        let filter = Filter {
            name: "envoy.filters.network.http_connection_manager".into(),
            config_type: Some(filter::ConfigType::TypedConfig(any(&manager))),
        };
        Listener {
            name: "all".into(),
            address: Some(local(self.settings.port)),
            filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
            ..Listener::default()
        }
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn ads() -> ConfigSource {
    let source = Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default()));
    ConfigSource { config_source_specifier: source, resource_api_version: 2, ..ConfigSource::default() }
}

fn local(port: u16) -> Address {
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn cluster(index: usize, revision: u32) -> Cluster {
    let most = || Some(UInt32Value { value: 100_000 });
    let bounds = Thresholds {
        max_connections: most(),
        max_pending_requests: most(),
        max_requests: most(),
        ..Thresholds::default()
    };
    Cluster {
        name: cluster_name(index),
        connect_timeout: Some(Duration { seconds: 5 + i64::from(revision), nanos: 0 }),
        circuit_breakers: Some(CircuitBreakers { thresholds: vec![bounds], ..CircuitBreakers::default() }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..EdsClusterConfig::default() }),
        ..Cluster::default()
    }
}

fn load(index: usize, revision: u32, backend: u16) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(local(backend)),
            ..Endpoint::default()
        })),
        load_balancing_weight: Some(UInt32Value { value: 1 + revision }),
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster_name(index),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

fn host(index: usize, revision: u32) -> VirtualHost {
    let name = host_name(index);
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster_name(index))),
        timeout: Some(Duration { seconds: 15 + i64::from(revision), nanos: 0 }),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    VirtualHost {
        domains: vec![name.clone(), format!("{name}:80"), format!("svc-{index}")],
        name: name.clone(),
        routes: vec![route],
        ..VirtualHost::default()
    }
}
