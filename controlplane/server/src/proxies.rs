//! What is known about every proxy that is or recently was connected, for status.
//!
//! Owns the table; the streams write their own lines. Never a source of truth about configuration: that is the engine's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tombolo_controlplane_api::status::ProxyStatus;
use tombolo_controlplane_core::{Proxy, Role};

/// How long a proxy that left is still shown.
const REMEMBERED: Duration = Duration::from_secs(300);
/// More proxies than this are not remembered after they left.
const MOST: usize = 20_000;

/// Which protocol a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

impl Speaks {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        }
    }
}

/// How a stream fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// True when everything that was asked for has been acknowledged.
    pub synced: bool,
    /// Responses sent.
    pub sent: u64,
    /// Responses refused.
    pub nacked: u64,
    /// Refusals that still stand, as `type: reason`.
    pub rejected: Vec<String>,
}

#[derive(Debug)]
struct Line {
    role: Role,
    namespace: String,
    address: String,
    version: String,
    speaks: Speaks,
    /// Streams that are open: two for a moment when a proxy reconnects before the old stream's end is noticed.
    streams: u32,
    newest: u64,
    since: Instant,
    progress: Progress,
}

/// All proxies, by node id.
#[derive(Debug, Default)]
pub struct ProxyTable(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lines: BTreeMap<String, Line>,
    streams: u64,
}

/// One stream's place in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamId {
    proxy: String,
    number: u64,
}

impl ProxyTable {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The table is consistent after every statement, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A proxy opened a stream.
    pub fn opened(&self, proxy: &Proxy, speaks: Speaks, version: String, now: Instant) -> StreamId {
        let mut inner = self.lock();
        inner.streams += 1;
        let number = inner.streams;
        let streams = inner.lines.get(&proxy.id).map_or(0, |line| line.streams) + 1;
        let line = Line {
            role: proxy.role,
            namespace: proxy.namespace.to_string(),
            address: proxy.address.to_string(),
            version,
            speaks,
            streams,
            newest: number,
            since: now,
            progress: Progress::default(),
        };
        inner.lines.insert(proxy.id.clone(), line);
        StreamId { proxy: proxy.id.clone(), number }
    }

    /// A stream moved on. An older stream of the same proxy no longer counts.
    pub fn progress(&self, stream: &StreamId, progress: Progress) {
        if let Some(line) = self.lock().lines.get_mut(&stream.proxy).filter(|line| line.newest == stream.number) {
            line.progress = progress;
        }
    }

    /// A stream ended.
    pub fn closed(&self, stream: &StreamId, now: Instant) {
        if let Some(line) = self.lock().lines.get_mut(&stream.proxy) {
            line.streams = line.streams.saturating_sub(1);
            if line.streams == 0 {
                line.since = now;
            }
        }
    }

    /// Every proxy, and forgets those that left long ago.
    pub fn status(&self, now: Instant) -> Vec<ProxyStatus> {
        let mut inner = self.lock();
        let crowded = inner.lines.len() > MOST;
        inner
            .lines
            .retain(|_, line| line.streams > 0 || (!crowded && now.saturating_duration_since(line.since) < REMEMBERED));
        inner.lines.iter().map(|(id, line)| line.status(id, now)).collect()
    }
}

impl Line {
    fn status(&self, id: &str, now: Instant) -> ProxyStatus {
        let connected = self.streams > 0;
        ProxyStatus {
            id: id.to_owned(),
            role: match self.role {
                Role::Sidecar => "sidecar",
                Role::Router => "router",
            }
            .to_owned(),
            namespace: self.namespace.clone(),
            connected,
            synced: connected && self.progress.synced,
            rejected: self.progress.rejected.join("; "),
            version: self.version.clone(),
            address: self.address.clone(),
            sent: self.progress.sent,
            nacked: self.progress.nacked,
            age_ms: u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX),
            protocol: self.speaks.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::xds::google::protobuf::Struct;

    #[test]
    fn a_reconnect_that_overlaps_stays_connected() {
        let table = ProxyTable::default();
        let proxy = Proxy::parse("sidecar~127.1.1.1~a.default~x", &Struct::default()).unwrap();
        let start = Instant::now();
        let old = table.opened(&proxy, Speaks::Delta, String::new(), start);
        let new = table.opened(&proxy, Speaks::Delta, String::new(), start);
        table.progress(&new, Progress { synced: true, ..Progress::default() });
        table.progress(&old, Progress { synced: false, ..Progress::default() });
        table.closed(&old, start);
        let status = table.status(start);
        assert!(status[0].connected && status[0].synced);
        table.closed(&new, start);
        assert!(!table.status(start)[0].connected);
        assert!(table.status(start + REMEMBERED).is_empty());
    }
}
