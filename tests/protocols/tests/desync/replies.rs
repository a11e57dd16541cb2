//! Answers that the gateway makes itself, to requests with a body: row 5 of the attack catalogue (a body that nobody reads
//! is taken for the next request). The body looks like a request, and a real one follows.

use crate::{GATEWAY, POISON};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, filter, listener, manager, to, typed},
    recorder::Recorder,
    wire1::Wire,
    world::arrived,
};

/// The real request behind.
const AFTER: &[u8] = b"GET /ok/after HTTP/1.1\r\nhost: a\r\n\r\n";

/// An answer of the gateway's own.
struct Reply {
    name: &'static str,
    /// Which listener.
    place: usize,
    /// Request line and fields but for the framing.
    head: String,
    status: u16,
    /// Only to what never ends.
    unended: bool,
}

const PLAIN: usize = 0;
const LIMITED: usize = 1;
const SMALL: usize = 2;
const HASTY: usize = 3;

fn replies() -> Vec<Reply> {
    let reply = |name, place, head: &str, status| Reply { name, place, head: head.into(), status, unended: false };
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nhost: a\r\n");
    let large = format!("{}x-large: {}\r\n", post("/ok"), "x".repeat(70_000));
    let many = format!("{}{}", post("/ok"), "x-many: 1\r\n".repeat(120));
    let preflight = "OPTIONS /cors HTTP/1.1\r\nhost: a\r\norigin: http://b\r\naccess-control-request-method: PUT\r\n";
    vec![
        reply("no route", PLAIN, &post("/nowhere"), 404),
        reply("direct response", PLAIN, &post("/direct"), 200),
        reply("refusal by a direct response", PLAIN, &post("/refused"), 403),
        reply("redirect", PLAIN, &post("/moved"), 301),
        reply("no such cluster", PLAIN, &format!("{}x-cluster: nowhere\r\n", post("/clusterless")), 503),
        reply("no endpoint", PLAIN, &post("/empty"), 503),
        reply("nobody listens", PLAIN, &post("/dead"), 503),
        reply("too slow", PLAIN, &post("/slow"), 504),
        reply("forbidden", PLAIN, &post("/forbidden"), 403),
        reply("fault", PLAIN, &format!("{}x-fault: yes\r\n", post("/ok")), 418),
        reply("health check", PLAIN, &post("/healthz"), 200),
        reply("preflight", PLAIN, preflight, 200),
        reply("too large a head", PLAIN, &large, 431),
        reply("too many fields", PLAIN, &many, 431),
        reply(
            "upgrade that is not allowed",
            PLAIN,
            &format!("{}connection: upgrade\r\nupgrade: x\r\n", post("/ok")),
            403,
        ),
        reply("no HTTP/1.1", PLAIN, "POST /ok HTTP/1.0\r\nhost: a\r\n", 426),
        reply("no host", PLAIN, "POST /ok HTTP/1.1\r\n", 400),
        reply("path that is none", PLAIN, &post("/%2e%00"), 400),
        reply("CONNECT", PLAIN, "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n", 404),
        reply("limited", LIMITED, &post("/ok"), 429),
        reply("too large a body", SMALL, &post("/ok"), 413),
        Reply { unended: true, ..reply("body that does not end", HASTY, &post("/slow"), 408) },
    ]
}

struct World {
    filed: Filed,
    at: [SocketAddr; 4],
    recorder: Recorder,
}

fn routes() -> Value {
    let cors = json!({"allow_origin_string_match": [{"prefix": "http"}], "allow_methods": "PUT"});
    json!([
        to("/ok", "ok"),
        to("/forbidden", "ok"),
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}},
        {"match": {"prefix": "/refused"}, "direct_response": {"status": 403}},
        {"match": {"prefix": "/moved"}, "redirect": {"path_redirect": "/elsewhere"}},
        {"match": {"prefix": "/clusterless"}, "route": {"cluster_header": "x-cluster"}},
        to("/empty", "empty"),
        to("/dead", "dead"),
        {"match": {"prefix": "/slow"}, "route": {"cluster": "slow", "timeout": "0.3s"}},
        {
            "match": {"prefix": "/cors"}, "route": {"cluster": "ok"},
            "typed_per_filter_config": {"cors": typed("extensions.filters.http.cors.v3.CorsPolicy", cors)},
        },
    ])
}

fn filters() -> Vec<Value> {
    let exactly = |name: &str, value: &str| json!([{"name": name, "string_match": {"exact": value}}]);
    let fault = json!({
        "abort": {"http_status": 418, "percentage": {"numerator": 100}},
        "headers": exactly("x-fault", "yes"),
    });
    let policy = json!({
        "permissions": [{"url_path": {"path": {"prefix": "/forbidden"}}}],
        "principals": [{"any": true}],
    });
    let health = json!({"pass_through_mode": false, "headers": exactly(":path", "/healthz")});
    vec![
        filter("fault", "extensions.filters.http.fault.v3.HTTPFault", fault),
        filter("cors", "extensions.filters.http.cors.v3.Cors", json!({})),
        filter("health", "extensions.filters.http.health_check.v3.HealthCheck", health),
        filter(
            "rbac",
            "extensions.filters.http.rbac.v3.RBAC",
            json!({"rules": {"action": "DENY", "policies": {"no": policy}}}),
        ),
    ]
}

impl World {
    async fn start() -> Self {
        let at: [SocketAddr; 4] = std::array::from_fn(|_| free());
        let recorder = Recorder::http1().await.unwrap();
        let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clusters = [
            cluster("ok", &[recorder.address]),
            cluster("empty", &[]),
            cluster("dead", &[free()]),
            cluster("slow", &[slow.local_addr().unwrap()]),
        ];
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = slow.accept().await {
                held.push(stream);
            }
        });
        let bucket = json!({"max_tokens": 1, "fill_interval": "3600s"});
        let always = json!({"default_value": {"numerator": 100}});
        let limit = json!({
            "stat_prefix": "l", "token_bucket": bucket, "filter_enabled": always, "filter_enforced": always,
        });
        let limit = filter("limit", "extensions.filters.http.local_ratelimit.v3.LocalRateLimit", limit);
        let buffer = filter("buffer", "extensions.filters.http.buffer.v3.Buffer", json!({"max_request_bytes": 16}));
        let listeners = [
            listener("plain", at[PLAIN], &manager(routes(), &filters(), &json!({"normalize_path": true})), None),
            listener("limited", at[LIMITED], &manager(routes(), &[limit], &json!({})), None),
            listener("small", at[SMALL], &manager(routes(), &[buffer], &json!({})), None),
            listener("hasty", at[HASTY], &manager(routes(), &[], &json!({"request_timeout": "0.3s"})), None),
        ];
        let filed = Filed::start(GATEWAY, &listeners, &clusters).await.unwrap();
        let world = Self { filed, at, recorder };
        // The only token of the limited listener.
        let mut wire = Wire::new(TcpStream::connect(world.at[LIMITED]).await.unwrap());
        wire.send(AFTER).await;
        assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200);
        let _ = world.recorder.take();
        world
    }

    /// The answer comes, and then the real request's or the end; nobody takes the body for a request.
    async fn play(&self, reply: &Reply, framing: &str, body: &[u8], pause: bool) -> Result<()> {
        let mut wire = Wire::new(TcpStream::connect(self.at[reply.place]).await?);
        let head = format!("{}{framing}\r\n\r\n", reply.head).into_bytes();
        let behind = if reply.unended { body.to_vec() } else { [body, AFTER].concat() };
        if pause {
            wire.send(&head).await;
            // The answer may be out before the body comes.
            tokio::time::sleep(Duration::from_millis(20)).await;
            wire.send(&behind).await;
        } else {
            wire.send(&[head, behind].concat()).await;
        }
        let answer = wire.answer(false).await?.context("no answer")?;
        ensure!(answer.status == reply.status, "{answer:?} instead of {}", reply.status);
        let closes = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let wanted = if closes {
            let rest = wire.end().await?;
            ensure!(rest.is_empty(), "after the last answer came {}", rest.escape_ascii());
            0
        } else {
            let answer = wire.answer(false).await?.context("the connection ended before the real request")?;
            let limited = reply.place == LIMITED && answer.status == 429;
            ensure!(answer.status == 200 || limited, "the real request got {answer:?}");
            ensure!(wire.end().await?.is_empty(), "a third answer");
            usize::from(!limited)
        };
        let arrived = arrived(&self.recorder).await?;
        let targets: Vec<&str> = arrived.whole.iter().map(|(head, _)| head.target.as_str()).collect();
        ensure!(targets == vec!["/ok/after"; wanted] && arrived.broken.is_empty(), "the server saw {arrived:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_behind_local_answers_are_nobodys_requests() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    let length = POISON.len();
    let sized = format!("content-length: {length}");
    let chunked = [format!("{length:x}\r\n").as_bytes(), POISON, b"\r\n0\r\n\r\n"].concat();
    let zero = b"0\r\n\r\n".to_vec();
    let more = format!("content-length: {}", length + 50);
    for reply in replies() {
        let mut forms: Vec<(&str, Vec<u8>)> =
            vec![(&sized, POISON.to_vec()), ("transfer-encoding: chunked", chunked.clone())];
        if reply.unended {
            forms = vec![(&more, POISON.to_vec()), ("transfer-encoding: chunked", chunked[..length + 4].to_vec())];
        } else if reply.place != SMALL {
            forms.push(("transfer-encoding: chunked", zero.clone()));
        }
        // HTTP/1.0 knows no chunks.
        forms.retain(|(framing, _)| reply.status != 426 || framing.starts_with('c'));
        for (framing, body) in forms {
            for pause in [false, true] {
                let expect = format!("{framing}\r\nexpect: 100-continue");
                let asking = !pause && !reply.head.contains("HTTP/1.0");
                for framing in [framing, &expect].into_iter().take(if asking { 2 } else { 1 }) {
                    if let Err(error) = world.play(&reply, framing, &body, pause).await {
                        wrong.push(format!("{} ({framing:?}, pause {pause}): {error:#}", reply.name));
                        let _ = world.recorder.take();
                    }
                }
            }
        }
        let mut wire = Wire::new(TcpStream::connect(world.at[PLAIN]).await.unwrap());
        wire.send(AFTER).await;
        assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200, "after {}", reply.name);
        let _ = world.recorder.take();
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.filed.gateway.is_whole().await.unwrap();
}
