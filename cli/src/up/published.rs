//! `up.json`: what runs where, for scripts and for the other commands.
//!
//! Owns the file's shape, both ways. Never says more than is true: it is written when everything is ready, and again
//! when processes or ports change.

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The process that runs everything.
    pub(crate) pid: u32,
    pub(crate) state: PathBuf,
    /// From start to ready.
    pub(crate) ready_ms: u64,
    pub(crate) sites: Vec<Site>,
    /// Servers outside of the mesh.
    #[serde(default)]
    pub(crate) outside: Vec<Outside>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) network: String,
    pub(crate) trust_domain: String,
    /// The user's manifests.
    pub(crate) folder: PathBuf,
    /// What `up` itself reports to the control plane.
    pub(crate) runtime: PathBuf,
    pub(crate) control_plane: ControlPlane,
    pub(crate) ingress: Gateway,
    pub(crate) east_west: Gateway,
    pub(crate) workloads: Vec<Workload>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlPlane {
    /// Without TLS, for whoever wants to look or to try a proxy by hand.
    pub(crate) xds: SocketAddr,
    /// Over TLS with a token, as the proxies here use it.
    pub(crate) xds_tls: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gateway {
    pub(crate) admin: SocketAddr,
    /// By the port number that manifests use.
    pub(crate) ports: BTreeMap<u16, SocketAddr>,
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where the application itself listens.
    pub(crate) app_ports: BTreeMap<u16, SocketAddr>,
    /// Absent when the manifest wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sidecar: Option<Sidecar>,
    pub(crate) ready: bool,
    pub(crate) pid: u32,
    pub(crate) sidecar_pid: u32,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) admin: SocketAddr,
    pub(crate) http_proxy: SocketAddr,
    pub(crate) inbound_ports: BTreeMap<u16, SocketAddr>,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outside {
    pub(crate) name: String,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) pid: u32,
}

impl Published {
    /// Reads the file of a running `up`: in the given state folder, or that of the latest run.
    ///
    /// # Errors
    /// When nothing runs there.
    pub(crate) fn find(state: Option<&Path>) -> anyhow::Result<Self> {
        let latest = super::state::latest();
        let Some(folder) = state.map(Path::to_path_buf).or(latest) else {
            bail!("no running `tombolo up` is known; start one, or name its state folder with --state");
        };
        Self::read(&folder)
    }

    /// Reads the file in a state folder.
    ///
    /// # Errors
    /// When it is not there, or not readable.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("up.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                bail!("no `tombolo up` runs in {} (there is no up.json)", folder.display())
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    pub(crate) fn site(&self, name: &str) -> anyhow::Result<&Site> {
        let names = || self.sites.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        self.sites.iter().find(|s| s.name == name).with_context(|| format!("no site {name:?}; there are: {}", names()))
    }
}

impl Site {
    /// A workload by name, or by the beginning of one.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn workload(&self, name: &str) -> anyhow::Result<&Workload> {
        let found = self.workloads.iter().find(|w| w.name == name);
        found.or_else(|| self.workloads.iter().find(|w| w.name.starts_with(name))).with_context(|| {
            let names: Vec<_> = self.workloads.iter().map(|w| w.name.as_str()).collect();
            format!("no workload {name:?} in {}; there are: {}", self.name, names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_run_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Published::find(Some(folder.path())).unwrap_err());
        assert!(error.contains("no `tombolo up` runs in"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn port_numbers_are_keys() {
        let ports = BTreeMap::from([(80u16, "127.1.0.2:10080".parse::<SocketAddr>().unwrap())]);
        let gateway = Gateway { admin: "127.1.0.2:15000".parse().unwrap(), ports, pid: 1, log: "l".into() };
        let text = serde_json::to_string(&gateway).unwrap();
        assert!(text.contains(r#""ports":{"80":"127.1.0.2:10080"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Gateway>(&text).unwrap(), gateway);
    }
}
