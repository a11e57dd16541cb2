//! `tombolo federation status`: one table for the whole federation, from any site.
//!
//! Owns the words and the exit code. What is healthy is each control plane's own judgement; this only adds that a site
//! which does not report is not healthy.

use super::{block_on, table};
use crate::{
    args::{Output, Place, StatusArgs, resolve},
    up::{converge, published::Published},
};
use anyhow::Context;
use std::{fmt::Write, net::SocketAddr, process::ExitCode, time::Duration};
use tombolo_controlplane_api::status::{FederationStatus, SiteStatus};

/// A report older than this says nothing about now.
const OLD_REPORT_MS: u64 = 30_000;

pub(crate) fn main(args: &StatusArgs) -> ExitCode {
    block_on(run(args))
}

async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    loop {
        let status = ask(&args.place).await;
        if !args.watch {
            let status = status?;
            println!("{}", render(&status, args.output)?);
            return Ok(if healthy(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        match status.and_then(|status| render(&status, args.output)) {
            // Clears the screen as `watch` does; JSON goes on as a stream.
            Ok(text) if args.output == Output::Json => println!("{text}"),
            Ok(text) => println!("\x1b[2J\x1b[H{text}"),
            Err(e) => println!("{e:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Asks the named control plane, or any of a running `up`: the first that answers.
async fn ask(place: &Place) -> anyhow::Result<FederationStatus> {
    if let Some(admin) = &place.admin {
        return converge::status(resolve(admin).map_err(anyhow::Error::msg)?).await;
    }
    let published = Published::find(place.state.as_deref())?;
    let mut addresses: Vec<SocketAddr> = published.sites.iter().map(|s| s.control_plane.admin).collect();
    if let Some(name) = &place.site {
        addresses = vec![published.site(name)?.control_plane.admin];
    }
    let mut failure = anyhow::anyhow!("{} has no sites", published.state.display());
    for address in addresses {
        match converge::status(address).await {
            Ok(status) => return Ok(status),
            Err(e) => failure = e,
        }
    }
    Err(failure).context("no control plane answers")
}

fn healthy(status: &FederationStatus) -> bool {
    status.site.healthy && status.others.iter().all(|o| o.status.healthy && o.age_ms < OLD_REPORT_MS)
}

fn render(status: &FederationStatus, output: Output) -> anyhow::Result<String> {
    let wide = match output {
        Output::Json => return serde_json::to_string_pretty(status).context("cannot print the status"),
        Output::Table => false,
        Output::Wide => true,
    };
    let mut text = summary(status);
    section(&mut text, "sources", sources(status));
    section(&mut text, "proxies", proxies(status, wide));
    section(&mut text, "trust", trust(status));
    if wide {
        section(&mut text, "certificates", certificates(status));
    }
    section(&mut text, "objects with complaints", diagnostics(status, wide));
    Ok(text.trim_end().to_owned())
}

/// Sites and peers: the short form.
pub(crate) fn summary(status: &FederationStatus) -> String {
    let mut text = String::new();
    section(&mut text, "sites", sites(status));
    section(&mut text, "peers", peers(status));
    for (site, _) in reports(status) {
        for problem in &site.problems {
            let _ = writeln!(text, "{}: {problem}", site.site);
        }
    }
    text
}

fn section(text: &mut String, title: &str, (header, rows): (Vec<&str>, Vec<Vec<String>>)) {
    if !rows.is_empty() {
        let _ = writeln!(text, "{}\n{}\n", title.to_uppercase(), table::render(&header, rows));
    }
}

/// Every site's report with its age; the one that answered is new.
fn reports(status: &FederationStatus) -> impl Iterator<Item = (&SiteStatus, u64)> {
    std::iter::once((&status.site, 0)).chain(status.others.iter().map(|o| (&o.status, o.age_ms)))
}

type Rows = (Vec<&'static str>, Vec<Vec<String>>);

fn sites(status: &FederationStatus) -> Rows {
    let header = vec![
        "SITE",
        "HEALTH",
        "NETWORK",
        "TRUST DOMAIN",
        "SERVICES",
        "ENDPOINTS",
        "STALE",
        "EXPORTED",
        "IMPORTED",
        "PROXIES",
        "UP",
        "REPORT",
    ];
    let rows = reports(status).map(|(site, age)| {
        let registry = &site.registry;
        let health = match (site.healthy, age < OLD_REPORT_MS) {
            (_, false) => "unknown",
            (true, true) => "healthy",
            (false, true) => "unhealthy",
        };
        let there = site.proxies.iter().filter(|p| p.connected && p.synced).count();
        vec![
            site.site.clone(),
            health.to_owned(),
            site.network.clone(),
            site.trust_domain.clone(),
            registry.services.to_string(),
            registry.endpoints.to_string(),
            registry.stale_endpoints.to_string(),
            registry.exported.to_string(),
            registry.imported.to_string(),
            format!("{there}/{}", site.proxies.len()),
            table::age(site.uptime_ms),
            if age == 0 { "now".to_owned() } else { format!("{} ago", table::age(age)) },
        ]
    });
    (header, rows.collect())
}

fn peers(status: &FederationStatus) -> Rows {
    let header = vec!["SITE", "PEER", "STATE", "HEARD", "SERVICES", "ENDPOINTS", "GATEWAYS", "OUT OF REMIT", "REASON"];
    let rows = reports(status).flat_map(|(site, _)| {
        site.peers.iter().map(|peer| {
            vec![
                site.site.clone(),
                peer.name.clone(),
                peer.state.clone(),
                format!("{} ago", table::age(peer.age_ms)),
                peer.services.to_string(),
                peer.endpoints.to_string(),
                peer.gateways.to_string(),
                peer.out_of_remit.to_string(),
                table::or_dash(&peer.reason),
            ]
        })
    });
    (header, rows.collect())
}

fn sources(status: &FederationStatus) -> Rows {
    let header = vec!["SITE", "SOURCE", "KIND", "STATE", "AGE", "OBJECTS", "REFUSED", "SERVICES", "WORKLOADS"];
    let rows = reports(status).flat_map(|(site, _)| {
        site.sources.iter().map(|source| {
            vec![
                site.site.clone(),
                source.name.clone(),
                source.kind.clone(),
                source.state.clone(),
                table::age(source.age_ms),
                source.objects.to_string(),
                source.refused.to_string(),
                source.services.to_string(),
                source.workloads.to_string(),
            ]
        })
    });
    (header, rows.collect())
}

fn proxies(status: &FederationStatus, wide: bool) -> Rows {
    let mut header = vec!["SITE", "PROXY", "ROLE", "STATE", "SINCE"];
    if wide {
        header.extend(["ADDRESS", "PROTOCOL", "SENT", "REFUSED", "VERSION", "LAST REFUSAL"]);
    }
    let rows = reports(status).flat_map(|(site, _)| {
        site.proxies.iter().map(move |proxy| {
            let state = match (proxy.connected, proxy.synced, proxy.rejected.is_empty()) {
                (false, _, _) => "away",
                (true, _, false) => "refused its configuration",
                (true, true, true) => "synced",
                (true, false, true) => "waiting",
            };
            let mut row = vec![
                site.site.clone(),
                proxy.id.clone(),
                proxy.role.clone(),
                state.to_owned(),
                table::age(proxy.age_ms),
            ];
            if wide {
                row.extend([
                    table::or_dash(&proxy.address),
                    proxy.protocol.clone(),
                    proxy.sent.to_string(),
                    proxy.nacked.to_string(),
                    table::or_dash(&proxy.version),
                    table::or_dash(&proxy.rejected),
                ]);
            }
            row
        })
    });
    (header, rows.collect())
}

fn trust(status: &FederationStatus) -> Rows {
    let header = vec!["SITE", "TRUST DOMAIN", "FROM", "ROOTS", "EXPIRES IN"];
    let rows = reports(status).flat_map(|(site, _)| {
        site.trust_domains.iter().map(|domain| {
            vec![
                site.site.clone(),
                domain.name.clone(),
                domain.source.clone(),
                domain.roots.to_string(),
                expiry(domain.seconds_left),
            ]
        })
    });
    (header, rows.collect())
}

fn certificates(status: &FederationStatus) -> Rows {
    let header = vec!["SITE", "CERTIFICATE", "SERIAL", "EXPIRES IN"];
    let rows = reports(status).flat_map(|(site, _)| {
        site.certificates.iter().map(|certificate| {
            vec![
                site.site.clone(),
                certificate.name.clone(),
                certificate.serial.clone(),
                expiry(certificate.seconds_left),
            ]
        })
    });
    (header, rows.collect())
}

fn diagnostics(status: &FederationStatus, wide: bool) -> Rows {
    let mut header = vec!["SITE", "SEVERITY", "OBJECT", "FIELD", "MESSAGE"];
    if wide {
        header.extend(["CODE", "PLACE"]);
    }
    let rows = reports(status).flat_map(|(site, _)| {
        site.diagnostics.iter().map(move |d| {
            let mut row = vec![
                site.site.clone(),
                d.severity.clone(),
                d.object.clone(),
                table::or_dash(&d.field),
                d.message.clone(),
            ];
            if wide {
                row.extend([d.code.clone(), table::or_dash(&d.place)]);
            }
            row
        })
    });
    (header, rows.collect())
}

fn expiry(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(left) => table::age(left * 1000),
        Err(_) => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_controlplane_api::status::{DiagnosticStatus, PeerStatus, ProxyStatus, RemoteSiteStatus};

    fn fixture() -> FederationStatus {
        let site = |name: &str| SiteStatus { site: name.into(), healthy: true, ..SiteStatus::default() };
        let mut east = site("east");
        east.peers.push(PeerStatus { name: "west".into(), state: "connected".into(), ..PeerStatus::default() });
        east.proxies.push(ProxyStatus { id: "web-0.default".into(), connected: true, ..ProxyStatus::default() });
        FederationStatus { site: east, others: vec![RemoteSiteStatus { status: site("west"), age_ms: 900 }] }
    }

    #[test]
    fn one_sick_or_silent_site_makes_the_federation_sick() {
        let mut status = fixture();
        assert!(healthy(&status));
        status.others[0].age_ms = OLD_REPORT_MS;
        assert!(!healthy(&status));
        assert!(summary(&status).contains("unknown"));
        let mut status = fixture();
        status.others[0].status.healthy = false;
        assert!(!healthy(&status));
    }

    #[test]
    fn tables_name_what_is_there() {
        let mut status = fixture();
        status.site.problems.push("peer vm is away".into());
        status.site.diagnostics.push(DiagnosticStatus {
            severity: "error".into(),
            object: "VirtualService default/shop".into(),
            message: "no such host".into(),
            code: "NO_HOST".into(),
            ..DiagnosticStatus::default()
        });
        let text = render(&status, Output::Table).unwrap();
        for part in ["SITES", "east: peer vm is away", "connected", "waiting", "no such host", "west"] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(!text.contains("NO_HOST"));
        assert!(render(&status, Output::Wide).unwrap().contains("NO_HOST"));
        let json = render(&status, Output::Json).unwrap();
        assert_eq!(serde_json::from_str::<FederationStatus>(&json).unwrap(), status);
    }
}
