//! Fields that `Connection` names: row 12 of the attack catalogue (a client has the proxy's own fields removed on their
//! way, or those that say who it is).

use crate::GATEWAY;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, cluster2, listener, manager, to},
    recorder::{Head, Recorder},
    wire1::Wire,
    world::arrived,
};

/// What the gateway sets, whatever the client says, with what the value must begin with.
const SET: &[(&str, &str)] = &[
    ("x-forwarded-for", ""),
    ("x-forwarded-proto", "http"),
    ("x-request-id", ""),
    ("x-envoy-expected-rq-timeout-ms", "5"),
    ("x-added", "by the gateway"),
    ("x-envoy-attempt-count", "1"),
];

/// What clients name. Each is named alone, in capitals, among others, and on a line of its own.
const NAMED: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-client-cert",
    "x-request-id",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-attempt-count",
    "x-envoy-original-path",
    "x-envoy-peer-metadata",
    "x-envoy-retry-on",
    "x-added",
    "x-b3-traceid",
    "traceparent",
    "host",
    ":authority",
    ":path",
    ":method",
    "authorization",
    "cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "content-type",
    "content-encoding",
    "date",
    "via",
    "forwarded",
    "expect",
    "upgrade",
    "proxy-authorization",
    "origin",
    "range",
];

/// Whose removal would hide where a request came from or where it goes.
const REFUSED: &[&str] =
    &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", ":authority", ":path", ":method"];

fn check(head: &Head, body: &[u8]) -> Result<(), String> {
    for (name, begin) in SET {
        let found = head.all(name);
        // Tries are counted for those that are to know.
        let [one] = &found[..] else { return Err(format!("{name}: {found:?} in {head:?}")) };
        if !one.starts_with(begin) || one.contains("forged") {
            return Err(format!("{name}: {one:?}"));
        }
    }
    if head.host != "a.test" || head.target != "/ask" || head.method != "POST" {
        return Err(format!("another request arrived: {head:?}"));
    }
    if body != b"body" {
        return Err(format!("the body is {:?}", String::from_utf8_lossy(body)));
    }
    for name in ["connection", "x-forwarded-client-cert", "proxy-connection", "keep-alive", "upgrade"] {
        if !head.all(name).is_empty() {
            return Err(format!("{name} arrived: {head:?}"));
        }
    }
    if !head.all("x-envoy-internal").is_empty() {
        return Err(format!("the client says that it is internal: {head:?}"));
    }
    Ok(())
}

/// Ways to name a field.
fn forms(name: &str) -> [String; 6] {
    [
        format!("connection: {name}"),
        format!("connection: {}", name.to_uppercase()),
        format!("connection: keep-alive, {name}"),
        format!("connection: {name} ,close"),
        format!("connection: close\r\nconnection: {name}"),
        format!("connection: ,, {name}\t,"),
    ]
}

/// One request; whether it was taken.
async fn one(at: SocketAddr, recorder: &Recorder, name: &str, form: &str) -> Result<bool, String> {
    // What the client claims of itself is there to be removed as well.
    let claims = "x-forwarded-client-cert: forged\r\nx-envoy-internal: true\r\nx-added: forged\r\n\
                  x-envoy-expected-rq-timeout-ms: forged\r\nauthorization: Basic eA==\r\ncookie: a=1\r\n";
    let request = format!("POST /ask HTTP/1.1\r\nhost: a.test\r\n{claims}{form}\r\ncontent-length: 4\r\n\r\nbody");
    let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
    wire.send(request.as_bytes()).await;
    let answer = wire.answer(false).await.unwrap().unwrap();
    match (answer.status, arrived(recorder).await) {
        (400, Ok(arrived)) if arrived.whole.is_empty() => Ok(false),
        (200, _) if REFUSED.contains(&name) => Err("it was taken".into()),
        (200, Ok(arrived)) => match &arrived.whole[..] {
            [(head, body)] => check(head, body).map(|()| true),
            other => Err(format!("the server saw {other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

fn door(name: &str, at: SocketAddr, cluster: &str) -> Value {
    let more = json!({
        "use_remote_address": true,
        "skip_xff_append": false,
        "forward_client_cert_details": "SANITIZE",
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "10.9.9.9", "prefix_len": 32}]},
    });
    let mut route = to("/", cluster);
    // What is left of it arrives, and begins with a 5 for a good while.
    route["route"]["timeout"] = json!("59.9s");
    let mut manager = manager(json!([route]), &[], &more);
    let host = &mut manager["typed_config"]["route_config"]["virtual_hosts"][0];
    host["request_headers_to_add"] = json!([{
        "header": {"key": "x-added", "value": "by the gateway"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }]);
    host["include_request_attempt_count"] = json!(true);
    listener(name, at, &manager, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn nominated_fields_hide_nothing() {
    let recorders = [Recorder::http1().await.unwrap(), Recorder::http2().await.unwrap()];
    let at = [free(), free()];
    let listeners = [door("one", at[0], "one"), door("two", at[1], "two")];
    let clusters = [cluster("one", &[recorders[0].address]), cluster2("two", &[recorders[1].address])];
    let filed = Filed::start(GATEWAY, &listeners, &clusters).await.unwrap();
    let (mut wrong, mut taken, mut refused) = (Vec::new(), 0, 0);
    for (at, recorder) in at.into_iter().zip(&recorders) {
        for name in NAMED {
            for form in forms(name) {
                match one(at, recorder, name, &form).await {
                    Ok(true) => taken += 1,
                    Ok(false) => refused += 1,
                    Err(error) => wrong.push(format!("{form:?}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, {taken} taken, {refused} refused:\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 50 && refused > 50, "{taken} taken, {refused} refused");
    filed.gateway.is_whole().await.unwrap();
}
