//! Extended CONNECT over HTTP/3 with data that does not wait for the answer: row 3 of the attack catalogue.

use super::{
    GATEWAY,
    client::{Client, settings},
};
use bytes::Bytes;
use http::{Method, Request};
use tombolo_controlplane_api::util::pack_any;
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{certificates::Authority, resources, scripted::Scripted, world};

const POISON: &[u8] = b"GET /poison HTTP/1.1\r\nhost: poison\r\n\r\n";

/// Scripts of the server with the status that a client sees. 0: the stream is reset, because a success would promise a
/// tunnel that the server did not agree to.
const SCRIPTS: &[(&str, u16)] = &[
    ("101", 200),
    ("103 101", 200),
    ("103 200", 0),
    ("404", 404),
    ("103 500", 500),
    ("nothing", 504),
    ("close", 503),
    ("garbage", 502),
];

#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_nothing_before_the_server_agreed() {
    let authority = Authority::new().unwrap();
    let own = authority.sign(&["localhost"]).unwrap();
    let (at, origin) = (free(), Scripted::start().await.unwrap());
    let resources = vec![
        pack_any(resources::raw_cluster("origin", resources::tcp_address(origin.address))),
        resources::http3_listener("h3", at, resources::server_tls(&own, None), resources::tunnels("origin")),
    ];
    let (gateway, _ads) = world::serve(GATEWAY, 1, resources).await.unwrap();
    let mut client = Client::open(at, settings(&authority.root, None)).await.unwrap();
    for (script, wanted) in SCRIPTS {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("https://origin.test/ask")
            .header("x-script", *script)
            .extension(h3::ext::Protocol::CONNECT_UDP);
        let mut stream = client.sender.send_request(request.body(()).unwrap()).await.unwrap();
        stream.send_data(Bytes::from_static(POISON)).await.unwrap();
        let head = stream.recv_response().await.map(|head| head.status().as_u16());
        // Whether a reset overtakes the head is for the network to say.
        let promised = *wanted == 0 && head.as_ref().is_ok_and(|status| *status == 200);
        assert!(promised || head.as_ref().map_or(0, |status| *status) == *wanted, "{script}: {head:?}");
        let agreed = script.ends_with("101");
        // A tunnel passes the end on; whatever else is answered is over by itself.
        if agreed {
            stream.finish().await.unwrap();
        }
        while let Ok(data) = stream.recv_data().await
            && let Some(data) = data
        {
            assert!(*wanted != 0, "{script}: {} bytes of a tunnel that is none", bytes::Buf::remaining(&data));
        }
        let heard = origin.heard_at_last().await;
        origin.forget();
        let [one] = &heard[..] else { panic!("{script}: {heard:?}") };
        assert_eq!(one.early, b"", "{script}");
        assert!(!one.head.contains("poison"), "{script}: {}", one.head);
        assert_eq!(one.late, if agreed { POISON } else { b"" }, "{script}");
    }
    gateway.is_whole().await.unwrap();
}
