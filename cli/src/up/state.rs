//! The state folder of a run, and the locks that keep two runs apart.
//!
//! Owns what may be deleted there: only folders that `up` itself marked, and only when no other run holds them. Locks are
//! the kernel's, so that a run that died cannot leave one behind.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// In the state folder; marks it as ours and is locked by the run.
const MARK: &str = "up.lock";
/// What `up` puts into its folder, and therefore may remove.
const OWN: [&str; 4] = ["up.json", "sites", "logs", "manifests"];

/// Who holds a lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    state: PathBuf,
}

/// A state folder that belongs to this run until it is dropped.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    /// Held, never read.
    _locks: Vec<Lock>,
}

/// A file locked for this process; dropping it gives the lock up.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not be enough: the lock belongs to the open file description (flock(2)), and a child that another
        // thread forked a moment ago shares that until it executes its program. An error leaves what closing does.
        let _ = self.0.unlock();
    }
}

impl State {
    /// Takes the folder and the address blocks, and clears what a dead run left.
    ///
    /// # Errors
    /// When another run is alive, or the folder is not ours to clear.
    pub(crate) fn take(root: &Path, blocks: &[u8]) -> anyhow::Result<Self> {
        let lock_folder = lock_folder();
        fs::create_dir_all(root).with_context(|| format!("cannot create the state folder {}", root.display()))?;
        let root = fs::canonicalize(root).with_context(|| format!("cannot use {}", root.display()))?;
        let mark = root.join(MARK);
        let empty = fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_none());
        if !empty && !mark.exists() {
            bail!("{} is not empty and was not made by tombolo up; name another folder with --state", root.display());
        }
        let holder = Holder { pid: std::process::id(), state: root.clone() };
        let mut locks = vec![lock(&mark, &holder, "the state folder")?];
        fs::create_dir_all(&lock_folder).with_context(|| format!("cannot create {}", lock_folder.display()))?;
        for block in blocks {
            let path = lock_folder.join(format!("127.{block}.lock"));
            locks.push(lock(&path, &holder, &format!("127.{block}.0.0/16"))?);
        }
        end_leftovers(&root);
        for name in OWN {
            remove(&root.join(name))?;
        }
        for folder in ["sites", "logs"] {
            fs::create_dir_all(root.join(folder)).with_context(|| format!("cannot write to {}", root.display()))?;
        }
        Ok(Self { root, _locks: locks })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Remembers this folder as the latest, so that other commands find it without being told.
    pub(crate) fn announce(&self) {
        let (folder, root) = (user_state(), self.root.display().to_string());
        // Only a convenience: without it `--state` is needed.
        let _ = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("current"), root));
    }

    /// Folder of a site.
    pub(crate) fn site(&self, name: &str) -> PathBuf {
        self.root.join("sites").join(name)
    }

    /// Log file of a child.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Empties logs that grew too long. Children append, so that they go on at the beginning.
    pub(crate) fn trim_logs(&self, limit: u64) {
        let Ok(entries) = fs::read_dir(self.root.join("logs")) else { return };
        for path in entries.flatten().filter(|e| e.metadata().is_ok_and(|m| m.len() > limit)).map(|e| e.path()) {
            // A log that cannot be emptied is tried again later.
            let _ = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
        }
    }

    /// Writes `up.json` as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn publish(&self, text: &str) -> anyhow::Result<()> {
        let (scratch, target) = (self.root.join(".up.json"), self.root.join("up.json"));
        fs::write(&scratch, text).with_context(|| format!("cannot write {}", scratch.display()))?;
        fs::rename(&scratch, &target).with_context(|| format!("cannot write {}", target.display()))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Scripts take its presence as "running". Logs and manifests stay for reading.
        let _ = fs::remove_file(self.root.join("up.json"));
    }
}

fn lock(path: &Path, holder: &Holder, what: &str) -> anyhow::Result<Lock> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let mut file = open.with_context(|| format!("cannot open {}", path.display()))?;
    let mut lock = match file.try_lock() {
        Ok(()) => Lock(file),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            match serde_json::from_str::<Holder>(&text) {
                Ok(other) => bail!(
                    "another `tombolo up` (pid {}, state folder {}) uses {what}; stop it with `kill {}`, or run beside it \
                     with --state DIR --loopback-base N",
                    other.pid,
                    other.state.display(),
                    other.pid
                ),
                Err(_) => bail!("another `tombolo up` uses {what} and is just starting; try again"),
            }
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {}", path.display())),
    };
    let text = serde_json::to_string(holder).context("cannot describe this run")?;
    let file = &mut lock.0;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(lock)
}

/// Ends processes that a dead run left, if they are really its own. Children end by themselves when their parent does;
/// this is for one that was stopped by a debugger at that moment.
fn end_leftovers(root: &Path) {
    use nix::{sys::signal, unistd::Pid};
    let Ok(text) = fs::read_to_string(root.join("up.json")) else { return };
    let Ok(up) = serde_json::from_str::<serde_json::Value>(&text) else { return };
    let mut pids = Vec::new();
    collect_pids(&up, &mut pids);
    for pid in pids {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&environment).contains(tombolo_gateway_proxy::lifeline::VARIABLE)
            && String::from_utf8_lossy(&command).starts_with("tombolo");
        if ours {
            eprintln!("ending process {pid}, left by an earlier run");
            let _ = signal::kill(Pid::from_raw(pid), signal::Signal::SIGKILL);
        }
    }
}

fn collect_pids(value: &serde_json::Value, into: &mut Vec<i32>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                if key == "pid" || key == "sidecar_pid" {
                    into.extend(value.as_i64().and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 1));
                } else {
                    collect_pids(value, into);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| collect_pids(v, into)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}, left by an earlier run", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Locks are for the machine's addresses, so that they are not in a state folder.
fn lock_folder() -> PathBuf {
    std::env::temp_dir().join(format!("tombolo-{}", user()))
}

/// The number of the user who runs this.
fn user() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").map_or(0, |meta| meta.uid())
}

/// Where state goes when nobody says.
pub(crate) fn default_root(base: u8) -> PathBuf {
    let name = if base == 0 { "up".to_owned() } else { format!("up-{base}") };
    user_state().join(name)
}

fn user_state() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("tombolo-{}", user())))
        .join("tombolo")
}

/// The state folder of the run that started last.
pub(crate) fn latest() -> Option<PathBuf> {
    let text = fs::read_to_string(user_state().join("current")).ok()?;
    Some(PathBuf::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_about_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = State::take(&folder.path().join("a"), &[250]).unwrap();
        let check = |root: &str, block, expect: &str| {
            let error = State::take(&folder.path().join(root), &[block]).unwrap_err().to_string();
            assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
            assert!(error.contains(expect) && error.contains(&first.root().display().to_string()), "{error}");
        };
        check("a", 251, "the state folder");
        check("b", 250, "127.250.0.0/16");
        let beside = State::take(&folder.path().join("b"), &[251]).unwrap();
        drop((first, beside));
        State::take(&folder.path().join("a"), &[250]).unwrap();
    }

    #[test]
    fn a_lock_is_given_up_although_a_forked_child_still_shares_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holder = Holder { pid: std::process::id(), state: folder.path().to_path_buf() };
        let first = lock(&path, &holder, "the state folder").unwrap();
        // What a child has between fork and exec: the same open file description.
        let _shared = first.0.try_clone().unwrap();
        drop(first);
        lock(&path, &holder, "the state folder").unwrap();
    }

    #[test]
    fn leftovers_are_cleared_but_strangers_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("s");
        let state = State::take(&root, &[252]).unwrap();
        fs::write(state.log("x"), "old").unwrap();
        fs::write(root.join("note.txt"), "mine").unwrap();
        drop(state);
        let state = State::take(&root, &[252]).unwrap();
        assert!(!state.log("x").exists());
        assert!(root.join("note.txt").exists());

        let strange = folder.path().join("photos");
        fs::create_dir(&strange).unwrap();
        fs::write(strange.join("cat.jpg"), "").unwrap();
        let error = State::take(&strange, &[253]).unwrap_err().to_string();
        assert!(error.contains("not made by tombolo up"), "{error}");
    }

    #[test]
    fn long_logs_are_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::take(&folder.path().join("s"), &[249]).unwrap();
        fs::write(state.log("long"), "0123456789").unwrap();
        fs::write(state.log("short"), "0123").unwrap();
        state.trim_logs(5);
        let length = |name| fs::metadata(state.log(name)).unwrap().len();
        assert_eq!((length("long"), length("short")), (0, 4));
    }

    #[test]
    fn up_json_is_there_only_while_running() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::take(&folder.path().join("s"), &[254]).unwrap();
        state.publish("{}").unwrap();
        let path = state.root().join("up.json");
        assert!(path.exists());
        drop(state);
        assert!(!path.exists());
    }
}
