//! One stream, from its first frame to its end. Owns the order of what is sent and when silence counts as death.

use crate::{
    LocalSite, PeerEvent, PeerState, Settings,
    intake::{BATCH_BYTES, Intake, lease_of},
    settings::types,
    state::Link,
    verify::{End as Side, verify_chain},
    wire::{Wire, request_from_wire, request_to_wire, response_from_wire, response_to_wire},
};
use rustls::pki_types::UnixTime;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tombolo_controlplane_api::peer::{self as api, Frame, frame};
use tombolo_federation_sync::{Plan, Publisher, Snapshot};
use tonic::{Code, Status};

/// How long a peer may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);
/// The revision of the exchange that is spoken here.
const REVISION: u32 = 1;

/// What ended a stream.
pub(crate) enum Ended {
    /// This process, or its configuration.
    Stopped,
    /// The network or the peer.
    Lost(String),
    /// One side does not accept the other.
    Refused(String),
    /// The peer opened another stream, which takes its place.
    Replaced(Box<Wire>),
}

/// What a stream works with, and outlives it.
pub(crate) struct Around<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) local: &'a mut LocalSite,
    pub(crate) intake: &'a mut Intake,
    pub(crate) incoming: &'a mut mpsc::Receiver<Wire>,
    pub(crate) out: &'a mpsc::Sender<PeerEvent>,
    pub(crate) state: &'a watch::Sender<PeerState>,
    pub(crate) stop: &'a mut watch::Receiver<crate::exchange::Order>,
}

struct Session<'a> {
    around: Around<'a>,
    wire: Wire,
    publisher: Publisher,
    shown: Arc<Snapshot>,
    /// Produced, and waiting for room.
    pending: Option<frame::Frame>,
    greeted: bool,
    heard: Instant,
    sent: Instant,
    lease: Duration,
}

/// Runs a stream to its end. True with it: the peer had said who it is.
pub(crate) async fn run(around: Around<'_>, wire: Wire) -> (Ended, bool) {
    let shown = around.local.exports.borrow_and_update().clone();
    let now = Instant::now();
    around.intake.connected();
    let mut session = Session {
        pending: Some(hello(around.local)),
        around,
        wire,
        publisher: Publisher::new(Plan::independent(&types::ALL, BATCH_BYTES)),
        shown,
        greeted: false,
        heard: now,
        sent: now,
        lease: GREETING,
    };
    let ended = session.run().await;
    session.around.intake.disconnected();
    (ended, session.greeted)
}

fn hello(local: &LocalSite) -> frame::Frame {
    frame::Frame::Hello(api::Hello {
        site: local.site.to_string(),
        trust_domain: local.trust_domain.to_string(),
        clusters: local.clusters.iter().map(ToString::to_string).collect(),
        networks: local.networks.iter().map(ToString::to_string).collect(),
        revision: REVISION,
        epoch: local.epoch,
        lease_ms: local.lease_ms,
    })
}

impl Session<'_> {
    async fn run(&mut self) -> Ended {
        loop {
            if self.pending.is_none() {
                self.pending = self.produce();
            }
            let wake = self.wake();
            let (waiting, sending) = (!self.around.intake.events.is_empty(), self.pending.is_some());
            let around = &mut self.around;
            tokio::select! {
                _ = around.stop.changed() => return Ended::Stopped,
                ready = self.wire.outbound.ready(), if sending => match ready {
                    Ok(()) => self.send(),
                    // The reading direction knows why; without it there is nothing to know.
                    Err(_) => return self.why().await,
                },
                room = around.out.reserve(), if waiting => match room {
                    Ok(room) => {
                        if let Some(event) = around.intake.events.pop_front() {
                            room.send(event);
                        }
                        // Not having read for a while is no silence of the peer.
                        self.heard = Instant::now();
                    }
                    Err(_) => return Ended::Stopped,
                },
                frame = self.wire.inbound.message(), if !waiting => {
                    if let Err(ended) = self.on_message(frame) {
                        return ended;
                    }
                }
                Ok(()) = around.local.exports.changed() => {
                    self.shown = around.local.exports.borrow_and_update().clone();
                }
                () = around.local.trust.changed() => {
                    if let Err(ended) = self.judge() {
                        return ended;
                    }
                }
                Some(other) = around.incoming.recv() => {
                    if let Some(ended) = self.meet(other) {
                        return ended;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if let Err(ended) = self.on_time() {
                        return ended;
                    }
                }
            }
        }
    }

    /// When time alone has to do something: say a word, or notice silence.
    fn wake(&self) -> Instant {
        let never = Instant::now() + Duration::from_secs(3600);
        let silence = if self.around.intake.events.is_empty() { self.heard + self.lease } else { never };
        let word = if self.pending.is_none() { self.sent + self.beat() } else { never };
        silence.min(word)
    }

    fn beat(&self) -> Duration {
        Duration::from_millis((u64::from(self.around.local.lease_ms) / 3).max(50))
    }

    /// The next frame: requests and answers first, because the other side waits for them.
    fn produce(&mut self) -> Option<frame::Frame> {
        if let Some(request) = self.around.intake.next_request() {
            return Some(request_to_wire(request));
        }
        if let Some(response) = self.publisher.next(&self.shown) {
            return Some(response_to_wire(response));
        }
        let due = self.sent.elapsed() >= self.beat();
        let unix = || UnixTime::now().as_secs() * 1000;
        due.then(|| frame::Frame::Heartbeat(api::Heartbeat { sent_unix_ms: unix() }))
    }

    fn send(&mut self) {
        if let Some(frame) = self.pending.take() {
            self.wire.outbound.send(frame);
            self.sent = Instant::now();
        }
    }

    async fn why(&mut self) -> Ended {
        match tokio::time::timeout(Duration::from_secs(1), self.wire.inbound.message()).await {
            Ok(Err(status)) => ended_by(&status),
            Ok(Ok(_)) | Err(_) => Ended::Lost("the stream ended".to_owned()),
        }
    }

    fn on_message(&mut self, message: Result<Option<Frame>, Status>) -> Result<(), Ended> {
        let frame = match message {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Ended::Lost("the peer ended the stream".to_owned())),
            Err(status) => return Err(ended_by(&status)),
        };
        self.heard = Instant::now();
        match frame.frame {
            Some(frame::Frame::Hello(hello)) if !self.greeted => self.greet(&hello)?,
            Some(_) if !self.greeted => return Err(self.refuse("the first frame must be hello".to_owned())),
            Some(frame::Frame::Request(request)) => {
                // Only what is exchanged here can be asked for, so that a peer cannot make this side remember more.
                if types::ALL.contains(&request.type_url.as_str()) {
                    self.publisher.on_request(&request_from_wire(request));
                }
            }
            Some(frame::Frame::Response(response)) => self.around.intake.on_response(response_from_wire(response)),
            // A kind of frame that only a newer peer knows is no reason to part.
            Some(frame::Frame::Hello(_) | frame::Frame::Heartbeat(_)) | None => {}
        }
        self.around.intake.heard(self.heard.into_std());
        self.tell();
        Ok(())
    }

    fn greet(&mut self, hello: &api::Hello) -> Result<(), Ended> {
        if let Err(reason) = self.around.intake.on_hello(hello) {
            return Err(self.refuse(reason));
        }
        self.greeted = true;
        self.lease = Duration::from_millis(lease_of(hello));
        let state = &mut self.around.intake.state;
        state.link = Link::Connected;
        state.reason.clear();
        tracing::info!(peer = %self.around.settings.name, dialed = self.wire.dialed(), "peer connected");
        Ok(())
    }

    fn tell(&self) {
        self.around.state.send_replace(self.around.intake.state.clone());
    }

    fn refuse(&self, reason: String) -> Ended {
        self.wire.outbound.refuse(Status::permission_denied(reason.clone()));
        Ended::Refused(reason)
    }

    /// The peer's chain has to hold for as long as the stream does.
    fn judge(&self) -> Result<(), Ended> {
        let side = if self.wire.dialed() { Side::Server } else { Side::Client };
        let trust = self.around.local.trust.now();
        match verify_chain(&self.wire.chain, &trust, side, UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(reason) => Err(self.refuse(reason.to_string())),
        }
    }

    /// Both sides dialed at once, or the peer dialed again. The stream that the smaller site name dialed stays, so
    /// that both sides choose the same one.
    fn meet(&self, other: Wire) -> Option<Ended> {
        if self.wire.dialed() && self.around.local.site < self.around.settings.name {
            other.outbound.refuse(Status::already_exists("there is a stream already, which the other side dialed"));
            return None;
        }
        Some(Ended::Replaced(Box::new(other)))
    }

    fn on_time(&mut self) -> Result<(), Ended> {
        if self.around.intake.events.is_empty() && self.heard.elapsed() >= self.lease {
            let what = if self.greeted { "silent for longer than its lease" } else { "did not say who it is" };
            return Err(Ended::Lost(format!("the peer was {what}")));
        }
        self.judge()
    }
}

fn ended_by(status: &Status) -> Ended {
    match status.code() {
        Code::PermissionDenied => Ended::Refused(format!("the peer refused: {}", status.message())),
        _ => Ended::Lost(describe(status)),
    }
}

/// An error with what caused it.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
