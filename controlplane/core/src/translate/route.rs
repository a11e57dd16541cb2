//! Rules of one object at one place, in order.

use super::{encode, route_action, route_match, wire::route};
use crate::{
    bind::{View, flatten},
    intent::{HttpMatch, HttpRule, NamedRef, Precedence, Routes},
};
use std::sync::Arc;
use tombolo_federation_model::Diagnostic;

/// Largest body of an answer without a service, as the objects may have it; proxies would take 4 KiB. The same everywhere, so that
/// a longer body changes nothing but its own route.
pub(super) const MAX_BODY: u32 = 1 << 20;

/// Where rules are translated for.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// Sidecars.
    Mesh,
    /// One server of a gateway object.
    Gateway {
        /// The object.
        name: &'a NamedRef,
        /// The server's name.
        section: &'a str,
        /// The server's port.
        port: u16,
    },
}

/// What the translation of a rule depends on besides the rule.
#[derive(Debug)]
pub(super) struct RouteContext<'a, 'w> {
    pub(super) view: View<'a, 'w>,
    pub(super) at: At<'a>,
    /// Port for which requests are meant: that of the service, or of the gateway's server.
    pub(super) port: u16,
}

/// One encoded route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EncodedRoute {
    pub(super) body: Vec<u8>,
    /// Every request matches.
    pub(super) catch_all: bool,
}

/// The routes of several objects for one host, combined.
pub(super) fn combined(
    context: &mut RouteContext<'_, '_>,
    objects: &[&Arc<Routes>],
    complaints: &mut Vec<Diagnostic>,
) -> Vec<EncodedRoute> {
    let mut ranked = Vec::new();
    let mut in_order = Vec::new();
    for routes in objects {
        for rule in flatten(context.view.reader, routes, complaints) {
            match routes.precedence {
                Precedence::ObjectOrder => {
                    in_order.extend(rule_routes(context, &rule).into_iter().map(|(_, encoded)| encoded))
                }
                Precedence::MostSpecific => ranked.extend(rule_routes(context, &rule)),
            }
        }
    }
    // Stable: rules that are equally specific keep the order of age and of writing.
    ranked.sort_by_key(|(specificity, _)| *specificity);
    let mut all: Vec<EncodedRoute> = ranked.into_iter().map(|(_, encoded)| encoded).chain(in_order).collect();
    // An older object's catch-all must not hide the rules of a younger one for the same host.
    all.sort_by_key(|encoded| encoded.catch_all);
    all
}

type Ranked = ((u8, std::cmp::Reverse<usize>, bool, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>), EncodedRoute);

fn rule_routes(context: &mut RouteContext<'_, '_>, rule: &HttpRule) -> Vec<Ranked> {
    if rule.matches.is_empty() {
        return vec![one(context, rule, None, route_match::anything())];
    }
    let mut routes = Vec::new();
    for condition in &rule.matches {
        if let Some(translated) = route_match::translate(context, condition) {
            routes.push(one(context, rule, Some(condition), translated));
        }
    }
    routes
}

fn one(
    context: &mut RouteContext<'_, '_>,
    rule: &HttpRule,
    condition: Option<&HttpMatch>,
    translated: route::RouteMatch,
) -> Ranked {
    let catch_all = route_match::is_anything(&translated);
    let mut route = route::Route { r#match: Some(translated), ..Default::default() };
    let filters = route_action::fill(context, rule, condition, &mut route);
    (route_match::specificity(condition), EncodedRoute { body: encode::route(&route, &filters), catch_all })
}
