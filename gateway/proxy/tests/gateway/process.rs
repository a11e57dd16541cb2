//! A gateway process and a way to wait for what it says.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};
use tombolo_tests_kit::free;

/// How long another process may take: a machine that is busy with other tests has time.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Gateway {
    child: Child,
    pub admin: SocketAddr,
}

pub struct Options<'a> {
    pub xds: SocketAddr,
    pub sotw: bool,
    pub state: Option<&'a Path>,
    pub more: Vec<String>,
}

impl<'a> Options<'a> {
    pub fn new(xds: SocketAddr) -> Self {
        Self { xds, sotw: false, state: None, more: Vec::new() }
    }
}

impl Gateway {
    pub fn spawn(options: &Options<'_>) -> Self {
        let admin = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo-gateway"));
        command
            .args([
                "--xds",
                &options.xds.to_string(),
                "--node",
                "sidecar~127.0.0.1~test.default~default.svc.cluster.local",
            ])
            .args(["--admin", &admin.to_string(), "--drain-seconds", "30"])
            .args(["--log", &std::env::var("GATEWAY_LOG").unwrap_or_else(|_| "warn".into())]);
        if options.sotw {
            command.args(["--xds-mode", "sotw"]);
        }
        if !options.more.iter().any(|arg| arg == "--workers") {
            command.args(["--workers", "1"]);
        }
        if let Some(state) = options.state {
            command.arg("--state").arg(state);
        }
        command.args(&options.more).stdout(Stdio::inherit()).stderr(Stdio::inherit()).kill_on_drop(true);
        Self { child: command.spawn().unwrap(), admin }
    }

    /// A gateway that serves what a file says.
    pub async fn from_file(file: &str) -> Self {
        let admin = free();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo-gateway"));
        command.args(["--config", file, "--admin", &admin.port().to_string(), "--workers", "1", "--log", "warn"]);
        let mut gateway = Self { child: command.kill_on_drop(true).spawn().unwrap(), admin };
        gateway.until_ready().await;
        gateway
    }

    /// A gateway that serves.
    pub async fn ready(options: &Options<'_>) -> Self {
        let mut gateway = Self::spawn(options);
        gateway.until_ready().await;
        gateway
    }

    pub async fn until_ready(&mut self) {
        let admin = self.admin;
        eventually(
            "the gateway is ready",
            async || matches!(crate::client::get(admin, "/ready").await, Ok(r) if r.status == 200),
        )
        .await;
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Asks it to stop and waits until it did.
    pub async fn terminate(mut self) -> std::process::ExitStatus {
        self.signal();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }

    pub fn signal(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    pub async fn exited(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }

    pub async fn metrics(&self) -> String {
        crate::client::get(self.admin, "/metrics").await.unwrap().body
    }
}

/// Waits for something that another process does; asks often, gives up late.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
