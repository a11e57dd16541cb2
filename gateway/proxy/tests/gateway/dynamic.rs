//! Resources that come when they are needed, files instead of a control plane, and the admin interface.

use crate::{
    build::{self, cluster, endpoints, hcm, http_chain, listener, routes, to},
    client::{get, get_host},
    http::{show, simple},
    origin::Origin,
    process::{Gateway, Options, PATIENCE, eventually},
};
use std::net::SocketAddr;
use tombolo_controlplane_api::util::pack_any;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{core::v3 as core, route::v3 as rt},
        extensions::filters::{
            http::{fault::v3 as fault, on_demand::v3::OnDemand},
            network::http_connection_manager::v3::{
                self as h, http_connection_manager::RouteSpecifier, http_filter::ConfigType, scoped_routes as sr,
            },
        },
        service::runtime::v3::Runtime,
    },
    google::protobuf as pb,
};
use tombolo_tests_kit::{ads::Ads, free};

fn aborting(status: u32) -> core::TypedExtensionConfig {
    let abort = fault::FaultAbort {
        percentage: Some(tombolo_controlplane_api::xds::envoy::r#type::v3::FractionalPercent {
            numerator: 100,
            denominator: 0,
        }),
        error_type: Some(fault::fault_abort::ErrorType::HttpStatus(status)),
        ..Default::default()
    };
    let config = fault::HttpFault { abort: Some(abort), ..Default::default() };
    core::TypedExtensionConfig { name: "x".into(), typed_config: Some(pack_any(config)) }
}

#[tokio::test]
async fn a_filter_comes_as_a_resource_of_its_own() {
    for sotw in [false, true] {
        let origin = Origin::http1("a").await;
        let ads = Ads::start().await;
        let at = free();
        let place = h::HttpFilter {
            name: "x".into(),
            config_type: Some(ConfigType::ConfigDiscovery(core::ExtensionConfigSource {
                config_source: Some(build::ads()),
                type_urls: vec!["type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault".into()],
                ..Default::default()
            })),
            ..Default::default()
        };
        let mut manager = hcm("r");
        manager.http_filters.insert(0, place);
        show(&ads, at, origin.address);
        ads.set([("l", listener("l", at, vec![http_chain(manager)]))]);
        ads.set([("x", aborting(418))]);
        let _gateway = Gateway::ready(&Options { sotw, ..Options::new(ads.address) }).await;
        assert_eq!(get(at, "/").await.unwrap().status, 418, "sotw: {sotw}");
        ads.set([("x", aborting(451))]);
        eventually("the new settings count", async || get(at, "/").await.unwrap().status == 451).await;
        let wrong = core::TypedExtensionConfig { name: "x".into(), typed_config: Some(pack_any(OnDemand::default())) };
        ads.set([("x", wrong)]);
        ads.refused("type_urls").await;
        assert_eq!(get(at, "/").await.unwrap().status, 451, "the last good one stays");
    }
}

#[tokio::test]
async fn scopes_choose_among_route_tables() {
    let (red, blue) = (Origin::http1("red").await, Origin::http1("blue").await);
    let ads = Ads::start().await;
    let at = free();
    let extractor = sr::scope_key_builder::fragment_builder::HeaderValueExtractor {
        name: "host".into(),
        element_separator: ".".into(),
        extract_type: Some(sr::scope_key_builder::fragment_builder::header_value_extractor::ExtractType::Index(0)),
    };
    let part = sr::scope_key_builder::FragmentBuilder {
        r#type: Some(sr::scope_key_builder::fragment_builder::Type::HeaderValueExtractor(extractor)),
    };
    let mut manager = hcm("unused");
    manager.route_specifier = Some(RouteSpecifier::ScopedRoutes(h::ScopedRoutes {
        name: "teams".into(),
        scope_key_builder: Some(sr::ScopeKeyBuilder { fragments: vec![part] }),
        rds_config_source: Some(build::ads()),
        config_specifier: Some(sr::ConfigSpecifier::ScopedRds(h::ScopedRds {
            scoped_rds_config_source: Some(build::ads()),
            srds_resources_locator: String::new(),
        })),
    }));
    let scope = |name: &str, key: &str, table: &str| rt::ScopedRouteConfiguration {
        name: name.into(),
        route_configuration_name: table.into(),
        key: Some(rt::scoped_route_configuration::Key {
            fragments: vec![rt::scoped_route_configuration::key::Fragment {
                r#type: Some(rt::scoped_route_configuration::key::fragment::Type::StringKey(key.into())),
            }],
        }),
        ..Default::default()
    };
    ads.set([("red", cluster("red")), ("blue", cluster("blue"))]);
    ads.set([("red", endpoints("red", &[red.address])), ("blue", endpoints("blue", &[blue.address]))]);
    ads.set([
        ("r1", routes("r1", &[("*", vec![to("/", "red")])])),
        ("r2", routes("r2", &[("*", vec![to("/", "blue")])])),
    ]);
    ads.set([("s1", scope("s1", "red", "r1"))]);
    ads.set([("l", listener("l", at, vec![http_chain(manager)]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    // What HTTP/1 calls `host` is the authority.
    assert_eq!(get_host(at, "red.test", "/").await.body, "red");
    assert_eq!(get_host(at, "blue.test", "/").await.status, 404);
    ads.set([("s1", scope("s1", "red", "r1")), ("s2", scope("s2", "blue", "r2"))]);
    eventually("the new scope counts", async || get_host(at, "blue.test", "/").await.body == "blue").await;
    ads.set([("s2", scope("s2", "blue", "r2"))]);
    eventually("the removed scope is gone", async || get_host(at, "red.test", "/").await.status == 404).await;
}

#[tokio::test]
async fn a_request_waits_for_its_virtual_host() {
    let origin = Origin::http1("a").await;
    let ads = Ads::start().await;
    let at = free();
    let mut manager = hcm("r");
    let waiting = h::HttpFilter {
        name: "on_demand".into(),
        config_type: Some(ConfigType::TypedConfig(pack_any(OnDemand::default()))),
        ..Default::default()
    };
    manager.http_filters.insert(0, waiting);
    let mut table = routes("r", &[("static", vec![to("/", "a")])]);
    table.vhds = Some(rt::Vhds { config_source: Some(build::ads()) });
    let host = |domain: &str| {
        let one = routes("x", &[(domain, vec![to("/", "a")])]).virtual_hosts.remove(0);
        rt::VirtualHost { name: format!("r/{domain}"), ..one }
    };
    show(&ads, at, origin.address);
    ads.set([("r", table)]);
    ads.set([("r/first", host("first"))]);
    ads.set([("l", listener("l", at, vec![http_chain(manager)]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    assert_eq!(get_host(at, "static", "/").await.status, 200);
    assert_eq!(get_host(at, "first", "/").await.status, 200);
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENCE, get_host(at, "nobody", "/"));
        let answer = answer.await.expect("who asks again is answered again");
        assert_eq!(answer.status, 404, "the control plane says that there is none");
    }
    ads.set([("r/first", host("first")), ("r/second", host("second"))]);
    eventually("a later host is known", async || get_host(at, "second", "/").await.status == 200).await;
}

#[tokio::test]
async fn runtime_layers_are_subscribed_to() {
    let origin = Origin::http1("a").await;
    let ads = Ads::start().await;
    let at = free();
    show(&ads, at, origin.address);
    let value = pb::Value { kind: Some(pb::value::Kind::NumberValue(7.0)) };
    let layer = pb::Struct { fields: [("upstream.weight".to_owned(), value)].into() };
    ads.set([("edge", Runtime { name: "edge".into(), layer: Some(layer) })]);
    let mut options = Options::new(ads.address);
    options.more = vec!["--rtds".into(), "edge".into()];
    let gateway = Gateway::ready(&options).await;
    assert!(get(gateway.admin, "/runtime").await.unwrap().body.contains("upstream.weight"));
    let post = post(gateway.admin, "/runtime_modify?upstream.weight=9").await;
    assert_eq!(post.0, 200);
    eventually("the administrator's value wins", async || {
        get(gateway.admin, "/runtime").await.unwrap().body.contains("\"9\"")
    })
    .await;
    assert_eq!(get(at, "/").await.unwrap().status, 200);
}

async fn post(at: SocketAddr, path: &str) -> (u16, String) {
    let request = http::Request::post(path).header("host", "t").body(Default::default()).unwrap();
    let got = crate::client::Connection::open(at).await.send(request).await.unwrap();
    (got.status, got.body)
}

#[tokio::test]
async fn admin_pages_have_the_shapes_of_envoy() {
    let origin = Origin::http1("a").await;
    let (ads, gateway, at) = simple(&origin, |_, _| {}).await;
    assert_eq!(get(at, "/").await.unwrap().status, 200);
    let json = async |page: &str| -> serde_json::Value {
        serde_json::from_str(&get(gateway.admin, page).await.unwrap().body).unwrap()
    };
    let dump = json("/config_dump").await;
    let types: Vec<_> = dump["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap()).collect();
    assert!(types.contains(&"type.googleapis.com/envoy.admin.v3.ClustersConfigDump"), "{types:?}");
    let part = json("/config_dump?resource=dynamic_active_clusters").await;
    assert_eq!(part["configs"][0]["cluster"]["name"], "a");
    let part = json("/config_dump?resource=dynamic_route_configs").await;
    assert_eq!(part["configs"][0]["route_config"]["virtual_hosts"][0]["domains"][0], "*");
    let part = json("/config_dump?include_eds&resource=dynamic_endpoint_configs").await;
    assert_eq!(part["configs"][0]["endpoint_config"]["cluster_name"], "a");
    let mut bad = listener("l", at, vec![http_chain(hcm("r"))]);
    bad.filter_chains.push(bad.filter_chains[0].clone());
    ads.set([("l", bad)]);
    eventually("the refusal shows", async || {
        let part = json("/config_dump?resource=dynamic_listeners").await;
        part["configs"][0]["error_state"]["details"].as_str().is_some_and(|why| why.contains("matches the same"))
    })
    .await;
    assert_eq!(get(at, "/").await.unwrap().status, 200, "the last good one serves");
    let status = json("/clusters?format=json").await;
    let host = &status["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], origin.address.port());
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(json("/listeners?format=json").await["listener_statuses"][0]["name"], "l");
    assert_eq!(json("/server_info").await["state"], "LIVE");
    assert!(json("/stats?format=json&filter=requests_active").await["stats"].as_array().unwrap().len() == 1);
    assert_eq!(get(gateway.admin, "/quitquitquit").await.unwrap().status, 405, "only by POST");
    assert_eq!(post(gateway.admin, "/logging?level=error").await, (200, "error\n".to_owned()));
    assert_eq!(post(gateway.admin, "/healthcheck/fail").await.0, 200);
    assert_eq!(post(gateway.admin, "/quitquitquit").await.0, 200);
    let mut gateway = gateway;
    assert!(gateway.exited().await.success());
}

#[tokio::test]
async fn a_file_stands_instead_of_a_control_plane() {
    let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
    let (at, folder) = (free(), tempfile::tempdir().unwrap());
    let path = folder.path().join("gateway.yaml");
    let text = |origin: SocketAddr| {
        format!(
            r#"
static_resources:
  listeners:
  - name: l
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config:
            name: r
            virtual_hosts:
            - {{ name: v, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: c, timeout: 1.5s }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: c
    load_assignment:
      cluster_name: c
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]
"#,
            at.ip(),
            at.port(),
            origin.ip(),
            origin.port()
        )
    };
    std::fs::write(&path, text(a.address)).unwrap();
    let file = path.display().to_string();
    let gateway = Gateway::from_file(&file).await;
    assert_eq!(get(at, "/").await.unwrap().body, "a");
    let dump = get(gateway.admin, "/config_dump").await.unwrap().body;
    assert!(dump.contains("static_listeners") && dump.contains("static_route_configs"), "{dump}");
    // As a whole: a file that is being written may be read half-way.
    let replace = |text: String| {
        std::fs::write(folder.path().join("next"), text).unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
    };
    replace(text(b.address));
    eventually("the change is taken", async || get(at, "/").await.unwrap().body == "b").await;
    replace(text(a.address).replace("stat_prefix", "stat_prefxi"));
    eventually("the mistake shows", async || {
        get(gateway.admin, "/server_info").await.unwrap().body.contains("stat_prefxi")
    })
    .await;
    assert_eq!(get(at, "/").await.unwrap().body, "b", "what was read before serves");
}

#[tokio::test]
async fn a_damaged_state_is_not_served_and_not_fatal() {
    let origin = Origin::http1("a").await;
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("last-good-config.pb"), b"tombolo-gateway-state-1\nnonsense").unwrap();
    let ads = Ads::start().await;
    let at = free();
    show(&ads, at, origin.address);
    let _gateway = Gateway::ready(&Options { state: Some(state.path()), ..Options::new(ads.address) }).await;
    assert_eq!(get(at, "/").await.unwrap().body, "a");
}
