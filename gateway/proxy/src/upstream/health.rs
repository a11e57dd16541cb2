//! Active health checks: one task for each endpoint that is checked, for the whole process.
//!
//! Owns the tasks and their connections. What an answer means is decided in the pure crate, which also writes the
//! endpoint's marks; this tells the keeper that there is something to act upon. Never chooses endpoints.

mod connection;
mod session;

use super::keeper::Life;
use crate::tls::context::TlsStore;
use ahash::AHashMap;
use session::Session;
use std::{net::IpAddr, sync::Arc};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
};
use tombolo_gateway_core::{
    balance::{EndpointSet, Host, HostId},
    config::{Cluster, Config, Endpoint},
};

/// Results that may wait; a task that finds no room waits with its next check.
const RESULTS: usize = 1024;

/// What a check found, for the keeper.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The endpoint's cluster.
    pub(crate) cluster: Arc<str>,
    /// The endpoint.
    pub(crate) host: HostId,
    /// It answered well.
    pub(crate) good: bool,
    /// Its health changed.
    pub(crate) changed: bool,
    /// It was the endpoint's first check.
    pub(crate) first: bool,
}

/// What checks need beside the endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    /// TLS contexts.
    pub(crate) tls: Arc<TlsStore>,
    /// Local address unless the cluster says another.
    pub(crate) source: Option<IpAddr>,
    /// Where secrets are.
    pub(crate) configs: watch::Receiver<Arc<Config>>,
}

/// All checks of the process.
pub(crate) struct Checks {
    around: Around,
    tell: mpsc::Sender<Checked>,
    results: mpsc::Receiver<Checked>,
    tasks: JoinSet<()>,
    running: AHashMap<Arc<str>, AHashMap<HostId, Running>>,
}

struct Running {
    task: AbortHandle,
    nudge: Arc<Notify>,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    answered: bool,
}

impl Checks {
    /// None yet.
    pub(crate) fn new(around: Around) -> Self {
        let (tell, results) = mpsc::channel(RESULTS);
        Self { around, tell, results, tasks: JoinSet::new(), running: AHashMap::new() }
    }

    /// The next result.
    pub(crate) async fn next(&mut self) -> Option<Checked> {
        // Tasks end only when they are told to; what is left of them is forgotten here.
        while self.tasks.try_join_next().is_some() {}
        let checked = self.results.recv().await?;
        let running = self.running.get_mut(&checked.cluster).and_then(|hosts| hosts.get_mut(&checked.host));
        if let Some(running) = running {
            running.answered = true;
        }
        Some(checked)
    }

    /// Whether every endpoint that is checked has been, once, in clusters that want to be waited for.
    pub(crate) fn first_round_is_over(&self) -> bool {
        let waits = |running: &Running| !running.answered && running.cluster.wait_until_checked;
        !self.running.values().flat_map(|hosts| hosts.values()).any(waits)
    }

    /// Whether an endpoint of a cluster has not been checked yet.
    pub(crate) fn waits_for(&self, cluster: &str) -> bool {
        self.running.get(cluster).is_some_and(|hosts| hosts.values().any(|running| !running.answered))
    }

    /// Checks the endpoints of a cluster as it is now. True when what checks had found of one does not count any more.
    pub(crate) fn follow(&mut self, cluster: &Arc<Cluster>, set: &EndpointSet, life: &Arc<Life>) -> bool {
        let mut forgot = false;
        let mut before = self.running.remove(&cluster.name).unwrap_or_default();
        let mut now = AHashMap::new();
        for host in set.hosts() {
            if now.contains_key(&host.id()) {
                continue;
            }
            let old = before.remove(&host.id());
            if cluster.health_check.is_none() || host.endpoint.skip_health_check {
                if let Some(old) = old {
                    old.task.abort();
                    host.state.forget_checks();
                    forgot = true;
                }
                continue;
            }
            let running = match old {
                Some(old) if same_checks(&old.cluster, cluster) && same_target(&old.endpoint, &host.endpoint) => old,
                old => {
                    if let Some(old) = old {
                        old.task.abort();
                    }
                    self.start(cluster, host, life)
                }
            };
            now.insert(host.id(), running);
        }
        before.into_values().for_each(|gone| gone.task.abort());
        if !now.is_empty() {
            self.running.insert(cluster.name.clone(), now);
        }
        forgot
    }

    fn start(&mut self, cluster: &Arc<Cluster>, host: &Host, life: &Arc<Life>) -> Running {
        let nudge = Arc::new(Notify::new());
        let session = Session {
            around: self.around.clone(),
            cluster: cluster.clone(),
            endpoint: host.endpoint.clone(),
            state: host.state.clone(),
            life: life.clone(),
            nudge: nudge.clone(),
            tell: self.tell.clone(),
        };
        let task = self.tasks.spawn(session.run());
        Running { task, nudge, cluster: cluster.clone(), endpoint: host.endpoint.clone(), answered: false }
    }

    /// The cluster is gone.
    pub(crate) fn forget(&mut self, cluster: &str) {
        if let Some(gone) = self.running.remove(cluster) {
            gone.into_values().for_each(|gone| gone.task.abort());
        }
    }

    /// An endpoint said of itself, in a response, that it wants to be left alone.
    pub(crate) fn told_by_itself(&self, cluster: &str, host: HostId) {
        if let Some(running) = self.running.get(cluster).and_then(|hosts| hosts.get(&host)) {
            running.nudge.notify_one();
        }
    }
}

fn same_checks(a: &Arc<Cluster>, b: &Arc<Cluster>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.health_check == b.health_check
            && a.transport == b.transport
            && a.transport_matches == b.transport_matches
            && a.bind == b.bind
            && a.keepalive == b.keepalive)
}

fn same_target(a: &Arc<Endpoint>, b: &Arc<Endpoint>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.address == b.address
            && a.more_addresses == b.more_addresses
            && a.hostname == b.hostname
            && a.metadata == b.metadata
            && a.health_check_port == b.health_check_port
            && a.health_check_address == b.health_check_address
            && a.health_check_hostname == b.health_check_hostname)
}
