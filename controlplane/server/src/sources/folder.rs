//! A folder of text files as it is now, and what changed since the last look.
//!
//! Owns the memory of what was seen: a file is read again only when its size, time or inode is another, and counts as
//! changed only when its bytes are. Editors that write in place, truncate first or replace by renaming are tolerated: a file
//! that vanished or became empty is believed only at a later look. Never interprets the text.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tombolo_controlplane_dialect::is_manifest;

/// How long a file must be gone, or empty, before that is believed.
pub(super) const DOUBT: Duration = Duration::from_millis(60);
/// Larger files are reported, not read.
const LARGEST: u64 = 16 << 20;
/// Folders below folders; more is taken for a loop of links.
const DEEPEST: usize = 16;
/// More files than any folder of manifests has.
const MOST_FILES: usize = 50_000;

/// What a look at a folder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// New and changed files, by path below the folder.
    pub(super) changed: BTreeMap<String, Arc<[u8]>>,
    /// Files that are gone.
    pub(super) removed: Vec<String>,
    /// Files that could not be read, with the reason. Their last text is kept.
    pub(super) unreadable: BTreeMap<String, String>,
    /// True when a file vanished or became empty and another look should follow after [`DOUBT`].
    pub(super) doubtful: bool,
}

impl Look {
    /// True when nothing is to be told.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// A folder and the memory of its files.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    files: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    text: Arc<[u8]>,
    doubted: bool,
}

/// What `stat` says; another value means that the bytes may be other ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Folder {
    /// Knows nothing yet.
    #[must_use]
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new() }
    }

    /// Looks at every file.
    ///
    /// # Errors
    /// When the folder itself cannot be listed; what was seen before stays.
    pub(super) fn look(&mut self) -> io::Result<Look> {
        let mut found = BTreeMap::new();
        let mut look = Look::default();
        list(&self.root, "", 0, &mut found)?;
        for (name, stamp) in &found {
            self.examine(name, *stamp, &mut look);
        }
        let gone: Vec<String> = self.files.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            if self.doubt(&name) {
                look.doubtful = true;
            } else {
                self.files.remove(&name);
                look.removed.push(name);
            }
        }
        Ok(look)
    }

    fn examine(&mut self, name: &str, stamp: Stamp, look: &mut Look) {
        if self.files.get(name).is_some_and(|seen| seen.stamp == stamp && !seen.doubted) {
            return;
        }
        let text = match read(&self.root.join(name), stamp) {
            Ok(text) => text,
            Err(reason) => {
                look.unreadable.insert(name.to_owned(), reason);
                return;
            }
        };
        let was_full = self.files.get(name).is_some_and(|seen| !is_blank(&seen.text));
        if is_blank(&text) && was_full && self.doubt(name) {
            look.doubtful = true;
            return;
        }
        match self.files.get_mut(name) {
            Some(seen) if *seen.text == *text => {
                seen.stamp = stamp;
                seen.doubted = false;
            }
            _ => {
                look.changed.insert(name.to_owned(), text.clone());
                self.files.insert(name.to_owned(), Seen { stamp, text, doubted: false });
            }
        }
    }

    /// True at the first time that a file seems to be gone or empty.
    fn doubt(&mut self, name: &str) -> bool {
        self.files.get_mut(name).is_some_and(|seen| !std::mem::replace(&mut seen.doubted, true))
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.trim_ascii().is_empty()
}

fn read(path: &Path, stamp: Stamp) -> Result<Arc<[u8]>, String> {
    if stamp.size > LARGEST {
        return Err(format!("it is larger than {} MiB", LARGEST >> 20));
    }
    fs::read(path).map(Arc::from).map_err(|e| e.to_string())
}

/// Every YAML and JSON file below a folder. Names that begin with a dot are left out: version control, editors and mounted
/// volumes keep their own things there.
fn list(folder: &Path, below: &str, depth: usize, found: &mut BTreeMap<String, Stamp>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        // Follows links; a file that vanished since it was listed is gone.
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        if meta.is_dir() {
            if depth < DEEPEST {
                // A folder that cannot be listed must not hide its siblings.
                if let Err(error) = list(&entry.path(), &path, depth + 1, found) {
                    tracing::warn!(folder = %entry.path().display(), %error, "cannot list a folder");
                }
            }
        } else if meta.is_file() && is_manifest(name) && found.len() < MOST_FILES {
            found.insert(path, Stamp::of(&meta));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn names(look: &Look) -> (Vec<&str>, Vec<&str>) {
        (look.changed.keys().map(String::as_str).collect(), look.removed.iter().map(String::as_str).collect())
    }

    fn folder() -> (TempDir, Folder) {
        let dir = TempDir::new().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        (dir, folder)
    }

    #[test]
    fn only_what_changed_is_told() {
        let (dir, mut folder) = folder();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (file, text) in
            [("a.yaml", "a: 1"), ("sub/b.yml", "b: 1"), ("c.json", "{}"), ("d.txt", "x"), (".e.yaml", "x")]
        {
            fs::write(dir.path().join(file), text).unwrap();
        }
        assert_eq!(names(&folder.look().unwrap()), (vec!["a.yaml", "c.json", "sub/b.yml"], vec![]));
        assert!(folder.look().unwrap().is_quiet());
        fs::write(dir.path().join("sub/b.yml"), "b: 2").unwrap();
        assert_eq!(names(&folder.look().unwrap()), (vec!["sub/b.yml"], vec![]));
        // The same bytes again are no change.
        fs::write(dir.path().join("a.yaml"), "a: 1").unwrap();
        assert!(folder.look().unwrap().is_quiet());
    }

    #[test]
    fn a_vanished_file_is_believed_at_the_second_look() {
        let (dir, mut folder) = folder();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "a: 1").unwrap();
        folder.look().unwrap();
        fs::remove_file(&file).unwrap();
        let look = folder.look().unwrap();
        assert!(look.is_quiet() && look.doubtful);
        // An editor that replaces a file by renaming: it is back, with other bytes.
        fs::write(&file, "a: 2").unwrap();
        assert_eq!(names(&folder.look().unwrap()), (vec!["a.yaml"], vec![]));
        fs::remove_file(&file).unwrap();
        folder.look().unwrap();
        assert_eq!(names(&folder.look().unwrap()), (vec![], vec!["a.yaml"]));
    }

    #[test]
    fn an_emptied_file_is_doubted_once() {
        let (dir, mut folder) = folder();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "a: 1").unwrap();
        folder.look().unwrap();
        fs::write(&file, "").unwrap();
        let look = folder.look().unwrap();
        assert!(look.is_quiet() && look.doubtful);
        fs::write(&file, "a: 1").unwrap();
        assert!(folder.look().unwrap().is_quiet(), "the same text came back");
        fs::write(&file, "\n").unwrap();
        folder.look().unwrap();
        assert_eq!(names(&folder.look().unwrap()), (vec!["a.yaml"], vec![]));
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_and_forgets_nothing() {
        let (dir, mut folder) = folder();
        fs::write(dir.path().join("a.yaml"), "a: 1").unwrap();
        folder.look().unwrap();
        let away = dir.path().with_extension("away");
        fs::rename(dir.path(), &away).unwrap();
        assert!(folder.look().is_err());
        assert!(folder.look().is_err());
        fs::rename(&away, dir.path()).unwrap();
        assert!(folder.look().unwrap().is_quiet());
    }

    #[test]
    fn what_cannot_be_read_keeps_its_last_text() {
        let (dir, mut folder) = folder();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "a: 1").unwrap();
        folder.look().unwrap();
        fs::File::create(&file).unwrap().set_len(LARGEST + 1).unwrap();
        let look = folder.look().unwrap();
        assert!(look.is_quiet() && look.unreadable.contains_key("a.yaml"));
    }
}
