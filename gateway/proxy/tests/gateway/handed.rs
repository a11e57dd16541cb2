//! Connections that one listener takes in and another serves, by where the client was going.

use crate::{
    build::{cluster, endpoints, hcm, http_chain, listener, routes, to},
    client::Connection,
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use prost::Name as _;
use std::net::SocketAddr;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::listener::v3::{Listener, ListenerFilter, listener_filter},
            extensions::filters::{
                listener::proxy_protocol::v3::ProxyProtocol,
                network::http_connection_manager::v3::http_connection_manager::RouteSpecifier,
            },
        },
        google::protobuf::BoolValue,
    },
};
use tombolo_tests_kit::{ads::Ads, free};

/// Takes connections in and hands those on that go to another listener's place; the others it serves itself.
fn door(at: SocketAddr, version: &str) -> Listener {
    let header = listener_filter::ConfigType::TypedConfig(pack_any(ProxyProtocol::default()));
    Listener {
        listener_filters: vec![ListenerFilter {
            name: "proxy".into(),
            config_type: Some(header),
            ..Default::default()
        }],
        use_original_dst: Some(BoolValue { value: true }),
        ..served("door", at, version)
    }
}

/// Listens nowhere.
fn room(at: SocketAddr, version: &str) -> Listener {
    Listener { bind_to_port: Some(BoolValue { value: false }), ..served("room", at, version) }
}

/// Sends everything to the origin of its own name.
fn served(name: &str, at: SocketAddr, version: &str) -> Listener {
    let mut manager = hcm(name);
    manager.server_name = version.into();
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes(name, &[("*", vec![to("/", name)])])));
    listener(name, at, vec![http_chain(manager)])
}

/// A client on its way to an address that comes in by the door.
async fn going(door: SocketAddr, to: SocketAddr) -> Connection {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let header = format!("PROXY TCP4 127.0.0.1 {} 4000 {}\r\n", to.ip(), to.port());
    stream.write_all(header.as_bytes()).await.unwrap();
    Connection::http1(stream).await.unwrap()
}

/// Who answers, in which version, and whether that was the last answer on the connection.
async fn asked(connection: &mut Connection) -> (String, String, bool) {
    let got = connection.get("h", "/").await.unwrap();
    let (server, last) = (got.header("server").to_owned(), got.header("connection") == "close");
    (got.body, server, last)
}

fn says(name: &str, version: &str, last: bool) -> (String, String, bool) {
    (name.into(), version.into(), last)
}

#[tokio::test]
async fn connections_drain_with_the_listener_that_serves_them() {
    let (outside, inside) = (Origin::http1("door").await, Origin::http1("room").await);
    let (ads, at, place, elsewhere) = (Ads::start().await, free(), free(), free());
    ads.set([("door", cluster("door")), ("room", cluster("room"))]);
    ads.set([("door", endpoints("door", &[outside.address])), ("room", endpoints("room", &[inside.address]))]);
    ads.set([("door", door(at, "1")), ("room", room(place, "1"))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut own = going(at, elsewhere).await;
    let mut handed = going(at, place).await;
    assert_eq!(asked(&mut own).await, says("door", "1", false));
    assert_eq!(asked(&mut handed).await, says("room", "1", false));

    ads.set([("door", door(at, "1")), ("room", room(place, "2"))]);
    let fresh = async |version: &str| asked(&mut going(at, place).await).await == says("room", version, false);
    eventually("the room has changed", async || fresh("2").await).await;
    assert_eq!(asked(&mut handed).await, says("room", "1", true));
    assert_eq!(asked(&mut own).await, says("door", "1", false), "what happens to others is nothing to it");

    let mut handed = going(at, place).await;
    assert_eq!(asked(&mut handed).await, says("room", "2", false));
    ads.set([("door", door(at, "2")), ("room", room(place, "2"))]);
    let changed = async || asked(&mut going(at, elsewhere).await).await == says("door", "2", false);
    eventually("the door has changed", changed).await;
    assert_eq!(asked(&mut own).await, says("door", "1", true));
    assert_eq!(asked(&mut handed).await, says("room", "2", false), "it came by the door and is not the door's");

    ads.remove(&Listener::type_url(), "room");
    let gone = async || asked(&mut going(at, place).await).await == says("door", "2", false);
    eventually("the room is gone", gone).await;
    assert_eq!(asked(&mut handed).await, says("room", "2", true));
}
