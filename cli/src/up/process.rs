//! Children: started with their output in a log file, watched, started again when they die, stopped in order.
//!
//! Owns one task for each child and the only handles to the processes. Knows nothing of pods: it says what became of a
//! child, and its user decides what that means.

use crate::http;
use anyhow::Context;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::OpenOptions,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tombolo_gateway_proxy::lifeline::VARIABLE as LIFELINE;

/// What gateways and sidecars are called.
pub(crate) const GATEWAY: &str = "tombolo-gateway";
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A child that lived so long starts again after the shortest pause.
const SETTLED: Duration = Duration::from_secs(30);
/// Between asking a child to stop and ending it.
const GRACE: Duration = Duration::from_secs(6);

/// How a child shows that it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Answers a GET with 200.
    Http(SocketAddr, &'static str),
    /// Accepts connections on all of these.
    Accepts(Vec<SocketAddr>),
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChildSpec {
    /// Name for people and events, unique in a run: `east/control-plane`.
    pub(crate) id: Arc<str>,
    /// The name by which this binary is called, which chooses what it is.
    pub(crate) called: &'static str,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
    pub(crate) probe: Probe,
}

/// What became of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happened {
    Started {
        pid: u32,
    },
    Ready,
    /// It is gone, or could not even start; it starts again after the pause.
    Died {
        how: String,
        again_in: Duration,
    },
}

/// Something became of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Arc<str>,
    pub(crate) happened: Happened,
}

/// All children of a run.
pub(crate) struct Children {
    program: PathBuf,
    gateway: Option<PathBuf>,
    restart_delay: Duration,
    events: mpsc::Sender<Event>,
    running: BTreeMap<Arc<str>, Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Children {
    /// None yet. Events arrive at the receiver, which must be read for children to make progress. Every child is this binary
    /// under another name, or the file `gateway` where gateways are wanted.
    ///
    /// # Errors
    /// When this binary cannot be found again, or the other is not there.
    pub(crate) fn new(
        restart_delay: Duration,
        gateway: Option<&Path>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Event>)> {
        let (events, receiver) = mpsc::channel(256);
        let program = program()?;
        let gateway =
            gateway.map(|file| file.canonicalize().with_context(|| format!("{}", file.display()))).transpose()?;
        Ok((Self { program, gateway, restart_delay, events, running: BTreeMap::new() }, receiver))
    }

    /// Starts a child and keeps it running.
    pub(crate) fn start(&mut self, spec: ChildSpec) {
        let (id, stop) = (spec.id.clone(), CancellationToken::new());
        let other = self.gateway.as_ref().filter(|_| spec.called == GATEWAY);
        let keeper = Keeper {
            program: other.unwrap_or(&self.program).clone(),
            shortest_pause: self.restart_delay,
            events: self.events.clone(),
            stop: stop.clone(),
            spec,
        };
        let task = tokio::spawn(keeper.run());
        self.running.insert(id, Running { stop, task });
    }

    /// Asks the named children to stop; returns when they did. Unknown names are fine.
    pub(crate) async fn stop(&mut self, ids: &[Arc<str>]) {
        let stopping: Vec<_> = ids.iter().filter_map(|id| self.running.remove(id)).collect();
        for child in &stopping {
            child.stop.cancel();
        }
        for child in stopping {
            // A task that panicked has dropped its child, which kills it.
            let _ = child.task.await;
        }
    }

    /// Asks the named children to stop after a pause, without waiting.
    pub(crate) fn retire(&mut self, ids: &[Arc<str>], after: Duration) {
        for child in ids.iter().filter_map(|id| self.running.remove(id)) {
            // The child's own task ends it; this one only carries the message, and ends with the runtime at the latest.
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                child.stop.cancel();
                let _ = child.task.await;
            });
        }
    }

    /// Names of all children.
    pub(crate) fn ids(&self) -> Vec<Arc<str>> {
        self.running.keys().cloned().collect()
    }
}

/// This binary, even when a build has replaced its file meanwhile.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    // After a rebuild the link reads `… (deleted)`, but still opens the running program.
    Ok(if path.exists() { path } else { PathBuf::from("/proc/self/exe") })
}

struct Keeper {
    program: PathBuf,
    shortest_pause: Duration,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    spec: ChildSpec,
}

impl Keeper {
    async fn run(self) {
        let mut pause = self.shortest_pause;
        loop {
            let born = Instant::now();
            let how = match self.spawn() {
                Ok(child) => match self.live(child).await {
                    Some(status) => ended(status),
                    None => return,
                },
                Err(e) => format!("{e:#}"),
            };
            pause = if born.elapsed() > SETTLED { self.shortest_pause } else { pause };
            self.tell(Happened::Died { how, again_in: pause }).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE).max(self.shortest_pause);
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.spec.log);
        let log = log.with_context(|| format!("cannot open {}", self.spec.log.display()))?;
        let errors = log.try_clone().context("cannot share the log file")?;
        let mut command = Command::new(&self.program);
        // Settings of this process's user are not the children's.
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("TOMBOLO_")) {
            command.env_remove(name);
        }
        command
            .arg0(self.spec.called)
            .args(&self.spec.args)
            .env(LIFELINE, "1")
            // Logs go to files.
            .env("NO_COLOR", "1")
            // The write end lives in this process only: when it dies, however it dies, the child sees the end.
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C at the terminal reaches `up` alone, which stops its children in order.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {}", self.program.display()))
    }

    /// Watches a child; `None` when it was asked to stop.
    async fn live(&self, mut child: Child) -> Option<ExitStatus> {
        // Held until the child is gone; `wait` would close it.
        let lifeline = child.stdin.take();
        let pid = child.id().unwrap_or_default();
        self.tell(Happened::Started { pid }).await;
        let seen = tokio::select! {
            status = child.wait() => Some(status),
            () = self.stop.cancelled() => None,
            () = ready(&self.spec.probe) => {
                self.tell(Happened::Ready).await;
                tokio::select! {
                    status = child.wait() => Some(status),
                    () = self.stop.cancelled() => None,
                }
            }
        };
        let status = match seen {
            // Only a child that is nobody's any more cannot be waited for.
            Some(status) => Some(status.unwrap_or_default()),
            None => {
                end(&mut child, pid).await;
                None
            }
        };
        drop(lifeline);
        status
    }

    async fn tell(&self, happened: Happened) {
        // Nobody reads any more while everything stops.
        tokio::select! {
            _ = self.events.send(Event { id: self.spec.id.clone(), happened }) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn end(child: &mut Child, pid: u32) {
    use nix::{sys::signal, unistd::Pid};
    if let Ok(pid) = i32::try_from(pid)
        && pid > 0
    {
        // It may be gone already; then waiting returns at once.
        let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("a signal", |s| s.as_str());
            format!("killed by {name}")
        }
        (None, None) => "ended".to_owned(),
    }
}

/// Returns when the probe succeeds.
async fn ready(probe: &Probe) {
    let mut pause = Duration::from_millis(10);
    while !succeeds(probe).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(150));
    }
}

async fn succeeds(probe: &Probe) -> bool {
    match probe {
        Probe::Http(at, path) => {
            let request =
                http::Ask { deadline: Duration::from_secs(2), ..http::Ask::get(*at, ::http::Uri::from_static(path)) };
            http::ask(request).await.is_ok_and(|answer| answer.status == 200)
        }
        Probe::Accepts(addresses) => {
            for address in addresses {
                if tokio::net::TcpStream::connect(address).await.is_err() {
                    return false;
                }
            }
            true
        }
    }
}

/// The end of a log, for a report about a child that does not start.
pub(crate) fn last_lines(log: &Path, count: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(16 * 1024)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(text)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(count)).map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Children that are shells: what is tested is how they are kept.
    fn children(restart_delay: Duration) -> (Children, mpsc::Receiver<Event>) {
        let (mut children, events) = Children::new(restart_delay, None).unwrap();
        children.program = "/bin/sh".into();
        (children, events)
    }

    fn shell(folder: &Path, script: &str) -> ChildSpec {
        ChildSpec {
            id: "child".into(),
            called: "sh",
            args: vec!["-c".into(), script.into()],
            log: folder.join("log"),
            // Nobody listens there: readiness is not what these children are about.
            probe: Probe::Accepts(vec!["127.0.0.1:1".parse().unwrap()]),
        }
    }

    async fn next(events: &mut mpsc::Receiver<Event>) -> Happened {
        tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap().happened
    }

    #[tokio::test]
    async fn a_dead_child_is_reported_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut children, mut events) = children(Duration::from_millis(20));
        children.start(shell(folder.path(), "echo failing >&2; exit 3"));
        for pause in [20, 40] {
            assert!(matches!(next(&mut events).await, Happened::Started { pid } if pid > 0));
            let died = Happened::Died { how: "exited with 3".into(), again_in: Duration::from_millis(pause) };
            assert_eq!(next(&mut events).await, died);
        }
        children.stop(&children.ids()).await;
        assert!(last_lines(&folder.path().join("log"), 1).contains(&"failing".to_owned()));
    }

    #[tokio::test]
    async fn a_killed_child_says_by_what() {
        let folder = tempfile::tempdir().unwrap();
        let (mut children, mut events) = children(Duration::from_secs(3600));
        children.start(shell(folder.path(), "kill -9 $$"));
        next(&mut events).await;
        assert!(matches!(next(&mut events).await, Happened::Died { how, .. } if how == "killed by SIGKILL"));
        // Waiting for its next life must not delay the end.
        tokio::time::timeout(Duration::from_secs(60), children.stop(&children.ids())).await.unwrap();
    }

    #[tokio::test]
    async fn a_child_is_asked_to_stop_and_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let (mut children, mut events) = children(Duration::from_secs(60));
        children.start(shell(folder.path(), "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"));
        let Happened::Started { pid } = next(&mut events).await else { panic!("not started") };
        let log = folder.path().join("log");
        while last_lines(&log, 1).is_empty() {
            tokio::task::yield_now().await;
        }
        children.stop(&children.ids()).await;
        assert_eq!(last_lines(&log, 1), ["bye"]);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(children.ids().is_empty());
    }

    #[tokio::test]
    async fn gateways_may_be_another_program() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Children::new(Duration::ZERO, Some(&folder.path().join("nothing"))).is_err(), "said at once");
        let (mut children, mut events) = Children::new(Duration::from_secs(60), Some(Path::new("/bin/sh"))).unwrap();
        children.program = "/bin/false".into();
        children.start(ChildSpec { called: GATEWAY, ..shell(folder.path(), "exit 7") });
        next(&mut events).await;
        assert!(matches!(next(&mut events).await, Happened::Died { how, .. } if how == "exited with 7"));
        children.stop(&children.ids()).await;
    }

    #[tokio::test]
    async fn a_child_has_a_lifeline_and_no_settings_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (mut children, mut events) = children(Duration::from_secs(60));
        children.start(shell(folder.path(), "env | grep ^TOMBOLO_; test -p /dev/stdin && echo pipe"));
        next(&mut events).await;
        next(&mut events).await;
        assert_eq!(last_lines(&folder.path().join("log"), 9), [format!("{LIFELINE}=1"), "pipe".to_owned()]);
        children.stop(&children.ids()).await;
    }
}
