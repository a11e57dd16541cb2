//! What comes out for what goes in, over the whole engine.

use super::{fixtures::*, show};
use crate::{intent::*, proxy::Role};
use std::{path::Path, sync::Arc, time::Duration};
use tombolo_federation_model::*;
use tombolo_federation_registry::{ExportPolicy, Item, ItemKey, Millis};
use tombolo_federation_sync::types;

/// Compares with a file beside the code; `UPDATE_GOLDEN=1` writes it anew.
fn golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.out.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(got, want, "{} differs; UPDATE_GOLDEN=1 writes it anew", path.display());
}

#[test]
fn a_sidecar_of_the_shop() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let snapshot = mesh.snapshot(id);
    golden("sidecar", &show::all(&snapshot));
}

#[test]
fn every_kind_of_rule() {
    let mut mesh = super::kitchen::kitchen();
    let sidecar = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let router = mesh.attach(router("ingress-0", "istio=ingress"));
    let text = [show::routes_text(&mesh.snapshot(sidecar)), show::listeners_text(&mesh.snapshot(router))];
    golden("rules", &text.concat());
}

#[test]
fn gateways_of_the_shop() {
    let mut site = site();
    site.export = ExportPolicy::All;
    let mut mesh = Mesh::of(site);
    mesh.service("east", "reviews", &[(9080, Protocol::Http)]);
    mesh.service("west", "reviews", &[(9080, Protocol::Http)]);
    mesh.service("west", "legacy", &[(9080, Protocol::Http)]);
    mesh.workload("east", "reviews-v1-0", "127.1.1.1", "version=v1");
    mesh.workload("west", "reviews-v2-0", "127.2.1.1", "version=v2");
    mesh.put("west", crossing("west", "127.2.0.3"));
    mesh.intent(Intent::Destination(destination("reviews", "reviews", &[("v1", "version=v1")])));
    mesh.intent(Intent::Gateway(gateway("shop", 1, vec![server(80, Protocol::Http, &["shop.example"], None)])));
    let auto = server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough));
    mesh.intent(Intent::Gateway(gateway("cross", 2, vec![auto])));
    let routes =
        routes("shop", 1, &["shop.example"], vec![rule(vec![prefix("/reviews")], vec![to("reviews", None, 1)])]);
    mesh.intent(Intent::Routes(at_gateway(routes, "shop")));
    let id = mesh.attach(router("ingress-0", "istio=ingress"));
    let snapshot = mesh.snapshot(id);
    golden("gateway", &show::all(&snapshot));
}

#[test]
fn an_alias_is_a_domain_of_its_own_namespace_only() {
    let mut mesh = shop();
    let own = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let other = mesh.attach(crate::Proxy { namespace: namespace("other"), ..sidecar("x-0", "127.1.1.9") });
    let domains = |text: String| {
        text.lines()
            .filter(|l| l.contains("ratings.default.svc.cluster.local:9080 ["))
            .map(str::to_owned)
            .collect::<String>()
    };
    let own = domains(show::routes_text(&mesh.snapshot(own)));
    let other = domains(show::routes_text(&mesh.snapshot(other)));
    assert!(own.contains(" ratings ") || own.contains(" ratings:9080"), "{own}");
    assert!(!other.contains(" ratings ") && !other.contains(" ratings:9080"), "{other}");
    assert!(other.contains(" ratings.default:9080"), "{other}");
}

fn shares(mesh: &mut Mesh, id: crate::ProxyId, cluster: &str) -> Vec<String> {
    let text = show::endpoints_text(&mesh.snapshot(id));
    let mut lines = text.lines().skip_while(|l| l.trim() != cluster).skip(1);
    let mut found = Vec::new();
    for line in lines.by_ref().take_while(|l| l.starts_with("    ")) {
        found.push(line.trim().to_owned());
    }
    found
}

const RATINGS: &str = "outbound|9080||ratings.default.svc.cluster.local";

#[test]
fn remote_endpoints_count_together_behind_their_gateway() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    assert_eq!(
        shares(&mut mesh, id, RATINGS),
        ["p0 east/z1 (1) 127.1.1.2:9080 weight 1 mtls", "p1 west/z1 (2) 127.2.0.3:15443 weight 2 mtls"]
    );
    // Two gateways halve every weight, so all others are doubled.
    mesh.put("west", crossing("west", "127.2.0.4"));
    assert_eq!(
        shares(&mut mesh, id, RATINGS),
        [
            "p0 east/z1 (2) 127.1.1.2:9080 weight 2 mtls",
            "p1 west/z1 (4) 127.2.0.3:15443 weight 2 mtls",
            "p1 west/z1 (4) 127.2.0.4:15443 weight 2 mtls",
        ]
    );
}

#[test]
fn when_the_near_endpoints_go_the_far_ones_move_up() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    mesh.snapshot(id);
    mesh.put(
        "east",
        Item::Workload(Workload { health: Health::Unhealthy, ..workload("east", "ratings-0", "127.1.1.2", "") }),
    );
    assert_eq!(shares(&mut mesh, id, RATINGS), ["p0 west/z1 (2) 127.2.0.3:15443 weight 2 mtls"]);
    mesh.workload("east", "ratings-0", "127.1.1.2", "");
    assert_eq!(shares(&mut mesh, id, RATINGS).len(), 2);
}

#[test]
fn silence_moves_endpoints_behind_fresh_ones() {
    let mut mesh = shop();
    // Preference for places off: only freshness is left to rank by.
    let mut policy = destination("ratings", "ratings", &[]);
    let locality = LocalityPolicy { enabled: Some(false), ..LocalityPolicy::default() };
    policy.policy.load_balancer = Some(LoadBalancer { locality: Some(locality), ..LoadBalancer::default() });
    mesh.intent(Intent::Destination(policy));
    let id = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    assert!(shares(&mut mesh, id, RATINGS).iter().all(|line| line.starts_with("p0")));
    mesh.now = Millis(20_000);
    let stale = shares(&mut mesh, id, RATINGS);
    assert!(stale[0].starts_with("p0 east") && stale[1].starts_with("p1 west"), "{stale:?}");
}

#[test]
fn an_endpoint_without_mutual_tls_is_not_reached_through_a_gateway_and_that_is_said() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    for name in ["ratings-0", "ratings-1"] {
        mesh.put(
            "west",
            Item::Workload(Workload { tls: TlsMode::Disabled, ..workload("west", name, "127.2.1.2", "") }),
        );
    }
    assert_eq!(shares(&mut mesh, id, RATINGS).len(), 1);
    assert!(mesh.codes().contains(&"ENDPOINT_WITHOUT_MTLS ratings ".to_owned()));
}

#[test]
fn replicas_share_everything_but_listeners() {
    let mut mesh = shop();
    let a = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let b = mesh.attach(sidecar("ratings-9", "127.1.1.7"));
    let (a, b) = (mesh.snapshot(a), mesh.snapshot(b));
    for kind in [types::ENDPOINT, types::ROUTE] {
        assert!(Arc::ptr_eq(a.set(kind).unwrap(), b.set(kind).unwrap()), "{kind}");
    }
    let of = |s: &tombolo_federation_sync::Snapshot| s.resource(types::CLUSTER, RATINGS).unwrap().clone();
    assert!(Arc::ptr_eq(&of(&a), &of(&b)));
    assert_ne!(a.set(types::LISTENER), b.set(types::LISTENER));
}

#[test]
fn a_change_of_endpoints_touches_endpoints_alone() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    let before = mesh.snapshot(id);
    mesh.workload("east", "ratings-7", "127.1.1.70", "");
    let after = mesh.snapshot(id);
    for kind in [types::CLUSTER, types::ROUTE, types::LISTENER, types::SECRET] {
        assert!(Arc::ptr_eq(before.set(kind).unwrap(), after.set(kind).unwrap()), "{kind}");
    }
    let changed: Vec<&str> = after
        .set(types::ENDPOINT)
        .unwrap()
        .iter()
        .filter(|(name, r)| before.resource(types::ENDPOINT, name) != Some(r))
        .map(|(n, _)| &**n)
        .collect();
    assert_eq!(changed, [RATINGS]);
}

#[test]
fn strict_and_permissive_and_off() {
    let check = |mode: MutualTls, expect: &[&str]| {
        let mut mesh = shop();
        let meta = meta("PeerAuthentication", "istio-system", "default", 1);
        mesh.intent(Intent::PeerAuthentication(PeerAuthentication {
            meta,
            selector: None,
            mode: Some(mode),
            ports: Default::default(),
        }));
        let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
        let text = show::listeners_text(&mesh.snapshot(id));
        let chains: Vec<&str> = text.lines().skip_while(|l| !l.contains("inbound_")).skip(1).map(str::trim).collect();
        assert_eq!(chains, expect, "{mode:?}");
    };
    let offered = "istio,istio-peer-exchange,istio-http/1.0,istio-http/1.1,istio-h2";
    check(MutualTls::Strict, &["[tls||] http_connection_manager over tls"]);
    check(MutualTls::Disable, &["[||] http_connection_manager"]);
    check(
        MutualTls::Permissive,
        &[&format!("[tls|{offered}|] http_connection_manager over tls"), "[||] http_connection_manager"],
    );
}

#[test]
fn the_port_of_the_workload_has_the_last_word_about_mutual_tls() {
    let mut mesh = shop();
    let policy = |name: &str, created, selector: Option<&str>, mode, ports: &[(u16, MutualTls)]| {
        Intent::PeerAuthentication(PeerAuthentication {
            meta: meta("PeerAuthentication", "default", name, created),
            selector: selector.map(labels),
            mode,
            ports: ports.iter().map(|(p, m)| (*p, Some(*m))).collect(),
        })
    };
    mesh.intent(policy("ns", 1, None, Some(MutualTls::Strict), &[]));
    mesh.intent(policy("port", 2, Some("app=ratings"), None, &[(9080, MutualTls::Disable)]));
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let text = show::listeners_text(&mesh.snapshot(id));
    assert!(text.contains("[||] http_connection_manager") && !text.contains("[tls"), "{text}");
}

#[test]
fn a_port_that_says_nothing_is_looked_at() {
    let mut mesh = shop();
    mesh.service("east", "ratings", &[(9080, Protocol::Detect)]);
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let text = show::listeners_text(&mesh.snapshot(id));
    let chains: Vec<&str> = text.lines().skip_while(|l| !l.contains("inbound_")).skip(1).map(str::trim).collect();
    assert_eq!(
        chains,
        [
            "[tls|istio-http/1.0,istio-http/1.1,istio-h2|] http_connection_manager over tls",
            "[tls|istio,istio-peer-exchange|] tcp_proxy over tls",
            "[|http/1.0,http/1.1,h2c|] http_connection_manager",
            "[||] tcp_proxy",
        ]
    );
}

#[test]
fn complaints_name_object_and_field() {
    let mut mesh = shop();
    let bad = rule(Vec::new(), vec![to("reviews", Some("v9"), 1), to("nobody", None, 1)]);
    let mut second = rule(Vec::new(), vec![to("reviews", None, 1)]);
    second.field = "spec.http[1]".to_owned();
    mesh.intent(Intent::Routes(routes("bad", 200, &["ratings"], vec![bad, second])));
    mesh.intent(Intent::Routes(at_gateway(routes("lost", 200, &["a.example"], Vec::new()), "none")));
    mesh.intent(Intent::Routes(routes("late", 300, &["reviews"], Vec::new())));
    let codes = mesh.codes();
    for expect in [
        "UNKNOWN_SUBSET bad spec.http[0].route[0].destination.subset",
        "UNKNOWN_HOST bad spec.http[0].route[1].destination.host",
        "UNREACHABLE_RULE bad spec.http[1]",
        "UNKNOWN_GATEWAY lost spec.gateways",
        "HOST_CONFLICT late spec.hosts",
    ] {
        assert!(codes.contains(&expect.to_owned()), "{expect} not in {codes:#?}");
    }
}

#[test]
fn complaints_go_when_their_cause_goes() {
    let mut mesh = shop();
    mesh.intent(Intent::Routes(routes("late", 300, &["ratings"], vec![rule(Vec::new(), vec![to("soon", None, 1)])])));
    assert!(mesh.codes().iter().any(|code| code.starts_with("UNKNOWN_HOST late")));
    mesh.service("east", "soon", &[(80, Protocol::Http)]);
    assert!(!mesh.codes().iter().any(|code| code.starts_with("UNKNOWN_HOST late")));
}

#[test]
fn an_unknown_destination_costs_only_its_own_requests() {
    let mut mesh = shop();
    let first = rule(vec![prefix("/a")], vec![to("nobody", None, 1)]);
    mesh.intent(Intent::Routes(routes(
        "mixed",
        1,
        &["ratings"],
        vec![first, rule(Vec::new(), vec![to("ratings", None, 1)])],
    )));
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let text = show::routes_text(&mesh.snapshot(id));
    assert!(text.contains("prefix /a -> outbound|9080||nobody.default.svc.cluster.local retries 2"), "{text}");
    assert!(text.contains("prefix / -> outbound|9080||ratings.default.svc.cluster.local retries 2"), "{text}");
}

#[test]
fn a_clients_own_destination_hides_the_owners_with_its_subsets() {
    let mut mesh = shop();
    let mut own = destination("mine", "reviews", &[("mine", "version=v1")]);
    own.meta = meta("DestinationRule", "client", "mine", 900);
    own.meta.namespace = namespace("client");
    mesh.intent(Intent::Destination(own));
    let id = mesh.attach(crate::Proxy { namespace: namespace("client"), ..sidecar("x-0", "127.1.1.9") });
    let text = show::clusters_text(&mesh.snapshot(id));
    assert!(text.contains("outbound|9080|mine|reviews") && !text.contains("outbound|9080|v1|reviews"), "{text}");
}

#[test]
fn fault_timeout_and_retries_are_written_on_the_route() {
    let mut mesh = shop();
    let mut all = rule(Vec::new(), vec![to("ratings", None, 1)]);
    all.fault = Some(Fault {
        delay: Some((Duration::from_secs(10), Fraction::ALL)),
        abort: Some((Abort::Http(500), Fraction(500_000))),
    });
    all.timeout = Some(Duration::from_millis(500));
    all.retry = Some(RetryPolicy {
        attempts: 3,
        per_try_timeout: None,
        on: vec!["5xx".to_owned()],
        statuses: vec![418],
        remote_localities: None,
        ignore_previous_hosts: Some(false),
        backoff: None,
    });
    mesh.intent(Intent::Routes(routes("ratings", 1, &["ratings"], vec![all])));
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let config = show::route_configs(&mesh.snapshot(id)).remove(0);
    let host = config.virtual_hosts.iter().find(|h| h.name.starts_with("ratings")).unwrap();
    let route = &host.routes[0];
    let tombolo_controlplane_api::xds::envoy::config::route::v3::route::Action::Route(action) =
        route.action.as_ref().unwrap()
    else {
        panic!()
    };
    let retry = action.retry_policy.as_ref().unwrap();
    assert_eq!(
        (action.timeout.as_ref().unwrap().nanos, retry.retry_on.as_str()),
        (500_000_000, "5xx,retriable-status-codes")
    );
    assert_eq!((retry.retriable_status_codes.as_slice(), retry.retry_host_predicate.len()), ([418].as_slice(), 0));
    assert!(route.typed_per_filter_config.contains_key("envoy.filters.http.fault"));
}

#[test]
fn older_gateways_win_and_younger_ones_are_told() {
    let mut mesh = shop();
    mesh.intent(Intent::Gateway(gateway("old", 1, vec![server(80, Protocol::Http, &["*"], None)])));
    mesh.intent(Intent::Gateway(gateway("young", 2, vec![server(80, Protocol::Tcp, &["*"], None)])));
    let id = mesh.attach(router("ingress-0", "istio=ingress"));
    let text = show::listeners_text(&mesh.snapshot(id));
    assert_eq!(text, "listeners\n  127.1.0.2_10080 127.1.0.2:10080\n    [||] http_connection_manager\n");
    assert!(mesh.codes().contains(&"GATEWAY_PORT_CONFLICT young spec.servers[0]".to_owned()));
}

#[test]
fn a_gateway_gets_secrets_of_its_own_namespace_only() {
    let mut mesh = shop();
    let secret = |ns: &str, name: &str| {
        let meta = meta("Secret", ns, name, 1);
        Intent::Secret(TlsSecret { meta, certificate: Some(b"cert".to_vec()), key: Some(b"key".to_vec()), roots: None })
    };
    mesh.intent(secret("default", "web"));
    mesh.intent(secret("other", "theirs"));
    let mut good = server(443, Protocol::Https, &["a.example"], Some(ServerTlsMode::Simple));
    good.tls.as_mut().unwrap().credentials = vec![credential(None, "web")];
    let mut bad = server(443, Protocol::Https, &["b.example"], Some(ServerTlsMode::Simple));
    bad.tls.as_mut().unwrap().credentials = vec![credential(Some("other"), "theirs")];
    mesh.intent(Intent::Gateway(gateway("web", 1, vec![good, bad])));
    let id = mesh.attach(router("ingress-0", "istio=ingress"));
    let snapshot = mesh.snapshot(id);
    assert_eq!(show::secrets_text(&snapshot), "secrets\n  ROOTCA\n  kubernetes://web\n");
    let text = show::listeners_text(&snapshot);
    assert!(text.contains("[||a.example] http_connection_manager over tls") && !text.contains("b.example"), "{text}");
    assert!(mesh.codes().iter().any(|code| code.starts_with("SECRET_NOT_ALLOWED web")));
    // A sidecar in the same namespace is given none.
    let other = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    assert_eq!(show::secrets_text(&mesh.snapshot(other)), "secrets\n  ROOTCA\n");
}

#[test]
fn what_is_not_exported_has_no_way_in() {
    let mut mesh = shop();
    let auto = server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough));
    mesh.intent(Intent::Gateway(gateway("cross", 1, vec![auto])));
    let id = mesh.attach(router("cross-0", "istio=ingress"));
    assert_eq!(show::listeners_text(&mesh.snapshot(id)), "listeners\n");
    mesh.put(
        "east",
        Item::Export(Export {
            namespace: namespace("default"),
            name: "ratings".to_owned(),
            created: 1,
            origin: ObjectRef::new("ServiceExport", "default", "ratings", "east"),
        }),
    );
    let text = show::listeners_text(&mesh.snapshot(id));
    assert!(
        text.contains("[||outbound_.9080_._.ratings.default.svc.cluster.local] tcp_proxy") && !text.contains("reviews"),
        "{text}"
    );
    mesh.remove("east", ItemKey::Export(namespace("default"), "ratings".to_owned()));
    assert_eq!(show::listeners_text(&mesh.snapshot(id)), "listeners\n");
}

#[test]
fn a_sidecar_scope_hides_what_it_does_not_import() {
    let mut mesh = shop();
    let import = EgressImport { namespace: ImportFrom::Own, host: host("ratings") };
    mesh.intent(Intent::Sidecar(SidecarScope {
        meta: meta("Sidecar", "default", "few", 1),
        selector: None,
        egress: Some(vec![import]),
        outbound: Some(OutboundPolicy::RegistryOnly),
    }));
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let text = show::all(&mesh.snapshot(id));
    assert!(!text.contains("reviews") && text.contains("answer 502"), "{text}");
}

#[test]
fn source_labels_are_decided_here() {
    let mut mesh = shop();
    let condition = HttpMatch { source_labels: labels("app=ratings"), ..prefix("/") };
    let special = rule(vec![condition], vec![to("reviews", Some("v2"), 1)]);
    mesh.intent(Intent::Routes(routes(
        "ratings",
        1,
        &["ratings"],
        vec![special, rule(Vec::new(), vec![to("ratings", None, 1)])],
    )));
    let one = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    let other = mesh.attach(sidecar("reviews-v1-0", "127.1.1.1"));
    assert!(
        show::routes_text(&mesh.snapshot(one))
            .contains("-> outbound|9080|v2|reviews.default.svc.cluster.local retries 2")
    );
    assert!(
        !show::routes_text(&mesh.snapshot(other))
            .contains("-> outbound|9080|v2|reviews.default.svc.cluster.local retries 2")
    );
}

#[test]
fn detached_proxies_have_no_snapshot() {
    let mut mesh = shop();
    let id = mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    mesh.snapshot(id);
    mesh.engine.detach(id);
    mesh.engine.step(mesh.now);
    assert!(mesh.engine.snapshot(id).is_none());
    assert_eq!(sidecar("a-0", "127.1.1.1").role, Role::Sidecar);
}
