//! A proxy as it introduces itself: node id and metadata, parsed once.
//!
//! Owns the parsing; never decides what a proxy gets (that is `bind`). Used by the server for every new stream.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};
use tombolo_controlplane_api::{
    node,
    xds::google::protobuf::{Struct, Value, value::Kind},
};
use tombolo_federation_model::{ClusterId, Labels, Locality, Namespace, NetworkId};

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Beside one workload.
    Sidecar,
    /// A gateway: ingress, egress or east-west.
    Router,
}

/// One connected proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The node id, whole.
    pub id: String,
    /// What it is for.
    pub role: Role,
    /// Its own address.
    pub address: IpAddr,
    /// Namespace of its workload.
    pub namespace: Namespace,
    /// Name of its workload instance (pod name).
    pub name: String,
    /// Labels of its workload.
    pub labels: Labels,
    /// `None` means the site's.
    pub cluster: Option<ClusterId>,
    /// `None` means the site's.
    pub network: Option<NetworkId>,
    /// `None` means the site's.
    pub locality: Option<Locality>,
    /// Account of its workload; `default` when it says none.
    pub service_account: String,
    /// Outbound listener that takes requests in proxy form or by Host header.
    pub http_proxy: Option<SocketAddr>,
    /// From the workload's port to where the proxy listens and where the application does.
    pub inbound: BTreeMap<u16, (SocketAddr, SocketAddr)>,
    /// Address that a gateway binds.
    pub bind: IpAddr,
    /// Added to gateway ports below 1024.
    pub low_port_offset: u16,
    /// Ports that are bound instead of the declared ones; wins over the offset.
    pub port_map: BTreeMap<u16, u16>,
    /// Version that it claims, for status.
    pub version: String,
}

/// Why a node is not one that we can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAProxy {
    /// The part that is wrong: `id` or a metadata key.
    pub part: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for NotAProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.part, self.reason)
    }
}

impl std::error::Error for NotAProxy {}

fn refuse<T>(part: &str, reason: impl fmt::Display) -> Result<T, NotAProxy> {
    Err(NotAProxy { part: part.to_owned(), reason: reason.to_string() })
}

impl Proxy {
    /// Reads a node id of the form `TYPE~IP~NAME.NAMESPACE~DOMAIN` and metadata with the keys of [`node`].
    ///
    /// # Errors
    /// When the id has another form, or a key that is present cannot be read.
    pub fn parse(id: &str, metadata: &Struct) -> Result<Self, NotAProxy> {
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, ip, full_name, _domain] = parts[..] else {
            return refuse("id", "it has not the form TYPE~IP~NAME.NAMESPACE~DOMAIN");
        };
        let role = match kind {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            other => return refuse("id", format_args!("type {other:?} is neither sidecar nor router")),
        };
        let address = ip.parse().or_else(|_| refuse("id", format_args!("{ip:?} is not an IP address")))?;
        let meta = Metadata(metadata);
        let (name, id_namespace) = full_name.rsplit_once('.').unwrap_or((full_name, ""));
        let namespace = meta.text(node::NAMESPACE).unwrap_or(id_namespace);
        Ok(Self {
            id: id.to_owned(),
            role,
            address,
            namespace: Namespace::parse(namespace).or_else(|e| refuse(node::NAMESPACE, e))?,
            name: meta.text(node::NAME).unwrap_or(name).to_owned(),
            labels: meta.texts(node::LABELS),
            cluster: meta.parsed(node::CLUSTER_ID, ClusterId::parse)?,
            network: meta.parsed(node::NETWORK, NetworkId::parse)?,
            locality: None,
            service_account: meta.text(node::SERVICE_ACCOUNT).unwrap_or("default").to_owned(),
            http_proxy: meta.parsed(node::TOMBOLO_HTTP_PROXY, str::parse)?,
            inbound: meta.inbound()?,
            bind: meta.parsed(node::TOMBOLO_BIND, str::parse)?.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            low_port_offset: meta.parsed(node::TOMBOLO_LOW_PORT_OFFSET, str::parse)?.unwrap_or(0),
            port_map: meta.port_map()?,
            version: meta.text(node::ISTIO_VERSION).unwrap_or_default().to_owned(),
        })
    }

    /// The port that is really bound for a declared gateway port.
    #[must_use]
    pub fn bound_port(&self, declared: u16) -> u16 {
        match self.port_map.get(&declared) {
            Some(mapped) => *mapped,
            None if declared < 1024 => declared.saturating_add(self.low_port_offset),
            None => declared,
        }
    }
}

/// Typed access to metadata: an absent or empty value is `None`, one that does not parse is an error that names its key.
struct Metadata<'a>(&'a Struct);

impl<'a> Metadata<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.0.fields.get(key).and_then(as_text).filter(|text| !text.is_empty())
    }

    fn parsed<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, NotAProxy> {
        self.text(key).map(|text| parse(text).or_else(|e| refuse(key, format_args!("{text:?}: {e}")))).transpose()
    }

    fn texts(&self, key: &str) -> BTreeMap<String, String> {
        let Some(Kind::StructValue(inner)) = self.0.fields.get(key).and_then(|v| v.kind.as_ref()) else {
            return BTreeMap::new();
        };
        inner.fields.iter().filter_map(|(k, v)| Some((k.clone(), as_text(v)?.to_owned()))).collect()
    }

    fn inbound(&self) -> Result<BTreeMap<u16, (SocketAddr, SocketAddr)>, NotAProxy> {
        let key = node::TOMBOLO_INBOUND;
        let mut inbound = BTreeMap::new();
        for (port, pair) in self.texts(key) {
            let number = port.parse().or_else(|_| refuse(key, format_args!("{port:?} is not a port")))?;
            let addresses = pair
                .split_once(',')
                .and_then(|(bind, app)| Some((bind.trim().parse().ok()?, app.trim().parse().ok()?)));
            let Some(addresses) = addresses else {
                return refuse(key, format_args!("{pair:?} has not the form BIND_IP:PORT,APP_IP:PORT"));
            };
            inbound.insert(number, addresses);
        }
        Ok(inbound)
    }

    fn port_map(&self) -> Result<BTreeMap<u16, u16>, NotAProxy> {
        let key = node::TOMBOLO_PORT_MAP;
        self.texts(key)
            .into_iter()
            .map(|(from, to)| match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => Ok((from, to)),
                _ => refuse(key, format_args!("{from:?} to {to:?} is not a pair of ports")),
            })
            .collect()
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value { kind: Some(Kind::StringValue(value.to_owned())) }
    }

    fn structure(pairs: &[(&str, Value)]) -> Struct {
        Struct { fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect() }
    }

    fn nested(pairs: &[(&str, &str)]) -> Value {
        let pairs: Vec<(&str, Value)> = pairs.iter().map(|(k, v)| (*k, text(v))).collect();
        Value { kind: Some(Kind::StructValue(structure(&pairs))) }
    }

    #[test]
    fn a_sidecar_says_where_it_listens() {
        let meta = structure(&[
            (node::NAMESPACE, text("shop")),
            (node::NETWORK, text("east")),
            (node::LABELS, nested(&[("app", "reviews")])),
            (node::TOMBOLO_HTTP_PROXY, text("127.1.1.1:15080")),
            (node::TOMBOLO_INBOUND, nested(&[("80", "127.1.1.1:10080,127.1.129.1:10080")])),
        ]);
        let proxy = Proxy::parse("sidecar~127.1.1.1~reviews-v1-0.shop~shop.svc.cluster.local", &meta).unwrap();
        assert_eq!(proxy.role, Role::Sidecar);
        assert_eq!(proxy.name, "reviews-v1-0");
        assert_eq!(proxy.namespace.as_str(), "shop");
        assert_eq!(proxy.labels["app"], "reviews");
        assert_eq!(proxy.inbound[&80].0, "127.1.1.1:10080".parse().unwrap());
        assert_eq!(proxy.cluster, None);
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let check = |id: &str, meta: &[(&str, Value)], part: &str| {
            assert_eq!(Proxy::parse(id, &structure(meta)).unwrap_err().part, part);
        };
        let good = "router~127.1.0.2~ingress.istio-system~istio-system.svc.cluster.local";
        check("router~127.1.0.2", &[], "id");
        check("waypoint~127.1.0.2~a.b~c", &[], "id");
        check("router~here~a.b~c", &[], "id");
        check(good, &[(node::CLUSTER_ID, text("a b"))], node::CLUSTER_ID);
        check(good, &[(node::TOMBOLO_INBOUND, nested(&[("80", "127.0.0.1:1")]))], node::TOMBOLO_INBOUND);
        check(good, &[(node::TOMBOLO_PORT_MAP, nested(&[("80", "x")]))], node::TOMBOLO_PORT_MAP);
    }

    #[test]
    fn low_ports_move_unless_they_are_mapped() {
        let meta = structure(&[
            (node::TOMBOLO_LOW_PORT_OFFSET, text("10000")),
            (node::TOMBOLO_PORT_MAP, nested(&[("443", "8443")])),
        ]);
        let proxy = Proxy::parse("router~127.1.0.2~ingress.istio-system~x", &meta).unwrap();
        assert_eq!([80, 443, 15443].map(|p| proxy.bound_port(p)), [10080, 8443, 15443]);
    }
}
