//! The laws of the engine, for random sequences of changes: incremental equals from scratch whatever the order and the
//! steps in between; what did not change publishes nothing; what is deleted and added again was never deleted.

use super::{fixtures::*, kitchen::kitchen};
use crate::{Input, ProxyId, intent::*, proxy::Proxy};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::*;
use tombolo_federation_registry::{Item, ItemKey};
use tombolo_federation_sync::Snapshot;

/// One change: which thing, and what becomes of it; 0 means that it is gone.
type Change = (u8, u8);

const THINGS: u8 = 26;
const FORMS: u8 = 4;

const NAMES: [&str; 4] = ["reviews", "ratings", "alone", "late"];

fn proxies() -> Vec<Proxy> {
    let other = Proxy { namespace: namespace("other"), ..sidecar("x-0", "127.1.1.9") };
    vec![sidecar("ratings-0", "127.1.1.2"), other, router("ingress-0", "istio=ingress,app=edge")]
}

fn name(which: u8) -> &'static str {
    NAMES[usize::from(which) % NAMES.len()]
}

fn say(mesh: &mut Mesh, (thing, form): Change) {
    let thing = thing % THINGS;
    let form = form % FORMS;
    let cluster = if thing.is_multiple_of(2) { "east" } else { "west" };
    match thing {
        0..=5 => say_service(mesh, cluster, name(thing / 2), form),
        6..=11 => say_workload(mesh, cluster, thing, form),
        12 => say_crossing(mesh, form),
        13 => say_export(mesh, form),
        14 => say_proxy_policy(mesh, form),
        24 | 25 => say_remote_subsets(mesh, thing, form),
        _ => say_intent(mesh, thing, form),
    }
}

fn say_service(mesh: &mut Mesh, cluster: &str, name: &str, form: u8) {
    let protocol = [Protocol::Http, Protocol::Http, Protocol::Grpc, Protocol::Detect][usize::from(form)];
    let mut made = service(cluster, name, &[(9080, protocol), (80, Protocol::Http)]);
    if form == 3 {
        made.ports.pop();
        made.visibility = Visibility::Only(vec![namespace("default")]);
    }
    let item = Item::Service(made);
    if form == 0 { mesh.remove(cluster, item.key()) } else { mesh.put(cluster, item) }
}

fn say_workload(mesh: &mut Mesh, cluster: &str, thing: u8, form: u8) {
    let base = format!("{}-{thing}", name(thing));
    let mut made =
        workload(cluster, &base, &format!("127.1.1.{thing}"), if form == 1 { "version=v1" } else { "version=v2" });
    made.weight = u32::from(form);
    if form == 3 {
        made.health = Health::Draining;
        made.tls = TlsMode::Disabled;
    }
    let item = Item::Workload(made);
    if form == 0 { mesh.remove(cluster, item.key()) } else { mesh.put(cluster, item) }
}

fn say_crossing(mesh: &mut Mesh, form: u8) {
    for (at, there) in [("127.2.0.3", form & 1 != 0), ("127.2.0.4", form & 2 != 0)] {
        let item = crossing("west", at);
        if there { mesh.put("west", item) } else { mesh.remove("west", item.key()) }
    }
}

fn say_export(mesh: &mut Mesh, form: u8) {
    for (at, name) in NAMES.iter().enumerate().take(2) {
        let there = form & (1 << at) != 0;
        let origin = ObjectRef::new("ServiceExport", "default", name, "east");
        let export = Export { namespace: namespace("default"), name: (*name).to_owned(), created: 1, origin };
        if there {
            mesh.put("east", Item::Export(export));
        } else {
            mesh.remove("east", ItemKey::Export(namespace("default"), (*name).to_owned()));
        }
    }
}

fn say_remote_subsets(mesh: &mut Mesh, thing: u8, form: u8) {
    let peer = SiteName::parse(if thing == 24 { "west" } else { "north" }).unwrap();
    let named = |all: &[(&str, &str)]| all.iter().map(|(name, with)| ((*name).to_owned(), labels(with))).collect();
    let subsets = match form {
        0 => Subsets::new(),
        1 => Subsets::from([(host("reviews"), named(&[("v1", "version=v2"), ("far", "version=v1")]))]),
        2 => Subsets::from([
            (host("reviews"), named(&[("far", "version=v2")])),
            (host("ratings"), named(&[("far", "")])),
        ]),
        _ => Subsets::from([(host(name(thing)), named(&[("other", "version=v1")]))]),
    };
    mesh.tell(Input::RemoteSubsets { peer, subsets });
}

fn say_proxy_policy(mesh: &mut Mesh, form: u8) {
    let mode = [None, Some(MutualTls::Strict), Some(MutualTls::Disable), None][usize::from(form)];
    let meta = meta("PeerAuthentication", "istio-system", "default", 1);
    let object = meta.object.clone();
    let policy = PeerAuthentication { meta, selector: None, mode, ports: BTreeMap::new() };
    if form == 0 { mesh.forget(object) } else { mesh.intent(Intent::PeerAuthentication(policy)) }
}

fn say_intent(mesh: &mut Mesh, thing: u8, form: u8) {
    let title = format!("t{thing}");
    let created = i64::from(thing % 3);
    let of = name(thing + form);
    let intent = match thing {
        15..=17 => {
            let condition =
                HttpMatch { source_labels: labels(if form == 1 { "app=ratings" } else { "" }), ..prefix("/a") };
            let rules = vec![
                rule(vec![condition], vec![to(of, Some("v1"), 1), to("late", None, 3)]),
                rule(Vec::new(), vec![to(name(thing), None, 1)]),
            ];
            Intent::Routes(routes(&title, created, &[name(thing)], rules))
        }
        18 | 19 => {
            let mut made = destination(&title, of, &[("v1", "version=v1"), ("v2", "version=v2")]);
            made.meta.created = created;
            if form == 2 {
                made.workload_selector = Some(labels("app=ratings"));
            }
            if form == 3 {
                let locality = LocalityPolicy { enabled: Some(false), ..LocalityPolicy::default() };
                made.policy.load_balancer = Some(LoadBalancer { locality: Some(locality), ..LoadBalancer::default() });
            }
            Intent::Destination(made)
        }
        20 | 21 => {
            let auto = server(15443, Protocol::Tls, &["*.local"], Some(ServerTlsMode::AutoPassthrough));
            let plain = server(80, if form == 3 { Protocol::Tcp } else { Protocol::Http }, &["*"], None);
            Intent::Gateway(gateway(&title, created, if form == 2 { vec![auto, plain] } else { vec![plain] }))
        }
        22 => {
            let rules = vec![rule(vec![prefix("/x")], vec![to(of, None, 1)])];
            Intent::Routes(at_gateway(
                routes(&title, created, &["a.example", of], rules),
                if form == 1 { "t20" } else { "t21" },
            ))
        }
        _ => {
            let import = EgressImport { namespace: ImportFrom::Any, host: host(of) };
            Intent::Sidecar(SidecarScope {
                meta: meta("Sidecar", "default", &title, created),
                selector: (form == 2).then(|| labels("app=ratings")),
                egress: Some(vec![import]),
                outbound: (form == 3).then_some(OutboundPolicy::RegistryOnly),
            })
        }
    };
    let object = intent.meta().object.clone();
    if form == 0 { mesh.forget(object) } else { mesh.intent(intent) }
}

/// Everything that comes out, by proxy, type and name, and every complaint.
type Content = BTreeMap<String, String>;

fn content(mesh: &mut Mesh, ids: &[ProxyId]) -> Content {
    let mut all = Content::new();
    for (at, id) in ids.iter().enumerate() {
        for (kind, set) in &mesh.snapshot(*id).types {
            all.extend(
                set.iter().map(|(name, resource)| (format!("{at} {kind} {name}"), resource.version.to_string())),
            );
        }
    }
    for (host, named) in mesh.engine.exports().subsets {
        all.extend(named.iter().map(|(name, labels)| (format!("uses {name} of {host}"), format!("{labels:?}"))));
    }
    all.extend(mesh.engine.diagnostics().iter().map(|d| (d.to_string(), String::new())));
    all
}

/// What one has and the other has not, for a message that a person can read.
fn difference(a: &Content, b: &Content) -> Vec<String> {
    let only = |a: &Content, b: &Content| {
        a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, _)| k.clone()).collect::<Vec<_>>()
    };
    [only(a, b), only(b, a)].concat()
}

/// What the last word about each thing makes, in one step.
fn from_scratch(changes: &[Change], order: &[usize]) -> Content {
    let mut last: BTreeMap<u8, Change> = BTreeMap::new();
    for change in changes {
        last.insert(change.0 % THINGS, *change);
    }
    let mut final_words: Vec<Change> = last.into_values().filter(|(_, form)| form % FORMS != 0).collect();
    for (at, swap) in order.iter().enumerate() {
        if !final_words.is_empty() {
            let len = final_words.len();
            final_words.swap(at % len, swap % len);
        }
    }
    let mut mesh = Mesh::new();
    final_words.into_iter().for_each(|change| say(&mut mesh, change));
    let ids: Vec<ProxyId> = proxies().into_iter().map(|proxy| mesh.attach(proxy)).collect();
    content(&mut mesh, &ids)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(
        changes in prop::collection::vec((0..THINGS, 0..FORMS), 1..60),
        steps in prop::collection::vec(any::<bool>(), 60),
        order in prop::collection::vec(0..100usize, 30),
    ) {
        let mut mesh = Mesh::new();
        let ids: Vec<ProxyId> = proxies().into_iter().map(|proxy| mesh.attach(proxy)).collect();
        for (change, step) in changes.iter().zip(&steps) {
            say(&mut mesh, *change);
            if *step {
                mesh.engine.step(mesh.now);
            }
        }
        prop_assert_eq!(difference(&content(&mut mesh, &ids), &from_scratch(&changes, &order)), Vec::<String>::new());
    }

    #[test]
    fn saying_the_same_again_publishes_nothing(changes in prop::collection::vec((0..THINGS, 1..FORMS), 1..40)) {
        let mut mesh = Mesh::new();
        let ids: Vec<ProxyId> = proxies().into_iter().map(|proxy| mesh.attach(proxy)).collect();
        changes.iter().for_each(|change| say(&mut mesh, *change));
        let before: Vec<Arc<Snapshot>> = ids.iter().map(|id| mesh.snapshot(*id)).collect();
        let mut last: BTreeMap<u8, Change> = BTreeMap::new();
        last.extend(changes.iter().map(|change| (change.0, *change)));
        last.into_values().for_each(|change| say(&mut mesh, change));
        let step = mesh.engine.step(mesh.now);
        prop_assert!(step.changed.is_empty() && !step.diagnostics_changed && !step.exports_changed);
        for (id, before) in ids.iter().zip(before) {
            prop_assert!(Arc::ptr_eq(&before, &mesh.snapshot(*id)));
        }
    }

    #[test]
    fn deleted_and_added_again_is_never_deleted(
        changes in prop::collection::vec((0..THINGS, 1..FORMS), 1..30),
        victims in prop::collection::vec(0..THINGS, 1..10),
        between in any::<bool>(),
    ) {
        let mut mesh = Mesh::new();
        let ids: Vec<ProxyId> = proxies().into_iter().map(|proxy| mesh.attach(proxy)).collect();
        changes.iter().for_each(|change| say(&mut mesh, *change));
        let before = content(&mut mesh, &ids);
        let mut last: BTreeMap<u8, Change> = BTreeMap::new();
        last.extend(changes.iter().map(|change| (change.0, *change)));
        for victim in &victims {
            say(&mut mesh, (*victim, 0));
        }
        if between {
            mesh.engine.step(mesh.now);
        }
        for victim in &victims {
            if let Some(change) = last.get(victim) {
                say(&mut mesh, *change);
            }
        }
        prop_assert_eq!(difference(&content(&mut mesh, &ids), &before), Vec::<String>::new());
    }
}

#[test]
fn a_second_engine_makes_the_same_bytes() {
    let make = || {
        let mut mesh = kitchen();
        let ids: Vec<ProxyId> = proxies().into_iter().map(|proxy| mesh.attach(proxy)).collect();
        content(&mut mesh, &ids)
    };
    let (first, second) = (make(), make());
    assert_eq!(first, second);
}

#[test]
fn a_step_without_changes_computes_nothing() {
    let mut mesh = kitchen();
    mesh.attach(sidecar("ratings-0", "127.1.1.2"));
    assert!(mesh.engine.step(mesh.now).computed > 0);
    assert_eq!(mesh.engine.step(mesh.now), super::Step::default());
}
