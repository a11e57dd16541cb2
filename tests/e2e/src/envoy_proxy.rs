//! A stock Envoy under our control plane: `tombolo agent` beside it, a node of its own, and an end with the test.

use crate::federation::Federation;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What the Envoy stands for.
pub struct Stand<'a> {
    /// `router` or `sidecar`.
    pub role: &'a str,
    /// Name of the node, unique in the test.
    pub name: &'a str,
    /// The proxy of the federation whose token and metadata it uses: a folder below `STATE/sites/SITE/proxies`.
    pub like: &'a str,
    /// Address of the node.
    pub ip: &'a str,
    /// `delta` or `sotw`.
    pub mode: &'a str,
    /// Changes of that proxy's metadata.
    pub metadata: Value,
}

/// A running Envoy with its agent.
pub struct Envoy {
    agent: Child,
    envoy: Child,
    /// Address of its admin interface.
    pub admin: String,
    folder: PathBuf,
}

impl Envoy {
    /// Starts the agent and Envoy in the site `east` of the federation, and waits until Envoy is live.
    ///
    /// # Errors
    /// When either ends or is not ready in time; the text holds Envoy's log.
    pub fn start(federation: &Federation, stand: &Stand<'_>) -> Result<Self> {
        let folder = federation.scratch().join(stand.name);
        fs::create_dir_all(&folder)?;
        let admin = format!("{}:15000", stand.ip);
        let agent = start_agent(federation, stand, &folder, &admin)?;
        let bootstrap = folder.join("agent").join("bootstrap.json");
        let mut running = Self { agent, envoy: placeholder()?, admin, folder };
        running.wait("the agent's bootstrap file", || bootstrap.exists())?;
        let log = File::create(running.folder.join("envoy.log"))?;
        // Numbers keep several Envoys on one machine apart in shared memory.
        let base_id = (std::process::id() % 30_000) * 2 + u32::from(stand.role == "router");
        let envoy = Command::new(tombolo_tests_kit::peers::envoy()?)
            .args(["--config-path"])
            .arg(&bootstrap)
            .args([
                "--base-id",
                &base_id.to_string(),
                "--concurrency",
                "1",
                "--drain-time-s",
                "1",
                "--log-level",
                "info",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("could not start Envoy")?;
        let _ = std::mem::replace(&mut running.envoy, envoy).wait();
        Ok(running)
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it is not within thirty seconds.
    pub fn wait(&mut self, what: &str, mut so: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            if let Some(status) = self.agent.try_wait()? {
                bail!("the agent ended with {status}:\n{}", self.log("agent.log"));
            }
            if Instant::now() > deadline {
                bail!("{what} did not come within 30 s:\n{}\n{}", self.log("agent.log"), self.log("envoy.log"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of a log.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Something to hold until Envoy is there.
fn placeholder() -> Result<Child> {
    Ok(Command::new("true").stdin(Stdio::null()).spawn()?)
}

fn start_agent(federation: &Federation, stand: &Stand<'_>, folder: &std::path::Path, admin: &str) -> Result<Child> {
    let site = federation.site("east")?;
    let xds =
        site.pointer("/control_plane/xds_tls").and_then(Value::as_str).context("no xds_tls address in up.json")?;
    let site_folder = federation.state().join("sites").join("east");
    let like = site_folder.join("proxies").join(stand.like);
    let mut metadata: Value = serde_json::from_slice(&fs::read(like.join("metadata.json"))?)?;
    if let (Some(metadata), Some(changes)) = (metadata.as_object_mut(), stand.metadata.as_object()) {
        metadata.extend(changes.clone());
    }
    let namespace = metadata["NAMESPACE"].as_str().unwrap_or("default").to_owned();
    let file = folder.join("metadata.json");
    fs::write(&file, serde_json::to_vec(&metadata)?)?;
    let log = File::create(folder.join("agent.log"))?;
    let node = format!("{}~{}~{}.{namespace}~{namespace}.svc.cluster.local", stand.role, stand.ip, stand.name);
    federation
        .command()
        .args(["agent", "--xds", xds, "--xds-mode", stand.mode, "--admin", admin, "--node", &node])
        .args(["--xds-identity", "spiffe://east.local/ns/tombolo-system/sa/controlplane"])
        .arg("--xds-roots")
        .arg(site_folder.join("control-plane").join("bundle.pem"))
        .arg("--token-file")
        .arg(like.join("token"))
        .arg("--metadata-file")
        .arg(file)
        .arg("--dir")
        .arg(folder.join("agent"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("could not start the agent")
}

impl Drop for Envoy {
    fn drop(&mut self) {
        for child in [&mut self.envoy, &mut self.agent] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
