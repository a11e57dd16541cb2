//! A running `tombolo up` with a state folder of its own. Ends what it started, and nothing else.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a start may take on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A federation that runs until it is dropped.
pub struct Federation {
    process: Child,
    folder: TempDir,
    executable: PathBuf,
}

impl Federation {
    /// Starts `EXECUTABLE up` with further arguments and waits until everything is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the text holds its output.
    pub fn start(executable: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("tombolo-e2e-").tempdir()?;
        let log = File::create(folder.path().join("up.log"))?;
        let process = Command::new(executable)
            .args(["up", "--state"])
            .arg(folder.path().join("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {executable}"))?;
        let mut federation = Self { process, folder, executable: PathBuf::from(executable) };
        federation.wait_ready()?;
        Ok(federation)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.state().join("up.json").exists() {
            if let Some(status) = self.process.try_wait()? {
                bail!("up ended with {status}:\n{}", self.output());
            }
            if Instant::now() > deadline {
                bail!("up was not ready within {READY_WITHIN:?}:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What `up` printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A folder beside the state that goes with the federation.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Another `tombolo` command.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::new(&self.executable)
    }

    /// The current `up.json`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn up(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.state().join("up.json"))?)?)
    }

    /// One site of `up.json`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn site(&self, name: &str) -> Result<Value> {
        let up = self.up()?;
        let sites = up["sites"].as_array().context("up.json has no sites")?;
        sites.iter().find(|site| site["name"] == name).cloned().with_context(|| format!("up.json has no site {name}"))
    }

    /// One workload of a site, the first whose name begins so.
    ///
    /// # Errors
    /// When there is none.
    pub fn workload(&self, site: &str, prefix: &str) -> Result<Value> {
        let site = self.site(site)?;
        let workloads = site["workloads"].as_array().context("the site has no workloads")?;
        workloads
            .iter()
            .find(|workload| workload["name"].as_str().is_some_and(|name| name.starts_with(prefix)))
            .cloned()
            .with_context(|| format!("no workload begins with {prefix}"))
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its own children; `kill` is part of every Linux machine.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
