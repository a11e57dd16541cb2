//! A gateway between hand-made clients and servers that note what arrives.

use anyhow::{Result, ensure};
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::net::TcpStream;
use tombolo_controlplane_api::xds::{
    envoy::config::core::v3::Http2ProtocolOptions,
    google::protobuf::{Any, BoolValue},
};
use tombolo_tests_protocols::{
    ads::Ads,
    gateway::{Gateway, free},
    recorder::{Head, Recorder, Seen},
    resources,
    wire1::{PATIENCE, Wire},
};

/// The program under test.
pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_tombolo-protocols-gateway");

/// One gateway with one worker before a server of each version: a listener for each.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) one: Place,
    pub(crate) two: Place,
    _ads: Ads,
}

/// A listener and the only server behind it.
pub(crate) struct Place {
    pub(crate) at: SocketAddr,
    pub(crate) recorder: Recorder,
}

/// A gateway for these resources.
pub(crate) async fn serve(resources: Vec<Any>) -> (Gateway, Ads) {
    let mut ads = Ads::start(resources).await.unwrap();
    let ready = Gateway::ready(Path::new(GATEWAY), ads.address, 1);
    let gateway = tokio::select! {
        gateway = ready => gateway.unwrap(),
        refusal = ads.refusal() => panic!("refused: {refusal:?}"),
    };
    (gateway, ads)
}

impl World {
    /// `gentle`: a malformed HTTP/2 request ends its stream, not its connection.
    pub(crate) async fn start(gentle: bool) -> Self {
        let one = Place { at: free().unwrap(), recorder: Recorder::http1().await.unwrap() };
        let two = Place { at: free().unwrap(), recorder: Recorder::http2().await.unwrap() };
        let manager = |cluster| {
            let mut hcm = resources::manager(cluster);
            let gentle = gentle.then_some(BoolValue { value: true });
            hcm.http2_protocol_options = Some(Http2ProtocolOptions {
                override_stream_error_on_invalid_http_message: gentle,
                allow_connect: true,
                ..Default::default()
            });
            hcm
        };
        let (gateway, _ads) = serve(vec![
            resources::http1_cluster("one", one.recorder.address),
            resources::http2_cluster("two", two.recorder.address),
            resources::plain_listener("to-one", one.at, manager("one")),
            resources::plain_listener("to-two", two.at, manager("two")),
        ])
        .await;
        Self { gateway, one, two, _ads }
    }

    pub(crate) async fn no_panics(&self) {
        assert_eq!(self.gateway.counter("tombolo_gateway_panics_total").await.unwrap(), 0.0);
    }
}

/// A well-behaved client on a connection of its own.
pub(crate) struct Probe(Wire<TcpStream>);

/// Where well-behaved clients go.
pub(crate) const PROBE: &str = "/probe";

impl Probe {
    pub(crate) async fn open(at: SocketAddr) -> Self {
        Self(Wire::new(TcpStream::connect(at).await.unwrap()))
    }

    /// Asks once; it must be answered.
    pub(crate) async fn ask(&mut self) -> Result<()> {
        self.0.send(b"GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n").await;
        let answer = self.0.answer(false).await?;
        ensure!(answer.as_ref().is_some_and(|a| a.status == 200 && a.body == b"ok"), "the other client got {answer:?}");
        Ok(())
    }
}

/// What a server saw of one case.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Requests that came whole, with their bodies.
    pub(crate) whole: Vec<(Head, Vec<u8>)>,
    /// Requests that did not.
    pub(crate) broken: Vec<Head>,
}

/// What arrived, apart from probes. Waits for the end of what was begun.
pub(crate) async fn arrived(recorder: &Recorder) -> Result<Arrived> {
    let mut seen = recorder.take();
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(arrived) = sort(&seen)? {
            return Ok(arrived);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen.extend(recorder.take());
    }
    anyhow::bail!("a request was begun and neither ended nor broken off: {seen:?}")
}

fn sort(seen: &[Seen]) -> Result<Option<Arrived>> {
    let mut arrived = Arrived::default();
    let mut open: Vec<Head> = Vec::new();
    for one in seen {
        match one {
            Seen::Head(head) => open.push(head.clone()),
            Seen::Unclean(_, reason) => anyhow::bail!("the server saw {reason}"),
            Seen::Whole(number, _) | Seen::Broken(number) => {
                let Some(at) = open.iter().position(|head| head.connection == *number) else { continue };
                let head = open.remove(at);
                match one {
                    Seen::Whole(..) if head.target == PROBE => {}
                    Seen::Whole(_, body) => arrived.whole.push((head, body.clone())),
                    _ => arrived.broken.push(head),
                }
            }
        }
    }
    Ok(open.is_empty().then_some(arrived))
}
