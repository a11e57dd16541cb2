//! `/config_dump` in Envoy's shape: what the control plane sent, as it sent it, without keys.
//!
//! Owns the envelope of each dump. Nothing of it is made before the client takes it: what is held meanwhile are the bytes that are
//! held anyway.

mod section;

use super::{Admin, query::Query};
use crate::{
    upstream::keeper::Live,
    xds::shelves::{Kept, Refused, Shelf},
};
use section::{Entries, Entry, Section};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
    time::SystemTime,
};
use tombolo_controlplane_api::json::{self, Node, Secrets, timestamp};
use tombolo_gateway_core::{
    config::{Regex, RouteSource, Terminal},
    wire::Kind,
};

/// One answer under way.
struct Dump {
    live: Arc<Live>,
    shelves: BTreeMap<Kind, Shelf>,
    /// What waits, by kind and name.
    waiting: BTreeSet<(Kind, String)>,
    /// It came from a file.
    fixed: bool,
}

/// Everything, or what the query asks for.
pub(super) fn answer(admin: &Admin, query: &Query<'_>) -> Result<Node, String> {
    let mut sections = vec![bootstrap(admin)];
    sections.extend(Dump::new(admin).sections(query.has("include_eds")));
    if let Some(pattern) = query.get("name_regex") {
        let regex = Arc::new(Regex::parse(&pattern)?);
        sections = sections.into_iter().map(|section| section.keep(&regex)).collect();
    }
    let mut configs = match query.get("resource") {
        Some(wanted) => section::part(sections, &wanted)?,
        None => Node::list(sections.into_iter().map(Section::into_node)),
    };
    if let Some(mask) = query.get("mask") {
        let paths = mask.split(',').map(|path| path.split('.').map(str::to_owned).collect()).collect();
        configs = section::masked(configs, paths);
    }
    Ok(Node::object(std::iter::once((Cow::Borrowed("configs"), configs))))
}

fn bootstrap(admin: &Admin) -> Section {
    let node = json!({"id": admin.node, "user_agent_name": "tombolo-gateway",
        "user_agent_version": env!("CARGO_PKG_VERSION")});
    let started = SystemTime::now().checked_sub(admin.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    Section::new("BootstrapConfigDump")
        .value("bootstrap", json!({ "node": node }))
        .value("last_updated", json!(moment(started)))
}

fn moment(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = i32::try_from(since.subsec_millis()).unwrap_or_default();
    timestamp(i64::try_from(since.as_secs()).unwrap_or_default(), millis * 1_000_000)
}

fn text(value: impl Into<String>) -> Node {
    Node::Leaf(Value::String(value.into()))
}

fn object(members: Vec<(&'static str, Node)>) -> Node {
    Node::object(members.into_iter().map(|(name, member)| (Cow::Borrowed(name), member)))
}

/// A message, or why it cannot be shown.
fn message(type_url: &str, body: &prost::bytes::Bytes) -> Node {
    json::write(type_url, body.clone(), Secrets::Redacted)
        .unwrap_or_else(|error| object(vec![("error", text(error.to_string()))]))
}

/// A resource with its type.
fn body(kind: Kind, body: &prost::bytes::Bytes) -> Node {
    typed(kind.type_url(), message(kind.type_url(), body))
}

fn typed(type_url: impl Into<String>, node: Node) -> Node {
    let head = std::iter::once((Cow::Borrowed("@type"), text(type_url)));
    match node {
        Node::Object(members) => Node::object(head.chain(members)),
        Node::Leaf(_) | Node::List(_) => Node::object(head),
    }
}

/// The members of an entry: a resource with its version and its moment.
fn members(kind: Kind, key: &'static str, kept: &Kept, fixed: bool) -> Vec<(&'static str, Node)> {
    let version = (!fixed).then(|| ("version_info", text(&*kept.resource.version)));
    let rest = [(key, body(kind, &kept.resource.body)), ("last_updated", text(moment(kept.updated)))];
    version.into_iter().chain(rest).collect()
}

fn error(kind: Kind, refused: &Refused) -> (&'static str, Node) {
    let failed = refused.resource.as_ref().map(|resource| ("failed_configuration", body(kind, &resource.body)));
    let rest = [
        ("last_update_attempt", text(moment(refused.at))),
        ("details", text(refused.reason.as_str())),
        ("version_info", text(&*refused.version)),
    ];
    ("error_state", object(failed.into_iter().chain(rest).collect()))
}

impl Dump {
    fn new(admin: &Admin) -> Self {
        let shelves = {
            let all = admin.shelves.lock().unwrap_or_else(PoisonError::into_inner);
            Kind::ALL.into_iter().filter_map(|kind| Some((kind, all.of(kind)?.clone()))).collect()
        };
        let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = status.waiting.iter().map(|w| (w.kind, w.name.to_string())).collect();
        Self { live: admin.live.borrow().clone(), shelves, waiting, fixed: admin.file }
    }

    fn sections(mut self, endpoints: bool) -> Vec<Section> {
        let inline = self.written_routes();
        let mut out = vec![self.clusters()];
        if endpoints {
            let (fixed, dynamic) = self.either(Kind::Load, "endpoint_config");
            let section = Section::new("EndpointsConfigDump");
            out.push(section.list("static_endpoint_configs", fixed).list("dynamic_endpoint_configs", dynamic));
        }
        let filters = self.plain(Kind::Extension, "ecds_filter");
        out.push(Section::new("EcdsConfigDump").list("ecds_filters", filters));
        out.push(self.listeners());
        out.push(self.scopes());
        let routes = self.plain(Kind::Routes, "route_config");
        let section = Section::new("RoutesConfigDump").list("static_route_configs", Box::new(inline.into_iter()));
        out.push(section.list("dynamic_route_configs", routes));
        out.push(self.secrets());
        out
    }

    fn take(&mut self, kind: Kind) -> Shelf {
        self.shelves.remove(&kind).unwrap_or_default()
    }

    /// Those that came from a file, and those that came from a control plane.
    fn either(&mut self, kind: Kind, key: &'static str) -> (Entries, Entries) {
        let (list, none) = (self.plain(kind, key), Box::new(std::iter::empty()));
        if self.fixed { (list, none) } else { (none, list) }
    }

    /// Entries of a kind that has no warming of its own; refused ones carry their error.
    fn plain(&mut self, kind: Kind, key: &'static str) -> Entries {
        let Shelf { kept, mut refused, .. } = self.take(kind);
        let fixed = self.fixed;
        let known: Vec<_> = kept.into_iter().map(|(name, kept)| (refused.remove(&*name), name, kept)).collect();
        let known = known.into_iter().map(move |(refused, name, kept)| {
            let mut members = members(kind, key, &kept, fixed);
            members.extend(refused.map(|refused| error(kind, &refused)));
            Entry { name: Some(name.to_string()), node: object(members) }
        });
        let unknown =
            refused.into_values().map(move |refused| Entry { name: None, node: object(vec![error(kind, &refused)]) });
        Box::new(known.chain(unknown))
    }

    fn clusters(&mut self) -> Section {
        if self.fixed {
            let all = self.plain(Kind::Cluster, "cluster");
            return Section::new("ClustersConfigDump").list("static_clusters", all);
        }
        let Shelf { kept, refused, version } = self.take(Kind::Cluster);
        let fresh = |name: &Arc<str>| {
            self.waiting.contains(&(Kind::Cluster, name.to_string())) || !self.live.config.clusters.contains(name)
        };
        let (warming, active): (Vec<_>, Vec<_>) = kept.into_iter().partition(|(name, _)| fresh(name));
        let entry = |(name, kept): (Arc<str>, Kept)| Entry {
            name: Some(name.to_string()),
            node: object(members(Kind::Cluster, "cluster", &kept, false)),
        };
        // Envoy lists a cluster that it refused among those that warm.
        let refused = refused.into_iter().map(|(name, refused)| Entry {
            node: object(vec![error(Kind::Cluster, &refused), ("name", text(name.as_str()))]),
            name: Some(name),
        });
        Section::new("ClustersConfigDump")
            .value("version_info", json!(version))
            .list("dynamic_active_clusters", Box::new(active.into_iter().map(entry)))
            .list("dynamic_warming_clusters", Box::new(warming.into_iter().map(entry).chain(refused)))
    }

    fn listeners(&mut self) -> Section {
        if self.fixed {
            let all = self.plain(Kind::Listener, "listener");
            return Section::new("ListenersConfigDump").list("static_listeners", all);
        }
        let Shelf { kept, mut refused, version } = self.take(Kind::Listener);
        let known = kept.into_iter().map(|(name, kept)| {
            let waits = self.waiting.contains(&(Kind::Listener, name.to_string()));
            let state = if waits { "warming_state" } else { "active_state" };
            let state = (state, object(members(Kind::Listener, "listener", &kept, false)));
            let refused = refused.remove(&*name).map(|refused| error(Kind::Listener, &refused));
            let members = [("name", text(&*name)), state].into_iter().chain(refused).collect();
            Entry { name: Some(name.to_string()), node: object(members) }
        });
        let known: Vec<Entry> = known.collect();
        let unknown = refused.into_iter().map(|(name, refused)| Entry {
            node: object(vec![("name", text(name.as_str())), error(Kind::Listener, &refused)]),
            name: Some(name),
        });
        let all = known.into_iter().chain(unknown);
        Section::new("ListenersConfigDump")
            .value("version_info", json!(version))
            .list("dynamic_listeners", Box::new(all))
    }

    fn scopes(&mut self) -> Section {
        let Shelf { kept, version, .. } = self.take(Kind::Scope);
        let section = Section::new("ScopedRoutesConfigDump");
        if kept.is_empty() {
            return section;
        }
        let configs = kept.into_values().map(|kept| body(Kind::Scope, &kept.resource.body));
        let members = vec![("version_info", text(version)), ("scoped_route_configs", Node::list(configs))];
        let one = Entry { name: None, node: object(members) };
        section.list("dynamic_scoped_route_configs", Box::new(std::iter::once(one)))
    }

    /// Routes that are written in listeners in use.
    fn written_routes(&self) -> Vec<Entry> {
        let inline = self.live.config.listeners.iter().filter(|(_, listener)| {
            let mut chains = listener.chains.iter().chain(&listener.default_chain);
            chains.any(|chain| match &chain.terminal {
                Terminal::Http(hcm) => matches!(hcm.routes, RouteSource::Inline(_)),
                Terminal::Tcp(_) => false,
            })
        });
        let names: BTreeSet<&Arc<str>> = inline.map(|(name, _)| name).collect();
        let shelf = self.shelves.get(&Kind::Listener);
        let kept = names.into_iter().filter_map(|name| shelf?.kept.get(name));
        kept.flat_map(|kept| {
            // Made twice, since a name can be asked only of what is then used up.
            let names = written(kept).map(|table| match table.member("name") {
                Some(Node::Leaf(Value::String(name))) => name,
                _ => String::new(),
            });
            let moment = moment(kept.updated);
            written(kept).zip(names).map(move |(table, name)| {
                let table = typed(Kind::Routes.type_url(), table);
                let members = vec![("route_config", table), ("last_updated", text(moment.as_str()))];
                Entry { name: Some(name), node: object(members) }
            })
        })
        .collect()
    }

    fn secrets(&mut self) -> Section {
        let fixed = self.fixed;
        let entries = self.take(Kind::Secret).kept.into_iter().map(move |(name, kept)| {
            let mut all = vec![("name", text(&*name))];
            all.extend(members(Kind::Secret, "secret", &kept, fixed));
            Entry { name: Some(name.to_string()), node: object(all) }
        });
        let key = if self.fixed { "static_secrets" } else { "dynamic_active_secrets" };
        Section::new("SecretsConfigDump").list(key, Box::new(entries))
    }
}

/// The route tables in the text of a listener.
fn written(kept: &Kept) -> impl Iterator<Item = Node> {
    let listener = || message(Kind::Listener.type_url(), &kept.resource.body);
    let chains = listener().member("filter_chains").into_iter().flat_map(Node::items);
    let filters = chains
        .chain(listener().member("default_filter_chain"))
        .flat_map(|chain| chain.member("filters").into_iter().flat_map(Node::items));
    let tables = filters.filter_map(|filter| filter.member("typed_config")?.member("route_config"));
    tables.filter(|table| matches!(table, Node::Object(_)))
}
