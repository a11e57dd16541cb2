//! A gateway process.

use crate::wire1::PATIENCE;
use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use tombolo_tests_kit::free;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// Its admin interface.
    pub admin: SocketAddr,
}

impl Gateway {
    /// Starts the program and waits until it serves what the control plane says.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ready(program: &Path, xds: SocketAddr, workers: usize) -> Result<Self> {
        let xds = xds.to_string();
        let args = ["--xds", &xds, "--xds-mode", "sotw", "--node", "router~127.0.0.1~test.d~d.svc"];
        Self::start(program, &args, workers).await
    }

    /// The same for what a file says.
    ///
    /// # Errors
    /// When it does not serve that in time.
    pub async fn of_file(program: &Path, file: &Path, workers: usize) -> Result<Self> {
        let file = file.to_string_lossy();
        Self::start(program, &["--config", &file], workers).await
    }

    async fn start(program: &Path, args: &[&str], workers: usize) -> Result<Self> {
        let admin = free();
        let mut command = Command::new(program);
        command
            .args(args)
            .args(["--admin", &admin.to_string(), "--workers", &workers.to_string(), "--drain-seconds", "30"])
            .args(["--log", &std::env::var("GATEWAY_LOG").unwrap_or_else(|_| "warn".into())])
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut gateway = Self { child: command.spawn()?, admin };
        let begun = Instant::now();
        while !matches!(gateway.ask("/ready").await, Ok((200, _))) {
            if let Some(status) = gateway.child.try_wait()? {
                bail!("the gateway ended with {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "the gateway was never ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(gateway)
    }

    /// A page of the admin interface: status and text.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&self, path: &str) -> Result<(u16, String)> {
        let stream = TcpStream::connect(self.admin).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "admin").body(Empty::<bytes::Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The sum of a counter over all its labels.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn counter(&self, name: &str) -> Result<f64> {
        let (_, text) = self.ask("/metrics").await?;
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let lines = text.lines().filter(is_it);
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Bytes of memory that the process held at most so far, or since it gave back what only its start needed.
    ///
    /// # Errors
    /// When it has ended.
    pub fn most_memory(&self) -> Result<u64> {
        let pid = self.child.id().context("it has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// That no task of it broke.
    ///
    /// # Errors
    /// When one did, or it gives no answer.
    pub async fn is_whole(&self) -> Result<()> {
        let panics = self.counter("tombolo_gateway_panics_total").await?;
        ensure!(panics == 0.0, "{panics} panics");
        Ok(())
    }

    /// Asks it to stop; the future ends when it has.
    ///
    /// # Errors
    /// When it does not.
    pub async fn terminate(mut self) -> Result<std::process::ExitStatus> {
        let pid = self.child.id().context("it has ended")?;
        let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        if !asked.success() {
            bail!("it cannot be asked to stop");
        }
        Ok(tokio::time::timeout(PATIENCE, self.child.wait()).await??)
    }
}
