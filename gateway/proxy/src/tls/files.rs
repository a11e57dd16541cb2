//! Files that certificates, keys and roots are read from, on the proxy's own machine.
//!
//! Owns which files are in use and what they looked like when they were read; a task looks at them again and again, so that
//! a replaced file is read anew. Never keeps what is in them, and never says it: errors name the file and the reason only.
//! Used where TLS contexts are built.

use ahash::AHashMap;
use std::{
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use zeroize::Zeroizing;

/// How long a replaced file may stay unnoticed.
const INTERVAL: Duration = Duration::from_secs(1);
/// Larger files hold no certificates.
const LARGEST: u64 = 4 << 20;

/// The files in use.
#[derive(Debug, Default)]
pub(crate) struct Files {
    known: Mutex<AHashMap<Arc<str>, Arc<File>>>,
    epoch: AtomicU64,
}

/// One of them.
#[derive(Debug)]
struct File {
    path: Arc<str>,
    /// Rises when it changes.
    version: AtomicU64,
    seen: Mutex<Option<Stamp>>,
}

/// What tells a file from its replacement. A renamed file has another inode, and so has the target of a link that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &str) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self {
            inode: (facts.dev(), facts.ino()),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }
}

/// The files that something was made of, as they were then.
#[derive(Debug, Default)]
pub(crate) struct Reads(Vec<(Arc<File>, u64)>);

impl Reads {
    /// None of them changed since.
    pub(crate) fn are_current(&self) -> bool {
        self.0.iter().all(|(file, version)| file.version.load(Ordering::Acquire) == *version)
    }
}

/// Reads files for one context and remembers which.
pub(crate) struct Reader<'a> {
    files: &'a Files,
    reads: Reads,
}

impl<'a> Reader<'a> {
    /// Nothing read yet.
    pub(crate) fn new(files: &'a Files) -> Self {
        Self { files, reads: Reads::default() }
    }

    /// What is in a file. The reading blocks; such files are small and near.
    ///
    /// # Errors
    /// Names the file and the reason.
    pub(crate) fn read(&mut self, path: &Arc<str>) -> Result<Zeroizing<Vec<u8>>, String> {
        let file = self.files.file(path);
        // Before the reading: a change while it goes on is noticed later.
        let version = file.version.load(Ordering::Acquire);
        self.reads.0.push((file, version));
        content(path).map_err(|error| format!("{path}: {error}"))
    }

    /// What was read, whether it could be or not.
    pub(crate) fn done(self) -> Reads {
        self.reads
    }
}

fn content(path: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    // Opening a pipe or a device could wait for ever.
    let facts = fs::metadata(path)?;
    if !facts.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if facts.len() > LARGEST {
        return Err(io::Error::other("it is too large for certificates"));
    }
    // Room for all of it at once: a buffer that grew would leave copies of a key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0) + 1));
    fs::File::open(path)?.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}

impl Files {
    fn file(&self, path: &Arc<str>) -> Arc<File> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let file = known.entry(path.clone()).or_insert_with(|| {
            let seen = Mutex::new(Stamp::of(path));
            Arc::new(File { path: path.clone(), version: AtomicU64::new(0), seen })
        });
        file.clone()
    }

    /// Rises whenever any file changed: whoever keeps something made of files asks for it again then.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Looks at every file in use, and forgets the others. Blocks.
    pub(crate) fn look(&self) {
        let files: Vec<_> = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, file| Arc::strong_count(file) > 1);
            known.values().cloned().collect()
        };
        for file in files {
            let now = Stamp::of(&file.path);
            let mut seen = file.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen != now {
                *seen = now;
                file.version.fetch_add(1, Ordering::Release);
                self.epoch.fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %file.path, here = now.is_some(), "file for TLS changed");
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Looks at the files of a store for as long as the process runs.
pub(crate) async fn watch(store: Arc<super::context::TlsStore>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if store.files.is_empty() {
            continue;
        }
        let store = store.clone();
        // File systems may be slow; nobody else waits for them here. A panic would have been reported already.
        let _ = tokio::task::spawn_blocking(move || store.files.look()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_noticed_and_an_unused_one_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path: Arc<str> = dir.path().join("c.pem").to_str().unwrap().into();
        let files = Files::default();
        let mut reader = Reader::new(&files);
        assert!(reader.read(&path).unwrap_err().starts_with(&*path));
        let missing = reader.done();
        files.look();
        assert!(missing.are_current());
        fs::write(&*path, "one").unwrap();
        files.look();
        assert!(!missing.are_current());
        let mut reader = Reader::new(&files);
        assert_eq!(&**reader.read(&path).unwrap(), b"one");
        let one = reader.done();
        let beside = dir.path().join("new");
        fs::write(&beside, "two").unwrap();
        fs::rename(&beside, &*path).unwrap();
        files.look();
        assert!(!one.are_current());
        drop((missing, one));
        files.look();
        assert!(files.is_empty());
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(content(dir.path().to_str().unwrap()).is_err());
        assert!(content("/dev/zero").unwrap_err().to_string().contains("not a regular file"));
    }
}
