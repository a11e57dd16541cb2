//! The corpus of HTTP/1 requests, sound and malformed, through a gateway to servers of both versions: what is refused
//! reaches nobody, what is taken arrives once and means one thing, and nobody else is the worse for either.

use crate::GATEWAY;
use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tombolo_tests_protocols::{
    wire1::Wire,
    world::{Arrived, Place, Probe, World},
};

#[path = "../../../../gateway/http1/tests/corpus/mod.rs"]
mod corpus;

use corpus::{Case, Outcome};

/// What the gateway itself answers to requests that are sound but go nowhere from here.
const LOCAL: &[(&str, u16)] = &[
    ("options-star", 404),
    ("connect", 404),
    ("connect-to-an-address", 404),
    ("connect-with-a-length", 404),
    ("no-host", 400),
    ("upgrade-with-a-second-request", 403),
];
/// What the library that is the HTTP/2 server does not take.
const NOT_FOR_TWO: &str = "query-with-odd-characters";

/// One case at one place.
struct Play<'a> {
    place: &'a Place,
    case: &'a Case,
    wire: Wire<TcpStream>,
    /// Requests that the server must have seen: method and bytes of the body.
    forwarded: Vec<(String, usize)>,
    /// The connection is over.
    over: bool,
}

impl Play<'_> {
    async fn run(mut self, probe: &mut Probe) -> Result<()> {
        self.wire.send(&self.case.bytes).await;
        probe.ask().await?;
        for outcome in &self.case.outcomes {
            // The gateway's own answer may have ended the connection, and with it whatever lay behind.
            if self.over && LOCAL.iter().any(|(name, _)| *name == self.case.name) {
                break;
            }
            ensure!(!self.over, "{outcome:?} was to come and the connection is over");
            self.one(outcome).await?;
        }
        if matches!(self.case.outcomes.last(), Some(Outcome::Request(..))) && !self.over {
            self.sentinel().await?;
        }
        if self.over {
            ensure!(self.wire.end().await?.is_empty(), "more came after the last answer");
        } else {
            drop(self.wire);
        }
        let arrived = probe.arrived(&self.place.recorder).await?;
        judge(&self.case.outcomes, &self.forwarded, &arrived)
    }

    async fn one(&mut self, outcome: &Outcome) -> Result<()> {
        match outcome {
            Outcome::Request(method, length) => {
                let answer = self.wire.answer(method == "HEAD").await?.context("no answer")?;
                let local = LOCAL.iter().find(|(name, _)| *name == self.case.name);
                match local {
                    Some((_, status)) => ensure!(answer.status == *status, "{answer:?} instead of {status}"),
                    None => {
                        ensure!(answer.status == 200, "{answer:?}");
                        self.forwarded.push((method.clone(), *length));
                    }
                }
                self.over = answer.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
            }
            Outcome::Refused(status) => {
                let answer = self.wire.answer(false).await?.context("no answer to what is refused")?;
                ensure!(answer.status == *status, "{answer:?} instead of {status}");
                ensure!(answer.field("connection") == Some("close"), "{answer:?} and the connection stays");
                self.over = true;
            }
            Outcome::Body(_) => {
                // The answer may have begun to be nothing at all: then the connection just ends.
                if let Some(answer) = self.wire.answer(false).await? {
                    ensure!(answer.status == 400, "{answer:?}");
                }
                self.over = true;
            }
            Outcome::Partial(_) => {}
        }
        Ok(())
    }

    /// One more request behind the last: it is the next that is answered, so nothing lay between them.
    async fn sentinel(&mut self) -> Result<()> {
        self.wire.send(b"PUT /sentinel HTTP/1.1\r\nhost: s\r\ncontent-length: 3\r\n\r\nend").await;
        let answer = self.wire.answer(false).await?.context("the connection ended before one more request")?;
        ensure!(answer.status == 200, "one more request: {answer:?}");
        self.forwarded.push(("PUT".into(), 3));
        Ok(())
    }
}

/// Compares what arrived with what may have.
fn judge(outcomes: &[Outcome], forwarded: &[(String, usize)], arrived: &Arrived) -> Result<()> {
    let whole: Vec<(String, usize)> =
        arrived.whole.iter().map(|(head, body)| (head.method.clone(), body.len())).collect();
    ensure!(whole == forwarded, "the server saw {:?} instead of {forwarded:?}", arrived.whole);
    let begun = match outcomes.last() {
        Some(Outcome::Body(method) | Outcome::Partial(Some(method))) => Some(method),
        _ => None,
    };
    match (&arrived.broken[..], begun) {
        ([], _) => Ok(()),
        ([one], Some(method)) if one.method == *method => Ok(()),
        _ => bail!("the server saw the beginning of {:?}", arrived.broken),
    }
}

async fn all(place: &Place, cases: &[Case]) -> Vec<String> {
    let mut probe = Probe::open(place.at).await.unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let wire = Wire::new(TcpStream::connect(place.at).await.unwrap());
        let play = Play { place, case, wire, forwarded: Vec::new(), over: false };
        if let Err(error) = play.run(&mut probe).await {
            wrong.push(format!("{}: {error:#}", case.name));
            let _ = place.recorder.take();
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_stop_at_the_gateway() {
    let cases = corpus::cases();
    assert!(cases.len() >= 440, "{} cases", cases.len());
    let world = World::start(GATEWAY, false).await.unwrap();
    let for_two: Vec<Case> = cases.iter().filter(|case| case.name != NOT_FOR_TWO).cloned().collect();
    let (one, two) = tokio::join!(all(&world.one, &cases), all(&world.two, &for_two));
    let report = |wrong: &[String]| format!("{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(one.is_empty() && two.is_empty(), "to HTTP/1 {}\nto HTTP/2 {}", report(&one), report(&two));
    world.gateway.is_whole().await.unwrap();
}
