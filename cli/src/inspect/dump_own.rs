//! Tables from our gateway's `/inventory`.
//!
//! Owns the names in that dump as far as tables need them; `-o json` shows all of it.

use super::{
    dump_envoy::{short, text},
    table,
};
use serde_json::Value;

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).map(text).collect()
}

pub(super) fn listeners(dump: &Value) -> String {
    let mut rows = Vec::new();
    for listener in list(&dump["listeners"]) {
        for chain in list(&listener["chains"]) {
            rows.push(vec![
                text(&listener["name"]),
                texts(&listener["addresses"]).join(", "),
                chain_match(chain),
                if chain["tls"].is_object() { "yes".to_owned() } else { "-".to_owned() },
                terminal(&chain["terminal"]),
            ]);
        }
    }
    table::render(&["LISTENER", "ADDRESS", "MATCH", "TLS", "TO"], rows)
}

fn chain_match(chain: &Value) -> String {
    let rule = &chain["match"];
    let mut parts = Vec::new();
    for (key, word) in [("server_names", "SNI"), ("alpn", "ALPN"), ("destinations", "to")] {
        let values = texts(&rule[key]);
        if !values.is_empty() {
            parts.push(format!("{word} {}", short(&values)));
        }
    }
    for (key, word) in [("transport", "transport"), ("port", "port")] {
        let value = text(&rule[key]);
        if !value.is_empty() && value != "-" {
            parts.push(format!("{word} {value}"));
        }
    }
    if parts.is_empty() { "any".to_owned() } else { parts.join(", ") }
}

fn terminal(value: &Value) -> String {
    if value["http"].is_object() {
        return format!("routes {}", text(&value["http"]["routes"]));
    }
    format!("cluster {}", weighted(&value["tcp"]["clusters"]))
}

/// `80 a, 20 b`, or the only one without its weight.
fn weighted(clusters: &Value) -> String {
    let all: Vec<&Value> = list(clusters).collect();
    match all.as_slice() {
        [] => "-".to_owned(),
        [one] if one["header"].is_string() => format!("the one that header {} names", text(&one["header"])),
        [one] => text(&one["name"]),
        many => {
            many.iter().map(|c| format!("{} {}", text(&c["weight"]), text(&c["name"]))).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(super) fn routes(dump: &Value) -> String {
    let mut rows = Vec::new();
    let inline = list(&dump["listeners"])
        .flat_map(|l| list(&l["chains"]))
        .map(|c| &c["terminal"]["http"]["table"])
        .filter(|t| t.is_object());
    for config in list(&dump["routes"]).chain(inline) {
        for host in list(&config["virtual_hosts"]) {
            for route in list(&host["routes"]) {
                rows.push(vec![text(&config["name"]), text(&host["name"]), matched(route), target(&route["target"])]);
            }
        }
    }
    table::render(&["ROUTES", "HOST", "MATCH", "TO"], rows)
}

fn matched(route: &Value) -> String {
    let path = route["match"].as_object().and_then(|m| m.iter().next());
    let path = path.map_or_else(|| "-".to_owned(), |(how, what)| format!("{how} {}", text(what)));
    match list(&route["headers"]).count() {
        0 => path,
        count => format!("{path} and {count} conditions"),
    }
}

fn target(target: &Value) -> String {
    for (key, word) in [("redirect", "redirect"), ("respond", "answer")] {
        if !target[key].is_null() {
            return format!("{word} {}", text(&target[key]));
        }
    }
    weighted(&target["clusters"])
}

pub(super) fn clusters(dump: &Value) -> String {
    let rows = list(&dump["clusters"]).map(|cluster| {
        let tls = list(&cluster["transport_matches"]).map(|m| &m["transport"]).chain([&cluster["transport"]]);
        let tls = tls.filter(|t| t["tls"].is_object()).map(|t| text(&t["tls"]["sni"])).next();
        vec![
            text(&cluster["name"]),
            text(&cluster["type"]),
            text(&cluster["lb_policy"]),
            list(&cluster["endpoints"]).count().to_string(),
            tls.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    table::render(&["CLUSTER", "TYPE", "BALANCING", "ENDPOINTS", "TLS TO"], rows.collect())
}

pub(super) fn endpoints(dump: &Value) -> String {
    let mut rows = Vec::new();
    for cluster in list(&dump["clusters"]) {
        for endpoint in list(&cluster["endpoints"]) {
            let health = if endpoint["ejected"] == true { "ejected".to_owned() } else { text(&endpoint["health"]) };
            rows.push(vec![
                text(&cluster["name"]),
                text(&endpoint["address"]),
                health,
                text(&endpoint["weight"]),
                text(&endpoint["locality"]),
                text(&endpoint["priority"]),
                text(&endpoint["workload"]),
            ]);
        }
    }
    table::render(&["CLUSTER", "ENDPOINT", "HEALTH", "WEIGHT", "LOCALITY", "PRIORITY", "WORKLOAD"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_say_where_requests_go() {
        let dump = json!({
            "listeners": [{"name": "in", "addresses": ["127.1.1.1:80"], "chains": [
                {"match": {"server_names": ["a", "b"], "transport": "tls", "port": null}, "tls": {},
                 "terminal": {"http": {"routes": "r", "table": null}}},
                {"match": {}, "tls": null, "terminal": {"tcp": {"clusters": [{"name": "c", "weight": 100}]}}}]}],
            "routes": [{"name": "r", "virtual_hosts": [{"name": "reviews", "routes": [
                {"match": {"prefix": "/"}, "headers": ["x"], "target": {"clusters": [
                    {"name": "v1", "weight": 80}, {"name": "v2", "weight": 20}]}},
                {"match": {"path": "/old"}, "headers": [], "target": {"redirect": 301}}]}]}],
            "clusters": [{"name": "v2", "type": "EDS", "lb_policy": "RANDOM", "transport": "raw",
                "transport_matches": [{"transport": {"tls": {"sni": "outbound_.80_.v2_.r"}}}],
                "endpoints": [{"address": "127.2.0.3:15443", "health": "healthy", "ejected": true, "weight": 1,
                               "locality": "west", "priority": 1, "workload": "w"}]}],
        });
        let listeners = listeners(&dump);
        assert!(listeners.contains("SNI a + 1 more, transport tls") && listeners.contains("cluster c"), "{listeners}");
        let routes = routes(&dump);
        assert!(routes.contains("prefix / and 1 conditions") && routes.contains("80 v1, 20 v2"), "{routes}");
        assert!(routes.contains("redirect 301"), "{routes}");
        assert!(clusters(&dump).contains("outbound_.80_.v2_.r"));
        let endpoints = endpoints(&dump);
        assert!(endpoints.contains("127.2.0.3:15443   ejected"), "{endpoints}");
    }
}
