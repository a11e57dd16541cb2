//! What waits for what: clusters for endpoints, listeners for secrets and routes, routes for clusters. Clients see whether it
//! waits, and the control plane hears in which order things are asked for.

use crate::{
    resource::{
        CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, URL, address, certificate, chain, cluster, hcm, http, http_with,
        inspector, listener, tls_chain, tls_to, to, trust, with,
    },
    script::{Case, Scenario, Step, Tls, get, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![endpoints(), secrets(), routes()]
}

fn source() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

fn eds(name: &str, more: Value) -> Value {
    let base = json!({
        "@type": format!("{URL}{CLUSTER}"), "name": format!("$s-{name}"), "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": source()},
    });
    with(base, more)
}

fn assignment(name: &str, backend: &str) -> Value {
    json!({
        "@type": format!("{URL}{ENDPOINTS}"), "cluster_name": format!("$s-{name}"),
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(backend)}}]}],
    })
}

fn one(path: &str) -> [Step; 2] {
    [Step::Send(request("GET", path, &[], b"")), Step::Answer]
}

/// What a side says comes soon, but not at once.
const SOON: Step = Step::Sleep(250);

fn puts(name: &'static str, steps: Vec<Step>) -> Case {
    raw(name, steps)
}

fn endpoints() -> Scenario {
    let resources = vec![
        http(vec![to("/late", "late", json!({})), to("/early", "early", json!({})), to("/two", "two", json!({}))]),
        eds("early", json!({})),
        assignment("early", "$b0"),
    ];
    let other = json!({"connect_timeout": "2s"});
    let renamed = json!({"eds_cluster_config": {"eds_config": source(), "service_name": "$s-service"}});
    let cases = vec![
        get("there", "/early", &[]),
        get("not there", "/late", &[]),
        puts(
            "cluster without endpoints",
            [vec![Step::Put(eds("late", json!({}))), SOON], one("/late").to_vec()].concat(),
        ),
        puts(
            "endpoints come",
            [vec![Step::Put(assignment("late", "$b1")), Step::Until("/late", 200)], one("/late").to_vec()].concat(),
        ),
        puts("endpoints move", [vec![Step::Put(assignment("early", "$b1")), SOON], one("/early").to_vec()].concat()),
        puts("cluster changes", [vec![Step::Put(eds("early", other)), SOON], one("/early").to_vec()].concat()),
        puts(
            "cluster asks under another name",
            [vec![Step::Put(eds("two", renamed)), SOON], one("/two").to_vec()].concat(),
        ),
        puts(
            "under that name they come",
            [vec![Step::Put(assignment("service", "$b0")), Step::Until("/two", 200)], one("/two").to_vec()].concat(),
        ),
        puts(
            "endpoints are none",
            vec![
                Step::Put(json!({"@type": format!("{URL}{ENDPOINTS}"), "cluster_name": "$s-late"})),
                Step::Until("/late", 503),
                one("/late")[0].clone(),
                Step::Answer,
            ],
        ),
        puts("endpoints go", [vec![Step::Remove(ENDPOINTS, "$s-early"), SOON], one("/early").to_vec()].concat()),
        puts(
            "cluster goes",
            [vec![Step::Remove(CLUSTER, "$s-early"), Step::Until("/early", 503)], one("/early").to_vec()].concat(),
        ),
        puts("cluster comes back", [vec![Step::Put(eds("early", json!({}))), SOON], one("/early").to_vec()].concat()),
        puts(
            "its endpoints come back",
            [vec![Step::Put(assignment("early", "$b0")), Step::Until("/early", 200)], one("/early").to_vec()].concat(),
        ),
    ];
    Scenario { stateful: true, wire: true, ..scenario("warming endpoints", resources, cases) }
}

fn secret(name: &str, identity: &str) -> Value {
    json!({"@type": format!("{URL}{SECRET}"), "name": format!("$s-{name}"), "tls_certificate": certificate(identity)})
}

fn secrets() -> Scenario {
    let named = |name: &str| json!({"name": format!("$s-{name}"), "sds_config": source()});
    let served = |n: u16, secret: &str, path: &str| {
        let context = json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [named(secret)]}});
        listener(
            n,
            vec![tls_chain(hcm(vec![to(path, "c", json!({}))], json!({})), json!({}), context)],
            json!({"listener_filters": [inspector()]}),
        )
    };
    let trusting = tls_to(json!({"common_tls_context": {"validation_context_sds_secret_config": named("trust")}}));
    let trusted =
        json!({"@type": format!("{URL}{SECRET}"), "name": "$s-trust", "validation_context": trust(json!({}))});
    let resources = vec![
        http(vec![to("/secure", "secure", json!({})), to("/", "c", json!({}))]),
        served(1, "first", "/"),
        secret("first", "svc"),
        cluster("c", &["$b0"], json!({})),
    ];
    let tls = |case: Case| case.tls(Tls { sni: "svc.test", ..Tls::default() });
    let cases = vec![
        tls(get("there", "/", &[]).on(1)),
        puts("listener without its secret", vec![Step::Put(served(2, "late", "/")), SOON]),
        tls(get("does not listen", "/", &[]).on(2)),
        puts("the secret comes", vec![Step::Put(secret("late", "a")), Step::Listens(2), SOON]),
        tls(get("listens", "/", &[]).on(2)),
        puts("the secret changes", vec![Step::Put(secret("late", "svc")), SOON]),
        tls(get("shows the new one", "/", &[]).on(2)),
        puts("listener asks for another secret", vec![Step::Put(served(2, "later", "/new")), SOON]),
        tls(get("the old one serves", "/new", &[]).on(2)),
        puts("that secret comes", vec![Step::Put(secret("later", "wild")), SOON, SOON]),
        tls(get("the new one serves", "/new", &[]).on(2)),
        puts(
            "cluster without its trust",
            [vec![Step::Put(cluster("secure", &["$b1"], trusting)), SOON], one("/secure").to_vec()].concat(),
        ),
        puts(
            "its trust comes",
            [vec![Step::Put(trusted), Step::Until("/secure", 200)], one("/secure").to_vec()].concat(),
        ),
        puts("listener goes", vec![Step::Remove(LISTENER, "$s-2"), SOON]),
        puts("secret goes", vec![Step::Remove(SECRET, "$s-first"), SOON]),
        tls(get("is shown for all that", "/", &[]).on(1)),
    ];
    Scenario { stateful: true, wire: true, ..scenario("warming secrets", resources, cases) }
}

fn routes() -> Scenario {
    let rds = |n: u16, name: &str| {
        let from = json!({"config_source": source(), "route_config_name": format!("$s-{name}")});
        let mut filter = hcm(vec![], json!({"rds": from}));
        if let Some(fields) = filter["typed_config"].as_object_mut() {
            fields.remove("route_config");
        }
        listener(n, vec![chain(filter)], json!({}))
    };
    let table = |name: &str, routes: Vec<Value>| {
        json!({
            "@type": format!("{URL}{ROUTES}"), "name": format!("$s-{name}"),
            "virtual_hosts": [{"name": "any", "domains": ["*"], "routes": routes}],
        })
    };
    let plain = vec![to("/", "c", json!({}))];
    let strict = with(table("strict", vec![to("/", "nowhere", json!({}))]), json!({"validate_clusters": true}));
    let resources = vec![
        http_with(plain.clone(), json!({})),
        rds(1, "first"),
        table("first", plain.clone()),
        cluster("c", &["$b0"], json!({})),
    ];
    let moved = vec![to("/new", "new", json!({})), to("/", "c", json!({}))];
    let cases = vec![
        get("there", "/", &[]).on(1),
        puts("listener without its routes", vec![Step::Put(rds(2, "late")), SOON]),
        get("does not listen", "/", &[]).on(2),
        puts("the routes come", vec![Step::Put(table("late", plain.clone())), Step::Listens(2), SOON]),
        get("listens", "/", &[]).on(2),
        puts("routes to a cluster that is not there", vec![Step::Put(table("first", moved)), SOON]),
        get("no such cluster", "/new", &[]).on(1),
        puts("the cluster comes", vec![Step::Put(cluster("new", &["$b1"], json!({}))), SOON]),
        get("goes there", "/new", &[]).on(1),
        raw(
            "routes change under a connection",
            [
                one("/").to_vec(),
                vec![Step::Put(table("first", vec![to("/", "new", json!({}))])), SOON],
                one("/").to_vec(),
            ]
            .concat(),
        )
        .on(1),
        puts("routes that are checked", vec![Step::Put(strict), Step::Put(rds(3, "strict")), SOON]),
        puts("a second listener with the same routes", vec![Step::Put(rds(4, "first")), Step::Listens(4), SOON]),
        get("listens with them", "/", &[]).on(4),
        puts("one of the two goes", vec![Step::Remove(LISTENER, "$s-4"), SOON]),
        raw(
            "the other goes under a connection",
            [one("/").to_vec(), vec![Step::Remove(LISTENER, "$s-1"), SOON], one("/").to_vec()].concat(),
        )
        .on(1),
        puts("routes go", vec![Step::Remove(ROUTES, "$s-late"), SOON]),
        get("still served", "/", &[]).on(2),
    ];
    Scenario { stateful: true, wire: true, ..scenario("warming routes", resources, cases) }
}
