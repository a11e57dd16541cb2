//! One message of a dump, and what a query leaves of it.

use super::typed;
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};
use tombolo_controlplane_api::json::Node;
use tombolo_gateway_core::config::Regex;

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// One resource of a list.
pub(super) struct Entry {
    /// By what a query may choose it.
    pub(super) name: Option<String>,
    /// What is said of it.
    pub(super) node: Node,
}

/// A list, made as it is read.
pub(super) type Entries = Box<dyn Iterator<Item = Entry> + Send>;

/// A message of a dump.
pub(super) struct Section {
    kind: &'static str,
    members: Vec<(&'static str, Member)>,
}

enum Member {
    One(Value),
    List(Entries),
}

impl Section {
    /// One without members.
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, members: Vec::new() }
    }

    /// A member; as in protobuf's JSON, an empty text is left out.
    pub(super) fn value(mut self, name: &'static str, value: Value) -> Self {
        if value.as_str() != Some("") {
            self.members.push((name, Member::One(value)));
        }
        self
    }

    /// A list; an empty one is left out.
    pub(super) fn list(mut self, name: &'static str, entries: Entries) -> Self {
        self.members.push((name, Member::List(entries)));
        self
    }

    /// Only resources whose name fits.
    pub(super) fn keep(mut self, regex: &Arc<Regex>) -> Self {
        for (_, member) in &mut self.members {
            if let Member::List(entries) = member {
                let (regex, all) = (regex.clone(), std::mem::replace(entries, Box::new(std::iter::empty())));
                let fits = move |name: &String| regex.matches_whole(name.as_bytes());
                *entries = Box::new(all.filter(move |entry| entry.name.as_ref().is_some_and(&fits)));
            }
        }
        self
    }

    /// The whole.
    pub(super) fn into_node(self) -> Node {
        let members = self.members.into_iter().filter_map(|(name, member)| {
            let node = match member {
                Member::One(value) => value.into(),
                Member::List(entries) => {
                    let mut entries = entries.peekable();
                    entries.peek()?;
                    Node::list(entries.map(|entry| entry.node))
                }
            };
            Some((Cow::Borrowed(name), node))
        });
        typed(format!("{ADMIN}{}", self.kind), Node::object(members))
    }
}

/// The entries of the list of one name, each with its type.
pub(super) fn part(sections: Vec<Section>, wanted: &str) -> Result<Node, String> {
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
    let wanted = wanted.to_owned();
    let members = sections.into_iter().flat_map(|section| section.members);
    let found = members.filter(move |(name, _)| *name == wanted).flat_map(|(_, member)| match member {
        Member::One(value) => Box::new(std::iter::once(Entry { name: None, node: value.into() })),
        Member::List(entries) => entries,
    });
    Ok(Node::list(found.map(move |entry| typed(format!("{ADMIN}{singular}"), entry.node))))
}

/// Keeps what one of the paths names, and the types.
pub(super) fn masked(node: Node, paths: Vec<Vec<String>>) -> Node {
    match node {
        Node::List(items) => Node::list(items.map(move |item| masked(item, paths.clone()))),
        Node::Object(members) => Node::object(members.filter_map(move |(name, member)| {
            let begins = |path: &&Vec<String>| path.first().is_some_and(|first| *first == *name);
            let rest: Vec<Vec<String>> =
                paths.iter().filter(begins).map(|path| path.get(1..).unwrap_or_default().to_vec()).collect();
            if rest.iter().any(Vec::is_empty) || name == "@type" {
                return Some((name, member));
            }
            (!rest.is_empty()).then(|| (name, masked(member, rest)))
        })),
        leaf @ Node::Leaf(_) => leaf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn masks_keep_what_they_name() {
        let value = json!({"@type": "t", "a": [{"b": 1, "c": 2}], "d": 3});
        let kept = masked(value.into(), vec![path(&["a", "b"])]).into_value();
        assert_eq!(kept, json!({"@type": "t", "a": [{"b": 1}]}));
    }

    fn sections() -> Vec<Section> {
        let entry = |name: &str| Entry { name: Some(name.to_owned()), node: json!({"name": name}).into() };
        let all = vec![entry("l"), entry("other")];
        vec![
            Section::new("ListenersConfigDump")
                .value("version_info", json!(""))
                .list("dynamic_listeners", Box::new(all.into_iter())),
            Section::new("RoutesConfigDump").list("dynamic_route_configs", Box::new(std::iter::empty())),
        ]
    }

    #[test]
    fn a_part_is_listed_alone_with_its_type() {
        let kind = format!("{ADMIN}ListenersConfigDump.DynamicListener");
        let found = part(sections(), "dynamic_listeners").unwrap().into_value();
        assert_eq!(found, json!([{"@type": kind, "name": "l"}, {"@type": kind, "name": "other"}]));
        assert!(part(sections(), "nonsense").is_err());
    }

    #[test]
    fn names_choose_and_what_is_empty_is_left_out() {
        let regex = Arc::new(Regex::parse("l").unwrap());
        let [listeners, routes] = <[Section; 2]>::try_from(sections()).ok().unwrap();
        let kept = listeners.keep(&regex).into_node().into_value();
        assert_eq!(kept, json!({"@type": format!("{ADMIN}ListenersConfigDump"), "dynamic_listeners": [{"name": "l"}]}));
        assert_eq!(routes.into_node().into_value(), json!({"@type": format!("{ADMIN}RoutesConfigDump")}));
    }
}
