//! `tombolo proxy-config PROXY [SECTION]`: what a proxy runs, from its own `/config_dump`.
//!
//! Owns finding the proxy by name and the tables. Reads the dump by the names that Envoy's dumps have, so that a stock
//! Envoy can be looked at too; what it does not know it leaves out of tables, and shows with `-o json`.

use super::{block_on, table};
use crate::{
    args::{Output, ProxyConfigArgs, Section, resolve},
    http::{Ask, ask},
    up::published::Published,
};
use anyhow::{Context, bail};
use http::Uri;
use serde_json::Value;
use std::{net::SocketAddr, path::Path, process::ExitCode};

pub(crate) fn main(args: &ProxyConfigArgs) -> ExitCode {
    block_on(run(args))
}

async fn run(args: &ProxyConfigArgs) -> anyhow::Result<ExitCode> {
    let admin = find(&args.proxy, args.state.as_deref())?;
    if args.output == Output::Json {
        let path = match args.section {
            Section::Endpoints => "/clusters?format=json",
            Section::Listeners | Section::Routes | Section::Clusters | Section::All => "/config_dump",
        };
        let dump = fetch(admin, path).await?;
        let shown = match args.section {
            Section::All | Section::Endpoints => dump,
            Section::Listeners => part(&dump, "Listeners"),
            Section::Routes => part(&dump, "Routes"),
            Section::Clusters => part(&dump, "Clusters"),
        };
        println!("{}", serde_json::to_string_pretty(&shown).context("cannot print")?);
        return Ok(ExitCode::SUCCESS);
    }
    let dump = fetch(admin, "/config_dump").await?;
    let mut parts = Vec::new();
    let wanted = |section| args.section == section || args.section == Section::All;
    if wanted(Section::Listeners) {
        parts.push(listeners(&dump));
    }
    if wanted(Section::Routes) {
        parts.push(routes(&dump));
    }
    if wanted(Section::Clusters) {
        parts.push(clusters(&dump));
    }
    if wanted(Section::Endpoints) {
        parts.push(endpoints(&fetch(admin, "/clusters?format=json").await?));
    }
    println!("{}", parts.join("\n\n"));
    Ok(ExitCode::SUCCESS)
}

/// The admin address behind what the user called the proxy.
fn find(name: &str, state: Option<&Path>) -> anyhow::Result<SocketAddr> {
    if name.contains(':') {
        return resolve(name).map_err(anyhow::Error::msg);
    }
    let published = Published::find(state)?;
    if let Some((site, proxy)) = name.split_once('/') {
        let site = published.site(site)?;
        return match proxy {
            "ingress" => Ok(site.ingress.admin),
            "east-west" => Ok(site.east_west.admin),
            workload => site
                .workload(workload)?
                .sidecar
                .as_ref()
                .map(|s| s.admin)
                .with_context(|| format!("workload {workload} of {} has no sidecar", site.name)),
        };
    }
    let sidecar = |exact: bool| {
        published.sites.iter().flat_map(|s| &s.workloads).find_map(|w| {
            let named = if exact { w.name == name } else { w.name.starts_with(name) };
            if named { w.sidecar.as_ref().map(|s| s.admin) } else { None }
        })
    };
    match sidecar(true).or_else(|| sidecar(false)) {
        Some(admin) => Ok(admin),
        None => {
            let names: Vec<_> = published
                .sites
                .iter()
                .flat_map(|s| s.workloads.iter().map(move |w| format!("{}/{}", s.name, w.name)))
                .collect();
            bail!("no proxy {name:?}; there are: SITE/ingress, SITE/east-west, {}", names.join(", "))
        }
    }
}

async fn fetch(admin: SocketAddr, path: &'static str) -> anyhow::Result<Value> {
    let answer = ask(Ask::get(admin, Uri::from_static(path))).await?;
    if answer.status != 200 {
        bail!("{admin}: {path} answered {}", answer.status);
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("{admin}: {path} is not JSON"))
}

/// The part of a dump whose type is `…{what}ConfigDump`.
fn part(dump: &Value, what: &str) -> Value {
    let wanted = format!("{what}ConfigDump");
    let parts = dump["configs"].as_array().into_iter().flatten();
    let mut found = parts.filter(|p| p["@type"].as_str().is_some_and(|t| t.ends_with(&wanted)));
    found.next().cloned().unwrap_or(Value::Null)
}

/// The resources of a part, whatever its lists are called, each without its envelope.
fn resources(dump: &Value, what: &str, inner: &str) -> Vec<Value> {
    let part = part(dump, what);
    let lists = part.as_object().into_iter().flatten().filter_map(|(_, v)| v.as_array());
    let entries = lists.flatten().map(|entry| {
        let state = if entry["active_state"].is_object() { &entry["active_state"] } else { entry };
        if state[inner].is_object() { state[inner].clone() } else { state.clone() }
    });
    let mut all: Vec<Value> = entries.collect();
    all.sort_by_key(|v| text(&v["name"]));
    all
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn address(value: &Value) -> String {
    let socket = &value["socket_address"];
    match (socket["address"].as_str(), &socket["port_value"]) {
        (Some(ip), port) => format!("{ip}:{}", text(port)),
        (None, _) => text(value),
    }
}

fn listeners(dump: &Value) -> String {
    let rows = resources(dump, "Listeners", "listener").into_iter().map(|listener| {
        let chains = listener["filter_chains"].as_array().map_or(0, Vec::len);
        vec![text(&listener["name"]), address(&listener["address"]), chains.to_string()]
    });
    table::render(&["LISTENER", "ADDRESS", "FILTER CHAINS"], rows.collect())
}

fn routes(dump: &Value) -> String {
    let mut rows = Vec::new();
    for config in resources(dump, "Routes", "route_config") {
        for host in config["virtual_hosts"].as_array().into_iter().flatten() {
            let domains: Vec<_> = host["domains"].as_array().into_iter().flatten().map(text).collect();
            for route in host["routes"].as_array().into_iter().flatten() {
                rows.push(vec![text(&config["name"]), short(&domains), matched(route), target(route)]);
            }
        }
    }
    table::render(&["ROUTES", "HOSTS", "MATCH", "TO"], rows)
}

fn short(domains: &[String]) -> String {
    match domains {
        [] => "-".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} + {} more", rest.len()),
    }
}

fn matched(route: &Value) -> String {
    let rule = &route["match"];
    let path = ["prefix", "path", "path_separated_prefix"]
        .iter()
        .find_map(|key| rule[*key].as_str().map(|v| format!("{key} {v}")))
        .or_else(|| rule["safe_regex"]["regex"].as_str().map(|r| format!("regex {r}")))
        .unwrap_or_else(|| "-".to_owned());
    let more = ["headers", "query_parameters"].iter().map(|k| rule[*k].as_array().map_or(0, Vec::len)).sum::<usize>();
    if more == 0 { path } else { format!("{path} and {more} conditions") }
}

fn target(route: &Value) -> String {
    let action = &route["route"];
    if let Some(cluster) = action["cluster"].as_str() {
        return cluster.to_owned();
    }
    if let Some(weighted) = action["weighted_clusters"]["clusters"].as_array() {
        let parts: Vec<_> = weighted.iter().map(|c| format!("{} {}", text(&c["weight"]), text(&c["name"]))).collect();
        return parts.join(", ");
    }
    if route["redirect"].is_object() {
        return "redirect".to_owned();
    }
    if route["direct_response"].is_object() {
        return format!("answer {}", text(&route["direct_response"]["status"]));
    }
    "-".to_owned()
}

fn clusters(dump: &Value) -> String {
    let rows = resources(dump, "Clusters", "cluster").into_iter().map(|cluster| {
        let tls = if cluster["transport_socket"].is_object() || cluster["transport_socket_matches"].is_array() {
            "yes"
        } else {
            "-"
        };
        vec![text(&cluster["name"]), text(&cluster["type"]), text(&cluster["lb_policy"]), tls.to_owned()]
    });
    table::render(&["CLUSTER", "TYPE", "BALANCING", "TLS"], rows.collect())
}

fn endpoints(clusters: &Value) -> String {
    let mut rows = Vec::new();
    for cluster in clusters["cluster_statuses"].as_array().into_iter().flatten() {
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let locality = &host["locality"];
            let place: Vec<_> = ["region", "zone", "sub_zone"]
                .iter()
                .filter_map(|k| locality[*k].as_str())
                .filter(|p| !p.is_empty())
                .collect();
            rows.push(vec![
                text(&cluster["name"]),
                address(&host["address"]),
                health(&host["health_status"]),
                text(&host["weight"]),
                table::or_dash(&place.join("/")),
                text(&host["priority"]),
            ]);
        }
    }
    table::render(&["CLUSTER", "ENDPOINT", "HEALTH", "WEIGHT", "LOCALITY", "PRIORITY"], rows)
}

fn health(status: &Value) -> String {
    let eds = status["eds_health_status"].as_str().unwrap_or("HEALTHY").to_lowercase();
    let failed: Vec<_> = status
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with("failed_") && value.as_bool() == Some(true))
        .map(|(key, _)| key.trim_start_matches("failed_").replace('_', " "))
        .collect();
    if failed.is_empty() { eds } else { failed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dump() -> Value {
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
                {"name": "in", "active_state": {"listener": {
                    "name": "in", "address": {"socket_address": {"address": "127.1.1.1", "port_value": 9080}},
                    "filter_chains": [{}, {}]}}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
                {"route_config": {"name": "9080", "virtual_hosts": [{"domains": ["reviews", "reviews.default"], "routes": [
                    {"match": {"prefix": "/", "headers": [{}]}, "route": {"weighted_clusters": {"clusters": [
                        {"name": "v1", "weight": 80}, {"name": "v2", "weight": 20}]}}},
                    {"match": {"path": "/x"}, "redirect": {}}]}]}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": [
                {"cluster": {"name": "v1", "type": "EDS", "transport_socket": {}}}]},
        ]})
    }

    #[test]
    fn tables_say_where_requests_go() {
        assert_eq!(listeners(&dump()).lines().nth(1).unwrap(), "in         127.1.1.1:9080   2");
        let routes = routes(&dump());
        assert!(routes.contains("reviews + 1 more"), "{routes}");
        assert!(routes.contains("prefix / and 1 conditions"), "{routes}");
        assert!(routes.contains("80 v1, 20 v2") && routes.contains("redirect"), "{routes}");
        assert!(clusters(&dump()).contains("EDS"));
    }

    #[test]
    fn sick_endpoints_say_why() {
        let status = json!({"cluster_statuses": [{"name": "v1", "host_statuses": [
            {"address": {"socket_address": {"address": "127.1.1.1", "port_value": 1}},
             "health_status": {"failed_outlier_check": true}, "weight": 1}]}]});
        assert!(endpoints(&status).contains("outlier check"));
    }

    #[test]
    fn an_address_needs_no_running_up() {
        assert_eq!(find("127.0.0.1:15000", None).unwrap().port(), 15000);
        assert!(find("127.0.0.1:x", None).is_err());
    }
}
