//! The loop of `tombolo up`: start in order, play the cluster until told to stop, stop in order.
//!
//! Owns the sites and the children. One task, so that nothing here needs a lock; children and checks run beside it and
//! speak through channels.

use super::{
    converge,
    folder::{self, Look},
    partner::Partner,
    plan,
    process::{self, ChildSpec, Children, Event, Happened},
    published::{self, Published},
    samples,
    site::{self, Health, Site},
    state::State,
    summary, token,
};
use crate::{args::UpArgs, check};
use anyhow::{Context, bail};
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc},
    time::Instant,
};

/// How often folders are looked at without being told: some file systems tell nothing.
const POLL: Duration = Duration::from_secs(1);
/// Ends in a row after which a process is not waited for when everything starts.
const HOPELESS: u32 = 3;
/// Logs are for reading what happened lately, and must not fill a disk.
const LOG_LIMIT: u64 = 256 * 1024 * 1024;
/// An editor writes a file in several steps.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs the federation until it is told to stop.
pub(crate) fn main(options: &UpArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &UpArgs) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // Before anything is started, so that no signal is missed.
    let signals = Signals::new()?;
    let private = private_state(options)?;
    let root = options.state.clone().or_else(|| private.as_ref().map(|dir| dir.path().join("state")));
    let root = root.unwrap_or_else(|| super::state::default_root(options.loopback_base));
    // Configuration files hold paths, and are read from elsewhere.
    let root = std::path::absolute(&root).with_context(|| format!("cannot use {}", root.display()))?;
    let named = named_sites(options)?;
    let wake = Arc::new(Notify::new());
    let (mut up, events) = Up::prepare(options, named, root, wake.clone())?;
    let folders: Vec<PathBuf> = up.sites.iter().map(|s| s.plan.folder.clone()).collect();
    let watcher = folder::watch(&folders, wake.clone())?;
    let mut inputs = Inputs { events, signals, wake, poll: tokio::time::interval(POLL) };
    let result = up.drive(&mut inputs, started).await;
    drop(watcher);
    if result.is_err() {
        // The folder is kept for reading, also a private one.
        private.map(tempfile::TempDir::keep);
    }
    up.stop(&mut inputs.events).await;
    result
}

/// `--check` leaves the user's own state alone.
fn private_state(options: &UpArgs) -> anyhow::Result<Option<tempfile::TempDir>> {
    if !options.check || options.state.is_some() {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("tombolo-check-").tempdir();
    folder.map(Some).context("cannot create a folder for the check's state")
}

/// NAME=DIR, with the folder as others can find it.
fn named_sites(options: &UpArgs) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let parse = |text: &String| {
        let (name, folder) = text.split_once('=').with_context(|| format!("--site {text}: write NAME=DIR"))?;
        let path = std::fs::canonicalize(folder).with_context(|| format!("--site {text}: cannot use {folder}"))?;
        if !path.is_dir() {
            bail!("--site {text}: {folder} is not a folder");
        }
        Ok((name.to_owned(), path))
    };
    if options.check && !options.sites.is_empty() {
        bail!("--check proves the embedded shop; it does not go with --site");
    }
    options.sites.iter().map(parse).collect()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Everything the loop listens to.
struct Inputs {
    events: mpsc::Receiver<Event>,
    signals: Signals,
    wake: Arc<Notify>,
    poll: tokio::time::Interval,
}

/// Why the loop turned.
enum Turn {
    Event(Event),
    Folders,
    Stop,
}

impl Inputs {
    async fn next(&mut self) -> Turn {
        tokio::select! {
            biased;
            () = self.signals.any() => Turn::Stop,
            Some(event) = self.events.recv() => Turn::Event(event),
            () = self.wake.notified() => {
                tokio::time::sleep(SETTLE).await;
                Turn::Folders
            }
            _ = self.poll.tick() => Turn::Folders,
        }
    }
}

struct Up<'a> {
    options: &'a UpArgs,
    state: State,
    sites: Vec<Site>,
    children: Children,
    outside: Option<(ChildSpec, Vec<SocketAddr>, Health)>,
    /// Wakes the loop for another look at the folders.
    wake: Arc<Notify>,
    tokens_written: Instant,
    /// From start to ready; zero until then. `up.json` exists only afterwards.
    ready: Duration,
}

impl<'a> Up<'a> {
    fn prepare(
        options: &'a UpArgs,
        named: Vec<(String, PathBuf)>,
        root: PathBuf,
        wake: Arc<Notify>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Event>)> {
        let demo = named.is_empty();
        let manifests = root.join("manifests");
        let names = if demo { samples::sites(&manifests) } else { named };
        let plans = plan::sites(&names, options.loopback_base)?;
        let blocks: Vec<u8> = plans.iter().map(|p| p.block).collect();
        // Locks first: they know who is there, a busy port does not.
        let state = State::take(&root, &blocks)?;
        let partner = Partner::new(plans[0].outside(), options.loopback_base, root.join("outside"));
        let addresses = partner.addresses();
        plan::probe(&plans, if demo { &addresses } else { &[] })?;
        if demo {
            partner.make()?;
            samples::unpack(&manifests, &partner)?;
        }
        let sites = plans.into_iter().map(|plan| Site::open(plan, &state)).collect::<anyhow::Result<_>>()?;
        let (children, events) = Children::new(options.restart_delay, options.gateway.as_deref())?;
        let outside = demo.then(|| {
            let spec = site::launch(&state, options).outside("partner", &partner);
            let health = Health { id: spec.id.clone(), ..Health::default() };
            (spec, addresses.to_vec(), health)
        });
        let (tokens_written, ready) = (Instant::now(), Duration::ZERO);
        Ok((Self { options, state, sites, children, outside, wake, tokens_written, ready }, events))
    }

    /// Starts everything, then runs until told to stop, or until the check is over.
    async fn drive(&mut self, inputs: &mut Inputs, started: Instant) -> anyhow::Result<ExitCode> {
        let deadline = started + self.options.ready_timeout;
        println!("state and logs: {}", self.state.root().display());
        if !self.start(inputs, deadline).await? {
            return Ok(ExitCode::FAILURE);
        }
        self.ready = started.elapsed();
        self.publish()?;
        if self.options.check {
            return self.check(inputs).await;
        }
        self.state.announce();
        summary::print(&self.published()).await;
        loop {
            match inputs.next().await {
                Turn::Stop => {
                    println!("stopping");
                    return Ok(ExitCode::SUCCESS);
                }
                // A full disk, say: what runs goes on.
                turn => self.turn(turn).unwrap_or_else(|e| eprintln!("warning: {e:#}")),
            }
        }
    }

    /// False when it was told to stop meanwhile.
    async fn start(&mut self, inputs: &mut Inputs, deadline: Instant) -> anyhow::Result<bool> {
        let plans: Vec<_> = self.sites.iter().map(|s| s.plan.clone()).collect();
        let launch = site::launch(&self.state, self.options);
        for site in &mut self.sites {
            site.start_control_plane(&launch, &plans, &mut self.children)?;
        }
        println!("starting {} control planes", plans.len());
        let ready = |up: &Self| up.sites.iter().all(Site::control_plane_ready);
        if !self.turn_until(inputs, deadline, ready).await? {
            return Ok(false);
        }
        let launch = site::launch(&self.state, self.options);
        for site in &mut self.sites {
            site.start_rest(&launch, &mut self.children)?;
        }
        if let Some((spec, _, _)) = &self.outside {
            self.children.start(spec.clone());
        }
        println!("starting {} more processes", self.children.ids().len() - plans.len());
        if !self.turn_until(inputs, deadline, |up| up.waiting().is_empty()).await? {
            return Ok(false);
        }
        println!("waiting for the sites to agree");
        self.converge(inputs, deadline).await
    }

    async fn turn_until(
        &mut self,
        inputs: &mut Inputs,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        while !done(self) {
            match tokio::time::timeout_at(deadline, inputs.next()).await {
                Err(_) => bail!("{}", self.not_ready()),
                Ok(Turn::Stop) => return Ok(false),
                Ok(turn) => self.turn(turn)?,
            }
            // It will not get better: a port is taken, or a flag is wrong.
            if self.waiting().iter().any(|health| health.deaths >= HOPELESS) {
                bail!("{}", self.not_ready());
            }
        }
        Ok(true)
    }

    async fn converge(&mut self, inputs: &mut Inputs, deadline: Instant) -> anyhow::Result<bool> {
        let peers = self.sites.len() - 1;
        let expected = self.sites.iter().map(|site| converge::Expected {
            site: site.plan.name.to_string(),
            admin: site.plan.control_plane_admin(),
            proxies: site.proxies(),
            peers,
        });
        let expected: Vec<_> = expected.collect();
        let note = Mutex::new(String::new());
        let mut converged = std::pin::pin!(converge::converged(&expected, &note));
        loop {
            tokio::select! {
                () = &mut converged => return Ok(true),
                () = tokio::time::sleep_until(deadline) => {
                    let reason = note.lock().map(|n| n.clone()).unwrap_or_default();
                    bail!("the sites did not agree within {:?}: {reason}", self.options.ready_timeout);
                }
                turn = inputs.next() => match turn {
                    Turn::Stop => return Ok(false),
                    turn => self.turn(turn)?,
                },
            }
        }
    }

    fn turn(&mut self, turn: Turn) -> anyhow::Result<()> {
        let changed = match turn {
            Turn::Event(event) => self.note(&event)?,
            Turn::Folders => {
                self.state.trim_logs(LOG_LIMIT);
                self.look_at_folders()?
            }
            Turn::Stop => false,
        };
        if self.tokens_written.elapsed() > token::LIFE / 2 {
            let launch = site::launch(&self.state, self.options);
            self.sites.iter().try_for_each(|site| site.renew_tokens(&launch))?;
            self.tokens_written = Instant::now();
        }
        if changed && !self.ready.is_zero() {
            self.publish()?;
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) -> anyhow::Result<bool> {
        if let Happened::Died { how, again_in } = &event.happened {
            println!("{} {how}, starts again in {again_in:?}", event.id);
        }
        for site in &mut self.sites {
            if site.note(&event.id, &event.happened)?.is_some() {
                return Ok(true);
            }
        }
        match &mut self.outside {
            Some((_, _, health)) if health.id == event.id => {
                health.note(&event.happened);
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn look_at_folders(&mut self) -> anyhow::Result<bool> {
        let mut changed = false;
        for site in &mut self.sites {
            match site.refresh() {
                Look::Same => {}
                Look::Unsettled => self.wake.notify_one(),
                Look::Changed => {
                    changed = true;
                    site.reconcile(&site::launch(&self.state, self.options), &mut self.children)?;
                }
            }
        }
        Ok(changed)
    }

    fn waiting(&self) -> Vec<&Health> {
        let outside = self.outside.iter().map(|(_, _, health)| health).filter(|h| !h.ready);
        self.sites.iter().flat_map(Site::waiting).chain(outside).collect()
    }

    /// Which processes are not ready, why, and what they logged last.
    fn not_ready(&self) -> String {
        let known = self.children.ids();
        let mut waiting: Vec<_> = self.waiting().into_iter().filter(|h| known.contains(&h.id)).collect();
        // Those that die say more than those that wait for them.
        waiting.sort_by_key(|h| std::cmp::Reverse(h.deaths));
        let mut text = format!("{} processes are not ready", waiting.len());
        for health in waiting.iter().take(3) {
            let log = self.state.log(&health.id.replace('/', "."));
            let state = match (health.pid, health.last.as_str()) {
                (0, "") => "never started".to_owned(),
                (0, last) => last.to_owned(),
                (pid, "") => format!("runs as pid {pid}, but is not ready"),
                (pid, last) => format!("runs as pid {pid} after it {last}"),
            };
            text.push_str(&format!("\n{}: {state}; the end of {}:", health.id, log.display()));
            for line in process::last_lines(&log, 12) {
                text.push_str("\n  ");
                text.push_str(&line);
            }
        }
        text.push_str(&format!("\nall logs: {}", self.state.root().join("logs").display()));
        text
    }

    fn published(&self) -> Published {
        Published {
            pid: std::process::id(),
            state: self.state.root().to_owned(),
            ready_ms: u64::try_from(self.ready.as_millis()).unwrap_or(u64::MAX),
            sites: self.sites.iter().map(|s| s.publish(&self.state)).collect(),
            outside: self
                .outside
                .iter()
                .map(|(_, listen, health)| published::Outside {
                    name: "partner".to_owned(),
                    listen: listen.clone(),
                    pid: health.pid,
                })
                .collect(),
        }
    }

    fn publish(&self) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.published()).context("cannot describe the federation")?;
        self.state.publish(&text)
    }

    /// Runs the check beside the loop, which keeps playing the cluster meanwhile.
    async fn check(&mut self, inputs: &mut Inputs) -> anyhow::Result<ExitCode> {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(check::run(self.state.root().to_owned()));
        loop {
            tokio::select! {
                Some(result) = tasks.join_next() => {
                    let passed = result.context("the check broke off")??;
                    return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
                }
                turn = inputs.next() => match turn {
                    Turn::Stop => return Ok(ExitCode::FAILURE),
                    turn => self.turn(turn)?,
                },
            }
        }
    }

    /// Gateways and workloads first: they finish what they have while their control planes still live.
    async fn stop(&mut self, events: &mut mpsc::Receiver<Event>) {
        // Children that wait to say something would never end.
        events.close();
        let (last, first): (Vec<_>, Vec<_>) =
            self.children.ids().into_iter().partition(|id| id.ends_with("/control-plane"));
        self.children.stop(&first).await;
        self.children.stop(&last).await;
    }
}
