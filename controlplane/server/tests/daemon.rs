//! Whole daemons in this process: real sockets, real files, nothing faked.
// A test that cannot go on fails; the lint knows only functions that are tests themselves.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tombolo_controlplane_api::status::{FederationStatus, PeerStatus};
use tombolo_controlplane_server::{
    config::{Config, Listen, Peer, Remit, Source, SourceKind, own_identity},
    start,
};
use tombolo_federation_model::{ClusterId, NetworkId, SiteName, TrustDomain};
use tombolo_tests_kit::free;

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

struct Plan {
    name: &'static str,
    folder: PathBuf,
    xds: SocketAddr,
    plaintext: SocketAddr,
    peering: SocketAddr,
    admin: SocketAddr,
}

impl Plan {
    fn new(name: &'static str, dir: &TempDir) -> Self {
        let folder = dir.path().join(name);
        fs::create_dir_all(folder.join("manifests")).unwrap();
        let [xds, plaintext, peering, admin] = std::array::from_fn(|_| free());
        Self { name, folder, xds, plaintext, peering, admin }
    }

    fn domain(&self) -> TrustDomain {
        TrustDomain::parse(&format!("{}.local", self.name)).unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        // As a whole: a file that is being written looks empty for a moment, or for long on a busy machine.
        fs::write(self.folder.join(file), text).unwrap();
        fs::rename(self.folder.join(file), self.folder.join("manifests").join(file)).unwrap();
    }

    fn config(&self, peers: &[&Plan]) -> Config {
        let mut config = Config::from_yaml(
            &format!(
                "site: {}\ntrustDomain: {}\nlisten: {{xds: '{}', admin: '{}'}}\nstate: x\nexport: all\nlease: {{staleAfter: 1s, expireAfter: 1h}}\n",
                self.name,
                self.domain(),
                self.xds,
                self.admin
            ),
            "test",
        )
        .unwrap();
        config.state = self.folder.join("state");
        config.listen = Listen { xds_plaintext: Some(self.plaintext), peering: Some(self.peering), ..config.listen };
        config.sources = vec![Source {
            name: "user".to_owned(),
            kind: SourceKind::KubernetesFolder,
            path: self.folder.join("manifests"),
            namespace: "default".to_owned(),
        }];
        config.peers = peers.iter().map(|peer| peer.as_peer()).collect();
        config
    }

    fn as_peer(&self) -> Peer {
        Peer {
            name: SiteName::parse(self.name).unwrap(),
            address: Some(self.peering.to_string()),
            identity: own_identity(&self.domain()),
            bundle: self.folder.join("state/bundle.pem"),
            remit: Remit {
                clusters: BTreeSet::from([ClusterId::parse(self.name).unwrap()]),
                networks: BTreeSet::from([NetworkId::parse(self.name).unwrap()]),
                trust_domains: BTreeSet::from([self.domain()]),
            },
            relay: false,
        }
    }
}

struct Daemon {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(start::run(config, stop.clone()));
        Self { stop, task }
    }

    async fn stop(self) {
        let began = Instant::now();
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        // Well under a second where nothing else runs; one that waits for its readers takes for ever.
        assert!(began.elapsed() < PATIENCE, "stopping took {:?}", began.elapsed());
    }
}

async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

async fn status(plan: &Plan) -> Option<FederationStatus> {
    serde_json::from_str(&get(plan.admin, "/status").await?.1).ok()
}

/// Waits until the status says so.
async fn until(plan: &Plan, what: &str, holds: impl Fn(&FederationStatus) -> bool) -> FederationStatus {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < deadline {
        last = status(plan).await;
        if let Some(status) = last.as_ref().filter(|status| holds(status)) {
            return status.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{}: waited in vain until {what}: {last:#?}", plan.name);
}

/// Waits until a page says so.
async fn until_page(plan: &Plan, path: &str, holds: impl Fn(u16, &str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = get(plan.admin, path).await;
        if page.as_ref().is_some_and(|(code, page)| holds(*code, page)) {
            return;
        }
        assert!(Instant::now() < deadline, "{}: {path} says {page:?}", plan.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ready(plan: &Plan) {
    until_page(plan, "/healthz/ready", |code, _| code == 200).await;
}

fn shop(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, name: http}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-0, labels: {{app: {name}, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: a, image: a, ports: [{{containerPort: 80}}]}}]}}
status: {{podIP: {ip}, phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}
"
    )
}

fn peer(status: &FederationStatus) -> &PeerStatus {
    &status.site.peers[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sites_share_what_they_export_and_outlive_each_other() {
    let dir = TempDir::new().unwrap();
    let (east, west) = (Plan::new("east", &dir), Plan::new("west", &dir));
    east.write("shop.yaml", &shop("storefront", "10.1.0.1"));
    west.write("shop.yaml", &shop("reviews", "10.2.0.1"));
    // West is not there yet: east is ready all the same, and says what it waits for.
    let one = Daemon::start(east.config(&[&west]));
    let waits = |s: &FederationStatus| s.site.problems.iter().any(|p| p.contains("west") && p.contains("bundle"));
    let alone =
        until(&east, "its own source is read, and it misses west", |s| s.site.registry.services == 1 && waits(s)).await;
    assert!(!alone.site.healthy);
    ready(&east).await;
    let two = Daemon::start(west.config(&[&east]));
    for (plan, other) in [(&east, "west"), (&west, "east")] {
        let both = until(plan, "it is healthy and knows the other", |s| {
            let shown = (peer(s).state.as_str(), peer(s).services, peer(s).endpoints) == ("connected", 1, 1);
            let complete = s.others.len() == 1 && s.site.trust_domains.len() == 2;
            s.site.healthy && s.site.registry.imported == 1 && shown && complete
        })
        .await;
        assert_eq!(both.others[0].status.site, other);
    }
    // A change there is seen here.
    west.write("more.yaml", &shop("ratings", "10.2.0.2"));
    until(&east, "the new service of west is imported", |s| s.site.registry.imported == 2).await;
    // Every two seconds what was said is written down.
    let remembered = async {
        loop {
            let files = fs::read_dir(east.folder.join("state/peers")).into_iter().flatten().filter_map(Result::ok);
            if files.filter_map(|f| fs::read_to_string(f.path()).ok()).any(|text| text.contains("ratings")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, remembered).await.unwrap();
    // West goes away: what it said stays, and its age shows.
    two.stop().await;
    let stale = until(&east, "west is stale", |s| s.site.registry.stale_endpoints == 2 && !s.site.healthy).await;
    assert_eq!(stale.site.registry.imported, 2);
    assert_eq!(get(east.admin, "/healthz/ready").await.unwrap().0, 200);
    // East restarts while west is away: it still knows west's share, and how old it is.
    one.stop().await;
    let one = Daemon::start(east.config(&[&west]));
    let recalled = until(&east, "it recalls what west said", |s| s.site.registry.imported == 2).await;
    assert_eq!(recalled.site.registry.stale_endpoints, 2);
    let again = Daemon::start(west.config(&[&east]));
    until(&east, "west is back", |s| s.site.healthy && s.site.registry.stale_endpoints == 0).await;
    one.stop().await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_object_is_shown_and_its_last_good_version_stays() {
    let dir = TempDir::new().unwrap();
    let east = Plan::new("east", &dir);
    east.write("shop.yaml", &shop("storefront", "10.1.0.1"));
    let daemon = Daemon::start(east.config(&[]));
    until(&east, "it is healthy", |s| s.site.healthy && s.site.registry.services == 1).await;
    east.write("shop.yaml", "kind: [");
    let broken = until(&east, "the broken file is shown", |s| {
        let error = s.site.diagnostics.iter().any(|d| d.severity == "error" && d.place.contains("shop.yaml"));
        !s.site.healthy && error && s.site.diagnostics.iter().any(|d| d.code == "LAST_GOOD_KEPT")
    })
    .await;
    assert_eq!(broken.site.registry.services, 1);
    east.write("shop.yaml", &shop("storefront", "10.1.0.9"));
    until(&east, "it is healthy again", |s| s.site.healthy).await;
    let (code, metrics) = get(east.admin, "/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(metrics.contains("pilot_services 1") && metrics.contains("tombolo_healthy 1"), "{metrics}");
    until_page(&east, "/debug/registry", |code, page| code == 200 && page.contains("10.1.0.9")).await;
    assert_eq!(get(east.admin, "/debug/config?proxy=nobody").await.unwrap().0, 404);
    daemon.stop().await;
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let dir = TempDir::new().unwrap();
    let east = Plan::new("east", &dir);
    let _taken = StdListener::bind(east.admin).unwrap();
    let error = start::run(east.config(&[]), CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(&east.admin.to_string()) && error.contains("listen.admin"), "{error}");
    assert!(!Path::new(&east.folder.join("state")).exists(), "nothing was begun");
}

mod signing {
    //! A certificate over the real port, with a real token, judged by the same rules as any peer's.

    use super::*;
    use hyper_util::rt::TokioIo;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use tokio::sync::watch;
    use tombolo_controlplane_api::ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    };
    use tombolo_controlplane_server::config::Tokens;
    use tombolo_federation_peer::{
        Trust, TrustMap,
        verify::{Verifier, claimed_identity},
    };
    use tonic::{Request, transport::Endpoint};

    async fn client(plan: &Plan) -> IstioCertificateServiceClient<tonic::transport::Channel> {
        let pem = fs::read(plan.folder.join("state/bundle.pem")).unwrap();
        let root = CertificateDer::from_pem_slice(&pem).unwrap();
        let roots = TrustMap::from([(plan.domain(), vec![root])]);
        let trust = Trust::new(watch::channel(Arc::new(roots)).1);
        let verifier = Verifier::new(trust, Some(own_identity(&plan.domain())));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let address = plan.xds;
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let tcp = TcpStream::connect(address).await?;
                let name = ServerName::try_from("controlplane").unwrap();
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::try_from(format!("http://{address}")).unwrap();
        IstioCertificateServiceClient::new(endpoint.connect_with_connector(connect).await.unwrap())
    }

    fn token(dir: &Path, account: &str) -> (Tokens, String) {
        use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
        let pair = KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let jwks = dir.join("jwks.json");
        fs::write(&jwks, serde_json::json!({ "keys": [jwk] }).to_string()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = serde_json::json!({
            "iss": "up", "aud": ["istio-ca"], "exp": now + 600, "sub": format!("system:serviceaccount:default:{account}"),
        });
        let token = encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap();
        (Tokens { jwks, audience: "istio-ca".to_owned(), issuer: "up".to_owned() }, token)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_proxy_gets_the_name_of_its_token() {
        let dir = TempDir::new().unwrap();
        let east = Plan::new("east", &dir);
        let (tokens, token) = token(dir.path(), "reviews");
        let mut config = east.config(&[]);
        config.tokens = Some(tokens);
        let daemon = Daemon::start(config);
        until(&east, "it is healthy", |s| s.site.healthy).await;
        let mut client = client(&east).await;
        let ask = |bearer: Option<&str>| {
            let csr = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
            let csr = csr.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
            let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: 60, metadata: None });
            if let Some(bearer) = bearer {
                request.metadata_mut().insert("authorization", format!("Bearer {bearer}").parse().unwrap());
            }
            request
        };
        let chain = client.create_certificate(ask(Some(&token))).await.unwrap().into_inner().cert_chain;
        assert_eq!(chain.len(), 2);
        let leaf = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        assert_eq!(claimed_identity(&leaf).unwrap().to_string(), "spiffe://east.local/ns/default/sa/reviews");
        for nobody in [None, Some("nonsense")] {
            let refused = client.create_certificate(ask(nobody)).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{refused}");
        }
        let metrics = get(east.admin, "/metrics").await.unwrap().1;
        assert!(metrics.contains("citadel_server_csr_count 3"), "{metrics}");
        assert!(metrics.contains("citadel_server_success_cert_issuance_count 1"), "{metrics}");
        daemon.stop().await;
    }
}

mod discovery {
    //! What a proxy reads over the real port.

    use super::*;
    use std::collections::BTreeMap;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tombolo_controlplane_api::xds::envoy::{
        config::{core::v3::Node, endpoint::v3::ClusterLoadAssignment},
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    };
    use tombolo_federation_sync::types;
    use tonic::Streaming;

    const STOREFRONT: &str = "outbound|80||storefront.default.svc.cluster.local";

    struct Proxy {
        say: mpsc::Sender<DeltaDiscoveryRequest>,
        hear: Streaming<DeltaDiscoveryResponse>,
        /// Versions by name, by type.
        held: BTreeMap<String, BTreeMap<String, String>>,
    }

    impl Proxy {
        async fn connect(plan: &Plan, held: BTreeMap<String, BTreeMap<String, String>>) -> Self {
            let deadline = Instant::now() + PATIENCE;
            let mut client = loop {
                match AggregatedDiscoveryServiceClient::connect(format!("http://{}", plan.plaintext)).await {
                    Ok(client) => break client,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let (say, said) = mpsc::channel(16);
            let id = "sidecar~10.1.0.1~storefront-0.default~default.svc.cluster.local".to_owned();
            for type_url in [types::CLUSTER, types::ENDPOINT] {
                let request = DeltaDiscoveryRequest {
                    node: Some(Node { id: id.clone(), ..Node::default() }),
                    type_url: type_url.to_owned(),
                    resource_names_subscribe: if type_url == types::ENDPOINT {
                        vec![STOREFRONT.to_owned()]
                    } else {
                        vec![]
                    },
                    initial_resource_versions: held.get(type_url).cloned().unwrap_or_default().into_iter().collect(),
                    ..DeltaDiscoveryRequest::default()
                };
                say.send(request).await.unwrap();
            }
            let hear = client.delta_aggregated_resources(ReceiverStream::new(said)).await.unwrap().into_inner();
            Self { say, hear, held }
        }

        /// Takes and acknowledges one response.
        async fn next(&mut self) -> DeltaDiscoveryResponse {
            let response = tokio::time::timeout(PATIENCE, self.hear.message()).await.unwrap().unwrap().unwrap();
            let held = self.held.entry(response.type_url.clone()).or_default();
            response.removed_resources.iter().for_each(|name| drop(held.remove(name)));
            held.extend(response.resources.iter().map(|r| (r.name.clone(), r.version.clone())));
            let answer = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            };
            self.say.send(answer).await.unwrap();
            response
        }

        /// Takes responses until the endpoints of the storefront are these.
        async fn until_endpoints(&mut self, expected: &[&str]) {
            loop {
                let response = self.next().await;
                for resource in response.resources.iter().filter(|r| r.name == STOREFRONT && r.resource.is_some()) {
                    let any = resource.resource.as_ref().unwrap();
                    if any.type_url == types::ENDPOINT && addresses(&any.value) == expected {
                        return;
                    }
                }
            }
        }
    }

    fn addresses(body: &[u8]) -> Vec<String> {
        use prost::Message;
        use tombolo_controlplane_api::xds::envoy::config::{
            core::v3::address::Address, endpoint::v3::lb_endpoint::HostIdentifier,
        };
        let assignment = ClusterLoadAssignment::decode(body).unwrap();
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        let address = |host: Option<HostIdentifier>| match host {
            Some(HostIdentifier::Endpoint(endpoint)) => match endpoint.address?.address? {
                Address::SocketAddress(socket) => Some(socket.address),
                _ => None,
            },
            _ => None,
        };
        endpoints.filter_map(|endpoint| address(endpoint.host_identifier)).collect()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_proxy_follows_the_folder_and_a_restart_is_quiet() {
        let dir = TempDir::new().unwrap();
        let east = Plan::new("east", &dir);
        east.write("shop.yaml", &shop("storefront", "10.1.0.1"));
        let daemon = Daemon::start(east.config(&[]));
        let mut proxy = Proxy::connect(&east, BTreeMap::new()).await;
        proxy.until_endpoints(&["10.1.0.1"]).await;
        assert!(proxy.held[types::CLUSTER].contains_key(STOREFRONT), "{:?}", proxy.held[types::CLUSTER].keys());
        let began = Instant::now();
        east.write("shop.yaml", &shop("storefront", "10.1.0.9"));
        proxy.until_endpoints(&["10.1.0.9"]).await;
        // The promise is well under a second; a loaded machine gets more here.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let shown =
            until(&east, "the proxy is in sync", |s| s.site.proxies.iter().any(|p| p.connected && p.synced)).await;
        assert_eq!((shown.site.proxies[0].nacked, shown.site.proxies[0].role.as_str()), (0, "sidecar"));
        daemon.stop().await;
        // The folder is away at the restart: nothing is published, nothing taken for gone.
        let away = east.folder.join("away");
        fs::rename(east.folder.join("manifests"), &away).unwrap();
        let daemon = Daemon::start(east.config(&[]));
        let mut again = Proxy::connect(&east, proxy.held.clone()).await;
        until(&east, "the proxy is connected", |s| s.site.proxies.iter().any(|p| p.connected)).await;
        assert_eq!(get(east.admin, "/healthz/ready").await.unwrap().0, 503);
        fs::rename(&away, east.folder.join("manifests")).unwrap();
        let first = again.next().await;
        assert_eq!(
            (first.type_url.as_str(), first.resources.len(), first.removed_resources.len()),
            (types::CLUSTER, 0, 0)
        );
        ready(&east).await;
        assert_eq!(again.held, proxy.held);
        daemon.stop().await;
    }
}
