//! What the admin interface may change: only by POST, and never by a page that a browser was led to.

use super::{Admin, query::Query};
use http::{HeaderMap, StatusCode};
use std::{collections::BTreeMap, net::SocketAddr};

/// The pages that change something.
pub(super) const PAGES: [&str; 8] = [
    "/logging",
    "/drain_listeners",
    "/healthcheck/fail",
    "/healthcheck/ok",
    "/quitquitquit",
    "/runtime_modify",
    "/reopen_logs",
    "/reset_counters",
];

/// Does it, and says so.
pub(super) fn change(
    admin: &Admin,
    page: &str,
    query: &Query<'_>,
    headers: &HeaderMap,
    peer: SocketAddr,
) -> (StatusCode, String) {
    // Browsers say where a request comes from; no page has business here.
    if headers.contains_key("origin") || headers.get("sec-fetch-site").is_some_and(|site| site != "none") {
        return (StatusCode::FORBIDDEN, "not from a page\n".to_owned());
    }
    let ok = |words: &str| (StatusCode::OK, format!("{words}\n"));
    match page {
        "/logging" => logging(query),
        "/drain_listeners" => {
            admin.drain.begin();
            if !query.has("graceful") {
                tracing::warn!("told to drain listeners");
            }
            ok("OK")
        }
        "/healthcheck/fail" => {
            admin.drain.set_failing(true);
            ok("OK")
        }
        "/healthcheck/ok" => {
            admin.drain.set_failing(false);
            ok("OK")
        }
        "/quitquitquit" if !peer.ip().to_canonical().is_loopback() => {
            (StatusCode::FORBIDDEN, "only from this machine\n".to_owned())
        }
        "/quitquitquit" => {
            admin.quit.notify_one();
            ok("OK")
        }
        "/runtime_modify" => {
            let values: BTreeMap<String, String> = query.pairs().collect();
            if values.is_empty() {
                (StatusCode::BAD_REQUEST, "usage: /runtime_modify?key1=value1&key2=\n".to_owned())
            } else if admin.asker.runtime(values) {
                ok("OK")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "busy\n".to_owned())
            }
        }
        "/reopen_logs" => {
            admin.feed.reopen();
            ok("OK")
        }
        // Counters here never go back: whoever scrapes them takes differences.
        _ => (StatusCode::NOT_IMPLEMENTED, "counters are not reset\n".to_owned()),
    }
}

/// `level=debug` for everything, or `name=level` for one target as `paths=` of Envoy does.
fn logging(query: &Query<'_>) -> (StatusCode, String) {
    let mut directives: Vec<String> = Vec::new();
    for (key, value) in query.pairs() {
        match key.as_str() {
            "level" => directives.insert(0, level(&value)),
            "paths" => directives.extend(value.split(',').map(|pair| match pair.split_once(':') {
                Some((target, wanted)) => format!("{target}={}", level(wanted)),
                None => pair.to_owned(),
            })),
            target => directives.push(format!("{target}={}", level(&value))),
        }
    }
    let told = if directives.is_empty() { None } else { Some(directives.join(",")) };
    match told.map(|filter| crate::loglevel::set(&filter)) {
        None => (StatusCode::OK, format!("{}\n", crate::loglevel::current())),
        Some(Ok(())) => (StatusCode::OK, format!("{}\n", crate::loglevel::current())),
        Some(Err(reason)) => (StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

/// Envoy's names of levels.
fn level(name: &str) -> String {
    match name {
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        other => other.to_owned(),
    }
}
