//! `/config_dump` in Envoy's shape: what the control plane sent, as it sent it, without keys.
//!
//! Owns the envelope of each dump.

use super::{Admin, query::Query};
use crate::xds::shelves::{Kept, Refused, Shelf, Shelves};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::PoisonError, time::SystemTime};
use tombolo_controlplane_api::json::{self, Secrets, timestamp};
use tombolo_gateway_core::{
    config::{RouteSource, Terminal},
    wire::Kind,
};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// One answer under way.
struct Dump<'a> {
    admin: &'a Admin,
    shelves: Shelves,
    /// What waits, by kind and name.
    waiting: BTreeSet<(Kind, String)>,
    /// It came from a file.
    fixed: bool,
}

/// Everything, or what the query asks for.
pub(super) fn answer(admin: &Admin, query: &Query<'_>) -> Result<String, String> {
    let shelves = admin.shelves.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let waiting = {
        let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.waiting.iter().map(|w| (w.kind, w.name.to_string())).collect()
    };
    let dump = Dump { admin, shelves, waiting, fixed: admin.file };
    let mut configs = vec![
        dump.bootstrap(),
        dump.clusters(),
        dump.ecds(),
        dump.listeners(),
        dump.scopes(),
        dump.routes(),
        dump.secrets(),
    ];
    if query.has("include_eds") {
        configs.insert(2, dump.endpoints());
    }
    if let Some(wanted) = query.get("resource") {
        configs = parts(&configs, &wanted)?;
    }
    if let Some(pattern) = query.get("name_regex") {
        let regex = tombolo_gateway_core::config::Regex::parse(&pattern)?;
        configs.iter_mut().for_each(|config| keep_named(config, &|name| regex.matches_whole(name.as_bytes())));
    }
    if let Some(mask) = query.get("mask") {
        let paths: Vec<Vec<&str>> = mask.split(',').map(|path| path.split('.').collect()).collect();
        configs.iter_mut().for_each(|config| masked(config, &paths));
    }
    super::text(&json!({ "configs": configs }))
}

/// The entries of the lists of one name, each with its type.
fn parts(configs: &[Value], wanted: &str) -> Result<Vec<Value>, String> {
    let singular = match wanted {
        "static_clusters" => "ClustersConfigDump.StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => "ClustersConfigDump.DynamicCluster",
        "static_listeners" => "ListenersConfigDump.StaticListener",
        "dynamic_listeners" => "ListenersConfigDump.DynamicListener",
        "static_route_configs" => "RoutesConfigDump.StaticRouteConfig",
        "dynamic_route_configs" => "RoutesConfigDump.DynamicRouteConfig",
        "inline_scoped_route_configs" => "ScopedRoutesConfigDump.InlineScopedRouteConfigs",
        "dynamic_scoped_route_configs" => "ScopedRoutesConfigDump.DynamicScopedRouteConfigs",
        "dynamic_active_secrets" | "dynamic_warming_secrets" => "SecretsConfigDump.DynamicSecret",
        "dynamic_endpoint_configs" => "EndpointsConfigDump.DynamicEndpointConfig",
        "ecds_filters" => "EcdsConfigDump.EcdsFilterConfig",
        "bootstrap" => "BootstrapConfigDump",
        other => return Err(format!("{other} not found in config dump")),
    };
    let typed = |entry: &Value| {
        let mut out = Map::from_iter([("@type".to_owned(), json!(format!("{ADMIN}{singular}")))]);
        out.extend(entry.as_object().cloned().unwrap_or_default());
        Value::Object(out)
    };
    let found = configs.iter().filter_map(|config| config.get(wanted));
    Ok(found
        .flat_map(|found| found.as_array().map_or_else(|| vec![typed(found)], |all| all.iter().map(typed).collect()))
        .collect())
}

/// Takes entries out of lists whose resource has another name.
fn keep_named(config: &mut Value, fits: &dyn Fn(&str) -> bool) {
    let Some(members) = config.as_object_mut() else { return };
    for list in members.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|entry| name_of(entry).is_some_and(|name| fits(&name)));
    }
}

fn name_of(entry: &Value) -> Option<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let inner = ["cluster", "listener", "route_config", "endpoint_config", "secret", "ecds_filter"];
    text(entry.get("name")).or_else(|| {
        let inner = inner.iter().find_map(|key| entry.get(*key))?;
        text(inner.get("name")).or_else(|| text(inner.get("cluster_name")))
    })
}

/// Keeps what one of the paths names, and the type.
fn masked(value: &mut Value, paths: &[Vec<&str>]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| masked(item, paths)),
        Value::Object(members) => members.retain(|name, member| {
            let rest: Vec<Vec<&str>> = paths
                .iter()
                .filter(|path| path.first() == Some(&name.as_str()))
                .map(|path| path.get(1..).unwrap_or_default().to_vec())
                .collect();
            if rest.iter().any(Vec::is_empty) || name == "@type" {
                return true;
            }
            masked(member, &rest);
            !rest.is_empty()
        }),
        _ => {}
    }
}

fn moment(at: SystemTime) -> Value {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = i32::try_from(since.subsec_millis()).unwrap_or_default();
    json!(timestamp(i64::try_from(since.as_secs()).unwrap_or_default(), millis * 1_000_000))
}

impl Dump<'_> {
    fn envelope(&self, kind: &str, members: Value) -> Value {
        let mut out = Map::from_iter([("@type".to_owned(), json!(format!("{ADMIN}{kind}")))]);
        let members = members.as_object().cloned().unwrap_or_default();
        // As in protobuf's JSON, what is empty is left out.
        let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
        out.extend(members.into_iter().filter(|(_, value)| !empty(value) && !value.is_null()));
        Value::Object(out)
    }

    fn shelf(&self, kind: Kind) -> Option<&Shelf> {
        self.shelves.of(kind)
    }

    fn kept(&self, kind: Kind) -> impl Iterator<Item = (&str, &Kept)> {
        self.shelf(kind).into_iter().flat_map(|shelf| shelf.kept.iter().map(|(name, kept)| (&**name, kept)))
    }

    fn refused(&self, kind: Kind) -> impl Iterator<Item = (&str, &Refused)> {
        self.shelf(kind).into_iter().flat_map(|shelf| shelf.refused.iter().map(|(name, r)| (name.as_str(), r)))
    }

    fn waits(&self, kind: Kind, name: &str) -> bool {
        self.waiting.contains(&(kind, name.to_owned()))
    }

    fn version(&self, kind: Kind) -> String {
        self.shelf(kind).map(|shelf| shelf.version.clone()).unwrap_or_default()
    }

    /// A resource with its type.
    fn body(&self, kind: Kind, body: &[u8]) -> Value {
        let mut out = Map::from_iter([("@type".to_owned(), json!(kind.type_url()))]);
        match json::write(kind.type_url(), body, Secrets::Redacted) {
            Ok(Value::Object(members)) => out.extend(members),
            Ok(_) => {}
            Err(error) => drop(out.insert("error".to_owned(), json!(error.to_string()))),
        }
        Value::Object(out)
    }

    fn entry(&self, kind: Kind, key: &str, kept: &Kept) -> Value {
        let body = self.body(kind, &kept.resource.body);
        if self.fixed {
            return json!({key: body, "last_updated": moment(kept.updated)});
        }
        json!({"version_info": &*kept.resource.version, key: body, "last_updated": moment(kept.updated)})
    }

    fn error(&self, kind: Kind, refused: &Refused) -> Value {
        let failed = refused.resource.as_ref().map(|resource| self.body(kind, &resource.body));
        json!({
            "failed_configuration": failed,
            "last_update_attempt": moment(refused.at),
            "details": refused.reason,
            "version_info": &*refused.version,
        })
    }

    /// Entries of a kind that has no warming of its own; refused ones carry their error.
    fn plain(&self, kind: Kind, key: &str) -> Vec<Value> {
        let mut out: Vec<Value> = self
            .kept(kind)
            .map(|(name, kept)| {
                let mut entry = self.entry(kind, key, kept);
                if let (Some(refused), Some(members)) =
                    (self.shelf(kind).and_then(|shelf| shelf.refused.get(name)), entry.as_object_mut())
                {
                    members.insert("error_state".to_owned(), self.error(kind, refused));
                }
                entry
            })
            .collect();
        let unknown =
            self.refused(kind).filter(|(name, _)| self.shelf(kind).is_some_and(|s| !s.kept.contains_key(*name)));
        out.extend(unknown.map(|(_, refused)| json!({"error_state": self.error(kind, refused)})));
        out
    }

    fn bootstrap(&self) -> Value {
        let node = json!({"id": self.admin.node, "user_agent_name": "tombolo-gateway",
            "user_agent_version": env!("CARGO_PKG_VERSION")});
        let started = SystemTime::now().checked_sub(self.admin.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        self.envelope("BootstrapConfigDump", json!({"bootstrap": {"node": node}, "last_updated": moment(started)}))
    }

    fn clusters(&self) -> Value {
        let live = self.admin.live.borrow().clone();
        if self.fixed {
            let all: Vec<_> =
                self.kept(Kind::Cluster).map(|(_, kept)| self.entry(Kind::Cluster, "cluster", kept)).collect();
            return self.envelope("ClustersConfigDump", json!({ "static_clusters": all }));
        }
        let (mut active, mut warming) = (Vec::new(), Vec::new());
        for (name, kept) in self.kept(Kind::Cluster) {
            let fresh = self.waits(Kind::Cluster, name) || !live.config.clusters.contains(name);
            let list = if fresh { &mut warming } else { &mut active };
            list.push(self.entry(Kind::Cluster, "cluster", kept));
        }
        for (name, refused) in self.refused(Kind::Cluster) {
            // Envoy lists a cluster that it refused among those that warm.
            warming.push(json!({"error_state": self.error(Kind::Cluster, refused), "name": name}));
        }
        let version = self.version(Kind::Cluster);
        self.envelope(
            "ClustersConfigDump",
            json!({"version_info": version, "dynamic_active_clusters": active, "dynamic_warming_clusters": warming}),
        )
    }

    fn endpoints(&self) -> Value {
        let list = self.plain(Kind::Load, "endpoint_config");
        let (fixed, dynamic) = if self.fixed { (list, Vec::new()) } else { (Vec::new(), list) };
        self.envelope(
            "EndpointsConfigDump",
            json!({"static_endpoint_configs": fixed, "dynamic_endpoint_configs": dynamic}),
        )
    }

    fn ecds(&self) -> Value {
        self.envelope("EcdsConfigDump", json!({"ecds_filters": self.plain(Kind::Extension, "ecds_filter")}))
    }

    fn listeners(&self) -> Value {
        if self.fixed {
            let all: Vec<_> =
                self.kept(Kind::Listener).map(|(_, k)| self.entry(Kind::Listener, "listener", k)).collect();
            return self.envelope("ListenersConfigDump", json!({ "static_listeners": all }));
        }
        let mut dynamic = Vec::new();
        for (name, kept) in self.kept(Kind::Listener) {
            let state = if self.waits(Kind::Listener, name) { "warming_state" } else { "active_state" };
            let mut entry = json!({"name": name, state: self.entry(Kind::Listener, "listener", kept)});
            let refused = self.shelf(Kind::Listener).and_then(|shelf| shelf.refused.get(name));
            if let (Some(refused), Some(members)) = (refused, entry.as_object_mut()) {
                members.insert("error_state".to_owned(), self.error(Kind::Listener, refused));
            }
            dynamic.push(entry);
        }
        for (name, refused) in self.refused(Kind::Listener) {
            if self.shelf(Kind::Listener).is_some_and(|shelf| !shelf.kept.contains_key(name)) {
                dynamic.push(json!({"name": name, "error_state": self.error(Kind::Listener, refused)}));
            }
        }
        let version = self.version(Kind::Listener);
        self.envelope("ListenersConfigDump", json!({"version_info": version, "dynamic_listeners": dynamic}))
    }

    fn scopes(&self) -> Value {
        let configs: Vec<Value> =
            self.kept(Kind::Scope).map(|(_, kept)| self.body(Kind::Scope, &kept.resource.body)).collect();
        let dynamic = if configs.is_empty() {
            Vec::new()
        } else {
            vec![json!({"version_info": self.version(Kind::Scope), "scoped_route_configs": configs})]
        };
        self.envelope("ScopedRoutesConfigDump", json!({ "dynamic_scoped_route_configs": dynamic }))
    }

    /// Routes by RDS, and those that are written in listeners.
    fn routes(&self) -> Value {
        let live = self.admin.live.borrow().clone();
        let inline = live.config.listeners.iter().flat_map(|(name, listener)| {
            let chains = listener.chains.iter().chain(&listener.default_chain);
            let written = chains.filter(|chain| match &chain.terminal {
                Terminal::Http(hcm) => matches!(hcm.routes, RouteSource::Inline(_)),
                Terminal::Tcp(_) => false,
            });
            std::iter::repeat_n(name.to_string(), written.count().min(1))
        });
        let names: BTreeSet<String> = inline.collect();
        let fixed: Vec<Value> = names.iter().flat_map(|listener| self.written_routes(listener)).collect();
        let dynamic = self.plain(Kind::Routes, "route_config");
        self.envelope("RoutesConfigDump", json!({"static_route_configs": fixed, "dynamic_route_configs": dynamic}))
    }

    /// The route tables in the text of a listener.
    fn written_routes(&self, listener: &str) -> Vec<Value> {
        let Some(kept) = self.shelf(Kind::Listener).and_then(|shelf| shelf.kept.get(listener)) else {
            return Vec::new();
        };
        let body = self.body(Kind::Listener, &kept.resource.body);
        let chains = body["filter_chains"].as_array().into_iter().flatten().chain([&body["default_filter_chain"]]);
        let filters = chains.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
        let tables = filters.map(|filter| &filter["typed_config"]["route_config"]).filter(|table| table.is_object());
        tables
            .map(|table| {
                let mut typed = Map::from_iter([("@type".to_owned(), json!(Kind::Routes.type_url()))]);
                typed.extend(table.as_object().cloned().unwrap_or_default());
                json!({"route_config": typed, "last_updated": moment(kept.updated)})
            })
            .collect()
    }

    fn secrets(&self) -> Value {
        let entries = self.kept(Kind::Secret).map(|(name, kept)| {
            let mut entry = self.entry(Kind::Secret, "secret", kept);
            if let Some(members) = entry.as_object_mut() {
                members.insert("name".to_owned(), json!(name));
            }
            entry
        });
        let list: Vec<Value> = entries.collect();
        let key = if self.fixed { "static_secrets" } else { "dynamic_active_secrets" };
        self.envelope("SecretsConfigDump", json!({ key: list }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_what_they_name() {
        let mut value = json!({"@type": "t", "a": [{"b": 1, "c": 2}], "d": 3});
        masked(&mut value, &[vec!["a", "b"]]);
        assert_eq!(value, json!({"@type": "t", "a": [{"b": 1}]}));
    }

    #[test]
    fn a_part_is_listed_alone_with_its_type() {
        let configs = [json!({"dynamic_listeners": [{"name": "l"}]}), json!({"dynamic_route_configs": []})];
        let found = parts(&configs, "dynamic_listeners").unwrap();
        assert_eq!(found, [json!({"@type": format!("{ADMIN}ListenersConfigDump.DynamicListener"), "name": "l"})]);
        assert!(parts(&configs, "nonsense").is_err());
    }
}
