//! Tables from an Envoy's `/config_dump` and `/clusters?format=json`, so that a stock Envoy can be looked at too.
//!
//! Owns the names in Envoy's dumps. What it does not know it leaves out.

use super::table;
use serde_json::Value;

/// The part of a dump whose type is `…{what}ConfigDump`.
pub(super) fn part(dump: &Value, what: &str) -> Value {
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

pub(super) fn text(value: &Value) -> String {
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

pub(super) fn listeners(dump: &Value) -> String {
    let rows = resources(dump, "Listeners", "listener").into_iter().map(|listener| {
        let chains = listener["filter_chains"].as_array().map_or(0, Vec::len);
        vec![text(&listener["name"]), address(&listener["address"]), chains.to_string()]
    });
    table::render(&["LISTENER", "ADDRESS", "FILTER CHAINS"], rows.collect())
}

pub(super) fn routes(dump: &Value) -> String {
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

pub(super) fn short(domains: &[String]) -> String {
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

pub(super) fn clusters(dump: &Value) -> String {
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

pub(super) fn endpoints(clusters: &Value) -> String {
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
}
