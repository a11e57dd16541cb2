//! Every feature at once, for tests that want all kinds of output.

use super::fixtures::*;
use crate::intent::*;
use std::{collections::BTreeMap, time::Duration};
use tombolo_federation_model::*;
use tombolo_federation_registry::{ExportPolicy, Item};

const SECOND: Duration = Duration::from_secs(1);

/// A mesh that uses all there is.
pub(super) fn kitchen() -> Mesh {
    let mut site = site();
    site.export = ExportPolicy::All;
    let mut mesh = Mesh::of(site);
    crate::engine::fixtures::fill_shop(&mut mesh);
    services(&mut mesh);
    for intent in intents() {
        mesh.intent(intent);
    }
    mesh
}

fn services(mesh: &mut Mesh) {
    let ports = [
        (80, Protocol::Http),
        (81, Protocol::Grpc),
        (82, Protocol::Tcp),
        (83, Protocol::Detect),
        (443, Protocol::Https),
    ];
    mesh.service("east", "mixed", &ports);
    mesh.workload("east", "mixed-0", "127.1.1.20", "version=v1");
    mesh.put(
        "east",
        Item::Workload(Workload {
            tls: TlsMode::Disabled,
            weight: 5,
            ..workload("east", "mixed-1", "127.1.1.21", "version=v2")
        }),
    );
    mesh.put(
        "east",
        Item::Workload(Workload {
            health: Health::Draining,
            ..workload("east", "mixed-2", "127.1.1.22", "version=v2")
        }),
    );
    for (name, resolution) in [
        ("dns.example", Resolution::Dns),
        ("rr.example", Resolution::DnsRoundRobin),
        ("static.example", Resolution::Static),
        ("*.wild.example", Resolution::Passthrough),
    ] {
        let outside = Service {
            scope: Scope::External,
            resolution,
            selector: None,
            subject_alt_names: vec!["spiffe://x/y".to_owned(), "dns.example".to_owned()],
            addresses: vec!["240.240.0.1".parse().unwrap()],
            ..service("east", name, &[(80, Protocol::Http), (443, Protocol::Tls)])
        };
        mesh.put("east", Item::Service(outside));
    }
    let alias =
        Service { selector: None, alias_of: Some(host("mixed")), ..service("east", "alias", &[(80, Protocol::Http)]) };
    mesh.put("east", Item::Service(alias));
    let slice = SliceEndpoint {
        workload: None,
        address: WorkloadAddress::Ip("192.0.2.1".parse().unwrap()),
        ports: BTreeMap::from([("p80".to_owned(), 8080), ("p443".to_owned(), 8443)]),
        health: Health::Healthy,
        labels: Default::default(),
        network: None,
        cluster: None,
        locality: None,
        identity: None,
        weight: 1,
    };
    mesh.put(
        "east",
        Item::Slice(EndpointSlice {
            host: host("static.example"),
            namespace: namespace("default"),
            name: "static".to_owned(),
            endpoints: vec![slice],
        }),
    );
}

fn intents() -> Vec<Intent> {
    let mut all = destinations();
    all.extend(mesh_routes());
    all.extend(gateways());
    all
}

fn destinations() -> Vec<Intent> {
    let hash = |key, table| Algorithm::ConsistentHash { key, table };
    let cookie = HashKey::Cookie {
        name: "user".to_owned(),
        path: "/".to_owned(),
        ttl: Some(SECOND),
        attributes: vec![("SameSite".to_owned(), "Lax".to_owned()), ("Secure".to_owned(), String::new())],
    };
    let balance = |algorithm| TrafficPolicy {
        load_balancer: Some(LoadBalancer {
            algorithm: Some(algorithm),
            warmup: Some(Warmup { duration: 30 * SECOND, min_percent: 10.0, aggression: 1.0 }),
            locality: None,
        }),
        ..TrafficPolicy::default()
    };
    let mut mixed = destination(
        "mixed",
        "mixed",
        &[("ring", "version=v1"), ("maglev", "version=v2"), ("rr", ""), ("random", ""), ("pass", ""), ("place", "")],
    );
    mixed.policy = full_policy();
    mixed.subsets[0].policy = balance(hash(HashKey::Header("x-user".to_owned()), HashTable::Ring(1024)));
    mixed.subsets[1].policy = balance(hash(cookie, HashTable::Maglev(65537)));
    mixed.subsets[2].policy = balance(Algorithm::RoundRobin);
    mixed.subsets[3].policy = balance(Algorithm::Random);
    mixed.subsets[4].policy = balance(Algorithm::Passthrough);
    let place = LocalityPolicy {
        distribute: vec![("east/*".to_owned(), BTreeMap::from([("east/*".to_owned(), 70), ("west/*".to_owned(), 30)]))],
        ..LocalityPolicy::default()
    };
    mixed.subsets[5].policy.load_balancer = Some(LoadBalancer { locality: Some(place), ..LoadBalancer::default() });
    let mut outside = destination("dns", "dns.example", &[]);
    outside.policy.tls = Some(tls(ClientTlsMode::Simple));
    outside.policy.ports.insert(
        443,
        TrafficPolicy {
            tls: Some(ClientTls { insecure: true, ..tls(ClientTlsMode::Mutual) }),
            ..TrafficPolicy::default()
        },
    );
    let mut off = destination("static", "static.example", &[]);
    off.policy =
        TrafficPolicy { tls: Some(tls(ClientTlsMode::Disable)), proxy_protocol: Some(2), ..TrafficPolicy::default() };
    vec![Intent::Destination(mixed), Intent::Destination(outside), Intent::Destination(off)]
}

fn tls(mode: ClientTlsMode) -> ClientTls {
    ClientTls {
        mode,
        credential: None,
        certificate: None,
        key: None,
        roots: None,
        subject_alt_names: vec!["dns.example".to_owned()],
        sni: (mode == ClientTlsMode::Simple).then(|| "dns.example".to_owned()),
        insecure: false,
    }
}

fn full_policy() -> TrafficPolicy {
    TrafficPolicy {
        connection_pool: Some(ConnectionPool {
            max_connections: Some(10),
            connect_timeout: Some(SECOND),
            max_connection_duration: Some(60 * SECOND),
            tcp_idle_timeout: Some(60 * SECOND),
            tcp_keepalive: Some((Some(3), Some(60 * SECOND), None)),
            max_pending_requests: Some(1),
            max_requests: Some(100),
            max_requests_per_connection: Some(5),
            max_retries: Some(3),
            http_idle_timeout: Some(30 * SECOND),
            h2_upgrade: Some(true),
            use_client_protocol: false,
            max_concurrent_streams: Some(50),
        }),
        outlier: Some(OutlierDetection {
            consecutive_5xx: Some(0),
            consecutive_gateway_errors: Some(3),
            split_local_origin: true,
            consecutive_local_origin: Some(5),
            interval: Some(SECOND),
            base_ejection_time: Some(30 * SECOND),
            max_ejection_percent: Some(100),
            min_health_percent: Some(30),
        }),
        retry_budget: Some(RetryBudget { percent: 20.0, min_concurrency: 3 }),
        ..TrafficPolicy::default()
    }
}

fn mesh_routes() -> Vec<Intent> {
    let text = |s: &str| s.to_owned();
    let condition = HttpMatch {
        path: Some(TextMatch::Regex("/v[0-9]+/.*".to_owned())),
        ignore_path_case: true,
        method: Some(TextMatch::Exact(text("GET"))),
        authority: Some(TextMatch::Prefix(text("mixed"))),
        scheme: Some(TextMatch::Exact(text("http"))),
        headers: BTreeMap::from([(text("x-user"), TextMatch::Regex(text("a.*"))), (text("x-any"), TextMatch::Present)]),
        without_headers: BTreeMap::from([
            (text("x-no"), TextMatch::Exact(text("1"))),
            (text("x-none"), TextMatch::Present),
        ]),
        query: BTreeMap::from([(text("q"), TextMatch::Exact(text("1"))), (text("p"), TextMatch::Present)]),
        ..HttpMatch::default()
    };
    let mut busy = rule(
        vec![condition, prefix("/old")],
        vec![to("mixed", Some("ring"), 3), to("mixed", Some("rr"), 1), to("reviews", None, 0)],
    );
    if let HttpAction::Forward { backends, rewrite } = &mut busy.action {
        rewrite.path = Some(PathRewrite::Prefix(text("/new")));
        rewrite.authority = Some(text("inner.example"));
        backends[0].headers.request.add.insert(text("x-to"), text("ring"));
    }
    busy.fault = Some(Fault { delay: Some((SECOND, Fraction(1))), abort: Some((Abort::Grpc(14), Fraction(500_000))) });
    busy.mirrors = vec![Mirror { destination: target("ratings", None), fraction: Fraction(10_000) }];
    busy.cors = Some(Cors {
        allow_origins: vec![TextMatch::Exact(text("https://a.example")), TextMatch::Regex(text("https://.*"))],
        allow_methods: vec![text("GET"), text("PUT")],
        allow_headers: vec![text("x-a")],
        expose_headers: vec![text("x-b")],
        max_age: Some(60 * SECOND),
        allow_credentials: Some(true),
        forward_unmatched_preflights: true,
    });
    busy.headers = HeaderChanges {
        request: HeaderEdit {
            set: BTreeMap::from([(text("x-set"), text("%REQ(:path)%"))]),
            add: BTreeMap::from([(text("x-add"), text("1"))]),
            remove: vec![text("x-gone")],
        },
        response: HeaderEdit {
            set: BTreeMap::from([(text("x-set"), text("1"))]),
            add: BTreeMap::new(),
            remove: vec![text("server")],
        },
    };
    busy.timeout = Some(3 * SECOND);
    busy.retry = Some(RetryPolicy {
        attempts: 3,
        per_try_timeout: Some(SECOND),
        on: Vec::new(),
        statuses: vec![502],
        remote_localities: Some(true),
        ignore_previous_hosts: None,
        backoff: Some(SECOND / 10),
    });
    let mut moved = rule(
        vec![HttpMatch { path: Some(TextMatch::SegmentPrefix(text("/gone/"))), ..HttpMatch::default() }],
        Vec::new(),
    );
    moved.action = HttpAction::Redirect(Redirect {
        path: Some(PathRewrite::SegmentPrefix(text("/here"))),
        authority: Some(text("b.example")),
        port: RedirectPort::FromRequest,
        scheme: Some(text("https")),
        status: 308,
    });
    let mut answer =
        rule(vec![HttpMatch { path: Some(TextMatch::Exact(text("/teapot"))), ..HttpMatch::default() }], Vec::new());
    answer.action = HttpAction::Respond { status: 418, body: b"short and stout".to_vec() };
    let mut segment = rule(
        vec![HttpMatch { path: Some(TextMatch::SegmentPrefix(text("/a.b"))), ..HttpMatch::default() }],
        vec![to("mixed", None, 1)],
    );
    if let HttpAction::Forward { rewrite, .. } = &mut segment.action {
        rewrite.path = Some(PathRewrite::SegmentPrefix(text("/")));
    }
    let mut whole = rule(vec![prefix("/full")], vec![to("mixed", None, 1)]);
    if let HttpAction::Forward { rewrite, .. } = &mut whole.action {
        rewrite.path = Some(PathRewrite::Full(text("/index.html")));
    }
    let mut pattern = rule(vec![prefix("/re")], vec![to("mixed", None, 1)]);
    if let HttpAction::Forward { rewrite, .. } = &mut pattern.action {
        rewrite.path = Some(PathRewrite::Regex { pattern: text("^/re/([^/]+)(/.*)$"), substitution: text(r"/\1\2") });
    }
    let none = rule(vec![prefix("/void")], Vec::new());
    let rest = rule(Vec::new(), vec![to("mixed", None, 1)]);
    let all = routes(
        "mixed",
        5,
        &["mixed", "free.example", "*.any.example"],
        vec![busy, moved, answer, segment, whole, pattern, none, rest],
    );
    vec![Intent::Routes(all)]
}

fn gateways() -> Vec<Intent> {
    let secret = |name: &str, roots: Option<&[u8]>| {
        let meta = meta("Secret", "default", name, 1);
        Intent::Secret(TlsSecret {
            meta,
            certificate: Some(CERT.to_vec()),
            key: Some(KEY.to_vec()),
            roots: roots.map(<[u8]>::to_vec),
        })
    };
    let with = |mut server: Server, name: &str| {
        if let Some(tls) = &mut server.tls {
            tls.credentials = vec![credential(None, name)];
            tls.min_version = Some(2);
            tls.subject_alt_names = vec!["client.example".to_owned()];
        }
        server
    };
    let mut redirecting = server(80, Protocol::Http, &["secure.example"], Some(ServerTlsMode::Simple));
    if let Some(tls) = &mut redirecting.tls {
        tls.https_redirect = true;
    }
    let servers = vec![
        redirecting,
        server(80, Protocol::Http, &["*"], None),
        with(server(443, Protocol::Https, &["secure.example"], Some(ServerTlsMode::Simple)), "web"),
        with(server(443, Protocol::Https, &["mutual.example"], Some(ServerTlsMode::Mutual)), "client"),
        with(server(443, Protocol::Https, &["maybe.example"], Some(ServerTlsMode::OptionalMutual)), "client"),
        server(443, Protocol::Tls, &["pass.example"], Some(ServerTlsMode::Passthrough)),
        server(443, Protocol::Https, &["inner.example"], Some(ServerTlsMode::Mesh)),
        with(server(8443, Protocol::Tls, &["tcp.example"], Some(ServerTlsMode::Simple)), "web"),
        server(31400, Protocol::Tcp, &["*"], None),
        server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough)),
    ];
    let backend =
        |name: &str, weight| TcpBackend { destination: Target { port: Some(82), ..target(name, None) }, weight };
    let mut all = routes(
        "web",
        1,
        &["*", "secure.example", "pass.example"],
        vec![
            rule(vec![prefix("/a")], vec![to("mixed", Some("ring"), 1)]),
            rule(Vec::new(), vec![to("reviews", None, 1)]),
        ],
    );
    all.tcp = vec![TcpRule {
        field: "spec.tcp[0]".to_owned(),
        matches: Vec::new(),
        backends: vec![backend("mixed", 1), backend("ratings", 2)],
    }];
    let sni = TlsMatch { sni_hosts: vec![host("pass.example")], connection: TcpMatch::default() };
    all.tls =
        vec![TlsRule { field: "spec.tls[0]".to_owned(), matches: vec![sni], backends: vec![backend("mixed", 1)] }];
    vec![
        secret("web", None),
        secret("client", Some(CERT)),
        Intent::Gateway(gateway("web", 1, servers)),
        Intent::Routes(at_gateway(all, "web")),
    ]
}

const CERT: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n";
