//! Tests of `decide`.

use super::*;
use crate::{
    config::{
        Abort, AbortKind, Cors, Csrf, Delay, DelayKind, Fault, FilterOverride, Fraction, HttpFilter, LocalRateLimit,
        MetadataEntry, Regex, SetMetadata, StringMatch, StringMatcher, Upgrade,
    },
    failure::Flag,
    filter::TokenBucket,
    testing::{cluster, conn, hcm, head, route_to, table, table_message},
};
use tombolo_controlplane_api::xds::{
    envoy::config::route::v3::{self as pb, route_match::PathSpecifier as P},
    envoy::r#type::v3::FractionalPercent,
    google::protobuf::{Duration as PbDuration, UInt32Value},
};

fn prefix() -> P {
    P::Prefix("/".into())
}

fn config() -> Config {
    Config {
        clusters: ["c", "a", "b"].into_iter().map(|name| (Arc::from(name), cluster(name))).collect(),
        ..Config::default()
    }
}

fn caller(internal: bool) -> Caller {
    Caller { address: conn().remote, internal, edge: false }
}

fn decided(hcm: &Hcm, route: pb::Route, head: &Head) -> Decision {
    let table = table(&table_message("t", &["*"], vec![route]));
    let moment = Moment { now: Millis(5), active_faults: 0 };
    decide(&config(), hcm, Some(&table), &conn(), caller(true), head, moment, &mut Random::new(1))
}

fn forwarded(hcm: &Hcm, route: pb::Route, head: &Head) -> Box<Forward> {
    match decided(hcm, route, head) {
        Decision::Forward(forward) => forward,
        Decision::Reply(reply) => panic!("{reply:?}"),
    }
}

fn answered(hcm: &Hcm, route: pb::Route, head: &Head) -> Box<Reply> {
    match decided(hcm, route, head) {
        Decision::Reply(reply) => reply,
        Decision::Forward(forward) => panic!("{forward:?}"),
    }
}

fn action(route: &mut pb::Route) -> &mut pb::RouteAction {
    match route.action.as_mut() {
        Some(pb::route::Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn with(kind: HttpFilterKind) -> Hcm {
    let filter = |name: &str, kind| HttpFilter { name: name.into(), disabled: false, kind };
    Hcm {
        filters: [filter("f", kind), filter("router", HttpFilterKind::Router(RouterFilter::default()))].into(),
        ..hcm()
    }
}

fn always() -> Fraction {
    Fraction::always()
}

#[test]
fn what_cannot_be_routed_is_answered() {
    let nowhere = answered(&hcm(), route_to("c", P::Path("/other".into())), &head("/", &[]));
    assert_eq!((nowhere.status.as_u16(), nowhere.cause.details().as_str()), (404, "route_not_found"));
    let mut missing = route_to("missing", prefix());
    assert_eq!(answered(&hcm(), missing.clone(), &head("/", &[])).status.as_u16(), 503);
    action(&mut missing).cluster_not_found_response_code = 1;
    let reply = answered(&hcm(), missing, &head("/", &[]));
    assert_eq!((reply.status.as_u16(), reply.cause.details().as_str()), (404, "cluster_not_found"));
    assert!(reply.flags.contains(Flag::NoClusterFound));
    let none = decide(
        &config(),
        &hcm(),
        None,
        &conn(),
        caller(false),
        &head("/", &[]),
        Moment::default(),
        &mut Random::new(1),
    );
    assert!(matches!(none, Decision::Reply(reply) if reply.status.as_u16() == 404));
}

#[test]
fn clusters_share_by_weight() {
    let weight = |name: &str, weight| pb::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight: Some(UInt32Value { value: weight }),
        ..Default::default()
    };
    let weighted =
        pb::WeightedCluster { clusters: vec![weight("a", 3), weight("b", 1), weight("c", 0)], ..Default::default() };
    let mut route = route_to("x", prefix());
    action(&mut route).cluster_specifier = Some(pb::route_action::ClusterSpecifier::WeightedClusters(weighted));
    let table = table(&table_message("t", &["*"], vec![route]));
    let (config, hcm, conn) = (config(), hcm(), conn());
    let mut counts = [0; 2];
    let mut random = Random::new(42);
    for _ in 0..4000 {
        let decision =
            decide(&config, &hcm, Some(&table), &conn, caller(false), &head("/", &[]), Moment::default(), &mut random);
        let Decision::Forward(forward) = decision else { panic!("answered") };
        counts[usize::try_from(forward.weighted.unwrap()).unwrap()] += 1;
        assert_eq!(forward.cluster_weight().unwrap().name, forward.cluster);
    }
    assert!((2850..3150).contains(&counts[0]) && counts[0] + counts[1] == 4000, "{counts:?}");
}

#[test]
fn timeouts_come_from_the_route_and_from_trusted_headers() {
    let seconds = |seconds| Some(PbDuration { seconds, nanos: 0 });
    let mut route = route_to("c", prefix());
    assert_eq!(forwarded(&hcm(), route.clone(), &head("/", &[])).timeouts.global, Some(Duration::from_secs(15)));
    action(&mut route).timeout = seconds(0);
    assert_eq!(forwarded(&hcm(), route.clone(), &head("/", &[])).timeouts.global, None);
    action(&mut route).timeout = seconds(2);
    action(&mut route).retry_policy =
        Some(pb::RetryPolicy { retry_on: "5xx".into(), per_try_timeout: seconds(1), ..Default::default() });
    let told = head("/", &[("x-envoy-upstream-rq-timeout-ms", "900")]);
    let timeouts = forwarded(&hcm(), route.clone(), &told).timeouts;
    assert_eq!(
        (timeouts.global, timeouts.per_try),
        (Some(Duration::from_millis(900)), None),
        "a longer try is no bound"
    );
    let plain = forwarded(&hcm(), route.clone(), &head("/", &[])).timeouts;
    assert_eq!((plain.global, plain.per_try), (Some(Duration::from_secs(2)), Some(Duration::from_secs(1))));
    action(&mut route).max_stream_duration =
        Some(pb::route_action::MaxStreamDuration { grpc_timeout_header_max: seconds(0), ..Default::default() });
    let grpc = head("/", &[("content-type", "application/grpc"), ("grpc-timeout", "250m")]);
    let timeouts = forwarded(&hcm(), route, &grpc).timeouts;
    assert_eq!((timeouts.global, timeouts.max_stream), (None, Some(Duration::from_millis(250))));
}

#[test]
fn upgrades_need_permission() {
    let mut asking = head("/", &[]);
    asking.upgrade = "WebSocket".into();
    let refused = answered(&hcm(), route_to("c", prefix()), &asking);
    assert_eq!(refused.status.as_u16(), 403);
    let allowed = Hcm { upgrades: [Upgrade { kind: "websocket".into(), enabled: true }].into(), ..hcm() };
    assert_eq!(forwarded(&allowed, route_to("c", prefix()), &asking).upgrade, Some(UpgradePlan::Pass));
    let mut off = route_to("c", prefix());
    action(&mut off).upgrade_configs = vec![pb::route_action::UpgradeConfig {
        upgrade_type: "websocket".into(),
        enabled: Some(tombolo_controlplane_api::xds::google::protobuf::BoolValue { value: false }),
        ..Default::default()
    }];
    assert_eq!(answered(&allowed, off, &asking).status.as_u16(), 403);
}

fn fault(abort: Option<Abort>, delay: Option<Delay>) -> Fault {
    Fault {
        delay,
        abort,
        response_rate: None,
        upstream_cluster: "".into(),
        headers: Box::default(),
        downstream_nodes: Box::default(),
        max_active: Some(1),
    }
}

#[test]
fn faults_delay_and_abort() {
    let delay = Delay { kind: DelayKind::Fixed(Duration::from_secs(1)), share: always() };
    let abort = |kind| Some(Abort { kind, share: always() });
    let both = with(HttpFilterKind::Fault(Arc::new(fault(abort(AbortKind::Http(418)), Some(delay.clone())))));
    let reply = answered(&both, route_to("c", prefix()), &head("/", &[]));
    assert_eq!((reply.status.as_u16(), reply.delay), (418, Some(Duration::from_secs(1))));
    assert!(reply.flags.contains(Flag::DelayInjected) && reply.flags.contains(Flag::FaultInjected));

    let only_delay = with(HttpFilterKind::Fault(Arc::new(fault(None, Some(delay)))));
    let forward = forwarded(&only_delay, route_to("c", prefix()), &head("/", &[]));
    assert_eq!((forward.delay, forward.flags.contains(Flag::DelayInjected)), (Some(Duration::from_secs(1)), true));

    let by_header = with(HttpFilterKind::Fault(Arc::new(fault(abort(AbortKind::Header), None))));
    assert_eq!(
        answered(&by_header, route_to("c", prefix()), &head("/", &[("x-envoy-fault-abort-request", "503")]))
            .status
            .as_u16(),
        503
    );
    let off = head("/", &[("x-envoy-fault-abort-request", "503"), ("x-envoy-fault-abort-request-percentage", "0")]);
    forwarded(&by_header, route_to("c", prefix()), &off);
    forwarded(&by_header, route_to("c", prefix()), &head("/", &[]));
}

#[test]
fn no_more_faults_at_once_than_allowed() {
    let abort = Some(Abort { kind: AbortKind::Http(500), share: always() });
    let hcm = with(HttpFilterKind::Fault(Arc::new(fault(abort, None))));
    let table = table(&table_message("t", &["*"], vec![route_to("c", prefix())]));
    let busy = Moment { now: Millis(0), active_faults: 1 };
    let decision =
        decide(&config(), &hcm, Some(&table), &conn(), caller(false), &head("/", &[]), busy, &mut Random::new(1));
    assert!(matches!(decision, Decision::Forward(_)));
}

#[test]
fn preflights_are_answered_and_origins_allowed() {
    let cors = Cors {
        allow_origins: [StringMatcher {
            kind: StringMatch::Regex(Regex::parse(r"https://.*\.test").unwrap()),
            ignore_case: false,
        }]
        .into(),
        allow_methods: Some(HeaderValue::from_static("GET")),
        allow_headers: None,
        expose_headers: Some(HeaderValue::from_static("x-e")),
        max_age: None,
        allow_credentials: true,
        allow_private_network: false,
        forward_not_matching_preflights: true,
        enabled: always(),
        shadow: None,
    };
    let table = {
        let mut table = (*table(&table_message("t", &["*"], vec![route_to("c", prefix())]))).clone();
        table.overrides = [(Arc::from("f"), FilterOverride::Cors(Arc::new(cors)))].into();
        Arc::new(table)
    };
    let hcm = with(HttpFilterKind::Cors);
    let ask = |head: &Head| {
        decide(&config(), &hcm, Some(&table), &conn(), caller(false), head, Moment::default(), &mut Random::new(1))
    };
    let mut preflight = head("/", &[("origin", "https://a.test"), ("access-control-request-method", "GET")]);
    preflight.method = http::Method::OPTIONS;
    let Decision::Reply(reply) = ask(&preflight) else { panic!("forwarded") };
    assert_eq!((reply.status.as_u16(), reply.cause.details().as_str()), (200, "cors_response"));
    assert_eq!(reply.headers["access-control-allow-methods"], "GET");
    assert_eq!(reply.headers["access-control-expose-headers"], "x-e");
    let Decision::Forward(forward) = ask(&head("/", &[("origin", "https://a.test")])) else { panic!("answered") };
    let names: Vec<_> = forward.response_headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"]
    );
    let Decision::Forward(other) = ask(&head("/", &[("origin", "https://evil")])) else { panic!("answered") };
    assert!(other.response_headers.is_empty());
}

#[test]
fn filters_may_say_which_endpoints_are_wanted() {
    let said = [("v".into(), Value::Text("2".into()))];
    let entry = MetadataEntry { namespace: "envoy.lb".into(), value: Value::Map(Arc::new(said.into())), merge: false };
    let hcm = with(HttpFilterKind::SetMetadata(Arc::new(SetMetadata::new([entry].into()))));
    let mut decision = decided(&hcm, route_to("c", prefix()), &head("/", &[]));
    assert_eq!(decision.take_metadata().get("envoy.lb", "v"), Some(&Value::Text("2".into())));
    let Decision::Forward(forward) = decision else { panic!("answered") };
    assert_eq!(forward.metadata_match.unwrap()[..], [(Arc::from("v"), Value::Text("2".into()))]);
}

#[test]
fn pages_of_other_origins_change_nothing() {
    let hcm = with(HttpFilterKind::Csrf(Arc::new(Csrf { enabled: always(), origins: Box::default() })));
    let mut asked = head("/", &[("origin", "https://evil.example")]);
    assert!(matches!(decided(&hcm, route_to("c", prefix()), &asked), Decision::Forward(_)));
    asked.method = http::Method::POST;
    let Decision::Reply(reply) = decided(&hcm, route_to("c", prefix()), &asked) else { panic!("forwarded") };
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (403, &b"Invalid origin"[..]));
    assert_eq!(reply.cause.details(), "csrf_origin_mismatch");
}

#[test]
fn a_bucket_runs_dry_and_fills_again() {
    let limit = LocalRateLimit {
        stat_prefix: "".into(),
        bucket: Some(Arc::new(TokenBucket::new(2, 1, 100))),
        enabled: always(),
        enforced: always(),
        status: 429,
        response_headers: crate::config::HeaderChanges::default(),
        grpc_resource_exhausted: false,
        request_headers: crate::config::HeaderChanges::default(),
        descriptors: Box::default(),
        rules: Box::default(),
        stage: 0,
        host_rules: crate::config::HostRules::Otherwise,
        tell: true,
        tell_retry: true,
        always_default: true,
        each_connection: false,
    };
    let hcm = with(HttpFilterKind::LocalRateLimit(Arc::new(limit)));
    let table = table(&table_message("t", &["*"], vec![route_to("c", prefix())]));
    let passes = |now| {
        let moment = Moment { now: Millis(now), active_faults: 0 };
        let decision =
            decide(&config(), &hcm, Some(&table), &conn(), caller(false), &head("/", &[]), moment, &mut Random::new(1));
        matches!(decision, Decision::Forward(_))
    };
    assert_eq!(
        [passes(0), passes(1), passes(2), passes(100), passes(101), passes(1000), passes(1001), passes(1002)],
        [true, true, false, true, false, true, true, false]
    );
    let moment = Moment { now: Millis(1002), active_faults: 0 };
    let decision =
        decide(&config(), &hcm, Some(&table), &conn(), caller(false), &head("/", &[]), moment, &mut Random::new(1));
    let Decision::Reply(reply) = decision else { panic!("forwarded") };
    let told = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"]
        .map(|name| reply.headers[name].to_str().unwrap().to_owned());
    assert_eq!(told, ["2", "0", "1", "1"]);
}

#[test]
fn nonsense_from_trusted_peers_is_refused_where_asked() {
    let router = RouterFilter { strict_check_headers: [names::X_ENVOY_MAX_RETRIES].into(), ..RouterFilter::default() };
    let hcm = Hcm {
        filters: [HttpFilter { name: "router".into(), disabled: false, kind: HttpFilterKind::Router(router) }].into(),
        ..hcm()
    };
    let reply = answered(&hcm, route_to("c", prefix()), &head("/", &[("x-envoy-max-retries", "many")]));
    assert_eq!(reply.status.as_u16(), 400);
    forwarded(&hcm, route_to("c", prefix()), &head("/", &[("x-envoy-max-retries", "3")]));
}

#[test]
fn plaintext_is_redirected_where_tls_is_required() {
    let mut message = table_message("t", &["*"], vec![route_to("c", prefix())]);
    message.virtual_hosts[0].require_tls = 2;
    let mut asking = head("/x?y", &[("x-forwarded-proto", "http")]);
    asking.authority = "svc.test:80".into();
    let table = table(&message);
    let decision = decide(
        &config(),
        &hcm(),
        Some(&table),
        &conn(),
        caller(false),
        &asking,
        Moment::default(),
        &mut Random::new(1),
    );
    let Decision::Reply(reply) = decision else { panic!("forwarded") };
    assert_eq!((reply.status.as_u16(), reply.headers["location"].to_str().unwrap()), (301, "https://svc.test/x?y"));
}

#[test]
fn runtime_wins_over_what_is_written() {
    let weight = |name: &str| pb::weighted_cluster::ClusterWeight {
        name: name.into(),
        weight: Some(UInt32Value { value: 1 }),
        ..Default::default()
    };
    let weighted = pb::WeightedCluster {
        clusters: vec![weight("a"), weight("b")],
        runtime_key_prefix: "w".into(),
        ..Default::default()
    };
    let mut split = route_to("x", prefix());
    action(&mut split).cluster_specifier = Some(pb::route_action::ClusterSpecifier::WeightedClusters(weighted));
    let mut canary = route_to("c", prefix());
    canary.r#match.as_mut().unwrap().runtime_fraction =
        Some(tombolo_controlplane_api::xds::envoy::config::core::v3::RuntimeFractionalPercent {
            default_value: Some(FractionalPercent::default()),
            runtime_key: "canary".into(),
        });
    let table = table(&table_message("t", &["*"], vec![canary, split]));
    let number = |key: &str, value: f64| (Arc::from(key), crate::config::Value::Number(value));
    let ask = |values: Vec<(Arc<str>, crate::config::Value)>| {
        let layer = crate::config::Value::Map(Arc::new(values.into_iter().collect()));
        let runtime = Arc::new(crate::runtime::Runtime::merged([&layer]));
        let config = Config { runtime, ..config() };
        let decision = decide(
            &config,
            &hcm(),
            Some(&table),
            &conn(),
            caller(false),
            &head("/", &[]),
            Moment::default(),
            &mut Random::new(3),
        );
        let Decision::Forward(forward) = decision else { panic!("answered") };
        forward.cluster.to_string()
    };
    assert_eq!(ask(vec![number("canary", 100.0)]), "c");
    assert_eq!(ask(vec![number("w.a", 0.0)]), "b");
    assert_eq!(ask(vec![number("w.b", 0.0)]), "a");
}
