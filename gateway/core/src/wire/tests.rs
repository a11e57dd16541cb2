//! Tests of `wire`.

use super::*;
use crate::{
    config::{
        ClusterChoice, Discovery, FilterOverride, HttpFilterKind, PathMatch, RouteSource, RouteTarget, SecretRef,
        SecretSource, Terminal, ValidationSource,
    },
    testing::{any as packed, hcm_message, listener_message, route_to, router, table_message},
};
use proptest::prelude::*;
use prost::{Message, Name};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{self as c, cluster as cc},
            core::v3 as core,
            listener::v3 as l,
            route::v3 as r,
        },
        extensions::{
            filters::{
                http::{cors::v3::CorsPolicy, lua::v3::Lua},
                network::http_connection_manager::v3::{self as h, http_connection_manager as hh, http_filter},
            },
            transport_sockets::tls::v3 as t,
        },
    },
    google::protobuf as pb,
};

fn refused(kind: Kind, message: &impl Message) -> String {
    decode(kind, "", &message.encode_to_vec()).map(|_| ()).expect_err("should be refused").to_string()
}

fn listener_with(manager: h::HttpConnectionManager) -> ListenerMessage {
    listener_message("l", packed(&manager))
}

fn manager_of(message: &ListenerMessage) -> Arc<crate::config::Hcm> {
    let Ok(Resource::Listener(listener)) = decode(Kind::Listener, "l", &message.encode_to_vec()) else {
        panic!("refused")
    };
    let Terminal::Http(hcm) = &listener.chains[0].terminal else { panic!("not HTTP") };
    Arc::clone(hcm)
}

fn filter(name: &str, config: pb::Any, is_optional: bool) -> h::HttpFilter {
    h::HttpFilter {
        name: name.into(),
        is_optional,
        disabled: false,
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
    }
}

#[test]
fn a_manager_gets_the_defaults_of_envoy() {
    let hcm = manager_of(&listener_with(hcm_message("l", vec![router()])));
    assert_eq!(hcm.routes, RouteSource::Named("l".into()));
    assert_eq!(hcm.timeouts.stream_idle, Some(std::time::Duration::from_secs(300)));
    assert_eq!((hcm.limits.headers, hcm.limits.headers_kb), (100, 60));
    assert!(hcm.request_id.generate && !hcm.use_remote_address && !hcm.path.normalize);
}

#[test]
fn unknown_filters_are_refused_by_name_unless_optional() {
    let lua = packed(&Lua::default());
    let required = listener_with(hcm_message("l", vec![filter("my.lua", lua.clone(), false), router()]));
    let why = refused(Kind::Listener, &required);
    assert!(why.contains("l: filter_chains[0].filters[0].typed_config.http_filters[0].my.lua"), "{why}");
    assert!(why.contains("envoy.extensions.filters.http.lua.v3.Lua"), "{why}");

    let optional = listener_with(hcm_message("l", vec![filter("my.lua", lua, true), router()]));
    assert_eq!(manager_of(&optional).filters.len(), 1);
}

#[test]
fn mesh_statistics_are_known_by_name_and_within_a_struct() {
    // Field 1 of a TypedStruct is the real type.
    let real = b"type.googleapis.com/stats.PluginConfig";
    let inner = [&[0x0a, u8::try_from(real.len()).unwrap()][..], real].concat();
    let wrapped = pb::Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(), value: inner };
    let hcm = manager_of(&listener_with(hcm_message("l", vec![filter("other", wrapped, false), router()])));
    assert!(hcm.mesh_stats);
    assert!(matches!(hcm.filters[0].kind, HttpFilterKind::MeshStats));
}

#[test]
fn the_router_stands_at_the_end() {
    assert!(refused(Kind::Listener, &listener_with(hcm_message("l", vec![]))).contains("no router"));
    let twice = listener_with(hcm_message("l", vec![router(), router()]));
    assert!(refused(Kind::Listener, &twice).contains("the router must be the last"));
}

#[test]
fn fields_that_nobody_reads_are_refused_by_name() {
    let mut written = hcm_message("l", vec![router()]);
    let vhds = Some(r::Vhds { config_source: Some(crate::testing::ads()) });
    written.route_specifier = Some(hh::RouteSpecifier::RouteConfig(RouteConfiguration { vhds, ..Default::default() }));
    assert!(refused(Kind::Listener, &listener_with(written)).contains("route_config.vhds: only in routes"));
    let plugins = RouteConfiguration {
        name: "t".into(),
        cluster_specifier_plugins: vec![r::ClusterSpecifierPlugin::default()],
        ..Default::default()
    };
    assert_eq!(refused(Kind::Routes, &plugins), "t: cluster_specifier_plugins: not supported");
    let lrs =
        ClusterMessage { name: "c".into(), lrs_server: Some(core::ConfigSource::default()), ..Default::default() };
    assert_eq!(refused(Kind::Cluster, &lrs), "c: lrs_server: not supported");
}

#[test]
fn two_chains_for_the_same_connections_are_refused() {
    let mut twice = listener_with(hcm_message("l", vec![router()]));
    twice.filter_chains.push(twice.filter_chains[0].clone());
    assert!(
        refused(Kind::Listener, &twice).contains("filter_chains[1]: matches the same connections as filter_chains[0]")
    );
}

#[test]
fn clusters_get_the_defaults_of_envoy() {
    let message = ClusterMessage {
        name: "c".into(),
        cluster_discovery_type: Some(cc::ClusterDiscoveryType::Type(cc::DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(cc::EdsClusterConfig {
            eds_config: Some(crate::testing::ads()),
            service_name: "s".into(),
        }),
        ..Default::default()
    };
    let Ok(Resource::Cluster(cluster)) = decode(Kind::Cluster, "c", &message.encode_to_vec()) else {
        panic!("refused")
    };
    assert_eq!(cluster.discovery, Discovery::Eds("s".into()));
    assert_eq!(cluster.connect_timeout.as_secs(), 5);
    assert_eq!((cluster.breakers.default.requests, cluster.breakers.default.retries), (1024, 3));
    assert_eq!(cluster.http.versions, crate::config::HttpVersions::Http1);
    assert!(cluster.outlier.is_none());
}

#[test]
fn unknown_balancing_is_refused_and_the_first_known_policy_is_taken() {
    let policy = |config: pb::Any| c::load_balancing_policy::Policy {
        typed_extension_config: Some(core::TypedExtensionConfig { name: "p".into(), typed_config: Some(config) }),
    };
    let unknown = pb::Any { type_url: "type.googleapis.com/some.Policy".into(), value: vec![] };
    let with = |policies: Vec<_>| ClusterMessage {
        name: "c".into(),
        load_balancing_policy: Some(c::LoadBalancingPolicy { policies }),
        ..Default::default()
    };
    assert!(refused(Kind::Cluster, &with(vec![policy(unknown.clone())])).contains("some.Policy"));
    let random =
        tombolo_controlplane_api::xds::envoy::extensions::load_balancing_policies::random::v3::Random::default();
    let message = with(vec![policy(unknown), policy(packed(&random))]);
    let Ok(Resource::Cluster(cluster)) = decode(Kind::Cluster, "", &message.encode_to_vec()) else { panic!("refused") };
    assert_eq!(cluster.lb.policy, crate::config::LbPolicy::Random);
}

#[test]
fn routes_decode() {
    let mut route = route_to("c", r::route_match::PathSpecifier::PathSeparatedPrefix("/a".into()));
    route
        .typed_per_filter_config
        .insert("cors".into(), packed(&CorsPolicy { allow_methods: "GET".into(), ..Default::default() }));
    let Ok(Resource::Routes(table)) =
        decode(Kind::Routes, "t", &table_message("t", &["a.b"], vec![route]).encode_to_vec())
    else {
        panic!("refused")
    };
    let route = &table.hosts[0].routes[0];
    assert_eq!(route.matches.path, PathMatch::Separated("/a".into()));
    let RouteTarget::Forward(action) = &route.target else { panic!("does not forward") };
    assert_eq!(action.cluster, ClusterChoice::One("c".into()));
    assert_eq!(action.timeout, Some(std::time::Duration::from_secs(15)));
    assert!(matches!(&route.overrides[0], (name, FilterOverride::Cors(_)) if &**name == "cors"));
}

#[test]
fn route_tables_with_mistakes_are_refused() {
    use r::route_match::PathSpecifier as P;
    let table = |path: P| table_message("t", &["a"], vec![route_to("c", path)]);
    let regex = |pattern: &str| {
        P::SafeRegex(tombolo_controlplane_api::xds::envoy::r#type::matcher::v3::RegexMatcher {
            regex: pattern.into(),
            ..Default::default()
        })
    };
    assert!(refused(Kind::Routes, &table(regex("a("))).contains("virtual_hosts[0].routes[0].match.safe_regex"));
    assert!(refused(Kind::Routes, &table(regex("(x{1000}){1000}"))).contains("too large"));
    assert!(refused(Kind::Routes, &table(P::PathSeparatedPrefix("/a/".into()))).contains("path_separated_prefix"));
    let mut twice = table(P::Prefix("/".into()));
    twice.virtual_hosts.push(twice.virtual_hosts[0].clone());
    assert!(refused(Kind::Routes, &twice).contains("\"a\" is there twice"));
}

#[test]
fn header_operators_that_are_not_known_are_refused() {
    let mut table = table_message("t", &["a"], vec![]);
    table.request_headers_to_add.push(core::HeaderValueOption {
        header: Some(core::HeaderValue { key: "x".into(), value: "%NOPE%".into(), ..Default::default() }),
        ..Default::default()
    });
    assert!(
        refused(Kind::Routes, &table)
            .contains("request_headers_to_add[0].header.value: %NOPE% is not a known operator")
    );
    table.request_headers_to_add[0].header.as_mut().unwrap().key = ":path".into();
    assert!(refused(Kind::Routes, &table).contains(":path"));
}

fn inline(bytes: &[u8]) -> Option<core::DataSource> {
    let specifier = Some(core::data_source::Specifier::InlineBytes(bytes.to_vec()));
    Some(core::DataSource { watched_directory: None, specifier })
}

#[test]
fn secrets_keep_bundles_apart_and_never_read_files() {
    let domain = |name: &str| t::spiffe_cert_validator_config::TrustDomain {
        name: name.into(),
        trust_bundle: inline(name.as_bytes()),
        workload_trust_domain: String::new(),
    };
    let validator =
        t::SpiffeCertValidatorConfig { trust_domains: vec![domain("east"), domain("west")], trust_bundles: None };
    let context = t::CertificateValidationContext {
        custom_validator_config: Some(core::TypedExtensionConfig {
            name: "spiffe".into(),
            typed_config: Some(packed(&validator)),
        }),
        ..Default::default()
    };
    let message = SecretMessage { name: "ROOTCA".into(), r#type: Some(t::secret::Type::ValidationContext(context)) };
    let Ok(Resource::Secret(name, secret)) = decode(Kind::Secret, "ROOTCA", &message.encode_to_vec()) else {
        panic!("refused")
    };
    let Secret::Validation(validation) = &*secret else { panic!("not a validation context") };
    assert_eq!((&*name, validation.bundles.len()), ("ROOTCA", 2));
    assert_eq!(validation.bundles[1].roots.as_ref(), b"west");

    let file = core::DataSource {
        watched_directory: None,
        specifier: Some(core::data_source::Specifier::Filename("roots.pem".into())),
    };
    let context = t::CertificateValidationContext { trusted_ca: Some(file), ..Default::default() };
    let message = SecretMessage { name: "s".into(), r#type: Some(t::secret::Type::ValidationContext(context)) };
    assert_eq!(refused(Kind::Secret, &message), "s: validation_context.trusted_ca.filename: not supported");
}

#[test]
fn a_key_that_is_no_pem_is_refused() {
    let secret = |key: &str| {
        let certificate = t::TlsCertificate {
            certificate_chain: inline(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"),
            private_key: inline(key.as_bytes()),
            ..Default::default()
        };
        SecretMessage { name: "s".into(), r#type: Some(t::secret::Type::TlsCertificate(certificate)) }
    };
    for kind in ["", "EC ", "RSA "] {
        let key = format!("-----BEGIN {kind}PRIVATE KEY-----\r\nAA==\r\n-----END {kind}PRIVATE KEY-----\n");
        assert!(decode(Kind::Secret, "s", &secret(&key).encode_to_vec()).is_ok());
        let cut = key.replace("-----END", "");
        for bad in [&cut, "", "AA==", &key.replace("PRIVATE", "PUBLIC")] {
            assert_eq!(refused(Kind::Secret, &secret(bad)), "s: tls_certificate.private_key: no PEM of a private key");
        }
    }
}

#[test]
fn comparisons_without_a_value_are_refused() {
    use tombolo_controlplane_api::xds::envoy::{
        config::accesslog::v3 as log, extensions::access_loggers::stream::v3::StdoutAccessLog,
    };
    let stdout = StdoutAccessLog::default();
    let mut manager = hcm_message("x", vec![router()]);
    manager.access_log.push(log::AccessLog {
        filter: Some(log::AccessLogFilter {
            filter_specifier: Some(log::access_log_filter::FilterSpecifier::StatusCodeFilter(log::StatusCodeFilter {
                comparison: Some(log::ComparisonFilter::default()),
            })),
        }),
        config_type: Some(log::access_log::ConfigType::TypedConfig(packed(&stdout))),
        ..Default::default()
    });
    let told = refused(Kind::Listener, &listener_with(manager));
    assert!(told.contains("status_code_filter.comparison.value: missing"), "{told}");
}

#[test]
fn answers_for_missing_clusters_are_of_the_enumeration() {
    let mut table = table_message("t", &["a"], vec![route_to("c", r::route_match::PathSpecifier::Prefix("/".into()))]);
    let Some(r::route::Action::Route(action)) = &mut table.virtual_hosts[0].routes[0].action else { panic!("a route") };
    action.cluster_not_found_response_code = 3;
    assert!(refused(Kind::Routes, &table).contains("cluster_not_found_response_code"));
}

#[test]
fn roots_may_be_in_a_file_that_an_absolute_path_names() {
    let file = core::data_source::Specifier::Filename("/etc/partner/roots.pem".into());
    let source = core::DataSource { watched_directory: None, specifier: Some(file) };
    let context = t::CertificateValidationContext { trusted_ca: Some(source), ..Default::default() };
    let message = SecretMessage { name: "s".into(), r#type: Some(t::secret::Type::ValidationContext(context)) };
    let Ok(Resource::Secret(_, secret)) = decode(Kind::Secret, "s", &message.encode_to_vec()) else {
        panic!("refused")
    };
    let Secret::Validation(validation) = &*secret else { panic!("not a validation context") };
    assert_eq!(validation.roots_file.as_deref(), Some("/etc/partner/roots.pem"));
    assert!(!validation.system_roots && validation.roots.is_none());
}

#[test]
fn names_without_roots_are_refused() {
    let exact = tombolo_controlplane_api::xds::envoy::r#type::matcher::v3::StringMatcher {
        match_pattern: Some(
            tombolo_controlplane_api::xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact("a".into()),
        ),
        ..Default::default()
    };
    let san = t::SubjectAltNameMatcher {
        san_type: t::subject_alt_name_matcher::SanType::Dns.into(),
        matcher: Some(exact),
        oid: String::new(),
    };
    let context = t::CertificateValidationContext { match_typed_subject_alt_names: vec![san], ..Default::default() };
    let secret =
        |context| SecretMessage { name: "s".into(), r#type: Some(t::secret::Type::ValidationContext(context)) };
    assert_eq!(
        refused(Kind::Secret, &secret(context.clone())),
        "s: validation_context.match_typed_subject_alt_names: names mean nothing without trusted_ca"
    );
    let roots = core::data_source::Specifier::Filename("/etc/partner/roots.pem".into());
    let source = core::DataSource { watched_directory: None, specifier: Some(roots) };
    let context = t::CertificateValidationContext { trusted_ca: Some(source), ..context };
    assert!(decode(Kind::Secret, "s", &secret(context).encode_to_vec()).is_ok());
}

#[test]
fn the_bundle_of_the_system_means_the_roots_of_the_system() {
    let file = core::data_source::Specifier::Filename("/etc/ssl/certs/ca-certificates.crt".into());
    let source = core::DataSource { watched_directory: None, specifier: Some(file) };
    let context = t::CertificateValidationContext { trusted_ca: Some(source), ..Default::default() };
    let message = SecretMessage { name: "s".into(), r#type: Some(t::secret::Type::ValidationContext(context)) };
    let Ok(Resource::Secret(_, secret)) = decode(Kind::Secret, "s", &message.encode_to_vec()) else {
        panic!("refused")
    };
    let Secret::Validation(validation) = &*secret else { panic!("not a validation context") };
    assert!(validation.system_roots && validation.roots.is_none());
}

#[test]
fn own_certificates_are_told_from_those_of_the_control_plane() {
    let grpc = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(core::grpc_service::EnvoyGrpc {
            cluster_name: "sds-grpc".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let api = core::ApiConfigSource { grpc_services: vec![grpc], ..Default::default() };
    let own = core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(api)),
        ..Default::default()
    };
    let common = t::CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![t::SdsSecretConfig { name: "default".into(), sds_config: Some(own) }],
        validation_context_type: Some(t::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(
            t::SdsSecretConfig { name: "ROOTCA".into(), sds_config: Some(crate::testing::ads()) },
        )),
        ..Default::default()
    };
    let tls = tls::upstream(t::UpstreamTlsContext { common_tls_context: Some(common), ..Default::default() }).unwrap();
    assert_eq!(*tls.common.certificates, [SecretRef::Named(SecretSource::Own, "default".into())]);
    assert_eq!(tls.common.validation, Some(ValidationSource::Named(SecretSource::Ads, "ROOTCA".into())));
}

#[test]
fn a_resource_under_another_name_is_refused() {
    let table = table_message("t", &["a"], vec![]);
    assert!(decode(Kind::Routes, "other", &table.encode_to_vec()).is_err());
}

#[test]
fn the_table_of_types_names_what_the_resources_are() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.type_url()), Some(kind));
        assert!(SUPPORTED.iter().any(|row| kind.type_url().ends_with(row.message)), "{kind:?}");
    }
    assert_eq!(Kind::Listener.type_url(), format!("type.googleapis.com/{}", l::Listener::full_name()));
}

proptest! {
    #[test]
    fn no_bytes_bring_the_decoder_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = decode(kind, "", &bytes);
        }
    }

    #[test]
    fn damaged_listeners_are_refused_or_taken(at in 0usize..400, with in any::<u8>()) {
        let mut bytes = listener_with(hcm_message("l", vec![router()])).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = decode(Kind::Listener, "", &bytes);
    }
}
