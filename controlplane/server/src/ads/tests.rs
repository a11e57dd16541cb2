//! A proxy's stream over a real loopback socket: both protocols, refusals, reconnects, and who may open one.

use super::*;
use crate::{
    ca::tests::{Issuer, claims, verifier, write_keys},
    proxies::ProxyTable,
    serve,
    world::Published,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc::Status as RpcStatus,
    },
};
use tombolo_federation_sync::{Resource, Snapshot, resource_set, types};
use tonic::transport::{Channel, Server};

fn snapshot(revision: u64, clusters: &[(&str, &str)]) -> Option<Published> {
    let resources = clusters.iter().map(|(name, body)| Arc::new(Resource::new(*name, body.as_bytes().to_vec())));
    let types = BTreeMap::from([(types::CLUSTER.into(), Arc::new(resource_set(resources)))]);
    Some(Published { snapshot: Arc::new(Snapshot { revision, types }), at: Instant::now() })
}

struct Site {
    address: SocketAddr,
    publish: watch::Sender<Option<Published>>,
    table: Arc<ProxyTable>,
    stop: CancellationToken,
}

async fn site(door: Door) -> Site {
    let (publish, published) = watch::channel(snapshot(1, &[("a", "1"), ("b", "1")]));
    let table = Arc::new(ProxyTable::default());
    let stop = CancellationToken::new();
    let service = Ads::server(World::showing(published), table.clone(), Arc::new(Metrics::new()), stop.clone(), door);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming_shutdown(serve::plain(listener), stop.clone().cancelled_owned()));
    Site { address, publish, table, stop }
}

async fn client(site: &Site) -> AggregatedDiscoveryServiceClient<Channel> {
    AggregatedDiscoveryServiceClient::connect(format!("http://{}", site.address)).await.unwrap()
}

fn node(namespace: &str, account: &str) -> Option<Node> {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let fields = [("NAMESPACE", namespace), ("SERVICE_ACCOUNT", account)];
    Some(Node {
        id: "sidecar~127.1.1.1~reviews-0.default~default.svc.cluster.local".to_owned(),
        metadata: Some(Struct { fields: fields.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect() }),
        ..Node::default()
    })
}

struct DeltaStream {
    say: mpsc::Sender<DeltaDiscoveryRequest>,
    hear: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaStream {
    async fn open(site: &Site, first: DeltaDiscoveryRequest) -> Result<Self, Status> {
        let (say, said) = mpsc::channel(8);
        say.send(first).await.unwrap();
        let hear = client(site).await.delta_aggregated_resources(ReceiverStream::new(said)).await?.into_inner();
        Ok(Self { say, hear })
    }

    async fn next(&mut self) -> (Vec<String>, Vec<String>, String) {
        let response = self.hear.message().await.unwrap().unwrap();
        let names = response.resources.into_iter().map(|r| r.name).collect();
        (names, response.removed_resources, response.nonce)
    }

    async fn answer(&self, nonce: &str, error: Option<&str>) {
        let error_detail = error.map(|message| RpcStatus { code: 13, message: message.to_owned(), details: vec![] });
        let request = DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail, ..clusters() };
        self.say.send(request).await.unwrap();
    }
}

fn clusters() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: types::CLUSTER.to_owned(), ..DeltaDiscoveryRequest::default() }
}

/// Waits until the table says so; the stream and the table are on other tasks.
async fn until(site: &Site, what: impl Fn(&tombolo_controlplane_api::status::ProxyStatus) -> bool) {
    let seen = async {
        while !site.table.status(Instant::now()).first().is_some_and(&what) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), seen).await.expect("the table should say so");
}

#[tokio::test]
async fn delta_sends_only_what_changed() {
    let site = site(Door::Open).await;
    let first = DeltaDiscoveryRequest { node: node("default", "reviews"), ..clusters() };
    let mut stream = DeltaStream::open(&site, first).await.unwrap();
    let (names, _, nonce) = stream.next().await;
    assert_eq!(names, ["a", "b"]);
    stream.answer(&nonce, None).await;
    until(&site, |proxy| proxy.synced && proxy.connected && proxy.protocol == "delta").await;
    site.publish.send_replace(snapshot(2, &[("a", "2"), ("c", "1")]));
    let (names, removed, nonce) = stream.next().await;
    assert_eq!((names, removed), (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]));
    stream.answer(&nonce, None).await;
    until(&site, |proxy| proxy.synced && proxy.sent == 2 && proxy.nacked == 0).await;
    drop(stream);
    until(&site, |proxy| !proxy.connected).await;
}

#[tokio::test]
async fn a_reconnect_sends_only_the_differences() {
    let site = site(Door::Open).await;
    let held = |clusters: &[(&str, &str)]| {
        let published = snapshot(0, clusters).unwrap().snapshot;
        let set = published.set(types::CLUSTER).unwrap().clone();
        set.values().map(|r| (r.name.to_string(), r.version.to_string())).collect()
    };
    let first = DeltaDiscoveryRequest {
        node: node("default", "reviews"),
        initial_resource_versions: held(&[("a", "1"), ("b", "0"), ("z", "1")]),
        ..clusters()
    };
    let mut stream = DeltaStream::open(&site, first).await.unwrap();
    let (names, removed, _) = stream.next().await;
    assert_eq!((names, removed), (vec!["b".to_owned()], vec!["z".to_owned()]));
}

#[tokio::test]
async fn a_refusal_is_shown_until_the_content_changes() {
    let site = site(Door::Open).await;
    let first = DeltaDiscoveryRequest { node: node("default", "reviews"), ..clusters() };
    let mut stream = DeltaStream::open(&site, first).await.unwrap();
    let (_, _, nonce) = stream.next().await;
    stream.answer(&nonce, Some("a: no such policy")).await;
    until(&site, |proxy| proxy.nacked == 1 && proxy.rejected.contains("a: no such policy") && !proxy.synced).await;
    site.publish.send_replace(snapshot(2, &[("a", "2"), ("b", "2")]));
    loop {
        let (names, _, nonce) = stream.next().await;
        stream.answer(&nonce, None).await;
        if names == ["a", "b"] {
            break;
        }
    }
    until(&site, |proxy| proxy.synced && proxy.rejected.is_empty()).await;
}

#[tokio::test]
async fn an_unknown_type_gets_an_empty_answer() {
    let site = site(Door::Open).await;
    let first = DeltaDiscoveryRequest {
        node: node("default", "reviews"),
        type_url: "type.googleapis.com/istio.networking.nds.v1.NameTable".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut stream = DeltaStream::open(&site, first).await.unwrap();
    assert_eq!(stream.next().await.0, Vec::<String>::new());
}

#[tokio::test]
async fn state_of_the_world_sends_the_whole_set() {
    let site = site(Door::Open).await;
    let (say, said) = mpsc::channel(8);
    let request = |nonce: &str, version: &str| DiscoveryRequest {
        node: if nonce.is_empty() { node("default", "reviews") } else { None },
        type_url: types::CLUSTER.to_owned(),
        response_nonce: nonce.to_owned(),
        version_info: version.to_owned(),
        ..DiscoveryRequest::default()
    };
    say.send(request("", "")).await.unwrap();
    let mut client = client(&site).await;
    let mut hear = client.stream_aggregated_resources(ReceiverStream::new(said)).await.unwrap().into_inner();
    let one = hear.message().await.unwrap().unwrap();
    assert_eq!(one.resources.len(), 2);
    assert_eq!(one.resources[0].type_url, types::CLUSTER);
    say.send(request(&one.nonce, &one.version_info)).await.unwrap();
    until(&site, |proxy| proxy.synced && proxy.protocol == "sotw").await;
    site.publish.send_replace(snapshot(2, &[("a", "1")]));
    let two = hear.message().await.unwrap().unwrap();
    assert_eq!(two.resources.len(), 1);
    assert_ne!(two.version_info, one.version_info);
    // The daemon stops: the stream ends instead of hanging.
    site.stop.cancel();
    assert!(!matches!(hear.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn who_introduces_nobody_is_refused() {
    let site = site(Door::Open).await;
    let mut stream = DeltaStream::open(&site, clusters()).await.unwrap();
    assert_eq!(stream.hear.message().await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let nonsense = DeltaDiscoveryRequest { node: Some(Node { id: "x".to_owned(), ..Node::default() }), ..clusters() };
    let mut stream = DeltaStream::open(&site, nonsense).await.unwrap();
    let refused = stream.hear.message().await.unwrap_err();
    assert!(refused.message().contains("TYPE~IP~NAME"), "{refused}");
}

#[tokio::test]
async fn a_proxy_may_only_be_what_its_token_says() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("jwks.json");
    let issuer = Issuer::new("a");
    write_keys(&keys, &[&issuer]);
    let site = site(Door::Tokens(Some(Arc::new(verifier(&keys))))).await;
    let token = issuer.sign(None, &claims(|_| {}));
    let open = async |authorization: Option<&str>, namespace: &str, account: &str| {
        let (say, said) = mpsc::channel(8);
        say.send(DeltaDiscoveryRequest { node: node(namespace, account), ..clusters() }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(said));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let mut hear = client(&site).await.delta_aggregated_resources(request).await?.into_inner();
        let outcome = hear.message().await.map(|response| response.unwrap().resources.len());
        drop(say);
        outcome
    };
    let bearer = format!("Bearer {token}");
    // The right namespace in the metadata, but a neighbour's id.
    let foreign = issuer.sign(
        None,
        &claims(|c| {
            c["sub"] = "system:serviceaccount:prod:reviews".into();
            c.as_object_mut().unwrap().remove("kubernetes.io");
        }),
    );
    let refused = open(Some(&format!("Bearer {foreign}")), "prod", "reviews").await.unwrap_err();
    assert!(refused.message().contains("node id"), "{refused}");
    assert_eq!(open(Some(&bearer), "default", "reviews").await.unwrap(), 2);
    for (namespace, account) in [("default", "ratings"), ("prod", "reviews")] {
        let refused = open(Some(&bearer), namespace, account).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("spiffe://east.local/ns/default/sa/reviews"), "{refused}");
    }
    for nobody in [None, Some("Bearer nonsense")] {
        assert_eq!(open(nobody, "default", "reviews").await.unwrap_err().code(), tonic::Code::Unauthenticated);
    }
}

#[tokio::test]
async fn who_proved_nothing_sees_no_keys() {
    let names = ["ROOTCA", "kubernetes://istio-system/shop", "kubernetes://istio-system/shop-cacert"];
    let resources = || resource_set(names.iter().map(|name| Arc::new(Resource::new(*name, b"key".to_vec()))));
    let site = site(Door::Open).await;
    let published = |revision| {
        let types = BTreeMap::from([(types::SECRET.into(), Arc::new(resources()))]);
        Some(Published { snapshot: Arc::new(Snapshot { revision, types }), at: Instant::now() })
    };
    site.publish.send_replace(published(2));
    let subscribe = names.iter().map(|name| (*name).to_owned()).collect();
    let first = DeltaDiscoveryRequest {
        node: node("istio-system", "istio-ingressgateway"),
        type_url: types::SECRET.to_owned(),
        resource_names_subscribe: subscribe,
        ..DeltaDiscoveryRequest::default()
    };
    let mut stream = DeltaStream::open(&site, first).await.unwrap();
    let (shown, removed, _) = stream.next().await;
    assert_eq!(shown, ["ROOTCA"]);
    assert_eq!(removed, names[1..]);
}
