//! Where a redirect leads.

use super::rewrite::{replace_all, rewritten_path};
use crate::{
    config::{PathRewrite, Redirect, RedirectPath, Route},
    format::Facts,
    head::{Head, Scheme},
    names,
};
use std::borrow::Cow;

/// The `location` of a redirect.
#[must_use]
pub fn location(route: &Route, redirect: &Redirect, head: &Head) -> String {
    let scheme = match (&redirect.scheme, redirect.https) {
        (Some(scheme), _) => scheme,
        (None, true) => "https",
        (None, false) => head.scheme.as_str(),
    };
    let port = redirect.port.map(|port| format!(":{port}")).unwrap_or_default();
    let host = match &redirect.host {
        Some(host) => host,
        None => own_host(head, scheme, redirect.port.is_some()),
    };
    format!("{scheme}://{host}{port}{}", path(route, redirect, head))
}

/// The request's host; its port goes when another is put, or when it was the old scheme's and the scheme changes.
fn own_host<'h>(head: &'h Head, scheme: &str, other_port: bool) -> &'h str {
    let host = head.authority.as_str();
    let colon = if host.starts_with('[') { host.rfind("]:").map(|at| at + 1) } else { host.rfind(':') };
    let Some((name, port)) = colon.map(|at| host.split_at(at)) else { return host };
    let told = head.headers.get(names::X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let old = told.unwrap_or(head.scheme.as_str());
    let default_port =
        (old == Scheme::Https.as_str() && port == ":443") || (old == Scheme::Http.as_str() && port == ":80");
    if other_port || (scheme != old && default_port) { name } else { host }
}

fn path<'h>(route: &Route, redirect: &Redirect, head: &'h Head) -> Cow<'h, str> {
    let old = head.path.as_str();
    let (fresh, keeps): (Cow<'h, str>, bool) = match &redirect.path {
        RedirectPath::Same => (old.into(), false),
        RedirectPath::Full(full) => match (full.contains('?'), old.find('?')) {
            (true, _) => (full.to_string().into(), true),
            (false, Some(at)) => (format!("{full}{}", &old[at..]).into(), false),
            (false, None) => (full.to_string().into(), false),
        },
        RedirectPath::Prefix(prefix) => {
            let rewrite = PathRewrite::Prefix(prefix.as_ref().into());
            (rewritten_path(route, &rewrite, head, &Facts::default()).unwrap_or_default().into(), false)
        }
        RedirectPath::Regex(rewrite) => {
            let fresh = replace_all(rewrite, head.path_only());
            let query = old.find('?').map_or("", |at| &old[at..]);
            (format!("{fresh}{query}").into(), false)
        }
    };
    match fresh.find('?') {
        Some(at) if redirect.strip_query && !keeps => fresh[..at].to_owned().into(),
        _ => fresh,
    }
}
