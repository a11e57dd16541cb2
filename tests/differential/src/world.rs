//! One side of the test: a control plane, a proxy process and a folder. Owns the process and ends it.

use crate::{
    ads::{self, Ads},
    script::Scenario,
};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};
use tempfile::TempDir;

/// Who proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The stock Envoy.
    Envoy,
    /// Our gateway, at this path.
    Ours(&'static str),
}

/// One side.
pub struct World {
    /// Who proxies here.
    pub who: Who,
    /// Loopback address of the side.
    pub ip: String,
    /// Its control plane.
    pub ads: Ads,
    folder: TempDir,
    process: Mutex<Child>,
}

impl World {
    /// Starts one side.
    ///
    /// # Errors
    /// When the proxy cannot be had or started.
    pub async fn start(who: Who, salt: u8) -> Result<Self> {
        let last = if who == Who::Envoy { 1 } else { 2 };
        // Apart from other runs on the machine, which have another process number.
        let pid = std::process::id();
        let ip = format!("127.{}.{}.{}", 100 + pid % 97, pid / 97 % 250, u32::from(salt) * 2 + last);
        let folder = tempfile::Builder::new().prefix("tombolo-diff-").tempdir()?;
        let ads = ads::start(SocketAddr::new(ip.parse()?, 0)).await;
        let admin = format!("{ip}:9901");
        let mut command = match who {
            Who::Envoy => envoy(folder.path(), &ip, &ads, salt)?,
            Who::Ours(path) => ours(path, &ads, &admin),
        };
        let log = File::create(folder.path().join("process.txt"))?;
        // What is configured may name files, spoilt ones too: they belong into this folder.
        let process = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("could not start {command:?}"))?;
        Ok(Self { who, ip, ads, folder, process: Mutex::new(process) })
    }

    /// The folder of this side.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// The places of a scenario here.
    #[must_use]
    pub fn place(&self, scenario: &Scenario, number: u16) -> crate::place::Place {
        crate::place::Place { ip: self.ip.clone(), number, scenario: scenario.name, folder: self.folder() }
    }

    /// Whether the proxy still runs.
    ///
    /// # Errors
    /// When it does not; the text holds the end of its log.
    pub fn alive(&self) -> Result<()> {
        match self.process.lock().expect("nobody panics with it").try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{:?} ended with {status}:\n{}", self.who, self.log()),
        }
    }

    /// The end of the proxy's log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("process.txt")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(process) = self.process.get_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn ours(path: &str, ads: &Ads, admin: &str) -> Command {
    let mut command = Command::new(path);
    command.args(["--xds", &ads.address.to_string(), "--node", "differential", "--cluster", "differential"]);
    command.args(["--admin", admin, "--workers", "1", "--log", "info"]);
    command
}

fn envoy(folder: &Path, ip: &str, ads: &Ads, salt: u8) -> Result<Command> {
    let file = folder.join("bootstrap.json");
    std::fs::write(&file, serde_json::to_vec(&bootstrap(ip, ads))?)?;
    let mut command = Command::new(tombolo_tests_kit::peers::envoy()?);
    // Numbers keep several Envoys on one machine apart in shared memory.
    let base = (std::process::id() % 20_000) * 4 + 1_000_000 + u32::from(salt);
    command.arg("--config-path").arg(file).args(["--base-id", &base.to_string(), "--concurrency", "1"]);
    command.args(["--log-level", "warning", "--file-flush-interval-msec", "50", "--drain-time-s", "2"]);
    command.args(["--drain-strategy", "immediate"]);
    Ok(command)
}

fn bootstrap(ip: &str, ads: &Ads) -> serde_json::Value {
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let address = |port: u16| json!({"socket_address": {"address": ip, "port_value": port}});
    json!({
        "node": {"id": "differential", "cluster": "differential"},
        "admin": {"address": address(9901)},
        "dynamic_resources": {
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "lds_config": source, "cds_config": source,
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(ads.address.port())}},
            ]}]},
        }]},
    })
}
