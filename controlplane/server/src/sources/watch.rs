//! Says when a folder may have changed: by the kernel's notifications where there are any, and by the clock in any case.
//!
//! Owns the debouncing. Never looks into the folder itself.

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use std::{path::Path, time::Duration};
use tokio::{sync::mpsc, time::Instant};

/// Nothing may happen for so long before a change counts as finished.
const QUIET: Duration = Duration::from_millis(25);
/// A folder that never is quiet is looked at after this time.
const PATIENCE: Duration = Duration::from_millis(90);

/// Tells of changes below one folder.
pub(super) struct FolderWatch {
    events: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    watcher: Option<RecommendedWatcher>,
}

impl FolderWatch {
    /// Begins to watch. Where the kernel cannot tell, [`FolderWatch::changed`] only follows the clock.
    #[must_use]
    pub(super) fn start(folder: &Path) -> Self {
        let (sender, events) = mpsc::channel(1);
        let mut watch = Self { events, sender, watcher: None };
        watch.renew(folder);
        watch
    }

    /// Watches again from the beginning, for a folder that was replaced by another of the same name.
    pub(super) fn renew(&mut self, folder: &Path) {
        let sender = self.sender.clone();
        let tell = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !is_reading(&event.kind)) {
                // Full means that somebody is already going to look.
                let _ = sender.try_send(());
            }
        };
        let started = notify::recommended_watcher(tell)
            .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::Recursive).map(|()| watcher));
        self.watcher = match started {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "no notifications of changes, looking regularly instead");
                None
            }
        };
    }

    /// True when the kernel tells of changes.
    #[must_use]
    pub(super) fn is_watching(&self) -> bool {
        self.watcher.is_some()
    }

    /// Returns after a change has come to rest, or after the time at the latest. True when the kernel told of a change.
    pub(super) async fn changed(&mut self, at_latest: Duration) -> bool {
        let told = tokio::time::timeout(at_latest, self.events.recv()).await.is_ok_and(|event| event.is_some());
        if !told {
            return false;
        }
        let give_up = Instant::now() + PATIENCE;
        while let Ok(Some(())) = tokio::time::timeout_at(give_up.min(Instant::now() + QUIET), self.events.recv()).await
        {
            if Instant::now() >= give_up {
                break;
            }
        }
        true
    }
}

/// Our own reading must not wake us.
fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_changes_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = FolderWatch::start(dir.path());
        assert!(watch.is_watching());
        for i in 0..20 {
            std::fs::write(dir.path().join("a.yaml"), i.to_string()).unwrap();
        }
        assert!(watch.changed(Duration::from_secs(60)).await);
        // Once, or a few times where those who tell of it are held up.
        let mut more = 0;
        while watch.changed(Duration::from_millis(300)).await {
            more += 1;
        }
        assert!(more < 10, "{more} times more");
        std::fs::read(dir.path().join("a.yaml")).unwrap();
        assert!(!watch.changed(Duration::from_millis(100)).await, "reading is no change");
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(watch.changed(Duration::from_secs(60)).await);
    }
}
