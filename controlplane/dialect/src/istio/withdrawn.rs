//! Owns kinds that were withdrawn from the API: each is refused with what to write instead, as text that can be applied
//! after a look at its names. Never converts silently: what these kinds meant at run time cannot be known from one object.

use crate::{
    code,
    fields::Fields,
    object::Head,
    read::Yield,
    text::{Node, Value},
};

pub(crate) fn withdrawn(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip_rest();
    let instead = match (head.group.as_str(), head.kind.as_str()) {
        ("authentication.istio.io", _) => peer_authentication(head, object.at.node),
        ("rbac.istio.io", _) => authorization_policy(head, "app: WORKLOAD", &from("CLIENT"), ""),
        (_, "RouteRule" | "EgressRule" | "DestinationPolicy" | "IngressRule") => virtual_service(head, object.at.node),
        (_, "rule") => deny_rule(head, object.at.node),
        _ => authorization_policy(head, "app: WORKLOAD", &from("CLIENT"), NO_PARTS),
    };
    object.at.error(
        code::WITHDRAWN_KIND,
        format!("{} of {} was withdrawn and has no effect anywhere; write instead:\n{instead}", head.kind, head.group),
    );
    Yield::default()
}

/// A mode that stood below `peers`, for the workloads that stood below `targets`.
fn peer_authentication(head: &Head, root: &Node) -> String {
    let spec = root.get("spec");
    let first = |name| match spec.and_then(|s| s.get(name)).map(|n| &n.value) {
        Some(Value::List(list)) => list.first(),
        _ => None,
    };
    let peers = first("peers").and_then(|p| p.get("mtls"));
    let mode = peers.and_then(|m| m.get("mode")).and_then(Node::text).unwrap_or("STRICT");
    let target = first("targets").and_then(|t| t.get("name")).and_then(Node::text);
    let selector = match target {
        Some(target) => format!("\n  selector: {{matchLabels: {{app: {}}}}}", target.trim_end_matches("-svc")),
        None => String::new(),
    };
    let namespace = if head.kind == "MeshPolicy" { "istio-system" } else { head.namespace.as_str() };
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {}, namespace: {namespace}}}\nspec:{selector}\n  mtls: {{mode: {mode}}}",
        head.name
    )
}

/// A deny rule whose condition compares labels, which is what most were.
fn deny_rule(head: &Head, root: &Node) -> String {
    let condition = root.get("spec").and_then(|s| s.get("match")).and_then(Node::text).unwrap_or_default();
    let selected: Vec<_> = comparisons(condition, "destination.labels");
    let labels: Vec<_> = selected.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    let clients = comparisons(condition, "source.labels");
    let client = clients.first().map_or("CLIENT", |(_, value)| value.as_str());
    let selector = if labels.is_empty() { "app: WORKLOAD".to_owned() } else { labels.join(", ") };
    authorization_policy(head, &selector, &from(client), BY_ACCOUNT)
}

/// A rule for clients of one account.
fn from(client: &str) -> String {
    format!("[{{from: [{{source: {{principals: [\"*/sa/{client}\"]}}}}]}}]")
}

/// Why the new form cannot say the same.
const BY_ACCOUNT: &str =
    "\n# principals name service accounts: clients cannot be told apart by labels that they choose themselves";
/// Handlers and instances were parts of a rule.
const NO_PARTS: &str =
    "\n# one policy holds it all: remove handlers and instances, and convert the rule that names them";

fn authorization_policy(head: &Head, selector: &str, rules: &str, remark: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  selector: {{matchLabels: {{{selector}}}}}\n  action: DENY\n  rules: {rules}{remark}\n# this version refuses an AuthorizationPolicy too, because it cannot enforce it yet",
        head.name, head.namespace
    )
}

/// The pairs of `ATTRIBUTE["KEY"] == "VALUE"` in an expression.
fn comparisons(expression: &str, attribute: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for part in expression.split("&&") {
        let compact: String = part.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(rest) = compact.strip_prefix(attribute).and_then(|rest| rest.strip_prefix("[\"")) else { continue };
        let Some((key, rest)) = rest.split_once("\"]==\"") else { continue };
        pairs.extend(rest.split('"').next().map(|value| (key.to_owned(), value.to_owned())));
    }
    pairs
}

fn virtual_service(head: &Head, root: &Node) -> String {
    let destination = root.get("spec").and_then(|s| s.get("destination")).and_then(|d| d.get("name"));
    let host = destination.and_then(Node::text).unwrap_or("SERVICE");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {}, namespace: {}}}\nspec:\n  hosts: [{host}]\n  http: [{{route: [{{destination: {{host: {host}}}}}]}}]",
        head.name, head.namespace
    )
}
