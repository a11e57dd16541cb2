//! One site as `up` plays it: the kubelet that runs its pods and the load balancer that gives its gateways addresses.
//!
//! Owns which pods run, and says to the control plane what became of them by rewriting their manifests at once. Never
//! talks to a control plane: manifests are the only channel, as in a cluster.

use super::{
    folder::{Folder, Look},
    launch::{self, GatewayRole, Kind, Launch, Proxy},
    manifests::Runtime,
    plan::{EAST_WEST_PORT, SitePlan, Slot, Slots, gateway_port},
    pods::{self, PodKey, PodSpec},
    process::{Children, Happened},
    published,
    state::State,
    token::Signer,
};
use crate::args::UpArgs;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tombolo_controlplane_core::intent::Intent;
use tombolo_controlplane_server::config::SourceKind;

/// Between taking a pod out of service and ending it: others need a moment to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// What is known of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub(crate) id: Arc<str>,
    pub(crate) pid: u32,
    pub(crate) ready: bool,
    /// How it ended last.
    pub(crate) last: String,
    /// How often it ended since it was ready.
    pub(crate) deaths: u32,
}

impl Health {
    fn new(id: Arc<str>) -> Self {
        Self { id, ..Self::default() }
    }

    /// Takes note; true when readiness changed.
    pub(crate) fn note(&mut self, happened: &Happened) -> bool {
        let before = self.ready;
        match happened {
            Happened::Started { pid } => (self.pid, self.ready) = (*pid, false),
            Happened::Ready => (self.ready, self.deaths) = (true, 0),
            Happened::Died { how, .. } => {
                (self.pid, self.ready) = (0, false);
                self.last.clone_from(how);
                self.deaths += 1;
            }
        }
        before != self.ready
    }
}

/// One pod and its processes.
#[derive(Debug)]
struct Pod {
    spec: PodSpec,
    slot: Slot,
    app: Health,
    /// With what its sidecar is started; `None` when it wants none.
    sidecar: Option<(Proxy, Health)>,
}

impl Pod {
    fn ready(&self) -> bool {
        self.app.ready && self.sidecar.as_ref().is_none_or(|(_, health)| health.ready)
    }

    fn ids(&self) -> Vec<Arc<str>> {
        let sidecar = self.sidecar.iter().map(|(_, health)| health.id.clone());
        std::iter::once(self.app.id.clone()).chain(sidecar).collect()
    }
}

/// One site.
pub(crate) struct Site {
    pub(crate) plan: SitePlan,
    folder: Folder,
    runtime: Runtime,
    signer: Signer,
    slots: Slots,
    pods: BTreeMap<PodKey, Pod>,
    control_plane: Health,
    ingress: Health,
    east_west: Health,
    /// False until the control plane is there for the pods.
    running: bool,
    /// Counts pods, so that the processes of a pod and of its successor differ.
    started: u64,
}

impl Site {
    /// Reads the site's manifests and prepares its folder.
    ///
    /// # Errors
    /// When the manifests cannot be read or the folder not written.
    pub(crate) fn open(plan: SitePlan, state: &State) -> anyhow::Result<Self> {
        let context = super::folder::context(plan.name.as_str(), &plan.trust_domain)?;
        let folder = Folder::open(&plan.folder, context)?;
        let runtime = Runtime::create(&state.site(plan.name.as_str()))?;
        runtime.east_west(&plan)?;
        Ok(Self {
            signer: Signer::generate(plan.name.as_str())?,
            folder,
            runtime,
            slots: Slots::default(),
            pods: BTreeMap::new(),
            control_plane: Health::new(format!("{}/control-plane", plan.name).into()),
            ingress: Health::new(GatewayRole::Ingress.proxy(&plan).id),
            east_west: Health::new(GatewayRole::EastWest.proxy(&plan).id),
            running: false,
            started: 0,
            plan,
        })
    }

    /// Starts the control plane.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub(crate) fn start_control_plane(
        &mut self,
        launch: &Launch<'_>,
        all: &[SitePlan],
        children: &mut Children,
    ) -> anyhow::Result<()> {
        children.start(launch.control_plane(&self.plan, all, &self.signer, self.kind())?);
        Ok(())
    }

    /// A folder that only registers machines is not a cluster's.
    fn kind(&self) -> SourceKind {
        let runs = self.folder.reading().runs();
        let machines =
            |r: &tombolo_controlplane_dialect::RunSpec| r.kind == tombolo_controlplane_dialect::RunKind::WorkloadGroup;
        if !runs.is_empty() && runs.iter().all(machines) { SourceKind::Files } else { SourceKind::KubernetesFolder }
    }

    /// Starts both gateways and every pod.
    ///
    /// # Errors
    /// When files cannot be written.
    pub(crate) fn start_rest(&mut self, launch: &Launch<'_>, children: &mut Children) -> anyhow::Result<()> {
        for role in [GatewayRole::EastWest, GatewayRole::Ingress] {
            let listens = !self.ports(role).is_empty();
            children.start(launch.proxy(&self.plan, &role.proxy(&self.plan), &self.signer, listens)?);
        }
        self.running = true;
        self.reconcile(launch, children)
    }

    /// Makes the pods those that the manifests ask for, once the site runs.
    ///
    /// # Errors
    /// When files cannot be written.
    pub(crate) fn reconcile(&mut self, launch: &Launch<'_>, children: &mut Children) -> anyhow::Result<()> {
        if !self.running {
            return Ok(());
        }
        let wanted = pods::pods(&self.folder.reading().runs(), launch.options.max_replicas);
        let gone: Vec<PodKey> =
            self.pods.iter().filter(|(key, pod)| wanted.get(*key) != Some(&pod.spec)).map(|(k, _)| k.clone()).collect();
        for key in gone {
            if let Some(pod) = self.pods.remove(&key) {
                self.runtime.remove(&pod.spec);
                self.slots.give_back(pod.slot);
                children.retire(&pod.ids(), FAREWELL);
            }
        }
        for (key, spec) in wanted {
            if !self.pods.contains_key(&key) {
                let pod = self.start_pod(spec, launch, children)?;
                self.pods.insert(key, pod);
            }
        }
        Ok(())
    }

    fn start_pod(&mut self, spec: PodSpec, launch: &Launch<'_>, children: &mut Children) -> anyhow::Result<Pod> {
        let Some(slot) = self.slots.take() else {
            anyhow::bail!("site {} has no address left for pod {}", self.plan.name, spec.name);
        };
        self.started += 1;
        let base = format!("{}/{}/{}", self.plan.name, spec.namespace, spec.name);
        let id = |what: &str| -> Arc<str> { format!("{base}/{what}-{}", self.started).into() };
        let sidecar = launch::sidecar(&self.plan, &spec, slot, id("sidecar"));
        self.runtime.pod(&self.plan, &spec, slot, false)?;
        let app = Health::new(id("app"));
        children.start(launch.workload(&self.plan, &spec, slot, app.id.clone()));
        if let Some(proxy) = &sidecar {
            children.start(launch.proxy(&self.plan, proxy, &self.signer, true)?);
        }
        let sidecar = sidecar.map(|proxy| {
            let health = Health::new(proxy.id.clone());
            (proxy, health)
        });
        Ok(Pod { spec, slot, app, sidecar })
    }

    /// Takes note of what became of one of the site's processes; `None` when it is not its own.
    ///
    /// # Errors
    /// When a manifest cannot be written.
    pub(crate) fn note(&mut self, id: &str, happened: &Happened) -> anyhow::Result<Option<()>> {
        for daemon in [&mut self.control_plane, &mut self.ingress, &mut self.east_west] {
            if &*daemon.id == id {
                daemon.note(happened);
                return Ok(Some(()));
            }
        }
        for pod in self.pods.values_mut() {
            let health = match &mut pod.sidecar {
                _ if &*pod.app.id == id => &mut pod.app,
                Some((_, health)) if &*health.id == id => health,
                Some(_) | None => continue,
            };
            if health.note(happened) {
                self.runtime.pod(&self.plan, &pod.spec, pod.slot, pod.ready())?;
            }
            return Ok(Some(()));
        }
        Ok(None)
    }

    /// Looks at the manifests again.
    pub(crate) fn refresh(&mut self) -> Look {
        self.folder.refresh()
    }

    /// Writes every proxy's token anew.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn renew_tokens(&self, launch: &Launch<'_>) -> anyhow::Result<()> {
        let gateways = [GatewayRole::Ingress, GatewayRole::EastWest].map(|role| role.proxy(&self.plan));
        let sidecars = self.pods.values().filter_map(|pod| pod.sidecar.as_ref().map(|(proxy, _)| proxy));
        for proxy in gateways.iter().chain(sidecars) {
            launch.token(&self.plan, proxy, &self.signer)?;
        }
        Ok(())
    }

    /// Processes that are not ready, with how they ended last.
    pub(crate) fn waiting(&self) -> Vec<&Health> {
        let pods = self.pods.values().flat_map(|p| std::iter::once(&p.app).chain(p.sidecar.iter().map(|(_, h)| h)));
        [&self.control_plane, &self.ingress, &self.east_west].into_iter().chain(pods).filter(|h| !h.ready).collect()
    }

    pub(crate) fn control_plane_ready(&self) -> bool {
        self.control_plane.ready
    }

    /// How many proxies the control plane serves when all are there.
    pub(crate) fn proxies(&self) -> usize {
        2 + self.pods.values().filter(|p| p.sidecar.is_some()).count()
    }

    /// What `up.json` says about the site.
    pub(crate) fn publish(&self, state: &State) -> published::Site {
        let plan = &self.plan;
        let log = |id: &str| state.log(&id.replace('/', "."));
        let gateway = |role: GatewayRole, health: &Health| {
            let proxy = role.proxy(plan);
            published::Gateway { admin: proxy.admin, ports: self.ports(role), pid: health.pid, log: log(&health.id) }
        };
        published::Site {
            name: plan.name.to_string(),
            network: plan.name.to_string(),
            trust_domain: plan.trust_domain.to_string(),
            folder: plan.folder.clone(),
            runtime: self.runtime.folder().to_owned(),
            control_plane: published::ControlPlane {
                xds: plan.xds_plaintext(),
                xds_tls: plan.xds(),
                admin: plan.control_plane_admin(),
                pid: self.control_plane.pid,
                log: log(&self.control_plane.id),
            },
            ingress: gateway(GatewayRole::Ingress, &self.ingress),
            east_west: gateway(GatewayRole::EastWest, &self.east_west),
            workloads: self.pods.values().map(|pod| self.publish_pod(pod, &log)).collect(),
        }
    }

    fn publish_pod(&self, pod: &Pod, log: &impl Fn(&str) -> std::path::PathBuf) -> published::Workload {
        let sidecar = pod.sidecar.as_ref().and_then(|(proxy, _)| match &proxy.kind {
            Kind::Gateway => None,
            Kind::Sidecar { http_proxy, inbound } => Some(published::Sidecar {
                admin: proxy.admin,
                http_proxy: *http_proxy,
                inbound_ports: inbound.iter().map(|(port, (bind, _))| (*port, *bind)).collect(),
                log: log(&proxy.id),
            }),
        });
        published::Workload {
            name: pod.spec.name.clone(),
            namespace: pod.spec.namespace.clone(),
            service_account: pod.spec.service_account.clone(),
            labels: pod.spec.labels.clone(),
            app_ports: launch::app_ports(&self.plan, &pod.spec, pod.slot),
            sidecar,
            ready: pod.ready(),
            pid: pod.app.pid,
            sidecar_pid: pod.sidecar.as_ref().map_or(0, |(_, health)| health.pid),
            log: log(&pod.app.id),
        }
    }

    /// Ports of the listeners that manifests put on a gateway, and where they are served.
    fn ports(&self, role: GatewayRole) -> BTreeMap<u16, SocketAddr> {
        let ip = role.proxy(&self.plan).ip;
        let labels = role.labels(&self.plan);
        let mut ports = BTreeMap::new();
        if role == GatewayRole::EastWest {
            ports.insert(EAST_WEST_PORT, SocketAddr::new(ip, EAST_WEST_PORT));
        }
        for intent in self.folder.reading().intents() {
            let Intent::Gateway(gateway) = &**intent else { continue };
            if gateway.selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                let served = gateway.servers.iter().map(|s| (s.port, SocketAddr::new(ip, gateway_port(s.port))));
                ports.extend(served);
            }
        }
        ports
    }
}

/// Options that a site's processes are started with.
pub(crate) fn launch<'a>(state: &'a State, options: &'a UpArgs) -> Launch<'a> {
    Launch { state, options }
}
