//! quinn and h3 as the client: bodies, certificates, moving clients, the end of a gateway.

use super::{
    World,
    client::{Client, settings},
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                core::v3::{HeaderValue, HeaderValueOption},
                rbac::v3::{Rbac as RBAC, rbac::Action},
            },
            extensions::filters::network::{
                http_connection_manager::v3::http_connection_manager::{
                    ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
                },
                rbac::v3::Rbac,
            },
        },
        google::protobuf::Any,
    },
};
use tombolo_tests_kit::{ads::Ads, free};
use tombolo_tests_protocols::{
    certificates::Authority, gateway::Gateway, origin::Origin, resources, wire1::PATIENCE, world,
};

/// A gateway with one worker for these resources.
async fn serve(resources: Vec<Any>) -> (Gateway, Ads) {
    world::serve(super::GATEWAY, 1, resources).await.unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("https://localhost{path}")).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_pass_in_both_directions() {
    let world = World::start(1).await;
    let mut client = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
    let got = client.get("/").await.unwrap();
    assert_eq!((got.head.status().as_u16(), &got.body[..]), (200, &b"hello"[..]));
    let large = Bytes::from((0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<_>>());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let got = client.ask(post("/echo"), large.clone(), Some(trailers.clone())).await.unwrap();
    assert!(got.body == large);
    assert_eq!(got.trailers, Some(trailers));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests_at_once() {
    let world = World::start(1).await;
    let client = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..300 {
        let (endpoint, connection, sender) =
            (client.endpoint.clone(), client.connection.clone(), client.sender.clone());
        all.spawn(async move {
            let driver = tokio::spawn(std::future::pending());
            let mut client = Client { endpoint, connection, sender, driver };
            let body = Bytes::from(number.to_string());
            assert_eq!(client.ask(post("/echo"), body.clone(), None).await.unwrap().body, body);
        });
    }
    assert_eq!(all.join_all().await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_keeps_its_connection() {
    let world = World::start(4).await;
    for _ in 0..6 {
        let mut client = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
        client.get("/").await.unwrap();
        for _ in 0..4 {
            client.endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
            let answered = tokio::time::timeout(PATIENCE, client.get("/")).await;
            assert_eq!(&answered.unwrap().unwrap().body[..], b"hello");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_asked_for_and_passed_on() {
    let world = World::with(1, |at, own, authority| {
        let mut hcm = resources::manager("origin");
        hcm.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet as i32;
        hcm.set_current_client_cert_details = Some(SetCurrentClientCertDetails { uri: true, ..Default::default() });
        resources::http3_listener("h3", at, resources::server_tls(own, Some(&authority.root)), hcm)
    })
    .await;
    let own = world.authority.sign(&["spiffe://d/ns/a/sa/b"]).unwrap();
    let mut client = Client::open(world.at, settings(&world.authority.root, Some(&own))).await.unwrap();
    let seen = client.get("/headers").await.unwrap().body;
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("x-forwarded-client-cert: ") && seen.contains("URI=spiffe://d/ns/a/sa/b"), "{seen}");
    let refused = match Client::open(world.at, settings(&world.authority.root, None)).await {
        Ok(mut client) => client.get("/").await.err().unwrap(),
        Err(error) => error,
    };
    assert!(!refused.is_empty());
    // Nobody else is the worse for it.
    client.get("/").await.unwrap();
}

/// What stands before the end of a chain counts over QUIC as it does over TCP.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_chain_does_not_let_in_is_not_served() {
    for (action, served) in [(Action::Allow, false), (Action::Deny, true)] {
        let world = World::with(1, |at, own, _| {
            let tls = resources::server_tls(own, None);
            // Rules without a policy: nobody is allowed, or nobody is denied.
            let rules = RBAC { action: action as i32, ..Default::default() };
            let filter = Rbac { rules: Some(rules), stat_prefix: "x".into(), ..Default::default() };
            resources::guarded_http3_listener("h3", at, tls, resources::manager("origin"), pack_any(filter))
        })
        .await;
        let answered = match Client::open(world.at, settings(&world.authority.root, None)).await {
            Ok(mut client) => client.get("/").await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(answered, served, "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_finishes_what_it_began() {
    let world = World::start(2).await;
    let mut busy = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
    let mut idle = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
    idle.get("/").await.unwrap();
    let stream = busy.sender.send_request(post("/echo")).await.unwrap();
    let (mut send, mut receive) = stream.split();
    send.send_data(Bytes::from_static(b"before ")).await.unwrap();
    let World { gateway, _ads, _origin, .. } = world;
    let ended = tokio::spawn(gateway.terminate());
    // The idle one is told that no more is taken, and then that it is over.
    let over = tokio::time::timeout(PATIENCE, idle.driver).await.unwrap().unwrap();
    assert!(over.to_string().contains("0x100") || over.is_h3_no_error(), "{over}");
    send.send_data(Bytes::from_static(b"after")).await.unwrap();
    send.finish().await.unwrap();
    assert_eq!(receive.recv_response().await.unwrap().status().as_u16(), 200);
    let mut body = Vec::new();
    while let Some(mut data) = receive.recv_data().await.unwrap() {
        use bytes::Buf as _;
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    assert_eq!(body, b"before after");
    drop((send, receive, busy));
    assert!(ended.await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() {
    let world = World::start(1).await;
    for _ in 0..20 {
        let mut client = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
        let mut stream = client.sender.send_request(post("/echo")).await.unwrap();
        stream.send_data(Bytes::from(vec![1; 100_000])).await.unwrap();
        client.connection.close(7_u32.into(), b"gone");
        client.endpoint.wait_idle().await;
    }
    let mut client = Client::open(world.at, settings(&world.authority.root, None)).await.unwrap();
    client.get("/").await.unwrap();
    // A burst may drown the packet that says goodbye; then the silence counts.
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if world.gateway.counter("tombolo_gateway_downstream_connections").await.unwrap() <= 1.0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let (_, metrics) = world.gateway.ask("/metrics").await.unwrap();
    panic!("{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_can_offer_http3_beside_others() {
    let authority = Authority::new().unwrap();
    let own = authority.sign(&["localhost"]).unwrap();
    let origin = Origin::start().await.unwrap();
    let at = free();
    let mut hcm = resources::manager("origin");
    if let Some(RouteSpecifier::RouteConfig(routes)) = &mut hcm.route_specifier {
        routes.response_headers_to_add = vec![HeaderValueOption {
            header: Some(HeaderValue {
                key: "alt-svc".into(),
                value: format!("h3=\":{}\"; ma=86400", at.port()),
                ..Default::default()
            }),
            ..Default::default()
        }];
    }
    // TCP and UDP of one port.
    let (_gateway, _ads) = serve(vec![
        resources::http2_cluster("origin", origin.address),
        resources::plain_listener("tcp", at, hcm.clone()),
        resources::http3_listener("udp", at, resources::server_tls(&own, None), hcm),
    ])
    .await;
    let head = plain_get(at).await;
    let offer = format!("alt-svc: h3=\":{}\"; ma=86400", at.port());
    assert!(head.contains(&offer), "{head}");
    let mut client = Client::open(at, settings(&authority.root, None)).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().head.headers()["alt-svc"].to_str().unwrap(), &offer["alt-svc: ".len()..]);
}

async fn plain_get(at: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).await.unwrap();
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn http3_is_spoken_towards_upstreams() {
    let authority = Authority::new().unwrap();
    let own = authority.sign(&["localhost", "127.0.0.1"]).unwrap();
    let origin = Origin::start().await.unwrap();
    let (front, plain, back, closed) = (free(), free(), free(), free());
    let (gateway, _ads) = serve(vec![
        resources::http2_cluster("origin", origin.address),
        resources::http3_cluster("back", back, 60, &authority.root),
        resources::http3_cluster("closed", closed, 1, &authority.root),
        resources::http3_listener("back", back, resources::server_tls(&own, None), resources::manager("origin")),
        resources::http3_listener("front", front, resources::server_tls(&own, None), resources::manager("back")),
        resources::plain_listener("plain", plain, resources::manager("closed")),
    ])
    .await;
    let mut client = Client::open(front, settings(&authority.root, None)).await.unwrap();
    let large = Bytes::from(vec![5; 2_000_000]);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    for _ in 0..3 {
        assert_eq!(&client.get("/").await.unwrap().body[..], b"hello");
        let got = client.ask(post("/echo"), large.clone(), Some(trailers.clone())).await.unwrap();
        assert!(got.body == large && got.trailers.as_ref() == Some(&trailers));
        assert_eq!(client.get("/large/3000000").await.unwrap().body.len(), 3_000_000);
    }
    let head =
        client.ask(Request::head("https://localhost/large/5").body(()).unwrap(), Bytes::new(), None).await.unwrap();
    assert_eq!((head.head.status().as_u16(), head.body.len()), (200, 0));
    // One connection to the origin and one to the other listener carried all of it.
    assert_eq!(gateway.counter("tombolo_gateway_upstream_connections").await.unwrap(), 2.0);
    assert!(plain_get(plain).await.starts_with("HTTP/1.1 503 "));
    gateway.is_whole().await.unwrap();
}
