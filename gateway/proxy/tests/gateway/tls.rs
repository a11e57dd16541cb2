//! TLS: identities, names, and bytes that are not ours to read.

use crate::{
    build::{self, cluster, endpoints, for_sni, hcm, http_chain, inspecting, listener, routes, to},
    client::{Connection, Got},
    http::{show, simple},
    issuing::Issuing,
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::envoy::{
        config::{
            core::v3::{
                ApiConfigSource, ConfigSource, DataSource, GrpcService, TypedExtensionConfig,
                config_source::ConfigSourceSpecifier,
                data_source::Specifier,
                grpc_service::{EnvoyGrpc, TargetSpecifier},
            },
            listener::v3::FilterChain,
        },
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
            SpiffeCertValidatorConfig, SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
            secret, spiffe_cert_validator_config,
            subject_alt_name_matcher::SanType as MatcherType,
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
};
use tombolo_tests_kit::{ads::Ads, free, trusting};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: String,
}

pub struct Leaf {
    pub chain: String,
    pub key: String,
}

pub fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), root }
}

impl Authority {
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let name = |n: &&str| {
            if n.contains("://") {
                SanType::URI((*n).try_into().unwrap())
            } else {
                SanType::DnsName((*n).try_into().unwrap())
            }
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.iter().map(name).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Leaf { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    /// Signs a request's key for an identity.
    pub fn sign(&self, csr: &str, identity: &str, life: Duration) -> String {
        let request = rcgen::CertificateSigningRequestParams::from_pem(csr).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + life).into();
        params.signed_by(&request.public_key, &self.issuer).unwrap().pem()
    }

    pub fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_slice(self.root.as_bytes()).unwrap()).unwrap();
        store
    }
}

impl Leaf {
    pub fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
    }
}

fn inline(text: &str) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineString(text.into())), ..Default::default() })
}

pub fn certificate(leaf: &Leaf) -> TlsCertificate {
    TlsCertificate { certificate_chain: inline(&leaf.chain), private_key: inline(&leaf.key), ..Default::default() }
}

/// Trust by SPIFFE rules.
pub fn spiffe(domains: &[(&str, &Authority)]) -> CertificateValidationContext {
    let domain = |(name, authority): &(&str, &Authority)| spiffe_cert_validator_config::TrustDomain {
        name: (*name).into(),
        trust_bundle: inline(&authority.root),
        ..Default::default()
    };
    let config =
        SpiffeCertValidatorConfig { trust_domains: domains.iter().map(domain).collect(), ..Default::default() };
    CertificateValidationContext {
        custom_validator_config: Some(TypedExtensionConfig {
            name: "envoy.tls.cert_validator.spiffe".into(),
            typed_config: Some(pack_any(config)),
        }),
        ..Default::default()
    }
}

fn server(mut chain: FilterChain, leaf: &Leaf, trust: Option<CertificateValidationContext>) -> FilterChain {
    let context = DownstreamTlsContext {
        require_client_certificate: trust.is_some().then(|| build::yes().unwrap()),
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: vec![certificate(leaf)],
            validation_context_type: trust.map(ValidationContextType::ValidationContext),
            alpn_protocols: vec!["h2".into(), "http/1.1".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    chain.transport_socket = Some(build::socket("envoy.transport_sockets.tls", pack_any(context)));
    chain
}

pub fn install() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

async fn https(
    at: SocketAddr,
    sni: &str,
    leaf: Option<&Leaf>,
    alpn: &[&str],
) -> Result<Got, Box<dyn std::error::Error + Send + Sync>> {
    // The names in a mesh are no DNS names.
    let builder = trusting(rustls::DEFAULT_VERSIONS);
    let mut config = match leaf {
        Some(leaf) => {
            let (chain, key) = leaf.parts();
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(at).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(sni.to_owned())?, tcp).await?;
    let version2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut connection = if version2 { Connection::http2(stream).await? } else { Connection::http1(stream).await? };
    connection.get("h", "/headers").await
}

const EAST: &str = "spiffe://east/ns/default/sa/caller";

#[tokio::test]
async fn only_identities_of_their_own_bundle_come_in() {
    let (east, west, stranger) = (authority(), authority(), authority());
    let origin = Origin::http1("a").await;
    let own = east.leaf(&["spiffe://east/ns/default/sa/server"]);
    let (_ads, gateway, at) = simple(&origin, |ads, at| {
        let mut manager = hcm("r");
        manager.forward_client_cert_details = 2;
        let chain = server(http_chain(manager), &own, Some(spiffe(&[("east", &east), ("west", &west)])));
        ads.set([("l", listener("l", at, vec![chain]))]);
    })
    .await;
    for alpn in [&["h2"][..], &["http/1.1"], &["istio"], &[]] {
        let got = https(at, "any", Some(&east.leaf(&[EAST])), alpn).await.unwrap();
        assert_eq!(got.status, 200, "{alpn:?}");
        assert!(got.body.contains("x-forwarded-client-cert: "), "{}", got.body);
    }
    assert!(https(at, "any", Some(&west.leaf(&["spiffe://west/ns/a/sa/b"])), &[]).await.is_ok());
    for (what, leaf) in [
        ("another domain's root", Some(west.leaf(&[EAST]))),
        ("a domain without bundle", Some(east.leaf(&["spiffe://north/ns/a/sa/b"]))),
        ("an unknown root", Some(stranger.leaf(&[EAST]))),
        ("two identities", Some(east.leaf(&[EAST, "spiffe://east/ns/a/sa/b"]))),
        ("no identity", Some(east.leaf(&["caller.example"]))),
        ("no certificate", None),
    ] {
        assert!(https(at, "any", leaf.as_ref(), &[]).await.is_err(), "{what} should be refused");
    }
    // The client may hear of it a moment before it is counted.
    eventually("all six are counted", async || {
        gateway.metrics().await.contains("tombolo_gateway_downstream_handshakes_failed_total 6\n")
    })
    .await;
}

#[tokio::test]
async fn passthrough_goes_by_sni_and_never_decrypts() {
    install();
    let ca = authority();
    let mut origins = Vec::new();
    for name in ["one.mesh", "two.mesh"] {
        let (chain, key) = ca.leaf(&[name]).parts();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        origins.push(socket.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = socket.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(tcp).await {
                        let _ = stream.write_all(name.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                });
            }
        });
    }
    let ads = Ads::start().await;
    let at = free();
    ads.set([("one", cluster("one")), ("two", cluster("two"))]);
    ads.set([("one", endpoints("one", &[origins[0]])), ("two", endpoints("two", &[origins[1]]))]);
    let chains = vec![for_sni(build::tcp_chain("one"), &["one.mesh"]), for_sni(build::tcp_chain("two"), &["*.mesh"])];
    ads.set([("l", inspecting(listener("l", at, chains)))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let config = Arc::new(ClientConfig::builder().with_root_certificates(ca.store()).with_no_client_auth());
    for name in ["one.mesh", "two.mesh"] {
        let tcp = TcpStream::connect(at).await.unwrap();
        let mut stream =
            TlsConnector::from(config.clone()).connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, name);
    }
    let tcp = TcpStream::connect(at).await.unwrap();
    assert!(TlsConnector::from(config).connect(ServerName::try_from("elsewhere").unwrap(), tcp).await.is_err());
}

#[tokio::test]
async fn two_gateways_speak_mutual_tls() {
    let ca = authority();
    let origin = Origin::http1("behind").await;
    let inbound_id = "spiffe://east/ns/default/sa/server";
    let server_leaf = ca.leaf(&[inbound_id]);
    let (_ads, _gateway, inner) = simple(&origin, |ads, at| {
        let chain = server(http_chain(hcm("r")), &server_leaf, Some(spiffe(&[("east", &ca)])));
        ads.set([("l", listener("l", at, vec![chain]))]);
    })
    .await;
    for (expected, status) in [(inbound_id, 200), ("spiffe://east/ns/default/sa/other", 503)] {
        let client = ca.leaf(&[EAST]);
        let ads = Ads::start().await;
        let at = free();
        let mut trust = spiffe(&[("east", &ca)]);
        trust.match_typed_subject_alt_names = vec![SubjectAltNameMatcher {
            san_type: MatcherType::Uri as i32,
            matcher: Some(StringMatcher {
                match_pattern: Some(MatchPattern::Exact(expected.into())),
                ..Default::default()
            }),
            ..Default::default()
        }];
        let context = UpstreamTlsContext {
            sni: "outbound_.80_._.server".into(),
            common_tls_context: Some(CommonTlsContext {
                tls_certificates: vec![certificate(&client)],
                validation_context_type: Some(ValidationContextType::ValidationContext(trust)),
                alpn_protocols: vec!["istio".into()],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut upstream = build::http2(cluster("c"));
        upstream.transport_socket = Some(build::socket("envoy.transport_sockets.tls", pack_any(context)));
        ads.set([("c", upstream)]);
        ads.set([("c", endpoints("c", &[inner]))]);
        ads.set([("r", routes("r", &[("*", vec![to("/", "c")])]))]);
        ads.set([("l", listener("l", at, vec![http_chain(hcm("r"))]))]);
        let _outer = Gateway::ready(&Options::new(ads.address)).await;
        let got = crate::client::get(at, "/").await.unwrap();
        assert_eq!(got.status, status, "{}", got.body);
    }
}

fn by_sds(name: &str, own: bool) -> SdsSecretConfig {
    let source = if own {
        let grpc = GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: "sds-grpc".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let api =
            ApiConfigSource { api_type: 2, transport_api_version: 2, grpc_services: vec![grpc], ..Default::default() };
        ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(api)),
            resource_api_version: 2,
            ..Default::default()
        }
    } else {
        build::ads()
    };
    SdsSecretConfig { name: name.into(), sds_config: Some(source) }
}

#[tokio::test]
async fn certificates_are_fetched_used_and_renewed() {
    install();
    let ca = Arc::new(authority());
    let control = ca.leaf(&["spiffe://east/ns/istio-system/sa/control"]);
    let issued: Arc<AtomicU32> = Arc::default();
    let issuing = Issuing {
        authority: ca.clone(),
        identity: "spiffe://east/ns/default/sa/server",
        token: "let me in",
        life: Duration::from_secs(4),
        issued: issued.clone(),
    };
    let ads = issuing.start(tonic::transport::Identity::from_pem(&control.chain, &control.key)).await;
    let origin = Origin::http1("a").await;
    let at = free();
    let context = DownstreamTlsContext {
        require_client_certificate: build::yes(),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![by_sds("default", true)],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(CertificateValidationContext::default()),
                    validation_context_sds_secret_config: Some(by_sds("ROOTCA", false)),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut chain = http_chain(hcm("r"));
    chain.transport_socket = Some(build::socket("envoy.transport_sockets.tls", pack_any(context)));
    ads.set([(
        "ROOTCA",
        Secret { name: "ROOTCA".into(), r#type: Some(secret::Type::ValidationContext(spiffe(&[("east", &ca)]))) },
    )]);
    show(&ads, at, origin.address);
    ads.set([("l", listener("l", at, vec![chain]))]);
    let files = tempfile::tempdir().unwrap();
    let (roots, token) = (files.path().join("roots.pem"), files.path().join("token"));
    std::fs::write(&roots, &ca.root).unwrap();
    std::fs::write(&token, "wrong\n").unwrap();
    let mut options = Options::new(ads.address);
    let path = |p: &std::path::Path| p.to_str().unwrap().to_owned();
    options.more = vec![
        "--xds-roots".into(),
        path(&roots),
        "--token-file".into(),
        path(&token),
        "--xds-identity".into(),
        "spiffe://east/ns/istio-system/sa/control".into(),
    ];
    let mut gateway = Gateway::spawn(&options);
    eventually("the wrong token shows", async || {
        crate::client::get(gateway.admin, "/certs").await.is_ok_and(|r| r.body.contains("no such token"))
    })
    .await;
    std::fs::write(&token, "let me in\n").unwrap();
    gateway.until_ready().await;
    let client = ca.leaf(&[EAST]);
    assert_eq!(https(at, "any", Some(&client), &[]).await.unwrap().status, 200);
    let shown = crate::client::get(gateway.admin, "/certs").await.unwrap().body;
    assert!(shown.contains("spiffe://east/ns/default/sa/server") && !shown.contains("PRIVATE"), "{shown}");
    eventually("it is renewed before it expires", async || issued.load(Ordering::SeqCst) >= 3).await;
    assert_eq!(https(at, "any", Some(&client), &[]).await.unwrap().status, 200);

    // Whoever is not the control plane gets neither the token nor a word.
    let mut wrong = Options::new(ads.address);
    wrong.more = options.more.clone();
    wrong.more[5] = "spiffe://east/ns/default/sa/impostor".into();
    let other = Gateway::spawn(&wrong);
    eventually("the identity is refused", async || {
        crate::client::get(other.admin, "/server_info")
            .await
            .is_ok_and(|r| r.body.contains("not among the expected names"))
    })
    .await;
}
