//! Requests, kills and edits, as a user makes them.
//!
//! Owns nothing but the state folder's name: `up.json` is read again for every use, because processes come and go.

use crate::{
    http::{Answer, Ask, ask},
    up::published::{Published, Site, Workload},
};
use anyhow::Context;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(super) struct Client {
    state: PathBuf,
}

/// A request as that workload makes it, or from outside through an ingress gateway.
#[derive(Debug, Clone, Copy)]
pub(super) enum From<'a> {
    /// Site, and the beginning of a workload's name.
    Workload(&'a str, &'a str),
    /// Site, and the manifest's port number.
    Outside(&'a str, u16),
}

impl Client {
    pub(super) fn new(state: PathBuf) -> anyhow::Result<Self> {
        Published::read(&state)?;
        Ok(Self { state })
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn published(&self) -> anyhow::Result<Published> {
        Published::read(&self.state)
    }

    pub(super) fn site(&self, name: &str) -> anyhow::Result<Site> {
        self.published()?.site(name).cloned()
    }

    pub(super) fn workload(&self, site: &str, name: &str) -> anyhow::Result<Workload> {
        self.site(site)?.workload(name).cloned()
    }

    /// A URL for workloads, a path for the outside.
    pub(super) async fn get(&self, from: From<'_>, target: &str) -> anyhow::Result<Answer> {
        self.get_with(from, target, &[]).await
    }

    pub(super) async fn get_with(
        &self,
        from: From<'_>,
        target: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let to = match from {
            From::Workload(site, name) => {
                let workload = self.workload(site, name)?;
                workload.sidecar.with_context(|| format!("{name} has no sidecar"))?.http_proxy
            }
            From::Outside(site, port) => {
                let ports = self.site(site)?.ingress.ports;
                *ports.get(&port).with_context(|| format!("the ingress gateway of {site} has no port {port}"))?
            }
        };
        get_at(to, target, headers).await
    }

    /// Many requests, a few at a time; failures count as such.
    pub(super) async fn many(&self, from: From<'_>, target: &str, count: usize) -> anyhow::Result<Vec<Seen>> {
        let mut seen = Vec::with_capacity(count);
        while seen.len() < count {
            let batch = (0..8.min(count - seen.len())).map(|_| self.get(from, target));
            seen.extend(futures_util::future::join_all(batch).await.into_iter().map(Seen::of));
        }
        Ok(seen)
    }

    /// Asks until the answer is as wished, and says how long that took.
    pub(super) async fn until(
        &self,
        from: From<'_>,
        target: &str,
        patience: Duration,
        wished: impl Fn(&Seen) -> bool,
    ) -> (Duration, Seen) {
        let begin = Instant::now();
        loop {
            let seen = Seen::of(self.get(from, target).await);
            if wished(&seen) || begin.elapsed() > patience {
                return (begin.elapsed(), seen);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Changes one of a site's manifests as an editor does: a new file takes the old one's place.
    pub(super) fn edit(&self, site: &str, file: &str, change: impl Fn(&str) -> String) -> anyhow::Result<()> {
        let path = self.site(site)?.folder.join(file);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let scratch = path.with_extension("new");
        std::fs::write(&scratch, change(&before)).with_context(|| format!("cannot write {}", scratch.display()))?;
        std::fs::rename(&scratch, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn remove(&self, site: &str, file: &str) -> anyhow::Result<()> {
        let path = self.site(site)?.folder.join(file);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// Runs this binary as a user would: exit code and output.
    pub(super) async fn command(&self, args: &[&str]) -> anyhow::Result<(i32, String)> {
        let run = tokio::process::Command::new("/proc/self/exe").arg0("tombolo").args(args).output();
        let output = tokio::time::timeout(Duration::from_secs(20), run).await.context("the command hangs")??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), text))
    }
}

/// A GET at an address, over a connection of its own.
pub(super) async fn get_at(to: SocketAddr, target: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let uri: Uri = target.parse().with_context(|| format!("{target:?} is not a URI"))?;
    let mut request = Ask::get(to, uri);
    for (name, value) in headers {
        request.headers.insert(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(ask(request).await?)
}

/// Ends a process of the federation, without warning.
pub(super) fn kill(pid: u32) -> anyhow::Result<()> {
    use nix::{sys::signal, unistd::Pid};
    let pid = i32::try_from(pid).ok().filter(|p| *p > 1).context("the process is not running")?;
    signal::kill(Pid::from_raw(pid), signal::Signal::SIGKILL).with_context(|| format!("cannot kill {pid}"))
}

/// What came of one request, as far as claims care.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// 0 when there was no answer.
    pub(super) status: u16,
    /// What the stand-in said, or null.
    pub(super) body: Value,
    pub(super) failure: String,
}

impl Seen {
    pub(super) fn of(outcome: anyhow::Result<Answer>) -> Self {
        match outcome {
            Ok(answer) => Self {
                status: answer.status.as_u16(),
                body: serde_json::from_slice(&answer.body).unwrap_or_default(),
                failure: if answer.status.is_success() { String::new() } else { answer.text() },
            },
            Err(e) => Self { failure: format!("{e:#}"), ..Self::default() },
        }
    }

    pub(super) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_default().to_owned()
    }

    /// Who answered: workload and site, or what went wrong.
    pub(super) fn who(&self) -> String {
        match (self.status, self.text("workload")) {
            (0, _) => self.failure.clone(),
            (status, workload) if workload.is_empty() => {
                format!("{status} {}", self.failure.chars().take(80).collect::<String>())
            }
            (200, workload) => format!("{workload} in {}", self.text("site")),
            (status, workload) => format!("{status} from {workload} in {}", self.text("site")),
        }
    }
}

/// How often each answer came.
pub(super) fn shares(seen: &[Seen], of: impl Fn(&Seen) -> String) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for one in seen {
        *shares.entry(of(one)).or_default() += 1;
    }
    shares
}

/// `a 320, b 80`.
pub(super) fn words(shares: &BTreeMap<String, usize>) -> String {
    shares.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}
