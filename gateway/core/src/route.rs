//! Choosing a route: virtual host by host name, then the first route whose conditions hold.
//!
//! Owns matching, as Envoy does it. Never changes a request and never looks at clusters. Used by `decide`; the matchers also by
//! `filter`, `attempt` (retriable headers) and access log filters.

pub mod hosts;
pub(crate) mod more;

mod hash;
mod matching;
mod redirect;
mod rewrite;
pub(crate) mod template;

#[cfg(test)]
mod tests;

pub use hash::{Hashed, hash_request};
pub(crate) use matching::{cookie_value, query as query_fits, query_value};
pub use matching::{header_matches, header_matches_in, headers_match};
pub use more::MoreHosts;
pub use redirect::location;
pub use rewrite::{rewritten_host, rewritten_path};

pub(crate) use rewrite::replace_all;

use crate::{
    config::{PathMatch, RequireTls, Route, RouteMatch, RouteTable},
    decision::Matched,
    head::{ConnInfo, Head, Scheme, split_query},
    names,
    request::Caller,
    runtime::Runtime,
};
use http::HeaderValue;
use std::sync::Arc;

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// A route.
    Route(Matched),
    /// A virtual host, none of whose routes matches.
    NoRoute(Matched),
    /// No virtual host.
    NoHost,
    /// A virtual host that wants TLS; the client is redirected.
    NeedsTls(Matched),
}

/// Finds the route of a request. `random` decides about shares; it is the same number for all of a request's shares.
#[must_use]
pub fn find(
    table: &Arc<RouteTable>,
    head: &Head,
    conn: &ConnInfo,
    caller: Caller,
    runtime: &Runtime,
    random: u64,
) -> Found {
    let Some((at, host)) = virtual_host(table, head) else { return Found::NoHost };
    let here = |route| Matched::new(table, at, route);
    let secure =
        || head.headers.get(names::X_FORWARDED_PROTO).map_or(head.scheme == Scheme::Https, |told| told == "https");
    let wants_tls = match host.require_tls {
        RequireTls::None => false,
        RequireTls::External => !caller.internal,
        RequireTls::All => true,
    };
    if wants_tls && !secure() {
        return here(None).map_or(Found::NoHost, Found::NeedsTls);
    }
    let (full, query) = split_query(&head.path);
    let path = if table.ignore_path_parameters { full.split(';').next().unwrap_or(full) } else { full };
    let request = Request { head, conn, path, query, runtime, random };
    match host.routes.iter().position(|route| request.fits(&route.matches)) {
        Some(found) => {
            u32::try_from(found).ok().and_then(|found| here(Some(found))).map_or(Found::NoHost, Found::Route)
        }
        None => here(None).map_or(Found::NoHost, Found::NoRoute),
    }
}

fn virtual_host<'t>(table: &'t RouteTable, head: &Head) -> Option<(u32, &'t crate::config::VirtualHost)> {
    let named = table.vhost_header.as_ref().and_then(|name| head.headers.get(name)).map(HeaderValue::to_str);
    let mut host = match named {
        Some(Ok(named)) => named,
        _ => &head.authority,
    };
    if table.ignore_port {
        host = hosts::without_port(host);
    }
    let at = table.find(host)?;
    Some((at, table.host(at)?))
}

struct Request<'a> {
    head: &'a Head,
    conn: &'a ConnInfo,
    path: &'a str,
    query: Option<&'a str>,
    runtime: &'a Runtime,
    random: u64,
}

impl Request<'_> {
    /// Cheap conditions first; the share last, as it is of those that match otherwise.
    fn fits(&self, wanted: &RouteMatch) -> bool {
        self.path_fits(wanted)
            && headers_match(&wanted.headers, self.head)
            && wanted.query.iter().all(|matcher| matching::query(matcher, self.query))
            && wanted.cookies.iter().all(|(name, matcher, invert)| matching::cookie(name, matcher, *invert, self.head))
            && (!wanted.grpc || self.head.is_grpc())
            && !wanted.never
            && self.tls_fits(wanted)
            && wanted.share.as_ref().is_none_or(|share| self.runtime.hit(share, self.random))
    }

    fn path_fits(&self, wanted: &RouteMatch) -> bool {
        let connect =
            self.head.method == http::Method::CONNECT && (self.head.path.is_empty() || !self.head.upgrade.is_empty());
        let (path, exact_case) = (self.path, wanted.case_sensitive);
        match &wanted.path {
            PathMatch::Connect => connect,
            // CONNECT without a path is routed by nothing else.
            _ if self.head.path.is_empty() => false,
            PathMatch::Prefix(prefix) => begins(path, prefix, exact_case),
            PathMatch::Exact(exact) if exact_case => path == &**exact,
            PathMatch::Exact(exact) => path.eq_ignore_ascii_case(exact),
            PathMatch::Separated(prefix) => {
                begins(path, prefix, exact_case) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatch::Regex(regex) => regex.matches_whole(path.as_bytes()),
            PathMatch::Template(template) => template.pattern.matches_whole(path.as_bytes()),
        }
    }

    fn tls_fits(&self, wanted: &RouteMatch) -> bool {
        if wanted.tls_presented.is_none() && wanted.tls_validated.is_none() {
            return true;
        }
        let peer = self.conn.tls.as_ref().and_then(|tls| tls.peer.as_ref());
        wanted.tls_presented.is_none_or(|want| want == peer.is_some())
            && wanted.tls_validated.is_none_or(|want| want == peer.is_some_and(|peer| peer.verified))
    }
}

fn begins(path: &str, prefix: &str, exact_case: bool) -> bool {
    let head = path.as_bytes().get(..prefix.len());
    head.is_some_and(
        |head| if exact_case { head == prefix.as_bytes() } else { head.eq_ignore_ascii_case(prefix.as_bytes()) },
    )
}

impl Route {
    /// What of the path the route matched, for rewriting: the prefix, or the whole path.
    pub(crate) fn matched_part<'p>(&self, path: &'p str) -> &'p str {
        match &self.matches.path {
            PathMatch::Prefix(prefix) | PathMatch::Separated(prefix) => path.get(..prefix.len()).unwrap_or(path),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect | PathMatch::Template(_) => path,
        }
    }
}
