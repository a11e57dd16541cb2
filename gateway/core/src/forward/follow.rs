//! Redirects of an upstream that are followed here instead of being passed on.

use crate::{
    config::{InternalRedirect, RouteTable},
    decision::{Forward, Matched},
    head::{ConnInfo, Head, Scheme},
    names,
    request::{self, Caller},
    route::{self, Found},
    runtime::Runtime,
};
use http::{HeaderMap, Method, Uri, header};
use smallvec::SmallVec;
use std::sync::Arc;

/// The redirects of one request that were followed so far.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    count: u32,
    /// From which route to which, by their names.
    steps: SmallVec<[(Arc<str>, Arc<str>); 1]>,
    /// Where the last redirect led, whether it was followed or not: to a route, or to none.
    aim: Option<Option<Matched>>,
}

impl Trail {
    /// Where the last redirect led. The log line of the request that it answered names that route, as in Envoy.
    pub fn take_aim(&mut self) -> Option<Option<Matched>> {
        self.aim.take()
    }
}

/// What is asked beside the response.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The route table of the request.
    pub table: &'a Arc<RouteTable>,
    /// What operators set.
    pub runtime: &'a Runtime,
    /// The connection.
    pub conn: &'a ConnInfo,
    /// Who asks.
    pub caller: Caller,
    /// As the upstream saw it.
    pub head: &'a Head,
}

/// The request that follows a redirect; `None` when the redirect is to be passed on to the client.
#[must_use]
pub fn follow(
    forward: &Forward,
    trail: &mut Trail,
    asked: Asked<'_>,
    status: u16,
    response: &HeaderMap,
    random: u64,
) -> Option<Head> {
    let policy = forward.internal_redirect()?;
    if !policy.codes.contains(&status) || trail.count >= policy.max {
        return None;
    }
    let before = asked.head;
    let location: Uri = response.get(header::LOCATION)?.to_str().ok()?.split('#').next()?.parse().ok()?;
    let scheme = match location.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    if !policy.allow_cross_scheme && scheme != before.scheme {
        return None;
    }
    let mut head = before.clone();
    head.scheme = scheme;
    let authority = location.authority()?.as_str();
    // Who asks is nobody's business behind here.
    authority.rsplit_once('@').map_or(authority, |(_, place)| place).clone_into(&mut head.authority);
    location.path_and_query().map_or("/", |path| path.as_str()).clone_into(&mut head.path);
    copy(policy, response, &mut head.headers);
    let found = match route::find(asked.table, &head, asked.conn, asked.caller, asked.runtime, random) {
        Found::Route(matched) => Some(matched),
        Found::NoRoute(_) | Found::NoHost | Found::NeedsTls(_) => None,
    };
    let target = found.as_ref().and_then(|matched| matched.route().map(|route| Arc::clone(&route.name)));
    trail.aim = Some(found);
    let target = target?;
    let from = forward.matched.route().map_or_else(|| Arc::from(""), |route| Arc::clone(&route.name));
    if !accepts(policy, trail, &from, &target, before.scheme, scheme) {
        return None;
    }
    if status == 303 && !matches!(head.method, Method::GET | Method::HEAD) {
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let original = format!("{}://{}{}", before.scheme.as_str(), before.authority, before.path);
    request::set_text(&mut head.headers, names::X_ENVOY_ORIGINAL_URL, &original);
    trail.count += 1;
    trail.steps.push((from, target));
    Some(head)
}

fn copy(policy: &InternalRedirect, response: &HeaderMap, headers: &mut HeaderMap) {
    for name in &policy.copy_headers {
        headers.remove(name);
        for value in response.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}

fn accepts(policy: &InternalRedirect, trail: &Trail, from: &str, to: &Arc<str>, before: Scheme, after: Scheme) -> bool {
    let again = policy.avoid_previous_routes && trail.steps.iter().any(|(a, b)| **a == *from && b == to);
    let listed = policy.allowed_routes.as_ref().is_none_or(|allowed| allowed.contains(to));
    let safe = !policy.safe_cross_scheme || before == Scheme::Https || after == Scheme::Http;
    !again && listed && safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        decide::{Moment, decide},
        decision::Decision,
        testing::{cluster, conn, hcm, head, route_to, table, table_message},
        time::Random,
    };
    use tombolo_controlplane_api::xds::envoy::config::route::v3::{self as pb, route_match::PathSpecifier as P};

    const CALLER: Caller = Caller { address: None, internal: false, edge: false };

    fn policy() -> InternalRedirect {
        InternalRedirect {
            max: 1,
            codes: [302, 303].into(),
            allow_cross_scheme: false,
            safe_cross_scheme: false,
            avoid_previous_routes: false,
            allowed_routes: None,
            copy_headers: ["x-copied".parse().unwrap()].into(),
        }
    }

    fn routes(policy: InternalRedirect) -> Arc<RouteTable> {
        let named = |name: &str, path: &str| pb::Route { name: name.into(), ..route_to("c", P::Prefix(path.into())) };
        let message = table_message("t", &["*"], vec![named("a", "/a"), named("b", "/b")]);
        let mut table = (*table(&message)).clone();
        for route in &mut Arc::make_mut(&mut table.hosts)[0].routes {
            let mut own = (**route).clone();
            if let crate::config::RouteTarget::Forward(action) = &mut own.target {
                action.internal_redirect = Some(Arc::new(policy.clone()));
            }
            *route = Arc::new(own);
        }
        Arc::new(table)
    }

    fn step(table: &Arc<RouteTable>, trail: &mut Trail, head: &Head, status: u16, to: &str) -> Option<Head> {
        let config = Config { clusters: [(Arc::from("c"), cluster("c"))].into_iter().collect(), ..Config::default() };
        let (hcm, conn) = (hcm(), conn());
        let decided = decide(&config, &hcm, Some(table), &conn, CALLER, head, Moment::default(), &mut Random::new(1));
        let Decision::Forward(forward) = decided else { panic!("answered") };
        let mut response = HeaderMap::new();
        response.insert("location", to.parse().unwrap());
        response.insert("x-copied", "1".parse().unwrap());
        follow(
            &forward,
            trail,
            Asked { table, runtime: &config.runtime, conn: &conn, caller: CALLER, head },
            status,
            &response,
            0,
        )
    }

    #[test]
    fn a_redirect_becomes_a_request() {
        let table = routes(policy());
        let mut asked = head("/a?q", &[("content-length", "3")]);
        asked.method = Method::POST;
        let mut trail = Trail::default();
        let next = step(&table, &mut trail, &asked, 303, "http://other.test:81/b/x?y#part").unwrap();
        assert_eq!(
            (next.authority.as_str(), next.path.as_str(), next.method.as_str()),
            ("other.test:81", "/b/x?y", "GET")
        );
        assert_eq!(next.headers["x-envoy-original-url"], "http://svc.test/a?q");
        assert_eq!(
            (next.headers.contains_key("content-length"), &next.headers["x-copied"]),
            (false, &"1".parse().unwrap())
        );
        assert!(step(&table, &mut trail, &next, 302, "http://svc.test/a").is_none(), "no more than allowed");
    }

    #[test]
    fn some_redirects_are_the_clients_business() {
        let table = routes(policy());
        let passed = |status, to: &str| {
            assert!(step(&table, &mut Trail::default(), &head("/a", &[]), status, to).is_none(), "{status} {to}");
        };
        passed(301, "http://svc.test/b");
        passed(302, "/b");
        passed(302, "https://svc.test/b");
        passed(302, "ftp://svc.test/b");
        passed(302, "http://svc.test/nowhere");
    }

    #[test]
    fn predicates_are_asked() {
        let mut wanted = policy();
        (wanted.max, wanted.avoid_previous_routes) = (9, true);
        wanted.allowed_routes = Some(["b".into()].into());
        let table = routes(wanted.clone());
        let mut trail = Trail::default();
        let a = head("/a", &[]);
        assert!(step(&table, &mut trail, &a, 302, "http://svc.test/b").is_some());
        assert!(step(&table, &mut trail, &a, 302, "http://svc.test/b").is_none(), "from here to there already");
        assert!(step(&table, &mut trail, &head("/b", &[]), 302, "http://svc.test/a").is_none(), "not listed");
        (wanted.allow_cross_scheme, wanted.safe_cross_scheme) = (true, true);
        let table = routes(wanted);
        assert!(step(&table, &mut Trail::default(), &a, 302, "https://svc.test/b").is_none(), "plaintext to TLS");
        let secure = Head { scheme: Scheme::Https, ..a };
        assert!(step(&table, &mut Trail::default(), &secure, 302, "http://svc.test/b").is_some());
    }
}
