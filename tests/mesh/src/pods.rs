//! What a cluster's machinery does for a site: pods with addresses for what manifests want to run, and what these pods'
//! sidecars say about themselves.
//!
//! Owns the address plan. Every site numbers its pods alike, so that the same address means another pod in another site:
//! whatever crosses by mistake shows.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tombolo_controlplane_api::{
    node,
    xds::google::protobuf::{Struct, Value, value::Kind},
};
use tombolo_controlplane_core::Proxy;
use tombolo_controlplane_dialect::{RunKind, RunSpec};

/// Where an east-west gateway takes mutual TLS.
pub const EAST_WEST_PORT: u16 = 15443;
/// Where a sidecar takes its workload's requests.
pub const PROXY_PORT: u16 = 15080;
/// What is added to ports that need privileges.
const LOW_PORT_OFFSET: u16 = 10_000;
/// Namespace of gateways.
const ROOT_NAMESPACE: &str = "istio-system";

/// A running thing with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Unique in its site.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels from the manifest.
    pub labels: BTreeMap<String, String>,
    /// Account.
    pub service_account: String,
    /// Name (may be empty) and number.
    pub ports: Vec<(String, u16)>,
    /// By which others know it.
    pub ip: Ipv4Addr,
    /// Where its application listens when it has a sidecar.
    pub app: Ipv4Addr,
    /// Whether it has one.
    pub sidecar: bool,
    /// Takes requests.
    pub ready: bool,
    /// A machine without Kubernetes.
    pub machine: bool,
}

/// Where a port is really served.
pub(crate) fn served(port: u16) -> u16 {
    if port < 1024 { port + LOW_PORT_OFFSET } else { port }
}

/// The pods that a run asks for, without addresses.
pub(crate) fn of_run(run: &RunSpec) -> Vec<Pod> {
    let name = |number: u32| match run.kind {
        RunKind::Pod => run.name.clone(),
        _ => format!("{}-{number}", run.name),
    };
    let pod = |number| Pod {
        name: name(number),
        namespace: run.namespace.to_string(),
        labels: run.labels.clone(),
        service_account: Some(run.service_account.clone()).filter(|a| !a.is_empty()).unwrap_or("default".to_owned()),
        ports: run.ports.iter().map(|port| (port.name.clone(), port.number)).collect(),
        ip: Ipv4Addr::UNSPECIFIED,
        app: Ipv4Addr::UNSPECIFIED,
        sidecar: run.sidecar,
        ready: true,
        machine: run.kind == RunKind::WorkloadGroup,
    };
    (0..run.replicas).map(pod).collect()
}

impl Pod {
    /// Gives it the n-th addresses of its site.
    #[must_use]
    pub(crate) fn at(mut self, number: u8) -> Self {
        self.ip = Ipv4Addr::new(10, 1, 0, number);
        self.app = Ipv4Addr::new(10, 2, 0, number);
        self
    }

    /// Where others reach one of its ports.
    #[must_use]
    pub fn address(&self, port: u16) -> SocketAddr {
        (self.ip, served(port)).into()
    }

    /// Where its sidecar takes its requests.
    #[must_use]
    pub fn http_proxy(&self) -> SocketAddr {
        (self.ip, PROXY_PORT).into()
    }

    /// Where its application serves, with the port that its manifest names.
    pub(crate) fn applications(&self) -> impl Iterator<Item = (SocketAddr, u16)> {
        let ip = if self.sidecar { self.app } else { self.ip };
        self.ports.iter().map(move |(_, port)| ((ip, served(*port)).into(), *port))
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if self.sidecar {
            labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        }
        labels
    }

    /// As the cluster's machinery reports it.
    pub(crate) fn manifest(&self) -> String {
        if self.machine { self.entry() } else { self.pod() }
    }

    fn pod(&self) -> String {
        let Self { name, namespace, service_account, ip, .. } = self;
        let moved: Vec<String> = self
            .ports
            .iter()
            .filter(|(_, port)| served(*port) != *port)
            .map(|(_, port)| format!("{port}={}", served(*port)))
            .collect();
        let ports: Vec<String> = self
            .ports
            .iter()
            .map(|(name, port)| match name.as_str() {
                "" => format!("{{containerPort: {port}}}"),
                name => format!("{{name: {name:?}, containerPort: {port}}}"),
            })
            .collect();
        let mut text = String::new();
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {}\n",
            flow(&self.all_labels())
        );
        if !moved.is_empty() {
            let _ = writeln!(text, "  annotations: {{\"tombolo.io/served-ports\": {:?}}}", moved.join(","));
        }
        let _ = write!(
            text,
            "spec:\n  serviceAccountName: {service_account}\n  containers:\n  - name: app\n    image: stand-in\n    ports: \
             [{}]\nstatus:\n  phase: Running\n  podIP: {ip}\n  conditions: [{{type: Ready, status: \"{}\"}}]\n",
            ports.join(", "),
            if self.ready { "True" } else { "False" }
        );
        text
    }

    fn entry(&self) -> String {
        let Self { name, namespace, service_account, ip, .. } = self;
        let labels = flow(&self.all_labels());
        let ports: BTreeMap<String, String> = self
            .ports
            .iter()
            .map(|(name, port)| {
                let name = if name.is_empty() { format!("port-{port}") } else { name.clone() };
                (name, served(*port).to_string())
            })
            .collect();
        let ports: Vec<String> = ports.iter().map(|(name, port)| format!("{name:?}: {port}")).collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: {namespace}, labels: \
             {labels}}}\nspec: {{address: {ip}, labels: {labels}, serviceAccount: {service_account}, ports: {{{}}}}}\n",
            ports.join(", ")
        )
    }

    /// What its sidecar says about itself.
    pub(crate) fn proxy(&self, site: &str) -> Proxy {
        let inbound = self.ports.iter().map(|(_, port)| {
            let at = served(*port);
            (port.to_string(), text(&format!("{}:{at},{}:{at}", self.ip, self.app)))
        });
        let more = vec![
            (node::TOMBOLO_HTTP_PROXY, text(&self.http_proxy().to_string())),
            (node::TOMBOLO_INBOUND, structure(inbound)),
        ];
        introduce("sidecar", site, self.ip, &self.name, &self.namespace, &self.service_account, &self.labels, more)
    }
}

/// A gateway of a site.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    /// `ingress` or `east-west`.
    pub(crate) role: &'static str,
    pub(crate) ip: Ipv4Addr,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Gateway {
    pub(crate) fn ingress(number: u8) -> Self {
        Self::new("ingress", "istio-ingressgateway", Ipv4Addr::new(192, 0, 2, number * 2 + 1))
    }

    pub(crate) fn east_west(number: u8, site: &str) -> Self {
        let mut gateway = Self::new("east-west", "istio-eastwestgateway", Ipv4Addr::new(192, 0, 2, number * 2 + 2));
        gateway.labels.insert("topology.istio.io/network".to_owned(), site.to_owned());
        gateway
    }

    fn new(role: &'static str, app: &str, ip: Ipv4Addr) -> Self {
        let istio = app.trim_start_matches("istio-");
        let labels = [("app", app), ("istio", istio)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Self { role, ip, labels }
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        (self.ip, served(port)).into()
    }

    pub(crate) fn service_account(&self) -> &str {
        &self.labels["app"]
    }

    pub(crate) fn proxy(&self, site: &str) -> Proxy {
        let more = vec![
            (node::TOMBOLO_BIND, text(&self.ip.to_string())),
            (node::TOMBOLO_LOW_PORT_OFFSET, text(&LOW_PORT_OFFSET.to_string())),
        ];
        let account = self.service_account();
        introduce("router", site, self.ip, &format!("{account}-0"), ROOT_NAMESPACE, account, &self.labels, more)
    }

    /// What makes the east-west gateway known to other networks, and the listener that it is to have.
    pub(crate) fn manifest(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: istio-eastwestgateway\n  namespace: {ROOT_NAMESPACE}\n  labels: \
             {}\nspec:\n  type: LoadBalancer\n  selector: {{istio: eastwestgateway}}\n  ports: [{{name: tls, port: \
             {EAST_WEST_PORT}}}]\nstatus: {{loadBalancer: {{ingress: [{{ip: {}}}]}}}}\n---\napiVersion: \
             networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: cross-network-gateway, namespace: \
             {ROOT_NAMESPACE}}}\nspec:\n  selector: {{istio: eastwestgateway}}\n  servers:\n  \
             - port: {{number: {EAST_WEST_PORT}, name: tls, protocol: TLS}}\n    tls: {{mode: AUTO_PASSTHROUGH}}\n    hosts: \
             [\"*\"]\n",
            flow(&self.labels),
            self.ip
        )
    }
}

fn flow(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key:?}: {value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn structure(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value { kind: Some(Kind::StructValue(Struct { fields: fields.into_iter().collect() })) }
}

#[expect(clippy::too_many_arguments, reason = "what a proxy says about itself, in one place")]
fn introduce(
    kind: &str,
    site: &str,
    ip: Ipv4Addr,
    name: &str,
    namespace: &str,
    account: &str,
    labels: &BTreeMap<String, String>,
    more: Vec<(&str, Value)>,
) -> Proxy {
    let id = format!("{kind}~{}~{name}.{namespace}~{namespace}.svc.cluster.local", IpAddr::from(ip));
    let labels = structure(labels.iter().map(|(key, value)| (key.clone(), text(value))));
    let mut fields = vec![
        (node::NAME, text(name)),
        (node::NAMESPACE, text(namespace)),
        (node::LABELS, labels),
        (node::CLUSTER_ID, text(site)),
        (node::NETWORK, text(site)),
        (node::SERVICE_ACCOUNT, text(account)),
        (node::INTERCEPTION_MODE, text("NONE")),
    ];
    fields.extend(more);
    let metadata = Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() };
    Proxy::parse(&id, &metadata).unwrap_or_else(|refused| panic!("{id}: {refused}"))
}
