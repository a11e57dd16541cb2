//! Sources: folders of manifests, each a task that tells the engine what changed.
//!
//! Owns the tasks' rhythm and what status says about a source. A source that cannot be read keeps what it told before:
//! absence of a folder is never the absence of its objects.

mod folder;
mod manifests;
mod watch;

#[cfg(test)]
mod tests;

pub use manifests::{FolderReport, Manifests, Refresh};

use crate::{config::SourceKind, world::World};
use folder::DOUBT;
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::watch as channel;
use watch::FolderWatch;

/// How often a folder is looked at when the kernel tells of changes, in case it missed one.
const REGULARLY: Duration = Duration::from_secs(3);
/// How often a folder is looked at when the kernel does not tell.
const OFTEN: Duration = Duration::from_millis(500);

/// What status says about a source.
#[derive(Debug, Clone)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// How it is read.
    pub kind: SourceKind,
    /// True after the first complete listing was told.
    pub synced: bool,
    /// When it last was seen to be up to date.
    pub confirmed: Instant,
    /// Why it is not up to date.
    pub problem: Option<String>,
    /// What is in it.
    pub folder: FolderReport,
}

/// A source, ready to run.
pub struct FolderSource {
    manifests: Manifests,
    path: PathBuf,
    world: World,
    report: channel::Sender<SourceReport>,
}

impl FolderSource {
    /// A source and where its report can be read.
    #[must_use]
    pub fn new(
        name: String,
        kind: SourceKind,
        path: PathBuf,
        manifests: Manifests,
        world: World,
    ) -> (Self, channel::Receiver<SourceReport>) {
        let (report, reports) = channel::channel(SourceReport {
            name,
            kind,
            synced: false,
            confirmed: Instant::now(),
            problem: None,
            folder: FolderReport::default(),
        });
        (Self { manifests, path, world, report }, reports)
    }

    /// Tells the engine what the folder holds, for as long as it is polled.
    pub async fn run(self) {
        let Self { mut manifests, path, world, report } = self;
        let mut watch = FolderWatch::start(&path);
        let mut inode = inode_of(&path);
        loop {
            // Reading and parsing may take a while for a large folder; the streams must not wait for it.
            let Ok((back, outcome)) = tokio::task::spawn_blocking(move || {
                let outcome = manifests.refresh();
                (manifests, outcome)
            })
            .await
            else {
                tracing::error!(folder = %path.display(), "reading the folder failed; the source stays as it is");
                return std::future::pending().await;
            };
            manifests = back;
            let wait = match outcome {
                Ok(refresh) => {
                    let doubtful = refresh.doubtful;
                    if !tell(refresh, &manifests, &world, &report).await {
                        return;
                    }
                    if doubtful { DOUBT } else { REGULARLY }
                }
                Err(error) => {
                    complain(&report, format!("{}: {error}", path.display()));
                    OFTEN
                }
            };
            let now = inode_of(&path);
            if now != inode || (now.is_some() && !watch.is_watching()) {
                inode = now;
                watch.renew(&path);
            }
            watch.changed(if watch.is_watching() { wait } else { wait.min(OFTEN) }).await;
        }
    }
}

/// Hands on what changed; false when there is nobody left to tell.
async fn tell(refresh: Refresh, manifests: &Manifests, world: &World, report: &channel::Sender<SourceReport>) -> bool {
    if !refresh.inputs.is_empty() && world.tell(refresh.inputs).await.is_err() {
        return false;
    }
    let folder = refresh.new_report.then(|| manifests.report());
    if let Some(folder) = &folder {
        for diagnostic in &folder.diagnostics {
            if !report.borrow().folder.diagnostics.contains(diagnostic) {
                log(diagnostic);
            }
        }
    }
    report.send_modify(|report| {
        report.synced = true;
        report.confirmed = Instant::now();
        report.problem = None;
        if let Some(folder) = folder {
            report.folder = folder;
        }
    });
    true
}

fn complain(report: &channel::Sender<SourceReport>, problem: String) {
    if report.borrow().problem.as_ref() != Some(&problem) {
        tracing::warn!(source = report.borrow().name, problem, "a source cannot be read; what it told before stays");
        report.send_modify(|report| report.problem = Some(problem));
    }
}

/// Logs a complaint about an object, as bad as it is.
pub(crate) fn log(diagnostic: &tombolo_federation_model::Diagnostic) {
    use tombolo_federation_model::Severity;
    match diagnostic.severity {
        Severity::Error => tracing::error!(target: "tombolo::objects", "{diagnostic}"),
        Severity::Warning => tracing::warn!(target: "tombolo::objects", "{diagnostic}"),
        Severity::Info => tracing::info!(target: "tombolo::objects", "{diagnostic}"),
    }
}

fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}
