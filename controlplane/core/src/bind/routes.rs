//! Which routes are in force for a host of the mesh, and how delegation is resolved.

use super::{View, complain, covering, grant};
use crate::{
    intent::{Attachment, HttpAction, HttpMatch, HttpRule, NamedRef, Precedence, Routes, TextMatch},
    stage::Reader,
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{Diagnostic, Host, Severity};

/// The routes in force for a host: those with the most specific host; of several the oldest alone, except that objects
/// whose rules rank by specificity combine, and of those the client's own win over everybody else's.
#[must_use]
pub fn mesh_routes<'w>(view: View<'_, 'w>, host: &Host) -> Vec<&'w Arc<Routes>> {
    for pattern in covering(host) {
        let list: Vec<&Arc<Routes>> =
            view.reader.mesh_routes(&pattern).filter(|routes| view.audience.sees_routes(routes)).collect();
        match list.first() {
            None => {}
            Some(first) if first.precedence == Precedence::ObjectOrder => return vec![first],
            Some(_) => {
                let combining = list.into_iter().filter(|routes| routes.precedence == Precedence::MostSpecific);
                let (own, others): (Vec<_>, Vec<_>) =
                    combining.partition(|routes| routes.meta.namespace == view.audience.namespace);
                return if own.is_empty() { others } else { own };
            }
        }
    }
    Vec::new()
}

/// The HTTP rules of an object with delegation resolved and references judged. A rule that cannot be resolved is left out with a
/// complaint.
#[must_use]
pub fn flatten(reader: &Reader<'_>, routes: &Routes, complaints: &mut Vec<Diagnostic>) -> Vec<HttpRule> {
    let mut rules = Vec::with_capacity(routes.http.len());
    for rule in &routes.http {
        match &rule.delegate {
            None => rules.push(grant::permit(reader, routes, rule, complaints)),
            Some(name) => rules.extend(delegated(reader, routes, rule, name, complaints)),
        }
    }
    rules
}

fn delegated(
    reader: &Reader<'_>,
    routes: &Routes,
    root: &HttpRule,
    name: &NamedRef,
    complaints: &mut Vec<Diagnostic>,
) -> Vec<HttpRule> {
    let field = format!("{}.delegate", root.field);
    let Some(delegate) = reader.routes_named(name) else {
        let text =
            format!("there is no VirtualService {}/{} to delegate to; its requests get 404", name.namespace, name.name);
        complaints.push(complain(Severity::Error, "UNKNOWN_DELEGATE", &routes.meta.object, field, text));
        return Vec::new();
    };
    if !delegate.export_to.includes(&routes.meta.namespace) {
        let text = format!(
            "VirtualService {}/{} is not exported to namespace {}",
            name.namespace, name.name, routes.meta.namespace
        );
        complaints.push(complain(Severity::Error, "DELEGATE_NOT_VISIBLE", &routes.meta.object, field, text));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for rule in &delegate.http {
        if rule.delegate.is_some() {
            let text = "a delegate may not delegate again; the rule is left out";
            complaints.push(complain(
                Severity::Error,
                "DELEGATE_CHAIN",
                &delegate.meta.object,
                format!("{}.delegate", rule.field),
                text,
            ));
            continue;
        }
        match combined_matches(&root.matches, &rule.matches) {
            Some(matches) => rules.push(inherit(root, rule, matches)),
            None => {
                let text = format!(
                    "its matches contradict those of {} in {}; the rule is left out",
                    root.field, routes.meta.object
                );
                complaints.push(complain(
                    Severity::Warning,
                    "DELEGATE_MISMATCH",
                    &delegate.meta.object,
                    &rule.field,
                    text,
                ));
            }
        }
    }
    rules
}

/// The delegate's rule, with what the root says where the delegate says nothing.
fn inherit(root: &HttpRule, rule: &HttpRule, matches: Vec<HttpMatch>) -> HttpRule {
    let mut rule = HttpRule { matches, ..rule.clone() };
    rule.timeout = rule.timeout.or(root.timeout);
    rule.retry = rule.retry.or_else(|| root.retry.clone());
    rule.fault = rule.fault.or_else(|| root.fault.clone());
    rule.cors = rule.cors.or_else(|| root.cors.clone());
    if rule.mirrors.is_empty() {
        rule.mirrors.clone_from(&root.mirrors);
    }
    if rule.headers == crate::intent::HeaderChanges::default() {
        rule.headers = root.headers.clone();
    }
    if let (HttpAction::Forward { rewrite, .. }, HttpAction::Forward { rewrite: of_root, .. }) =
        (&mut rule.action, &root.action)
        && *rewrite == crate::intent::Rewrite::default()
    {
        *rewrite = of_root.clone();
    }
    rule
}

/// Every pair of alternatives that do not contradict; `None` when all do.
fn combined_matches(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || own.is_empty() {
        return Some(if root.is_empty() { own.to_vec() } else { root.to_vec() });
    }
    let pairs = root.iter().flat_map(|a| own.iter().map(move |b| (a, b)));
    let matches: Vec<HttpMatch> = pairs.filter_map(|(a, b)| combined(a, b)).collect();
    (!matches.is_empty()).then_some(matches)
}

/// Both conditions at once, where that can be said in one match.
fn combined(root: &HttpMatch, own: &HttpMatch) -> Option<HttpMatch> {
    Some(HttpMatch {
        name: if own.name.is_empty() { root.name.clone() } else { own.name.clone() },
        path: narrower_path(root.path.as_ref(), own.path.as_ref())?,
        ignore_path_case: root.ignore_path_case || own.ignore_path_case,
        scheme: agreed(root.scheme.as_ref(), own.scheme.as_ref())?,
        method: agreed(root.method.as_ref(), own.method.as_ref())?,
        authority: agreed(root.authority.as_ref(), own.authority.as_ref())?,
        headers: united(&root.headers, &own.headers)?,
        without_headers: united(&root.without_headers, &own.without_headers)?,
        query: united(&root.query, &own.query)?,
        port: agreed(root.port.as_ref(), own.port.as_ref())?,
        source_labels: united(&root.source_labels, &own.source_labels)?,
        source_namespace: agreed(root.source_namespace.as_ref(), own.source_namespace.as_ref())?,
        attachments: both_attachments(&root.attachments, &own.attachments),
    })
}

/// `None` when the two cannot both hold; a condition that only one of them has is kept.
#[allow(clippy::option_option)] // outer: possible at all; inner: a condition or none
fn agreed<T: PartialEq + Clone>(root: Option<&T>, own: Option<&T>) -> Option<Option<T>> {
    match (root, own) {
        (Some(a), Some(b)) if a != b => None,
        (a, b) => Some(b.or(a).cloned()),
    }
}

#[allow(clippy::option_option)]
fn narrower_path(root: Option<&TextMatch>, own: Option<&TextMatch>) -> Option<Option<TextMatch>> {
    let (Some(a), Some(b)) = (root, own) else { return Some(own.or(root).cloned()) };
    let inside = match (a, b) {
        (
            TextMatch::Prefix(outer),
            TextMatch::Prefix(inner) | TextMatch::Exact(inner) | TextMatch::SegmentPrefix(inner),
        ) => inner.starts_with(outer),
        (
            TextMatch::SegmentPrefix(outer),
            TextMatch::Exact(inner) | TextMatch::SegmentPrefix(inner) | TextMatch::Prefix(inner),
        ) => {
            let rest = inner.strip_prefix(outer.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        _ => a == b,
    };
    inside.then(|| Some(b.clone()))
}

fn united<K: Ord + Clone, V: PartialEq + Clone>(root: &BTreeMap<K, V>, own: &BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    let mut all = root.clone();
    for (key, value) in own {
        if all.insert(key.clone(), value.clone()).is_some_and(|old| old != *value) {
            return None;
        }
    }
    Some(all)
}

fn both_attachments(root: &[Attachment], own: &[Attachment]) -> Vec<Attachment> {
    if root.is_empty() { own.to_vec() } else { root.to_vec() }
}
