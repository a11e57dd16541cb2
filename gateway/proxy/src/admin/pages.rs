//! Pages for people and for Prometheus.

use super::Admin;
use crate::{
    telemetry::series::{self, head},
    upstream::keeper::{self, Upstream},
};
use std::{
    fmt::Write as _,
    sync::{PoisonError, atomic::Ordering},
    time::SystemTime,
};
use tombolo_gateway_core::{balance::Plan, breaker::Resource, config::RoutePriority, wire::Kind};

/// What there is.
pub(super) const HELP: &str = "\
/ready /healthz/ready      200 when configuration is in use
/metrics /stats/prometheus numbers for Prometheus
/stats                     numbers (?format=json|prometheus, ?filter=REGEX)
/config_dump               what the control plane sent (?resource=, ?mask=, ?name_regex=, ?include_eds)
/inventory                 what runs and how it does
/clusters                  upstreams with endpoints and health (?format=json)
/listeners                 listeners and addresses (?format=json)
/certs                     certificates, without keys
/server_info               version, uptime, state of xDS
/init_dump                 what is not ready, and for what it waits
/runtime                   runtime values
/memory                    memory in use
POST /logging?level=LEVEL  what is logged
POST /drain_listeners      finish and take nothing new
POST /healthcheck/fail|ok  what health checks are told
POST /runtime_modify?K=V   runtime values that win over those of the control plane
POST /reopen_logs          open access log files again
POST /quitquitquit         drain and end; from this machine only
";

/// Whether traffic is served; a word for either case.
pub(super) fn ready(admin: &Admin) -> Result<&'static str, &'static str> {
    if admin.drain.draining() {
        return Err("DRAINING");
    }
    let all_bound = admin.own.unbound.load() == 0;
    match (configured(admin) && opened(admin), all_bound) {
        (true, true) => Ok("LIVE"),
        (true, false) => Err("UNBOUND"),
        (false, _) => Err("INITIALIZING"),
    }
}

/// Whether what is in use is what the control plane wants, or what it last wanted. A gateway to which no listener was given is as
/// ready as it can be.
fn configured(admin: &Admin) -> bool {
    let live = admin.live.borrow().clone();
    let listening = !live.config.listeners.is_empty();
    if live.held {
        return false;
    }
    let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
    let answered = status.kinds.get(&Kind::Listener).is_some_and(|kind| kind.accepted > 0);
    listening || (status.waiting.is_empty() && (answered || status.from_disk))
}

/// Whether every worker opened what there is to listen on; whoever believes `/ready` connects at once.
fn opened(admin: &Admin) -> bool {
    let workers = i64::try_from(admin.tables.len()).unwrap_or(i64::MAX);
    admin.live.borrow().config.listeners.is_empty() || admin.own.listening.load() >= workers
}

/// The exposition.
pub(super) fn metrics(admin: &Admin) -> String {
    let mut out = String::with_capacity(16 * 1024);
    series::expose(&admin.tables, &mut out);
    admin.own.expose(&mut out);
    head(&mut out, "tombolo_gateway_access_log_lines_dropped_total", "counter");
    let _ =
        writeln!(out, "tombolo_gateway_access_log_lines_dropped_total {}", admin.dropped_lines.load(Ordering::Relaxed));
    xds(admin, &mut out);
    health(admin, &mut out);
    if let Some(expires) = admin.certificate.borrow().expires {
        let left = expires.duration_since(SystemTime::now()).map_or(0, |d| d.as_secs());
        head(&mut out, "tombolo_gateway_certificate_seconds_left", "gauge");
        let _ = writeln!(out, "tombolo_gateway_certificate_seconds_left {left}");
    }
    out
}

/// How the endpoints of the clusters are that look after them, and what is left where that is asked for.
fn health(admin: &Admin, out: &mut String) {
    let live = admin.live.borrow().clone();
    let all = keeper::sorted(&live);
    let watched: Vec<_> =
        all.iter().filter(|(_, u)| u.cluster.health_check.is_some() || u.cluster.outlier.is_some()).collect();
    for (name, value) in [
        ("total", (|p| p.set().hosts().len() as u64) as fn(&Plan) -> u64),
        ("healthy", |p| u64::from(p.healthy())),
        ("degraded", |p| u64::from(p.degraded())),
        ("excluded", |p| u64::from(p.excluded())),
        ("ejected", |p| p.set().hosts().iter().filter(|h| h.state.is_ejected()).count() as u64),
    ] {
        let name = format!("tombolo_gateway_cluster_endpoints_{name}");
        head(out, &name, "gauge");
        for (_, upstream) in &watched {
            let cluster = upstream.cluster.observed();
            let _ = writeln!(out, "{name}{{cluster=\"{cluster}\"}} {}", value(upstream.plan()));
        }
    }
    let name = "tombolo_gateway_cluster_breaker_remaining";
    head(out, name, "gauge");
    for upstream in all.values() {
        let (cluster, settings) = (upstream.cluster.observed(), &upstream.cluster.breakers);
        for (priority, at, _) in [
            ("default", RoutePriority::Default, settings.default.track_remaining),
            ("high", RoutePriority::High, settings.high.track_remaining),
        ]
        .into_iter()
        .filter(|(_, _, tracked)| *tracked)
        {
            let breakers = upstream.glance_at_breakers(at);
            for (what, resource) in RESOURCES {
                let left = breakers.limit(resource).saturating_sub(breakers.used(resource));
                let labels = format!("cluster=\"{cluster}\",priority=\"{priority}\",resource=\"{what}\"");
                let _ = writeln!(out, "{name}{{{labels}}} {left}");
            }
        }
    }
}

const RESOURCES: [(&str, Resource); 5] = [
    ("connections", Resource::Connections),
    ("pending_requests", Resource::Pending),
    ("requests", Resource::Requests),
    ("retries", Resource::Retries),
    ("connection_pools", Resource::Pools),
];

fn xds(admin: &Admin, out: &mut String) {
    let live = admin.live.borrow().clone();
    let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, value) in [
        ("tombolo_gateway_xds_connected", u64::from(status.connected)),
        ("tombolo_gateway_config_from_disk", u64::from(status.from_disk)),
        ("tombolo_gateway_config_generation", live.config.generation),
        ("tombolo_gateway_config_listeners", live.config.listeners.len() as u64),
        ("tombolo_gateway_config_clusters", live.config.clusters.len() as u64),
        ("tombolo_gateway_config_waiting", status.waiting.len() as u64),
    ] {
        head(out, name, "gauge");
        let _ = writeln!(out, "{name} {value}");
    }
    head(out, "tombolo_gateway_xds_responses_total", "counter");
    for (kind, of_kind) in &status.kinds {
        let _ = writeln!(
            out,
            "tombolo_gateway_xds_responses_total{{kind=\"{kind:?}\",outcome=\"accepted\"}} {}",
            of_kind.accepted
        );
        let _ = writeln!(
            out,
            "tombolo_gateway_xds_responses_total{{kind=\"{kind:?}\",outcome=\"refused\"}} {}",
            of_kind.refused
        );
    }
}

/// Upstreams as Envoy's `/clusters` writes them, one after the other.
pub(super) fn clusters(admin: &Admin) -> impl Iterator<Item = String> + Send + use<> {
    let live = admin.live.borrow().clone();
    keeper::sorted(&live).into_iter().map(|(name, upstream)| cluster(&name, &upstream))
}

fn cluster(name: &str, upstream: &Upstream) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{name}::observability_name::{}", upstream.cluster.observed());
    for (priority, at) in [("default", RoutePriority::Default), ("high", RoutePriority::High)] {
        let breakers = upstream.glance_at_breakers(at);
        for (what, resource) in [
            ("connections", Resource::Connections),
            ("pending_requests", Resource::Pending),
            ("requests", Resource::Requests),
            ("retries", Resource::Retries),
        ] {
            let _ = writeln!(out, "{name}::{priority}_priority::max_{what}::{}", breakers.limit(resource));
        }
    }
    for host in upstream.glance().set().hosts() {
        let address = super::dump::address(&host.endpoint.address);
        for (what, value) in [
            ("rq_active", host.state.active().to_string()),
            ("hostname", host.endpoint.hostname.to_string()),
            ("health_flags", host.state.flags(host.endpoint.health)),
            ("weight", host.endpoint.weight.to_string()),
            ("priority", host.priority.to_string()),
        ] {
            let _ = writeln!(out, "{name}::{address}::{what}::{value}");
        }
    }
    out
}

/// Listeners as Envoy's `/listeners` writes them.
pub(super) fn listeners(admin: &Admin) -> String {
    let live = admin.live.borrow().clone();
    let mut lines: Vec<String> = Vec::new();
    for (name, listener) in live.config.listeners.iter() {
        lines.extend(listener.addresses.iter().map(|a| format!("{name}::{}\n", super::dump::listener_address(a))));
    }
    lines.sort();
    lines.concat()
}
