//! Endpoints, listeners, certificates and the process itself, as JSON in Envoy's shapes.

use super::{Admin, pages, text};
use crate::{
    tls::context,
    upstream::keeper::{self, Upstream},
};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    fs,
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};
use tombolo_controlplane_api::json::{Node, timestamp};
use tombolo_gateway_core::{
    balance::Host,
    breaker::Resource,
    config::{Address, ClusterLoad, Discovery, EndpointAddress, HealthStatus, RoutePriority, Value as Free},
};

fn moment(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    timestamp(i64::try_from(since.as_secs()).unwrap_or_default(), 0)
}

fn socket(address: std::net::SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// `/clusters?format=json`.
pub(super) fn clusters(admin: &Admin) -> Node {
    let (live, dynamic) = (admin.live.borrow().clone(), !admin.file);
    let all = keeper::sorted(&live).into_iter().map(move |(name, upstream)| cluster(&name, &upstream, dynamic).into());
    Node::object(std::iter::once((Cow::Borrowed("cluster_statuses"), Node::list(all))))
}

fn cluster(name: &Arc<str>, upstream: &Upstream, dynamic: bool) -> Value {
    let plan = upstream.glance();
    let set = plan.set();
    let thresholds = [("DEFAULT", RoutePriority::Default), ("HIGH", RoutePriority::High)].map(|(word, at)| {
        let breakers = upstream.glance_at_breakers(at);
        json!({
            "priority": word,
            "max_connections": breakers.limit(Resource::Connections),
            "max_pending_requests": breakers.limit(Resource::Pending),
            "max_requests": breakers.limit(Resource::Requests),
            "max_retries": breakers.limit(Resource::Retries),
        })
    });
    let mut out = json!({
        "name": name,
        "added_via_api": dynamic,
        "observability_name": upstream.cluster.observed(),
        "circuit_breakers": {"thresholds": thresholds},
        "host_statuses": set.hosts().iter().map(|host| host_status(set.load(), host)).collect::<Vec<_>>(),
    });
    if let (Discovery::Eds(service), Some(members)) = (&upstream.cluster.discovery, out.as_object_mut())
        && service != name
    {
        members.insert("eds_service_name".to_owned(), json!(service));
    }
    out
}

fn host_status(load: &ClusterLoad, host: &Host) -> Value {
    let address = match &host.endpoint.address {
        EndpointAddress::Socket(address) => socket(*address),
        EndpointAddress::Name(name, port) => json!({"socket_address": {"address": name, "port_value": port}}),
        EndpointAddress::Pipe(path) => json!({"pipe": {"path": path}}),
        EndpointAddress::Internal(listener, id) => {
            json!({"envoy_internal_address": {"server_listener_name": listener, "endpoint_id": id}})
        }
    };
    let told = match host.endpoint.health {
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Timeout => "TIMEOUT",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
    };
    let mut health = Map::from_iter([("eds_health_status".to_owned(), json!(told))]);
    let flags = host.state.flags(host.endpoint.health);
    for (flag, field) in [
        ("/failed_active_hc", "failed_active_health_check"),
        ("/failed_outlier_check", "failed_outlier_check"),
        ("/degraded_active_hc", "failed_active_degraded_check"),
    ] {
        if flags.contains(flag) {
            health.insert(field.to_owned(), json!(true));
        }
    }
    let locality = load
        .priorities
        .get(host.priority as usize)
        .and_then(|priority| priority.localities.get(host.locality as usize))
        .map(|group| {
            let place = &group.locality;
            json!({"region": place.region, "zone": place.zone, "sub_zone": place.subzone})
        });
    json!({
        "address": address,
        "hostname": host.endpoint.hostname,
        "health_status": health,
        "weight": host.endpoint.weight,
        "priority": host.priority,
        "locality": locality,
        "stats": [{"name": "rq_active", "type": "GAUGE", "value": host.state.active().to_string()}],
    })
}

/// `/listeners?format=json`.
pub(super) fn listeners(admin: &Admin) -> Result<String, String> {
    let live = admin.live.borrow().clone();
    let mut all: Vec<_> = live.config.listeners.iter().collect();
    all.sort_by(|a, b| a.0.cmp(b.0));
    let address = |address: &Address| match address {
        Address::Socket(address) => socket(*address),
        Address::Pipe(path, _) => json!({"pipe": {"path": path}}),
        Address::Internal => json!({"envoy_internal_address": {}}),
    };
    let statuses = all.into_iter().map(|(name, listener)| {
        let mut addresses = listener.addresses.iter().map(address);
        let first = addresses.next();
        let mut out = json!({"name": name, "local_address": first});
        let more: Vec<Value> = addresses.collect();
        if let (false, Some(members)) = (more.is_empty(), out.as_object_mut()) {
            members.insert("additional_local_addresses".to_owned(), json!(more));
        }
        out
    });
    text(&json!({ "listener_statuses": statuses.collect::<Vec<_>>() }))
}

/// `/certs`.
pub(super) fn certificates(admin: &Admin) -> Result<String, String> {
    let live = admin.live.borrow().clone();
    let day = Duration::from_secs(86_400);
    let list: Vec<Value> = context::inventory(&live.config)
        .into_iter()
        .map(|(secret, facts)| {
            let left = facts.not_after.duration_since(SystemTime::now()).unwrap_or_default();
            let names =
                if facts.name.contains("://") { json!({"uri": facts.name}) } else { json!({"dns": facts.name}) };
            json!({"ca_cert": [], "cert_chain": [{
                "path": "<inline>",
                "secret": secret,
                "serial_number": facts.serial,
                "subject_alt_names": [names],
                "days_until_expiration": (left.as_secs() / day.as_secs()).to_string(),
                "valid_from": moment(facts.not_before),
                "expiration_time": moment(facts.not_after),
            }]})
        })
        .collect();
    let trouble = admin.certificate.borrow().trouble.clone();
    text(&json!({"certificates": list, "trouble": trouble}))
}

/// `/server_info`.
pub(super) fn server(admin: &Admin) -> Result<String, String> {
    let state = match pages::ready(admin) {
        Ok(word) => word,
        Err("DRAINING") => "DRAINING",
        Err(_) if admin.status.lock().unwrap_or_else(PoisonError::into_inner).kinds.is_empty() => "PRE_INITIALIZING",
        Err(_) => "INITIALIZING",
    };
    let uptime = format!("{}s", admin.started.elapsed().as_secs());
    text(&json!({
        "version": format!("tombolo-gateway/{}", env!("CARGO_PKG_VERSION")),
        "state": state,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {"concurrency": admin.tables.len(), "drain_strategy": "Immediate"},
        "node": {"id": admin.node, "user_agent_name": "tombolo-gateway"},
        "bound": admin.bound.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "alive": admin.drain.alive(),
        "xds": super::dump::xds_value(admin),
    }))
}

/// `/runtime`.
pub(super) fn runtime(admin: &Admin) -> Result<String, String> {
    let live = admin.live.borrow().clone();
    let shown = |value: &Free| match value {
        Free::Text(text) => text.to_string(),
        Free::Number(number) => number.to_string(),
        Free::Bool(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    let mut entries: Vec<_> = live.config.runtime.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    let entries: Map<String, Value> =
        entries.into_iter().map(|(key, value)| (key.to_string(), json!({"final_value": shown(value)}))).collect();
    text(&json!({ "entries": entries }))
}

/// `/memory`: what the kernel counts.
pub(super) fn memory() -> Result<String, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilo| kilo * 1024)
    };
    text(&json!({
        "allocated": bytes("RssAnon").unwrap_or_default().to_string(),
        "heap_size": bytes("VmData").unwrap_or_default().to_string(),
        "total_physical_bytes": bytes("VmRSS").unwrap_or_default().to_string(),
        "peak_physical_bytes": bytes("VmHWM").unwrap_or_default().to_string(),
    }))
}

/// `/init_dump`: what is not ready, and for what it waits.
pub(super) fn unready(admin: &Admin) -> Result<String, String> {
    let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
    let dumps: Vec<Value> = status
        .waiting
        .iter()
        .map(|w| json!({"name": format!("{:?} {}", w.kind, w.name), "target_names": [w.missing]}))
        .collect();
    text(&json!({ "unready_targets_dumps": dumps }))
}

/// `/stats`: the numbers of the exposition, one a line or as JSON, of those whose name matches.
pub(super) fn stats(exposition: &str, filter: Option<&str>, as_json: bool) -> Result<String, String> {
    let regex = filter.map(tombolo_gateway_core::config::Regex::parse).transpose()?;
    let fits = |name: &str| regex.as_ref().is_none_or(|regex| regex.search().is_match(name));
    let samples = exposition.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(name, _)| fits(name));
    if as_json {
        let all: Vec<Value> = samples
            .map(|(name, value)| {
                let number = value.parse::<f64>().map_or(Value::Null, |number| json!(number));
                json!({"name": name, "value": number})
            })
            .collect();
        return text(&json!({ "stats": all }));
    }
    let mut lines: Vec<String> = samples.map(|(name, value)| format!("{name}: {value}\n")).collect();
    lines.sort();
    Ok(lines.concat())
}
