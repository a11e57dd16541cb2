//! Resources that others are made of: extensions, scopes, virtual hosts of their own, runtime layers.

use super::*;
use crate::config::HttpFilterKind;
use crate::testing::ads_for;
use std::time::Duration as Time;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            core::v3 as core,
            route::v3::{self as rt, scoped_route_configuration as key},
        },
        extensions::filters::{
            http::{cors::v3::Cors, grpc_stats::v3::FilterConfig as GrpcStats},
            network::http_connection_manager::v3::{
                self as h, http_connection_manager::RouteSpecifier, http_filter::ConfigType, scoped_routes as sr,
            },
        },
        service::runtime::v3::Runtime as RuntimeMessage,
    },
    google::protobuf as pb,
};

fn place(name: &str, default: Option<pb::Any>, warm: bool) -> h::HttpFilter {
    let source = core::ExtensionConfigSource {
        config_source: Some(ads()),
        default_config: default,
        apply_default_config_without_warming: !warm,
        type_urls: vec!["type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors".into()],
    };
    h::HttpFilter { name: name.into(), config_type: Some(ConfigType::ConfigDiscovery(source)), ..Default::default() }
}

fn extended(filter: h::HttpFilter) -> Resource {
    let message = listener_message("l", packed(&hcm_message("r", vec![filter, router()])));
    decode(Kind::Listener, "l", &message.encode_to_vec()).unwrap()
}

fn extension(config: pb::Any) -> Resource {
    let message = core::TypedExtensionConfig { name: "x".into(), typed_config: Some(config) };
    decode(Kind::Extension, "x", &message.encode_to_vec()).unwrap()
}

fn first_filter(config: &Config) -> &HttpFilterKind {
    let Terminal::Http(hcm) = &config.listeners.get("l").unwrap().chains[0].terminal else { panic!("not HTTP") };
    &hcm.filters[0].kind
}

#[test]
fn a_listener_waits_for_its_extension_and_follows_it() {
    let mut all = running();
    all.put(extended(place("x", None, true)));
    assert!(all.step(NOW).is_none(), "the version before serves");
    assert_eq!(all.take_wanted(Kind::Extension).unwrap().added, BTreeSet::from(["x".to_owned()]));
    let wrong = extension(packed(&GrpcStats::default()));
    assert!(all.admits(&wrong).unwrap_err().contains("type_urls"));
    let right = extension(packed(&Cors::default()));
    assert_eq!(all.admits(&right), Ok(()));
    all.put(right.clone());
    let config = all.step(NOW).unwrap();
    assert_eq!(*first_filter(&config), HttpFilterKind::Cors);
    all.put(extended(place("x", None, true)));
    all.put(right);
    assert!(all.step(NOW).is_none(), "the same again changes nothing");
    all.remove(Kind::Extension, "x");
    let config = all.step(NOW).unwrap();
    assert!(matches!(first_filter(&config), HttpFilterKind::Discovered(_)), "nothing passes a filter that is gone");
    all.put(listener("l", "r"));
    all.step(NOW);
    assert!(all.wanted(Kind::Extension).is_empty());
}

#[test]
fn a_default_serves_until_the_extension_comes() {
    let mut all = running();
    all.put(extended(place("x", Some(packed(&Cors::default())), false)));
    let config = all.step(NOW).unwrap();
    assert_eq!(*first_filter(&config), HttpFilterKind::Cors);
    let mut patient = running();
    patient.put(extended(place("x", Some(packed(&Cors::default())), true)));
    assert!(patient.step(NOW).is_none());
    let config = patient.step(NOW.after(INIT_TIMEOUT)).unwrap();
    assert_eq!(*first_filter(&config), HttpFilterKind::Cors);
}

fn scoped_listener() -> Resource {
    let fragment = sr::scope_key_builder::FragmentBuilder {
        r#type: Some(sr::scope_key_builder::fragment_builder::Type::HeaderValueExtractor(
            sr::scope_key_builder::fragment_builder::HeaderValueExtractor {
                name: "x-team".into(),
                element_separator: String::new(),
                extract_type: Some(
                    sr::scope_key_builder::fragment_builder::header_value_extractor::ExtractType::Index(0),
                ),
            },
        )),
    };
    let mut manager = hcm_message("unused", vec![router()]);
    manager.route_specifier = Some(RouteSpecifier::ScopedRoutes(h::ScopedRoutes {
        name: "teams".into(),
        scope_key_builder: Some(sr::ScopeKeyBuilder { fragments: vec![fragment] }),
        rds_config_source: Some(ads()),
        config_specifier: Some(sr::ConfigSpecifier::ScopedRds(h::ScopedRds {
            scoped_rds_config_source: Some(ads()),
            srds_resources_locator: String::new(),
        })),
    }));
    let message = listener_message("s", packed(&manager));
    decode(Kind::Listener, "s", &message.encode_to_vec()).unwrap()
}

fn scope(name: &str, team: &str, routes: &str) -> Resource {
    let part = key::key::Fragment { r#type: Some(key::key::fragment::Type::StringKey(team.into())) };
    let message = rt::ScopedRouteConfiguration {
        name: name.into(),
        route_configuration_name: routes.into(),
        key: Some(key::Key { fragments: vec![part] }),
        ..Default::default()
    };
    decode(Kind::Scope, name, &message.encode_to_vec()).unwrap()
}

#[test]
fn scopes_bring_their_routes_with_them() {
    let mut all = running();
    assert!(!all.wants_all(Kind::Scope));
    all.put(scoped_listener());
    assert!(all.wants_all(Kind::Scope));
    assert!(all.step(NOW).is_none());
    all.put(scope("a", "red", "r-red"));
    all.complete(Kind::Scope);
    assert!(all.step(NOW).is_none(), "the scope's routes are not here");
    assert!(all.wanted(Kind::Routes).contains("r-red"));
    all.put(routes("r-red", "c"));
    all.step(NOW);
    let config = all.step(NOW).unwrap_or_else(|| Arc::new(all.config.clone()));
    let Terminal::Http(hcm) = &config.listeners.get("s").unwrap().chains[0].terminal else { panic!("not HTTP") };
    let of = |team: &'static str| {
        let headers = ::http::HeaderMap::from_iter([(
            ::http::HeaderName::from_static("x-team"),
            ::http::HeaderValue::from_static(team),
        )]);
        config.routes_for(hcm, "", &headers).map(|table| table.name.to_string())
    };
    assert_eq!((of("red"), of("blue")), (Some("r-red".into()), None));
    assert!(all.admits(&scope("b", "red", "r")).unwrap_err().contains("\"a\""));
    all.remove(Kind::Scope, "a");
    all.step(NOW);
    assert!(!all.wanted(Kind::Routes).contains("r-red"));
}

fn vhds_table() -> Resource {
    let mut message = table_message("r", &["static"], vec![route_to("c", PathSpecifier::Prefix("/".into()))]);
    message.vhds = Some(rt::Vhds { config_source: Some(ads()) });
    decode(Kind::Routes, "r", &message.encode_to_vec()).unwrap()
}

fn host(name: &str, domain: &str) -> Resource {
    let table = table_message("x", &[domain], vec![route_to("c", PathSpecifier::Prefix("/".into()))]);
    let mut message = table.virtual_hosts.into_iter().next().unwrap();
    message.name = name.into();
    decode(Kind::Host, name, &message.encode_to_vec()).unwrap()
}

#[test]
fn virtual_hosts_join_their_table() {
    let mut all = running();
    all.put(vhds_table());
    assert!(all.wants_all(Kind::Host));
    assert!(all.step(NOW).is_none(), "the version before serves until hosts came");
    all.put(host("r/dynamic", "dynamic"));
    all.complete(Kind::Host);
    let config = all.step(NOW).unwrap();
    let table = config.routes.get("r").unwrap();
    assert_eq!((table.find("static"), table.find("Dynamic")), (Some(0), Some(1)));
    assert_eq!(&*table.host(1).unwrap().name, "r/dynamic");
    assert!(all.admits(&host("r/other", "static")).unwrap_err().contains("twice"));
    all.put(host("r/late", "late"));
    let config = all.step(NOW).unwrap();
    assert!(config.routes.get("r").unwrap().find("late").is_some());
    all.put(vhds_table());
    assert!(all.step(NOW).is_none());
    all.remove(Kind::Host, "r/dynamic");
    let config = all.step(NOW).unwrap();
    assert_eq!(config.routes.get("r").unwrap().find("dynamic"), None);
    assert_eq!(table.find("dynamic"), Some(1), "who holds the table before goes on with it");
}

#[test]
fn hosts_that_come_one_by_one_are_found_as_if_they_were_written() {
    let mut all = running();
    all.put(vhds_table());
    all.complete(Kind::Host);
    let domains = ["a.b", "*.b", "*.a.b", "a.*", "A.c", "*"];
    for domain in domains {
        all.put(host(&format!("r/{domain}"), domain));
    }
    all.remove(Kind::Host, "r/*.a.b");
    all.put(host("r/again", "*.a.b"));
    all.put(host("r/a.b", "moved.b"));
    let config = all.step(NOW).unwrap();
    let table = config.routes.get("r").unwrap();
    let found = |name: &str| table.find(name).and_then(|place| table.host(place)).map(|host| host.name.to_string());
    for (name, wanted) in [
        ("static", "h"),
        ("moved.b", "r/a.b"),
        ("a.b", "r/*.b"),
        ("x.a.b", "r/again"),
        ("a.C", "r/A.c"),
        ("a.d", "r/a.*"),
        ("elsewhere", "r/*"),
    ] {
        let host = found(name).unwrap();
        assert!(host == wanted || wanted == "h" && table.find(name) == Some(0), "{name}: {host}");
    }
    assert!(all.admits(&host("r/twin", "MOVED.b")).is_err() && all.admits(&host("r/twin", "a.b")).is_ok());
    assert!(all.admits(&host("r/twin", "*.B")).is_err());
}

#[test]
fn runtime_layers_count_in_order() {
    let layer = |name: &str, number: f64| {
        let value = pb::Value { kind: Some(pb::value::Kind::NumberValue(number)) };
        let layer = Some(pb::Struct { fields: [("k".to_owned(), value)].into() });
        let message = RuntimeMessage { name: name.into(), layer };
        decode(Kind::Runtime, name, &message.encode_to_vec()).unwrap()
    };
    let mut all = Assembly::new(Some(INIT_TIMEOUT));
    all.use_layers(["first".into(), "second".into()]);
    assert_eq!(all.wanted(Kind::Runtime).len(), 2);
    all.put(layer("second", 2.0));
    all.put(layer("first", 1.0));
    all.put(layer("unknown", 9.0));
    let config = all.step(NOW).unwrap();
    assert_eq!(config.runtime.integer("k", 0), 2);
    all.override_runtime(Arc::new(Value::Map(Arc::new([("k".into(), Value::Number(3.0))].into()))));
    assert_eq!(all.step(NOW).unwrap().runtime.integer("k", 0), 3);
}

#[test]
fn each_source_says_how_long_it_may_take() {
    let with = |seconds: i64| {
        let mut manager = hcm_message("late", vec![router()]);
        let Some(RouteSpecifier::Rds(rds)) = &mut manager.route_specifier else { panic!("not RDS") };
        rds.config_source = Some(ads_for(Time::from_secs(seconds.unsigned_abs())));
        decode(Kind::Listener, "q", &listener_message("q", packed(&manager)).encode_to_vec()).unwrap()
    };
    let mut all = running();
    all.put(with(2));
    assert!(all.step(NOW).is_none());
    assert_eq!(all.deadline(), Some(NOW.after(2000)));
    assert!(all.step(NOW.after(2000)).unwrap().listeners.contains("q"));
    let mut patient = running();
    patient.put(with(0));
    assert!(patient.step(NOW).is_none());
    assert_eq!(patient.deadline(), None);
    assert!(patient.step(NOW.after(100 * INIT_TIMEOUT)).is_none(), "zero waits for ever");
}
