//! What `up` prints when all is ready: what runs where, what to try, how the federation is, where things are.
//!
//! Owns the words only; everything it says is in `up.json` or in a control plane's status.

use super::{
    converge,
    published::{Published, Site, Workload},
};
use crate::inspect::table;
use std::fmt::Write;
use tombolo_controlplane_api::status::{FederationStatus, RemoteSiteStatus};

/// Prints it all to standard output.
pub(crate) async fn print(published: &Published) {
    println!("\nready after {:.1} s\n", std::time::Duration::from_millis(published.ready_ms).as_secs_f64());
    println!("{}\n", places(published));
    println!("try:\n{}", lines_to_try(published));
    match federation(published).await {
        Ok(status) => println!("{}", crate::inspect::status::summary(&status)),
        Err(e) => println!("no federation status: {e:#}"),
    }
    println!("{}", places_of_files(published));
}

/// Every site's own view: what they know of each other is a moment older.
async fn federation(published: &Published) -> anyhow::Result<FederationStatus> {
    let mut sites = Vec::new();
    for site in &published.sites {
        sites.push(converge::status(site.control_plane.admin).await?.site);
    }
    let mut sites = sites.into_iter();
    let site = sites.next().unwrap_or_default();
    Ok(FederationStatus { site, others: sites.map(|status| RemoteSiteStatus { status, age_ms: 0 }).collect() })
}

fn places(published: &Published) -> String {
    let mut rows = Vec::new();
    for site in &published.sites {
        let row = |what: String, at: String, pid: u32| vec![site.name.clone(), what, at, pid.to_string()];
        rows.push(row("control plane".into(), site.control_plane.xds_tls.to_string(), site.control_plane.pid));
        let ingress: Vec<_> = site.ingress.ports.iter().map(|(port, at)| format!("{port} at {at}")).collect();
        let ingress = if ingress.is_empty() { "no listener".to_owned() } else { ingress.join(", ") };
        rows.push(row("ingress gateway".into(), ingress, site.ingress.pid));
        let east_west: Vec<_> = site.east_west.ports.values().map(ToString::to_string).collect();
        rows.push(row("east-west gateway".into(), east_west.join(", "), site.east_west.pid));
        for workload in &site.workloads {
            rows.push(row(workload.name.clone(), served(workload), workload.pid));
        }
    }
    for outside in &published.outside {
        let at: Vec<_> = outside.listen.iter().map(ToString::to_string).collect();
        rows.push(vec!["(outside)".into(), outside.name.clone(), at.join(", "), outside.pid.to_string()]);
    }
    table::render(&["SITE", "WHAT", "WHERE", "PID"], rows)
}

fn served(workload: &Workload) -> String {
    let ports = workload.sidecar.as_ref().map_or(&workload.app_ports, |s| &s.inbound_ports);
    let ports: Vec<_> = ports.iter().map(|(port, at)| format!("{port} at {at}")).collect();
    if ports.is_empty() { "no port".to_owned() } else { ports.join(", ") }
}

fn lines_to_try(published: &Published) -> String {
    let mut text = String::new();
    let mut line = |comment: &str, command: String| {
        let _ = writeln!(text, "  # {comment}\n  {command}");
    };
    let is_shop = published.sites.iter().any(|s| s.workload("storefront-0").is_ok())
        && published.sites.iter().any(|s| s.name == "vm");
    if let Some((site, ingress)) = published.sites.iter().find_map(|s| Some((s, s.ingress.ports.values().next()?))) {
        line(&format!("through the ingress gateway of {}", site.name), format!("curl http://{ingress}/"));
        if is_shop {
            line(
                "storefront calls reviews: 80% v1 in east, 20% v2 in west through west's east-west gateway",
                format!("curl 'http://{ingress}/?call=http://reviews:9080/'"),
            );
            line(
                "and a machine without Kubernetes",
                format!("curl 'http://{ingress}/?call=http://inventory.vm.internal:7070/'"),
            );
        }
    }
    for site in &published.sites {
        let Some((workload, sidecar)) = site.workloads.iter().find_map(|w| Some((w, w.sidecar.as_ref()?))) else {
            continue;
        };
        let target = target(site, workload);
        let target = if is_shop { "http://ratings:9080/".to_owned() } else { target };
        line(
            &format!("as {} of {}", workload.name, site.name),
            format!("curl -x http://{} {target}", sidecar.http_proxy),
        );
    }
    text
}

/// Some service that a workload may call: the name that its pods share, most often.
fn target(site: &Site, not: &Workload) -> String {
    let other = site.workloads.iter().find(|w| w.name != not.name && !w.app_ports.is_empty()).unwrap_or(not);
    let name = other.labels.get("app").cloned().unwrap_or_else(|| other.name.clone());
    let port = other.app_ports.keys().next().copied().unwrap_or(80);
    format!("http://{name}:{port}/")
}

fn places_of_files(published: &Published) -> String {
    let mut text = String::new();
    for site in &published.sites {
        let _ = writeln!(
            text,
            "manifests of {}: {} (edit them: changes take effect at once)",
            site.name,
            site.folder.display()
        );
    }
    let _ = writeln!(text, "logs: {}", published.state.join("logs").display());
    let _ = writeln!(text, "what runs, for scripts: {}", published.state.join("up.json").display());
    let _ = writeln!(text, "every service is exported to every site (export: all); unknown hosts are passed through");
    let _ = write!(text, "`tombolo federation status` looks again; Ctrl-C stops everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::published::{ControlPlane, Gateway, Sidecar};

    #[test]
    fn names_addresses_that_can_be_tried() {
        let at = |text: &str| text.parse().unwrap();
        let gateway = |port, address: &str| Gateway {
            admin: at("127.1.0.2:15000"),
            ports: [(port, at(address))].into(),
            pid: 7,
            log: "l".into(),
        };
        let workload = |name: &str| Workload {
            name: name.into(),
            namespace: "default".into(),
            service_account: "default".into(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            app_ports: [(80, at("127.1.129.1:10080"))].into(),
            sidecar: Some(Sidecar {
                admin: at("127.1.1.1:15020"),
                http_proxy: at("127.1.1.1:15080"),
                inbound_ports: [(80, at("127.1.1.1:10080"))].into(),
                log: "l".into(),
            }),
            ready: true,
            pid: 8,
            sidecar_pid: 9,
            log: "l".into(),
        };
        let published = Published {
            sites: vec![Site {
                name: "east".into(),
                network: "east".into(),
                trust_domain: "east.local".into(),
                folder: "m".into(),
                runtime: "r".into(),
                control_plane: ControlPlane {
                    xds: at("127.1.0.1:15010"),
                    xds_tls: at("127.1.0.1:15012"),
                    admin: at("127.1.0.1:15014"),
                    pid: 6,
                    log: "l".into(),
                },
                ingress: gateway(80, "127.1.0.2:10080"),
                east_west: gateway(15443, "127.1.0.3:15443"),
                workloads: vec![workload("a"), workload("b")],
            }],
            ..Published::default()
        };
        let lines = lines_to_try(&published);
        assert!(lines.contains("curl http://127.1.0.2:10080/"), "{lines}");
        assert!(lines.contains("curl -x http://127.1.1.1:15080 http://b:80/"), "{lines}");
        assert!(places(&published).contains("80 at 127.1.1.1:10080"));
    }
}
