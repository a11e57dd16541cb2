//! A gateway between hand-made clients and servers that note what arrives.

use crate::{
    gateway::Gateway,
    recorder::{Head, Recorder, Seen},
    resources,
    wire1::{PATIENCE, Wire},
};
use anyhow::{Result, bail, ensure};
use std::{io::Write as _, net::SocketAddr, path::Path, time::Duration};
use tokio::net::TcpStream;
use tombolo_controlplane_api::xds::{
    envoy::config::core::v3::Http2ProtocolOptions,
    google::protobuf::{Any, BoolValue},
};
use tombolo_tests_kit::{ads::Ads, free};

/// One gateway with one worker before a server of each version: a listener for each.
#[derive(Debug)]
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// Before a server of HTTP/1.
    pub one: Place,
    /// Before a server of HTTP/2.
    pub two: Place,
    _ads: Ads,
}

/// A listener and the only server behind it.
#[derive(Debug)]
pub struct Place {
    /// Where the gateway listens.
    pub at: SocketAddr,
    /// The server.
    pub recorder: Recorder,
}

/// A gateway, which is this program, for these resources.
///
/// # Errors
/// When it refuses one of them or is not ready in time.
pub async fn serve(program: &str, workers: usize, resources: Vec<Any>) -> Result<(Gateway, Ads)> {
    let ads = Ads::start().await;
    ads.set_any(resources);
    let gateway = tokio::select! {
        gateway = Gateway::ready(Path::new(program), ads.address, workers) => gateway?,
        (kind, why) = ads.refused("") => bail!("{kind} was refused: {why}"),
    };
    Ok((gateway, ads))
}

impl World {
    /// `gentle`: a malformed HTTP/2 request ends its stream, not its connection.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(program: &str, gentle: bool) -> Result<Self> {
        let one = Place { at: free(), recorder: Recorder::http1().await? };
        let two = Place { at: free(), recorder: Recorder::http2().await? };
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
        let resources = vec![
            resources::http1_cluster("one", one.recorder.address),
            resources::http2_cluster("two", two.recorder.address),
            resources::plain_listener("to-one", one.at, manager("one")),
            resources::plain_listener("to-two", two.at, manager("two")),
        ];
        let (gateway, _ads) = serve(program, 1, resources).await?;
        Ok(Self { gateway, one, two, _ads })
    }
}

/// What becomes of a test that cannot be done on this machine: it is told on the terminal, past the harness that keeps what
/// tests print to itself. Where `CI` is set it fails, unless `TOMBOLO_TESTS_MAY_LEAVE_OUT` is set as well.
///
/// # Errors
/// When it is to fail.
pub fn left_out(reason: &str) -> Result<()> {
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {reason}");
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
    ensure!(!set("CI") || set("TOMBOLO_TESTS_MAY_LEAVE_OUT"), "{reason}; TOMBOLO_TESTS_MAY_LEAVE_OUT=1 leaves it out");
    Ok(())
}

/// A well-behaved client on a connection of its own.
#[derive(Debug)]
pub struct Probe(Wire<TcpStream>);

/// Where well-behaved clients go.
pub const PROBE: &str = "/probe";

impl Probe {
    /// Connects it.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(at: SocketAddr) -> Result<Self> {
        Ok(Self(Wire::new(TcpStream::connect(at).await?)))
    }

    /// Asks once; it must be answered.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ask(&mut self) -> Result<()> {
        self.0.send(b"GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n").await;
        let answer = self.0.answer(false).await?;
        ensure!(answer.as_ref().is_some_and(|a| a.status == 200 && a.body == b"ok"), "the other client got {answer:?}");
        Ok(())
    }

    /// What the server saw of all that had reached it, apart from probes.
    ///
    /// # Errors
    /// When a probe is not answered, or what arrived can be read in two ways or never ends.
    pub async fn arrived(&mut self, recorder: &Recorder) -> Result<Arrived> {
        // The server accepts, reads and notes in turns, and another request has to wait for each of them.
        for _ in 0..3 {
            self.ask().await?;
        }
        arrived(recorder).await
    }
}

/// What a server saw of one case.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Requests that came whole, with their bodies.
    pub whole: Vec<(Head, Vec<u8>)>,
    /// Requests that did not.
    pub broken: Vec<Head>,
}

/// What arrived, apart from probes. Waits for the end of what was begun.
///
/// # Errors
/// When what arrived can be read in two ways, or never ends.
pub async fn arrived(recorder: &Recorder) -> Result<Arrived> {
    let mut seen = recorder.take();
    for _ in 0..PATIENCE.as_millis() / 5 {
        if let Some(arrived) = sort(&seen)? {
            return Ok(arrived);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen.extend(recorder.take());
    }
    bail!("a request was begun and neither ended nor broken off: {seen:?}")
}

fn sort(seen: &[Seen]) -> Result<Option<Arrived>> {
    let mut arrived = Arrived::default();
    let mut open: Vec<Head> = Vec::new();
    for one in seen {
        match one {
            Seen::Head(head) => open.push(head.clone()),
            Seen::Unclean(_, reason) => bail!("the server saw {reason}"),
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
