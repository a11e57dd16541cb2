//! A site's manifests: read from a folder, watched for changes, with the last good version of what breaks.
//!
//! Owns the reading that `up` itself needs (what to run, which ports gateways serve). The control plane reads the same
//! folder for itself with the same code, and is the one that reports broken objects.

use anyhow::Context;
use notify::{RecursiveMode, Watcher};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;
use tombolo_controlplane_dialect::{self as dialect, Document, Reading};
use tombolo_federation_model::{ClusterId, TrustDomain};

/// What a folder looks like from outside: cheap to compare.
type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// What a look at a folder found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// What was known.
    Same,
    /// Another reading.
    Changed,
    /// Somebody is writing at this moment: look again soon.
    Unsettled,
}

/// A file changed so lately may be half written: a shell empties it before it writes.
const QUIET: Duration = Duration::from_millis(10);

/// The manifests of one site.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    context: dialect::Context,
    seen: Fingerprint,
    reading: Reading,
}

impl Folder {
    /// Reads a folder for the first time.
    ///
    /// # Errors
    /// When it is not a readable folder.
    pub(crate) fn open(path: &Path, context: dialect::Context) -> anyhow::Result<Self> {
        let seen = fingerprint(path)?;
        let reading = dialect::read(&documents(path, &seen), &context);
        Ok(Self { path: path.to_owned(), context, seen, reading })
    }

    /// Looks again.
    pub(crate) fn refresh(&mut self) -> Look {
        // A folder that is away for a moment (an editor, a checkout) changes nothing.
        let Ok(now) = fingerprint(&self.path) else { return Look::Same };
        if now == self.seen {
            return Look::Same;
        }
        let clock = SystemTime::now();
        if now.iter().any(|file| is_being_written(file, clock) && !self.seen.contains(file)) {
            return Look::Unsettled;
        }
        let mut reading = dialect::read(&documents(&self.path, &now), &self.context);
        reading.keep_last_good(&self.reading);
        self.seen = now;
        let changed = reading.objects != self.reading.objects;
        self.reading = reading;
        if changed { Look::Changed } else { Look::Same }
    }

    pub(crate) fn reading(&self) -> &Reading {
        &self.reading
    }
}

/// Wakes whoever waits when something below one of the folders changes. Keep the watcher for as long.
///
/// # Errors
/// When the system has no watches left.
pub(crate) fn watch(folders: &[PathBuf], wake: Arc<Notify>) -> anyhow::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |_: notify::Result<notify::Event>| wake.notify_one())
        .context("cannot watch folders")?;
    for folder in folders {
        let watch = watcher.watch(folder, RecursiveMode::Recursive);
        watch.with_context(|| format!("cannot watch {}", folder.display()))?;
    }
    Ok(watcher)
}

/// Clocks of file systems may run a little ahead; a time far in the future says nothing.
fn is_being_written((_, modified, _): &(PathBuf, Option<SystemTime>, u64), now: SystemTime) -> bool {
    modified.is_some_and(|at| now.duration_since(at).unwrap_or_else(|ahead| ahead.duration()) < QUIET)
}

fn fingerprint(root: &Path) -> anyhow::Result<Fingerprint> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read the folder {}", folder.display()))?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            // Follows links, as `kubectl apply` does. What vanished meanwhile is not there.
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() {
                folders.push(path);
            } else if path.to_str().is_some_and(dialect::is_manifest) {
                found.push((path, meta.modified().ok(), meta.len()));
            }
        }
        if found.len() > 100_000 {
            anyhow::bail!("{} holds more than 100000 manifests", root.display());
        }
    }
    found.sort();
    Ok(found)
}

fn documents(root: &Path, files: &Fingerprint) -> Vec<Document> {
    files
        .iter()
        .filter_map(|(path, _, _)| {
            let place = path.strip_prefix(root).unwrap_or(path).display().to_string();
            fs::read(path).ok().map(|text| Document::new(place, text))
        })
        .collect()
}

/// Every manifest below a folder, in no particular order.
///
/// # Errors
/// When it is not a readable folder.
pub(crate) fn read_documents(root: &Path) -> anyhow::Result<Vec<Document>> {
    Ok(documents(root, &fingerprint(root)?))
}

/// The context in which a site's manifests are read.
///
/// # Errors
/// When the site's name is no cluster id.
pub(crate) fn context(site: &str, trust_domain: &TrustDomain) -> anyhow::Result<dialect::Context> {
    let cluster = ClusterId::parse(site).with_context(|| format!("{site:?} cannot be a cluster id"))?;
    Ok(dialect::Context::new(cluster, trust_domain.clone()))
}

#[cfg(test)]
pub(crate) fn read_text(yaml: &str) -> Reading {
    let context = context("east", &TrustDomain::parse("east.local").unwrap()).unwrap();
    dialect::read(&[Document::new("test.yaml", yaml)], &context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80, name: http}]}\n";

    fn open(path: &Path) -> anyhow::Result<Folder> {
        Folder::open(path, context("east", &TrustDomain::parse("east.local").unwrap()).unwrap())
    }

    /// Makes a file's last change look as old as it takes to be believed.
    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn a_broken_edit_keeps_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yaml");
        write(&file, SERVICE);
        write(&dir.path().join("notes.txt"), "kind: Nothing");
        let mut folder = open(dir.path()).unwrap();
        assert_eq!(folder.reading().objects.len(), 1);
        assert_eq!(folder.refresh(), Look::Same);

        write(&file, "kind: [");
        folder.refresh();
        assert_eq!(folder.reading().objects.len(), 1, "the last good version is gone");

        fs::remove_file(&file).unwrap();
        assert_eq!(folder.refresh(), Look::Changed);
        assert!(folder.reading().objects.is_empty());
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let now = SystemTime::now();
        let check = |modified: Option<SystemTime>, expect| {
            assert_eq!(is_being_written(&("web.yaml".into(), modified, 0), now), expect, "{modified:?}");
        };
        check(Some(now), true);
        check(Some(now - QUIET / 2), true);
        check(Some(now + QUIET / 2), true);
        check(Some(now - QUIET), false);
        check(Some(now + Duration::from_secs(3600)), false);
        check(None, false);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = open(Path::new("/nonexistent-folder")).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent-folder"), "{error:#}");
    }
}
