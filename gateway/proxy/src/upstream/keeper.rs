//! What all workers share about upstreams: endpoints with their health, who may be chosen, circuit breakers.
//!
//! Owns the only task that changes it. Workers read a [`Live`] through one pointer and send suspicions the other way.
//! Endpoints keep their state when a configuration changes around them.

use super::dns::{self, Answers};
use crate::clock;
use ahash::AHashMap;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};
use tombolo_gateway_core::{
    balance::{EndpointSet, HostId, Plan},
    breaker::Breakers,
    config::{Cluster, ClusterLoad, Config, Discovery, DnsSettings, Map, OutlierDetection, RoutePriority},
    outlier::{Cause, Detector},
    time::Millis,
};

/// Suspicions that may wait; more are dropped, the next failure raises another.
const SUSPECTS: usize = 1024;
/// A name that does not resolve is asked again after this, at the latest.
const DNS_RETRY: Duration = Duration::from_secs(5);

/// A configuration with the state of its upstreams.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Rises with each new one.
    pub(crate) sequence: u64,
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// By the cluster's name.
    pub(crate) upstreams: Map<Upstream>,
}

/// One cluster as workers see it.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// As configured.
    pub(crate) cluster: Arc<Cluster>,
    /// Who may be chosen.
    pub(crate) plan: Arc<Plan>,
    breakers: [Arc<Breakers>; 2],
}

impl Upstream {
    /// The breakers of a priority.
    pub(crate) fn breakers(&self, priority: RoutePriority) -> &Arc<Breakers> {
        match priority {
            RoutePriority::Default => &self.breakers[0],
            RoutePriority::High => &self.breakers[1],
        }
    }
}

/// An endpoint that reached a limit of outlier detection.
#[derive(Debug, Clone)]
pub(crate) struct Suspect {
    /// Its cluster.
    pub(crate) cluster: Arc<str>,
    /// Itself.
    pub(crate) host: HostId,
    /// Which limit.
    pub(crate) cause: Cause,
}

/// State of one cluster that outlives configurations.
struct Kept {
    cluster: Arc<Cluster>,
    /// As configured, names not resolved.
    load: Arc<ClusterLoad>,
    set: Arc<EndpointSet>,
    breakers: [Arc<Breakers>; 2],
    detector: Option<Detector>,
    dns: Option<(AbortHandle, Answers)>,
    upstream: Arc<Upstream>,
}

/// The task's own state.
pub(crate) struct Keeper {
    configs: watch::Receiver<Arc<Config>>,
    out: watch::Sender<Arc<Live>>,
    suspects: mpsc::Receiver<Suspect>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    lookups: JoinSet<()>,
    kept: AHashMap<Arc<str>, Kept>,
    live: Live,
}

struct Answer {
    cluster: Arc<str>,
    name: Arc<str>,
    addresses: Vec<std::net::IpAddr>,
}

impl Keeper {
    /// A keeper, the way to tell it of suspects, and what it publishes.
    pub(crate) fn new(
        configs: watch::Receiver<Arc<Config>>,
    ) -> (Self, mpsc::Sender<Suspect>, watch::Receiver<Arc<Live>>) {
        let (tell, suspects) = mpsc::channel(SUSPECTS);
        let (out, live) = watch::channel(Arc::new(Live::default()));
        let keeper = Self {
            configs,
            out,
            suspects,
            answers: mpsc::channel(64),
            lookups: JoinSet::new(),
            kept: AHashMap::new(),
            live: Live::default(),
        };
        (keeper, tell, live)
    }

    /// Runs until the configurations end.
    pub(crate) async fn run(mut self) {
        loop {
            let next = self.next_tick();
            let changed = tokio::select! {
                changed = self.configs.changed() => match changed {
                    Ok(()) => self.take_config(),
                    Err(_) => return,
                },
                Some(answer) = self.answers.1.recv() => self.take_answer(answer),
                Some(suspect) = self.suspects.recv() => self.take_suspect(&suspect),
                () = sleep_until(next.into()) => self.tick(),
                Some(_) = self.lookups.join_next() => false,
            };
            if changed {
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        self.live.sequence += 1;
        let live = Live {
            sequence: self.live.sequence,
            config: self.live.config.clone(),
            upstreams: self.live.upstreams.clone(),
        };
        self.out.send_replace(Arc::new(live));
    }

    fn next_tick(&self) -> Instant {
        let next = self.kept.values().filter_map(|k| k.detector.as_ref()).map(Detector::next_tick).min();
        let far = Instant::now() + Duration::from_secs(3600);
        next.map_or(far, |at| (clock::origin() + Duration::from_millis(at.0)).min(far))
    }

    fn take_config(&mut self) -> bool {
        let config = self.configs.borrow_and_update().clone();
        let now = clock::now();
        let gone: Vec<Arc<str>> = self.kept.keys().filter(|name| !config.clusters.contains(name)).cloned().collect();
        for name in gone {
            self.live.upstreams.remove(&name);
            if let Some(Kept { dns: Some((task, _)), .. }) = self.kept.remove(&name) {
                task.abort();
            }
        }
        for (name, cluster) in config.clusters.iter() {
            let load = config.loads.get(name);
            let same = self
                .kept
                .get(name)
                .is_some_and(|k| Arc::ptr_eq(&k.cluster, cluster) && load.is_none_or(|l| Arc::ptr_eq(&k.load, l)));
            if !same {
                let load = load.cloned().unwrap_or_else(|| empty(name));
                self.take_cluster(name, cluster, load, now);
            }
        }
        self.live.config = config;
        true
    }

    fn take_cluster(&mut self, name: &Arc<str>, cluster: &Arc<Cluster>, load: Arc<ClusterLoad>, now: Millis) {
        let mut before = self.kept.remove(name);
        let dns = match &cluster.discovery {
            Discovery::StrictDns(_, settings) | Discovery::LogicalDns(_, settings) => {
                let same = before.as_ref().is_some_and(|b| b.load == load && b.cluster.discovery == cluster.discovery);
                let old = before.as_mut().and_then(|b| b.dns.take());
                match old {
                    Some(old) if same => Some(old),
                    old => {
                        let answers = old.map(|(task, answers)| {
                            task.abort();
                            answers
                        });
                        let literal = literals(&load);
                        Some((
                            self.ask(name, &load, settings),
                            answers.unwrap_or_default().into_iter().chain(literal).collect(),
                        ))
                    }
                }
            }
            _ => None,
        };
        let resolved = resolved(cluster, &load, dns.as_ref().map(|(_, answers)| answers));
        let unchecked = false;
        let set = Arc::new(EndpointSet::new(&resolved, before.as_ref().map(|b| &*b.set), unchecked, now));
        let breakers = match &before {
            Some(before) => before.breakers.clone(),
            None => [Breakers::new(&cluster.breakers.default), Breakers::new(&cluster.breakers.high)],
        };
        breakers[0].configure(&cluster.breakers.default);
        breakers[1].configure(&cluster.breakers.high);
        let detector = detector(before.and_then(|b| b.detector), cluster.outlier.as_ref(), &set, now);
        let upstream = plan(cluster, &set, &breakers, now);
        self.live.upstreams.insert(name.clone(), upstream.clone());
        let kept = Kept { cluster: cluster.clone(), load, set, breakers, detector, dns, upstream };
        self.kept.insert(name.clone(), kept);
    }

    /// Asks for all names of a load, again and again.
    fn ask(&mut self, cluster: &Arc<str>, load: &ClusterLoad, settings: &DnsSettings) -> AbortHandle {
        let (cluster, names, settings, tell) =
            (cluster.clone(), dns::names(load), settings.clone(), self.answers.0.clone());
        self.lookups.spawn(async move {
            loop {
                let mut wait = settings.refresh.max(Duration::from_millis(100));
                for name in &names {
                    match dns::resolve(name, settings.family).await {
                        Ok(addresses) => {
                            let answer = Answer { cluster: cluster.clone(), name: name.clone(), addresses };
                            if tell.send(answer).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(%cluster, %name, %error, "name not resolved, keeping the last answer");
                            wait = wait.min(DNS_RETRY);
                        }
                    }
                }
                tokio::time::sleep(wait.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
            }
        })
    }

    fn take_answer(&mut self, answer: Answer) -> bool {
        let Some(kept) = self.kept.get_mut(&answer.cluster) else { return false };
        let Some((_, answers)) = &mut kept.dns else { return false };
        if answers.get(&answer.name) == Some(&answer.addresses) {
            return false;
        }
        answers.insert(answer.name, answer.addresses);
        let now = clock::now();
        let load = resolved(&kept.cluster, &kept.load, kept.dns.as_ref().map(|(_, answers)| answers));
        kept.set = Arc::new(EndpointSet::new(&load, Some(&kept.set), false, now));
        if let Some(detector) = &mut kept.detector {
            detector.hosts(kept.set.hosts().iter().map(|h| &h.state));
        }
        self.replan(&answer.cluster, now)
    }

    fn take_suspect(&mut self, suspect: &Suspect) -> bool {
        let now = clock::now();
        let Some(detector) = self.kept.get_mut(&suspect.cluster).and_then(|k| k.detector.as_mut()) else {
            return false;
        };
        if !detector.suspect(suspect.host, suspect.cause, now, rand::random()) {
            return false;
        }
        tracing::info!(cluster = %suspect.cluster, host = suspect.host.0, cause = ?suspect.cause, "endpoint ejected");
        self.replan(&suspect.cluster, now)
    }

    fn tick(&mut self) -> bool {
        let now = clock::now();
        let due = |kept: &mut Kept| {
            kept.detector.as_mut().is_some_and(|d| d.next_tick() <= now && d.tick(now, rand::random()))
        };
        let changed: Vec<Arc<str>> =
            self.kept.iter_mut().filter_map(|(name, kept)| due(kept).then(|| name.clone())).collect();
        for name in &changed {
            self.replan(name, now);
        }
        !changed.is_empty()
    }

    /// Health or endpoints changed: somebody else may be chosen now.
    fn replan(&mut self, name: &Arc<str>, now: Millis) -> bool {
        let Some(kept) = self.kept.get_mut(name) else { return false };
        kept.upstream = plan(&kept.cluster, &kept.set, &kept.breakers, now);
        self.live.upstreams.insert(name.clone(), kept.upstream.clone());
        true
    }
}

fn plan(cluster: &Arc<Cluster>, set: &Arc<EndpointSet>, breakers: &[Arc<Breakers>; 2], now: Millis) -> Arc<Upstream> {
    let plan = Arc::new(Plan::new(set, &cluster.lb, now));
    Arc::new(Upstream { cluster: cluster.clone(), plan, breakers: breakers.clone() })
}

fn detector(
    before: Option<Detector>,
    settings: Option<&Arc<OutlierDetection>>,
    set: &EndpointSet,
    now: Millis,
) -> Option<Detector> {
    let settings = settings?.clone();
    let mut detector = match before {
        Some(mut detector) => {
            detector.configure(settings);
            detector
        }
        None => Detector::new(settings, now),
    };
    detector.hosts(set.hosts().iter().map(|h| &h.state));
    Some(detector)
}

fn resolved(cluster: &Cluster, load: &Arc<ClusterLoad>, answers: Option<&Answers>) -> Arc<ClusterLoad> {
    let Some(answers) = answers else { return load.clone() };
    let logical = matches!(cluster.discovery, Discovery::LogicalDns(..));
    Arc::new(dns::apply(load, answers, logical))
}

/// Names that are addresses need no question and count at once.
fn literals(load: &ClusterLoad) -> Vec<(Arc<str>, Vec<std::net::IpAddr>)> {
    dns::names(load).into_iter().filter_map(|name| Some((name.clone(), vec![name.parse().ok()?]))).collect()
}

fn empty(name: &Arc<str>) -> Arc<ClusterLoad> {
    Arc::new(ClusterLoad {
        name: name.clone(),
        priorities: Box::default(),
        overprovisioning: 140,
        weighted_localities: false,
        drops: Box::default(),
    })
}

/// Everything that is kept about upstreams, for the admin interface: name, endpoints, breakers.
pub(crate) fn sorted(live: &Live) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    live.upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.clone())).collect()
}
