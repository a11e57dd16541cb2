//! What all workers share about upstreams: endpoints with their health, who may be chosen, circuit breakers.
//!
//! Owns the only task that changes it. Workers read a [`Live`] through one pointer and send suspicions the other way.
//! Endpoints keep their state when a configuration changes around them.

mod kept;
mod shown;

use super::{
    dns,
    health::{Around, Checked, Checks},
};
use crate::clock;
use ahash::{AHashMap, AHashSet};
use kept::{Kept, Sources};
pub(crate) use shown::{Life, Upstream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};
use tombolo_federation_model::Locality;
use tombolo_gateway_core::{
    balance::{Fleet, HostId, Plan},
    config::{Cluster, ClusterLoad, Config, Discovery, DnsSettings, HealthCheck, Map},
    outlier::{Cause, Detector},
    time::Millis,
};

/// Suspicions that may wait; more are dropped, the next failure raises another.
const SUSPECTS: usize = 1024;
/// The first round of health checks is waited for so long at most, as for anything else that a start waits for.
const FIRST_ROUND: Duration = Duration::from_secs(15);
/// At the start names are waited for so long: a name server that says nothing must not keep a gateway from serving the rest.
const FIRST_NAMES: Duration = Duration::from_secs(5);

/// A configuration with the state of its upstreams.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Rises with each new one.
    pub(crate) sequence: u64,
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// By the cluster's name.
    pub(crate) upstreams: Map<Upstream>,
    /// There are listeners, but the endpoints behind them have not been looked at yet: nothing serves.
    pub(crate) held: bool,
}

/// An endpoint that a worker has something to say about.
#[derive(Debug, Clone)]
pub(crate) struct Suspect {
    /// Its cluster.
    pub(crate) cluster: Arc<str>,
    /// Itself.
    pub(crate) host: HostId,
    /// What.
    pub(crate) blame: Blame,
}

/// What is said about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It reached a limit of outlier detection.
    Outlier(Cause),
    /// It said of itself that it wants to be left alone.
    Itself,
}

/// What the keeper is given beside configurations.
pub(crate) struct Setup {
    /// For health checks.
    pub(crate) around: Around,
    /// The cluster that this gateway is one of, and where it is.
    pub(crate) local: Option<(Arc<str>, Locality)>,
}

/// The task's own state.
pub(crate) struct Keeper {
    configs: watch::Receiver<Arc<Config>>,
    out: watch::Sender<Arc<Live>>,
    suspects: mpsc::Receiver<Suspect>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    lookups: JoinSet<()>,
    checks: Checks,
    kept: AHashMap<Arc<str>, Kept>,
    /// Of those the ones that follow others, and the ones whose outliers are looked for: most are neither.
    aggregates: BTreeSet<Arc<str>>,
    detecting: BTreeSet<Arc<str>>,
    local: Option<(Arc<str>, Locality)>,
    fleet: Option<Fleet>,
    live: Live,
    /// New versions whose endpoints were not all looked at yet, and since when. The versions before go on serving.
    warming: AHashMap<Arc<str>, Instant>,
    /// Nothing with listeners was published yet: since when there is something.
    first: First,
}

/// How far the start is.
enum First {
    Nothing,
    Waits(Instant),
    Over,
}

struct Answer {
    cluster: Arc<str>,
    name: Arc<str>,
    /// `None`: nobody gave an answer.
    addresses: Option<Vec<std::net::IpAddr>>,
}

impl Keeper {
    /// A keeper, the way to tell it of suspects, and what it publishes.
    pub(crate) fn new(
        configs: watch::Receiver<Arc<Config>>,
        setup: Setup,
    ) -> (Self, mpsc::Sender<Suspect>, watch::Receiver<Arc<Live>>) {
        let (tell, suspects) = mpsc::channel(SUSPECTS);
        let (out, live) = watch::channel(Arc::new(Live::default()));
        let keeper = Self {
            configs,
            out,
            suspects,
            answers: mpsc::channel(64),
            lookups: JoinSet::new(),
            checks: Checks::new(setup.around),
            kept: AHashMap::new(),
            aggregates: BTreeSet::new(),
            detecting: BTreeSet::new(),
            local: setup.local,
            fleet: None,
            live: Live::default(),
            warming: AHashMap::new(),
            first: First::Nothing,
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
                Some(checked) = self.checks.next() => self.take_checked(&checked),
                () = sleep_until(next.into()) => self.tick(),
                Some(_) = self.lookups.join_next() => false,
            };
            if changed {
                self.follow_fleet();
                self.link();
                self.publish();
            }
        }
    }

    fn publish(&mut self) {
        if self.waits_for_checks() {
            self.out.send_if_modified(|live| {
                let news = !live.held;
                if news {
                    *live = Arc::new(Live { held: true, ..Live::default() });
                }
                news
            });
            return;
        }
        self.live.sequence += 1;
        let live = Live {
            sequence: self.live.sequence,
            config: self.live.config.clone(),
            upstreams: self.live.upstreams.clone(),
            held: false,
        };
        self.out.send_replace(Arc::new(live));
    }

    /// At the start listeners wait until the endpoints behind them were looked at once.
    fn waits_for_checks(&mut self) -> bool {
        let since = match self.first {
            First::Over => return false,
            First::Nothing if self.live.config.listeners.is_empty() => return false,
            First::Nothing => Instant::now(),
            First::Waits(since) => since,
        };
        let unknown = || self.kept.values().any(|kept| kept.cluster().wait_until_checked && kept.is_unresolved());
        let waits = (!self.checks.first_round_is_over() && since.elapsed() < FIRST_ROUND)
            || (since.elapsed() < FIRST_NAMES && unknown());
        self.first = if waits { First::Waits(since) } else { First::Over };
        waits
    }

    fn next_tick(&self) -> Instant {
        let detecting = self.detecting.iter().filter_map(|name| self.kept.get(name)?.detector());
        let next = detecting.map(Detector::next_tick).min();
        let far = Instant::now() + Duration::from_secs(3600);
        let sweep = next.map_or(far, |at| (clock::origin() + Duration::from_millis(at.0)).min(far));
        let sweep = self.warming.values().fold(sweep, |sweep, since| sweep.min(*since + FIRST_ROUND));
        match self.first {
            First::Waits(since) if since.elapsed() < FIRST_NAMES => sweep.min(since + FIRST_NAMES),
            First::Waits(since) => sweep.min(since + FIRST_ROUND),
            First::Nothing | First::Over => sweep,
        }
    }

    fn take_config(&mut self) -> bool {
        let config = self.configs.borrow_and_update().clone();
        let now = clock::now();
        let before = std::mem::replace(&mut self.live.config, config.clone());
        let clusters = config.clusters.changes(&before.clusters);
        // Endpoints alone may have changed, too.
        let changed: AHashSet<&Arc<str>> = clusters.chain(config.loads.changes(&before.loads)).collect();
        for name in changed {
            match config.clusters.get(name) {
                Some(cluster) => {
                    let load = config.loads.get(name).cloned().unwrap_or_else(|| kept::empty(name));
                    self.take_cluster(name, cluster, load, now);
                }
                None => self.forget_cluster(name),
            }
        }
        true
    }

    fn forget_cluster(&mut self, name: &Arc<str>) {
        self.live.upstreams.remove(name);
        self.checks.forget(name);
        self.warming.remove(name);
        self.aggregates.remove(name);
        self.detecting.remove(name);
        if let Some(gone) = self.kept.remove(name) {
            gone.stop();
        }
    }

    fn take_cluster(&mut self, name: &Arc<str>, cluster: &Arc<Cluster>, load: Arc<ClusterLoad>, now: Millis) {
        let mut before = self.kept.remove(name);
        let dns = match &cluster.discovery {
            Discovery::StrictDns(_, settings) | Discovery::LogicalDns(_, settings) => {
                let same =
                    before.as_ref().is_some_and(|b| *b.load() == load && b.cluster().discovery == cluster.discovery);
                let old = before.as_mut().and_then(Kept::take_dns);
                match old {
                    Some(old) if same => Some(old),
                    old => {
                        let answers = old.map(|(task, answers)| {
                            task.abort();
                            answers
                        });
                        let known = kept::known(&load, answers.unwrap_or_default());
                        Some((self.ask(name, &load, settings), known))
                    }
                }
            }
            _ => {
                if let Some((task, _)) = before.as_mut().and_then(Kept::take_dns) {
                    task.abort();
                }
                None
            }
        };
        let renewed = before.as_ref().is_none_or(|before| !Arc::ptr_eq(before.cluster(), cluster));
        let had_checks = before.as_ref().is_some_and(|before| before.cluster().health_check.is_some());
        let sources = Sources { cluster: cluster.clone(), load, dns };
        let mut kept = Kept::new(sources, before, self.fleet.as_ref(), now);
        if (had_checks || cluster.health_check.is_some())
            && self.checks.follow(cluster, kept.set(), kept.upstream.life())
        {
            kept.replan(self.fleet.as_ref(), now);
        }
        let enlist = |list: &mut BTreeSet<Arc<str>>, belongs| match belongs {
            true => drop(list.insert(name.clone())),
            false => drop(list.remove(name)),
        };
        enlist(&mut self.detecting, kept.detector().is_some());
        enlist(&mut self.aggregates, matches!(cluster.discovery, Discovery::Aggregate(_)));
        self.kept.insert(name.clone(), kept);
        // What is there from the start is waited for as a whole.
        if renewed && matches!(self.first, First::Over) && self.is_cold(name) {
            self.warming.entry(name.clone()).or_insert_with(Instant::now);
        }
        self.show(name);
    }

    /// Some of its endpoints were not looked at yet, and it wants to be waited for.
    fn is_cold(&self, name: &Arc<str>) -> bool {
        self.kept.get(name).is_some_and(|kept| {
            let cluster = kept.cluster();
            let unchecked = || cluster.health_check.is_some() && self.checks.waits_for(name);
            cluster.wait_until_checked && (kept.is_unresolved() || unchecked())
        })
    }

    /// Workers see the newest state of a cluster, unless it warms up. False when they do not.
    fn show(&mut self, name: &Arc<str>) -> bool {
        if let Some(since) = self.warming.get(name) {
            if self.is_cold(name) && since.elapsed() < FIRST_ROUND {
                return false;
            }
            self.warming.remove(name);
        }
        let Some(kept) = self.kept.get(name) else { return false };
        self.live.upstreams.insert(name.clone(), kept.upstream.clone());
        true
    }

    /// Asks for all names of a load, each again when its answer is old.
    fn ask(&mut self, cluster: &Arc<str>, load: &ClusterLoad, settings: &DnsSettings) -> AbortHandle {
        let (cluster, names, settings, tell) =
            (cluster.clone(), dns::names(load), settings.clone(), self.answers.0.clone());
        self.lookups.spawn(async move {
            let asked = names.into_iter().map(|name| ask_again(&cluster, name, &settings, &tell));
            futures_util::future::join_all(asked).await;
        })
    }

    fn take_answer(&mut self, answer: Answer) -> bool {
        let now = clock::now();
        let starting = matches!(self.first, First::Waits(_));
        let Some(kept) = self.kept.get_mut(&answer.cluster) else { return starting };
        let waited = kept.is_unresolved();
        if !kept.answer(answer.name, answer.addresses) {
            // Whoever waited for it goes on without.
            return waited && (self.show(&answer.cluster) || starting);
        }
        kept.renew(self.fleet.as_ref(), now);
        let _ = self.checks.follow(kept.cluster(), kept.set(), kept.upstream.life());
        self.show(&answer.cluster) || starting
    }

    fn take_suspect(&mut self, suspect: &Suspect) -> bool {
        let now = clock::now();
        let cause = match suspect.blame {
            Blame::Outlier(cause) => cause,
            Blame::Itself => {
                self.checks.told_by_itself(&suspect.cluster, suspect.host);
                return false;
            }
        };
        let Some(kept) = self.kept.get_mut(&suspect.cluster) else { return false };
        let ejects = kept.detector_mut().is_some_and(|d| d.suspect(suspect.host, cause, now, rand::random()));
        if !ejects {
            return false;
        }
        let host = kept.name_of(suspect.host);
        tracing::info!(cluster = %suspect.cluster, host, ?cause, "endpoint ejected");
        self.replan(&suspect.cluster, now)
    }

    fn take_checked(&mut self, checked: &Checked) -> bool {
        let now = clock::now();
        let starting = matches!(self.first, First::Waits(_)) && checked.first;
        let warms = self.warming.contains_key(&checked.cluster);
        let Some(kept) = self.kept.get_mut(&checked.cluster) else { return starting };
        let readmitted = checked.good && kept.detector_mut().is_some_and(|d| d.readmit(checked.host));
        if !checked.changed && !readmitted {
            return (warms && self.show(&checked.cluster)) || starting;
        }
        if !checked.good && kept.is_leaving(checked.host) {
            // Its health was all that kept it.
            kept.renew(self.fleet.as_ref(), now);
            let _ = self.checks.follow(kept.cluster(), kept.set(), kept.upstream.life());
            return self.show(&checked.cluster) || starting;
        }
        self.replan(&checked.cluster, now) || starting
    }

    fn tick(&mut self) -> bool {
        let now = clock::now();
        let due =
            |kept: &mut Kept| kept.detector_mut().is_some_and(|d| d.next_tick() <= now && d.tick(now, rand::random()));
        let detecting = self.detecting.iter();
        let changed: Vec<Arc<str>> =
            detecting.filter(|name| self.kept.get_mut(*name).is_some_and(due)).cloned().collect();
        for name in &changed {
            self.replan(name, now);
        }
        let late: Vec<Arc<str>> =
            self.warming.iter().filter(|(_, since)| since.elapsed() >= FIRST_ROUND).map(|(n, _)| n.clone()).collect();
        for name in &late {
            self.show(name);
        }
        !changed.is_empty() || !late.is_empty() || matches!(self.first, First::Waits(_))
    }

    /// Health or endpoints changed: somebody else may be chosen now.
    fn replan(&mut self, name: &Arc<str>, now: Millis) -> bool {
        let Some(kept) = self.kept.get_mut(name) else { return false };
        kept.replan(self.fleet.as_ref(), now);
        self.show(name)
    }

    /// Where the fleet changed, so does what stays in the own zone.
    fn follow_fleet(&mut self) {
        let Some((name, own)) = &self.local else { return };
        let fleet = self.live.upstreams.get(name).map(|local| Fleet::new(own.clone(), local.plan()));
        if fleet == self.fleet {
            return;
        }
        self.fleet = fleet;
        let now = clock::now();
        let all: Vec<Arc<str>> =
            self.kept.iter().filter(|(_, kept)| kept.has_zones()).map(|(n, _)| n.clone()).collect();
        for name in &all {
            self.replan(name, now);
        }
    }

    /// Aggregates follow their members.
    fn link(&mut self) {
        let mut linked = Vec::new();
        for name in &self.aggregates {
            let Some(kept) = self.kept.get_mut(name) else { continue };
            let Discovery::Aggregate(members) = &kept.cluster().discovery else { continue };
            let plans: Vec<Option<Arc<Plan>>> =
                members.iter().map(|member| self.live.upstreams.get(member).map(|u| u.plan().clone())).collect();
            if kept.link(plans) {
                linked.push((name.clone(), kept.upstream.clone()));
            }
        }
        for (name, upstream) in linked {
            self.live.upstreams.insert(name, upstream);
        }
    }
}

/// Asks for one name for as long as its cluster is there.
async fn ask_again(cluster: &Arc<str>, name: Arc<str>, settings: &DnsSettings, tell: &mpsc::Sender<Answer>) {
    let mut failures = 0;
    loop {
        let (addresses, ttl) = match dns::resolve(&name, settings).await {
            Ok(found) => {
                failures = 0;
                (Some(found.addresses), found.ttl)
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%cluster, %name, %error, "name not resolved, keeping the last answer");
                (None, None)
            }
        };
        if tell.send(Answer { cluster: cluster.clone(), name: name.clone(), addresses }).await.is_err() {
            return;
        }
        tokio::time::sleep(dns::pause(settings, ttl, failures, rand::random())).await;
    }
}

/// Everything that is kept about upstreams, for the admin interface: name, endpoints, breakers.
pub(crate) fn sorted(live: &Live) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    live.upstreams.iter().map(|(name, upstream)| (name.clone(), upstream.clone())).collect()
}

/// Whether endpoints of a cluster are checked at all.
fn checks(cluster: &Cluster) -> Option<&Arc<HealthCheck>> {
    cluster.health_check.as_ref()
}
