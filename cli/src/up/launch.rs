//! How each process of a site is started: its files, its flags, and how it shows that it is ready.
//!
//! Owns the layout of a site's folder. Writes files and returns child specifications; starts nothing.

use super::{
    manifests::ROOT_NAMESPACE,
    partner::Partner,
    plan::{self, LOW_PORT_OFFSET, SIDECAR_ADMIN_PORT, SIDECAR_PROXY_PORT, SitePlan, Slot, served},
    pods::PodSpec,
    process::{ChildSpec, GATEWAY, Probe},
    state::State,
    token::{self, Holder, Signer},
};
use crate::args::UpArgs;
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tombolo_controlplane_api::node;
use tombolo_controlplane_server::config::{self, Config};
use tombolo_federation_model::{ClusterId, Locality, NetworkId};

/// Settings of the run that processes need.
pub(crate) struct Launch<'a> {
    pub(crate) state: &'a State,
    pub(crate) options: &'a UpArgs,
}

/// A gateway or sidecar, before it has files.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) owner: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) ip: IpAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) kind: Kind,
}

/// What a proxy is for.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Ingress or east-west.
    Gateway,
    /// Beside a workload, without capture.
    Sidecar {
        http_proxy: SocketAddr,
        /// From the workload's port to where the sidecar and the application listen.
        inbound: BTreeMap<u16, (SocketAddr, SocketAddr)>,
    },
}

/// The two gateways of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayRole {
    Ingress,
    EastWest,
}

impl GatewayRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::EastWest => "east-west",
        }
    }

    fn app(self) -> &'static str {
        match self {
            Self::Ingress => "istio-ingressgateway",
            Self::EastWest => "istio-eastwestgateway",
        }
    }

    /// The labels by which Istio's manifests pick it.
    pub(crate) fn labels(self, site: &SitePlan) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("app".to_owned(), self.app().to_owned()),
            ("istio".to_owned(), self.app().trim_start_matches("istio-").to_owned()),
        ]);
        if self == Self::EastWest {
            labels.insert("topology.istio.io/network".to_owned(), site.name.to_string());
        }
        labels
    }

    pub(crate) fn proxy(self, site: &SitePlan) -> Proxy {
        let ip = match self {
            Self::Ingress => site.ingress(),
            Self::EastWest => site.east_west(),
        };
        Proxy {
            id: format!("{}/{}", site.name, self.as_str()).into(),
            name: format!("{}-0", self.app()),
            namespace: ROOT_NAMESPACE.to_owned(),
            service_account: self.app().to_owned(),
            owner: self.app().to_owned(),
            labels: self.labels(site),
            ip,
            admin: plan::gateway_admin(ip),
            kind: Kind::Gateway,
        }
    }
}

/// The sidecar of a pod; `None` when it wants none.
pub(crate) fn sidecar(site: &SitePlan, pod: &PodSpec, slot: Slot, id: Arc<str>) -> Option<Proxy> {
    let (ip, app) = (site.pod(slot), site.app(slot));
    let inbound = served(pod.ports.iter().map(|p| p.number))
        .into_iter()
        .map(|(port, at)| (port, (SocketAddr::new(ip, at), SocketAddr::new(app, at))))
        .collect();
    pod.sidecar.then(|| Proxy {
        id,
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
        owner: pod.owner.clone(),
        labels: pod.labels.clone(),
        ip,
        admin: SocketAddr::new(ip, SIDECAR_ADMIN_PORT),
        kind: Kind::Sidecar { http_proxy: SocketAddr::new(ip, SIDECAR_PROXY_PORT), inbound },
    })
}

/// Where a pod's application listens, by its own port numbers.
pub(crate) fn app_ports(site: &SitePlan, pod: &PodSpec, slot: Slot) -> BTreeMap<u16, SocketAddr> {
    // Without a sidecar the application has the pod's address to itself.
    let ip = if pod.sidecar { site.app(slot) } else { site.pod(slot) };
    served(pod.ports.iter().map(|p| p.number)).into_iter().map(|(p, at)| (p, SocketAddr::new(ip, at))).collect()
}

impl Launch<'_> {
    /// A site's control plane.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub(crate) fn control_plane(
        &self,
        site: &SitePlan,
        all: &[SitePlan],
        signer: &Signer,
        kind: config::SourceKind,
    ) -> anyhow::Result<ChildSpec> {
        let folder = self.state.site(site.name.as_str());
        let jwks = folder.join("jwks.json");
        write(&jwks, signer.jwks())?;
        let config = self.config(site, all, signer, jwks, kind)?;
        let file = folder.join("control-plane.yaml");
        write(&file, &config.to_yaml()?)?;
        Ok(ChildSpec {
            id: format!("{}/control-plane", site.name).into(),
            called: "tombolo-controlplane",
            args: flags([("--config", file.into_os_string()), ("--log", self.options.log.clone().into())]),
            log: self.state.log(&format!("{}.control-plane", site.name)),
            probe: Probe::Http(site.control_plane_admin(), "/healthz/ready"),
        })
    }

    fn config(
        &self,
        site: &SitePlan,
        all: &[SitePlan],
        signer: &Signer,
        jwks: PathBuf,
        kind: config::SourceKind,
    ) -> anyhow::Result<Config> {
        let folder = self.state.site(site.name.as_str());
        let source = |name: &str, kind, path| config::Source {
            name: name.to_owned(),
            kind,
            path,
            namespace: "default".to_owned(),
        };
        let peers = all.iter().filter(|other| other.name != site.name).map(|other| self.peer(other));
        Ok(Config {
            site: site.name.clone(),
            cluster: None,
            network: None,
            trust_domain: site.trust_domain.clone(),
            locality: Locality::parse(site.name.as_str()),
            domain_suffix: "cluster.local".to_owned(),
            listen: config::Listen {
                xds: site.xds(),
                xds_plaintext: Some(site.xds_plaintext()),
                peering: Some(site.peering()),
                admin: site.control_plane_admin(),
            },
            state: control_plane_state(self.state, site),
            ca: config::Authority::default(),
            tokens: Some(config::Tokens {
                jwks,
                audience: token::AUDIENCE.to_owned(),
                issuer: signer.issuer().to_owned(),
            }),
            sources: vec![
                source("manifests", kind, site.folder.clone()),
                source("runtime", config::SourceKind::KubernetesFolder, folder.join("runtime")),
            ],
            peers: peers.collect::<anyhow::Result<_>>()?,
            export: config::Export::All,
            lease: config::LeaseTimes::default(),
        })
    }

    fn peer(&self, other: &SitePlan) -> anyhow::Result<config::Peer> {
        let name = other.name.as_str();
        Ok(config::Peer {
            name: other.name.clone(),
            address: Some(other.peering().to_string()),
            identity: config::own_identity(&other.trust_domain),
            bundle: bundle(self.state, other),
            remit: config::Remit {
                clusters: BTreeSet::from([ClusterId::parse(name)?]),
                networks: BTreeSet::from([NetworkId::parse(name)?]),
                trust_domains: BTreeSet::from([other.trust_domain.clone()]),
            },
            relay: false,
        })
    }

    /// A gateway or sidecar. One that has nothing to listen for yet is as ready as it can be when its admin answers.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub(crate) fn proxy(
        &self,
        site: &SitePlan,
        proxy: &Proxy,
        signer: &Signer,
        listens: bool,
    ) -> anyhow::Result<ChildSpec> {
        let folder = self.proxy_folder(site, proxy);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        self.token(site, proxy, signer)?;
        let metadata = folder.join("metadata.json");
        write(&metadata, &serde_json::to_string_pretty(&metadata_of(site, proxy))?)?;
        let (node_kind, drain) = match proxy.kind {
            Kind::Gateway => ("router", "3"),
            Kind::Sidecar { .. } => ("sidecar", "1"),
        };
        let Proxy { name, namespace, ip, .. } = proxy;
        let args = flags([
            ("--xds", site.xds().to_string().into()),
            ("--xds-mode", self.options.xds_mode.as_str().into()),
            ("--xds-roots", bundle(self.state, site).into_os_string()),
            ("--xds-identity", config::own_identity(&site.trust_domain).to_string().into()),
            ("--node", format!("{node_kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local").into()),
            ("--cluster", format!("{}.{namespace}", proxy.owner).into()),
            ("--metadata-file", metadata.into_os_string()),
            ("--token-file", folder.join("token").into_os_string()),
            ("--admin", proxy.admin.to_string().into()),
            ("--state", folder.join("state").into_os_string()),
            ("--workers", "1".into()),
            ("--drain-seconds", drain.into()),
            ("--log", self.options.log.clone().into()),
            ("--source-address", ip.to_string().into()),
        ]);
        Ok(ChildSpec {
            id: proxy.id.clone(),
            called: GATEWAY,
            args,
            log: self.state.log(&proxy.id.replace('/', ".")),
            probe: Probe::Http(proxy.admin, if listens { "/ready" } else { "/server_info" }),
        })
    }

    /// Writes a proxy's token, replacing the one before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn token(&self, site: &SitePlan, proxy: &Proxy, signer: &Signer) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let holder = Holder { namespace: &proxy.namespace, service_account: &proxy.service_account, pod: &proxy.name };
        // A minute of grace for clocks that were set back.
        let token = signer.sign(holder, now.saturating_sub(60))?;
        let folder = self.proxy_folder(site, proxy);
        let (scratch, target) = (folder.join("token.new"), folder.join("token"));
        write_secret(&scratch, &token)?;
        fs::rename(&scratch, &target).with_context(|| format!("cannot write {}", target.display()))
    }

    fn proxy_folder(&self, site: &SitePlan, proxy: &Proxy) -> PathBuf {
        self.state.site(site.name.as_str()).join("proxies").join(format!("{}.{}", proxy.namespace, proxy.name))
    }

    /// The stand-in for a pod's containers.
    pub(crate) fn workload(&self, site: &SitePlan, pod: &PodSpec, slot: Slot, id: Arc<str>) -> ChildSpec {
        let at: Vec<SocketAddr> = app_ports(site, pod, slot).into_values().collect();
        // A workload that serves nothing still runs, and calls; it listens where nobody looks.
        let listen = if at.is_empty() { vec![SocketAddr::new(site.app(slot), 15999)] } else { at };
        let mut args = vec![OsString::from("workload")];
        args.extend(flags([
            ("--name", pod.name.clone().into()),
            ("--namespace", pod.namespace.clone().into()),
            ("--site", site.name.to_string().into()),
            ("--service-account", pod.service_account.clone().into()),
            ("--drain-seconds", "1".into()),
        ]));
        args.extend(pod.labels.iter().flat_map(|(k, v)| flags([("--label", format!("{k}={v}").into())])));
        args.extend(listen.iter().flat_map(|a| flags([("--listen", a.to_string().into())])));
        if pod.sidecar {
            let proxy = SocketAddr::new(site.pod(slot), SIDECAR_PROXY_PORT);
            args.extend(flags([("--http-proxy", proxy.to_string().into())]));
        }
        let log = self.state.log(&id.replace('/', "."));
        ChildSpec { id, called: "tombolo", args, log, probe: Probe::Accepts(listen) }
    }

    /// A server outside of the mesh.
    pub(crate) fn outside(&self, name: &str, partner: &Partner) -> ChildSpec {
        let mut args = vec![OsString::from("workload")];
        args.extend(flags([("--name", name.into()), ("--namespace", "".into()), ("--site", "outside".into())]));
        args.extend(partner.plain.iter().flat_map(|a| flags([("--listen", a.to_string().into())])));
        let [chain, key] = partner.certificate();
        args.extend(flags([
            ("--tls-listen", partner.secure.to_string().into()),
            ("--tls-certificate", chain.into()),
            ("--tls-key", key.into()),
        ]));
        ChildSpec {
            id: format!("outside/{name}").into(),
            called: "tombolo",
            args,
            log: self.state.log(&format!("outside.{name}")),
            probe: Probe::Accepts(partner.addresses().to_vec()),
        }
    }
}

fn control_plane_state(state: &State, site: &SitePlan) -> PathBuf {
    state.site(site.name.as_str()).join("control-plane")
}

/// The roots of a site's trust domain, as its control plane writes them.
fn bundle(state: &State, site: &SitePlan) -> PathBuf {
    control_plane_state(state, site).join("bundle.pem")
}

fn metadata_of(site: &SitePlan, proxy: &Proxy) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put(node::NAME, json!(proxy.name));
    put(node::NAMESPACE, json!(proxy.namespace));
    put(node::LABELS, json!(proxy.labels));
    put(node::CLUSTER_ID, json!(site.name.as_str()));
    put(node::NETWORK, json!(site.name.as_str()));
    put(node::SERVICE_ACCOUNT, json!(proxy.service_account));
    put(node::WORKLOAD_NAME, json!(proxy.owner));
    put(node::ISTIO_VERSION, json!("1.30.0"));
    put(node::INTERCEPTION_MODE, json!("NONE"));
    put(node::INSTANCE_IPS, json!(proxy.ip.to_string()));
    put(node::TOMBOLO_ADMIN, json!(proxy.admin.to_string()));
    match &proxy.kind {
        Kind::Gateway => {
            put(node::TOMBOLO_BIND, json!(proxy.ip.to_string()));
            put(node::TOMBOLO_LOW_PORT_OFFSET, json!(LOW_PORT_OFFSET.to_string()));
        }
        Kind::Sidecar { http_proxy, inbound } => {
            put(node::TOMBOLO_HTTP_PROXY, json!(http_proxy.to_string()));
            let inbound: Map<String, Value> =
                inbound.iter().map(|(port, (bind, app))| (port.to_string(), json!(format!("{bind},{app}")))).collect();
            put(node::TOMBOLO_INBOUND, Value::Object(inbound));
        }
    }
    Value::Object(map)
}

fn flags<const N: usize>(pairs: [(&str, OsString); N]) -> Vec<OsString> {
    // One word each, so that no value can look like a flag.
    pairs
        .into_iter()
        .map(|(name, value)| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            word
        })
        .collect()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Readable by this user only, from the first byte on.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let open = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let mut file = open.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::pods::{PortSpec, Registration};

    fn pod() -> PodSpec {
        PodSpec {
            name: "web-0".into(),
            namespace: "shop".into(),
            owner: "web".into(),
            registration: Registration::Pod,
            labels: BTreeMap::from([("app".into(), "web".into())]),
            service_account: "web".into(),
            ports: vec![PortSpec { number: 80, name: String::new() }],
            locality: None,
            sidecar: true,
        }
    }

    fn site() -> SitePlan {
        plan::sites(&[("east".into(), "m".into())], 0).unwrap().remove(0)
    }

    #[test]
    fn a_sidecar_knows_where_to_listen_and_where_the_application_is() {
        let slot = plan::Slots::default().take().unwrap();
        let sidecar = sidecar(&site(), &pod(), slot, "east/web-0".into()).unwrap();
        let metadata = metadata_of(&site(), &sidecar);
        assert_eq!(metadata["TOMBOLO_INBOUND"]["80"], "127.1.1.1:10080,127.1.129.1:10080");
        assert_eq!(metadata["TOMBOLO_HTTP_PROXY"], "127.1.1.1:15080");
        assert_eq!(metadata["TOMBOLO_ADMIN"], "127.1.1.1:15020");
        assert_eq!(metadata["SERVICE_ACCOUNT"], "web");
        assert!(metadata.get("TOMBOLO_BIND").is_none());
    }

    #[test]
    fn without_a_sidecar_the_application_has_the_pods_address() {
        let slot = plan::Slots::default().take().unwrap();
        let bare = PodSpec { sidecar: false, ..pod() };
        assert!(super::sidecar(&site(), &bare, slot, "x".into()).is_none());
        assert_eq!(app_ports(&site(), &bare, slot)[&80].to_string(), "127.1.1.1:10080");
    }

    #[test]
    fn gateways_carry_the_labels_that_manifests_select() {
        let ingress = GatewayRole::Ingress.proxy(&site());
        assert_eq!(ingress.labels["istio"], "ingressgateway");
        let east_west = GatewayRole::EastWest.proxy(&site());
        assert_eq!(east_west.labels["istio"], "eastwestgateway");
        let metadata = metadata_of(&site(), &east_west);
        assert_eq!(metadata["TOMBOLO_BIND"], "127.1.0.3");
        assert_eq!(metadata["TOMBOLO_LOW_PORT_OFFSET"], "10000");
    }
}
