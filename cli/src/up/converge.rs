//! Waits until the sites know each other and every proxy has what its control plane wants it to have.
//!
//! Reads `/status` of every control plane, as any operator would. Decides nothing: it only says when it is quiet.

use crate::http::{Ask, ask};
use http::Uri;
use std::{net::SocketAddr, time::Duration};
use tombolo_controlplane_api::status::{FederationStatus, SiteStatus};

/// One control plane and what it should see.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) site: String,
    pub(crate) admin: SocketAddr,
    pub(crate) proxies: usize,
    pub(crate) peers: usize,
}

/// Asks a control plane for its view of the federation.
///
/// # Errors
/// When it does not answer with one; the reason is one line.
pub(crate) async fn status(admin: SocketAddr) -> anyhow::Result<FederationStatus> {
    let answer = ask(Ask::get(admin, Uri::from_static("/status"))).await?;
    if answer.status != 200 {
        anyhow::bail!("{admin}: /status answered {}", answer.status);
    }
    serde_json::from_slice(&answer.body).map_err(|e| anyhow::anyhow!("{admin}: /status is not a status: {e}"))
}

/// Returns when everything is in step and stayed so for two looks.
pub(crate) async fn converged(expected: &[Expected], note: &std::sync::Mutex<String>) {
    let mut before = None;
    loop {
        match look(expected).await {
            Ok(revisions) => {
                if before.as_ref() == Some(&revisions) {
                    return;
                }
                before = Some(revisions);
            }
            Err(reason) => {
                before = None;
                if let Ok(mut note) = note.lock() {
                    *note = reason;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn look(expected: &[Expected]) -> Result<Vec<(u64, u64)>, String> {
    let mut revisions = Vec::new();
    for site in expected {
        let status = status(site.admin).await.map_err(|e| format!("{e:#}"))?;
        revisions.push(in_step(site, &status.site)?);
        heard(site, expected, &status)?;
    }
    Ok(revisions)
}

/// Whether a site has the newest word of the others about themselves, as far as that can be told from outside.
fn heard(site: &Expected, all: &[Expected], seen: &FederationStatus) -> Result<(), String> {
    for other in all.iter().filter(|other| other.site != site.site) {
        let told = seen.others.iter().find(|remote| remote.status.site == other.site);
        let proxies = |told: &SiteStatus| {
            told.proxies.iter().filter(|p| p.connected && (p.synced || !p.rejected.is_empty())).count()
        };
        if told.is_none_or(|remote| proxies(&remote.status) < other.proxies) {
            return Err(format!("{} has not heard from {} that it is ready", site.site, other.site));
        }
    }
    Ok(())
}

fn in_step(expected: &Expected, seen: &SiteStatus) -> Result<(u64, u64), String> {
    let name = &expected.site;
    let connected = seen.peers.iter().filter(|p| p.state == "connected").count();
    if connected < expected.peers {
        let others: Vec<_> = seen
            .peers
            .iter()
            .filter(|p| p.state != "connected")
            .map(|p| format!("{} is {} {}", p.name, p.state, p.reason))
            .collect();
        return Err(format!("{name} has {connected} of {} peers: {}", expected.peers, others.join("; ")));
    }
    let there: Vec<_> = seen.proxies.iter().filter(|p| p.connected).collect();
    if there.len() < expected.proxies {
        return Err(format!("{name} has {} of {} proxies", there.len(), expected.proxies));
    }
    // A proxy that refused something has answered, too: the status shows what it refused, and the rest is in force.
    if let Some(late) = there.iter().find(|p| !p.synced && p.rejected.is_empty()) {
        return Err(format!("{name}: proxy {} has not acknowledged its configuration", late.id));
    }
    Ok((seen.registry.revision, seen.registry.endpoints))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::status::{PeerStatus, ProxyStatus};

    #[test]
    fn says_what_is_missing() {
        let expected = Expected { site: "east".into(), admin: "127.0.0.1:1".parse().unwrap(), proxies: 1, peers: 1 };
        let mut seen = SiteStatus::default();
        let check = |seen: &SiteStatus, part: &str| {
            let reason = in_step(&expected, seen).unwrap_err();
            assert!(reason.contains(part), "{reason:?} should say {part:?}");
        };
        seen.peers.push(PeerStatus { name: "west".into(), state: "refused".into(), ..PeerStatus::default() });
        check(&seen, "west is refused");
        seen.peers[0].state = "connected".into();
        check(&seen, "0 of 1 proxies");
        seen.proxies.push(ProxyStatus { id: "p".into(), connected: true, ..ProxyStatus::default() });
        check(&seen, "proxy p");
        seen.proxies[0].rejected = "Cluster x: no".into();
        assert!(in_step(&expected, &seen).is_ok(), "one refused resource keeps everything from starting");
        seen.proxies[0] = ProxyStatus { connected: true, synced: true, ..ProxyStatus::default() };
        assert!(in_step(&expected, &seen).is_ok());
    }
}
