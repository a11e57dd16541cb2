//! Servers that end in the middle of a body: what they said is passed on, and what is passed on never looks whole.

use crate::serve;
use tokio::net::TcpStream;
use tombolo_controlplane_api::util::pack_any;
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    resources,
    scripted::Scripted,
    wire1::Wire,
    wire2::{Wire2, fields},
};

/// The end comes later, and in the segment of what was said.
const SCRIPTS: [&str; 2] = ["half close", "cork half close"];

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_passed_on_as_a_half() {
    let (at, origin) = (free(), Scripted::start().await.unwrap());
    let (gateway, _ads) = serve(vec![
        pack_any(resources::raw_cluster("origin", resources::tcp_address(origin.address))),
        resources::plain_listener("door", at, resources::manager("origin")),
    ])
    .await;
    for script in SCRIPTS {
        let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
        wire.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-script: {script}\r\n\r\n").as_bytes()).await;
        let said = String::from_utf8(wire.rest().await.unwrap()).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("content-length: 8\r\n"), "{script}: {said}");
        assert!(said.ends_with("\r\n\r\nhalf"), "{script}: {said}");

        let mut wire = Wire2::open(at).await.unwrap();
        let head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("x-script", script)];
        wire.head(1, &fields(&head), true).await;
        let fate = wire.fate(1).await.unwrap();
        assert!(fate.status == Some(200) && fate.body == b"half" && !fate.whole, "{script}: {fate:?}");
        assert!(fate.reset.is_some(), "{script}: {fate:?}");
    }
    gateway.is_whole().await.unwrap();
}
