//! Tests of `attempt`.

use super::*;
use crate::config::{BackOff, ResetFormat, ResetHeader, RetryOn, RetryPolicy, Threshold};
use http::HeaderValue;
use proptest::prelude::*;
use std::time::Duration;

fn ms(duration: u64) -> Duration {
    Duration::from_millis(duration)
}

fn plan(on: RetryOn, retries: u32) -> RetryPlan {
    let back_off = BackOff { base: ms(25), max: ms(250) };
    let policy = RetryPolicy {
        on,
        retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        status_codes: Box::default(),
        response_headers: Box::default(),
        request_headers: Box::default(),
        back_off,
        reset_headers: Box::default(),
        reset_max: Duration::from_secs(300),
        avoid_previous_hosts: false,
        avoid_previous_priorities: None,
        omit_canary: false,
        host_selection_attempts: 1,
    };
    RetryPlan {
        on,
        retries,
        status_codes: SmallVec::new(),
        header_names: SmallVec::new(),
        back_off,
        policy: Arc::new(policy),
    }
}

fn setup(retry: Option<RetryPlan>) -> Setup {
    Setup {
        retry: retry.map(Arc::new),
        hedge_on_per_try_timeout: false,
        timeouts: StreamTimeouts::default(),
        life: None,
        timeout_status: None,
        breakers: Breakers::new(&Threshold::default()),
    }
}

fn answer<'a>(id: u32, status: u16, headers: &'a HeaderMap) -> Event<'a> {
    Event::Head(ResponseHead { try_id: TryId(id), status, headers, listed: false, unix_seconds: 1000 })
}

fn reset(id: u32, kind: Kind) -> Event<'static> {
    Event::Reset(Broken { try_id: TryId(id), failure: Failure::new(kind), over_http3: false })
}

/// An attempt whose first try is on its way.
fn running(setup: Setup) -> Attempt {
    let mut attempt = Attempt::new(setup);
    attempt.next(Event::Picked(TryId(0), HostId(0), 0), Millis(0), 0);
    attempt.next(Event::RequestComplete, Millis(0), 0);
    attempt.next(Event::Opened(TryId(0)), Millis(0), 0);
    attempt.next(Event::Sent(TryId(0)), Millis(0), 0);
    attempt
}

/// Lets the time come that the attempt waits for.
fn timer(attempt: &mut Attempt, step: &Step) -> (Step, Millis) {
    let Action::Wait(Some(until)) = step.action else { panic!("nothing to wait for: {step:?}") };
    (attempt.next(Event::Timer, until, 1), until)
}

fn is_retry(attempt: &mut Attempt, step: Step) -> bool {
    match step.action {
        Action::Pick(_) => true,
        Action::Wait(Some(_)) => matches!(timer(attempt, &step).0.action, Action::Pick(_)),
        _ => false,
    }
}

fn retried_by_status(plan: RetryPlan, status: u16, headers: &[(&'static str, &'static str)]) -> bool {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(value)));
    let mut attempt = running(setup(Some(plan)));
    let step = attempt.next(answer(0, status, &headers.collect()), Millis(5), 1);
    is_retry(&mut attempt, step)
}

fn retried_by_reset(on: RetryOn, kind: Kind) -> bool {
    let mut attempt = running(setup(Some(plan(on, 1))));
    let step = attempt.next(reset(0, kind), Millis(5), 1);
    is_retry(&mut attempt, step)
}

#[test]
fn the_first_answer_is_taken_without_a_policy() {
    let mut attempt = running(setup(None));
    let step = attempt.next(answer(0, 503, &HeaderMap::new()), Millis(5), 1);
    assert_eq!(step, Step { drop: None, action: Action::Forward(TryId(0)) });
    assert!(attempt.flags().is_empty() && attempt.count() == 1 && !attempt.keeps_body());
}

#[test]
fn status_conditions() {
    let on = |on| plan(on, 1);
    assert!(retried_by_status(on(RetryOn::FIVE_XX), 500, &[]));
    assert!(!retried_by_status(on(RetryOn::FIVE_XX), 404, &[]));
    assert!(retried_by_status(on(RetryOn::GATEWAY_ERROR), 503, &[]));
    assert!(!retried_by_status(on(RetryOn::GATEWAY_ERROR), 500, &[]));
    assert!(retried_by_status(on(RetryOn::RETRIABLE_4XX), 409, &[]));
    assert!(!retried_by_status(on(RetryOn::RETRIABLE_4XX), 404, &[]));
    let listed = RetryPlan { status_codes: SmallVec::from_slice(&[404, 429]), ..on(RetryOn::STATUS_CODES) };
    assert!(retried_by_status(listed.clone(), 429, &[]) && !retried_by_status(listed, 503, &[]));
    let named = RetryPlan { header_names: SmallVec::from_iter(["x-again".parse().unwrap()]), ..on(RetryOn::HEADERS) };
    assert!(retried_by_status(named.clone(), 200, &[("x-again", "1")]) && !retried_by_status(named, 200, &[]));
}

#[test]
fn a_rate_limited_answer_is_retried_only_when_asked_to() {
    let limited = &[("x-envoy-ratelimited", "true")];
    assert!(!retried_by_status(plan(RetryOn::FIVE_XX, 1), 503, limited));
    assert!(retried_by_status(plan(RetryOn::RATE_LIMITED, 1), 429, limited));
}

#[test]
fn grpc_conditions() {
    for (on, status) in [
        (RetryOn::GRPC_CANCELLED, "1"),
        (RetryOn::GRPC_DEADLINE_EXCEEDED, "4"),
        (RetryOn::GRPC_RESOURCE_EXHAUSTED, "8"),
        (RetryOn::GRPC_INTERNAL, "13"),
        (RetryOn::GRPC_UNAVAILABLE, "14"),
    ] {
        assert!(retried_by_status(plan(on, 1), 200, &[("grpc-status", status)]));
        assert!(!retried_by_status(plan(on, 1), 200, &[("grpc-status", "2")]));
    }
}

#[test]
fn reset_conditions() {
    assert!(retried_by_reset(RetryOn::RESET, Kind::UpstreamClosed));
    assert!(retried_by_reset(RetryOn::FIVE_XX, Kind::UpstreamReset));
    assert!(retried_by_reset(RetryOn::CONNECT_FAILURE, Kind::ConnectTimeout));
    assert!(!retried_by_reset(RetryOn::CONNECT_FAILURE, Kind::UpstreamClosed));
    assert!(retried_by_reset(RetryOn::REFUSED_STREAM, Kind::UpstreamRefusedStream));
    assert!(!retried_by_reset(RetryOn::REFUSED_STREAM, Kind::UpstreamReset));
    assert!(!retried_by_reset(RetryOn::FIVE_XX, Kind::Overflow), "more load is no cure for overload");
    assert!(!retried_by_reset(RetryOn::RESET_BEFORE_REQUEST, Kind::UpstreamClosed), "bytes went out");
    let mut unsent = Attempt::new(setup(Some(plan(RetryOn::RESET_BEFORE_REQUEST, 1))));
    let step = unsent.next(reset(0, Kind::UpstreamClosed), Millis(5), 1);
    assert!(is_retry(&mut unsent, step));
}

#[test]
fn the_last_answer_is_taken_when_retries_are_used_up() {
    let mut attempt = running(setup(Some(plan(RetryOn::FIVE_XX, 2))));
    for id in 0..2 {
        let step = attempt.next(answer(id, 503, &HeaderMap::new()), Millis(1000 * u64::from(id)), 1);
        assert_eq!(step.drop, Some(TryId(id)));
        assert_eq!(timer(&mut attempt, &step).0.action, Action::Pick(TryId(id + 1)));
    }
    let step = attempt.next(answer(2, 502, &HeaderMap::new()), Millis(5000), 1);
    assert_eq!(step.action, Action::Forward(TryId(2)));
    assert_eq!((attempt.flags().to_string().as_str(), attempt.count()), ("URX", 3));
}

#[test]
fn flags_show_the_limit_before_the_reason() {
    let mut attempt = running(setup(Some(plan(RetryOn::CONNECT_FAILURE, 1))));
    let step = attempt.next(reset(0, Kind::ConnectFailure), Millis(1), 1);
    assert!(is_retry(&mut attempt, step));
    let step = attempt.next(reset(1, Kind::ConnectFailure), Millis(100), 1);
    assert_eq!(step.action, Action::Fail(Failure::new(Kind::ConnectFailure)));
    assert_eq!(attempt.flags().to_string(), "URX,UF");
}

#[test]
fn an_open_breaker_stops_retries() {
    let breakers = Breakers::new(&Threshold { retries: 0, ..Threshold::default() });
    let mut attempt = running(Setup { breakers, ..setup(Some(plan(RetryOn::FIVE_XX, 2))) });
    let step = attempt.next(answer(0, 503, &HeaderMap::new()), Millis(1), 1);
    assert_eq!(step.action, Action::Forward(TryId(0)));
    assert_eq!(attempt.flags().to_string(), "UO");
}

#[test]
fn a_retry_holds_a_permit_until_the_request_is_over() {
    let breakers = Breakers::new(&Threshold::default());
    let mut attempt = running(Setup { breakers: breakers.clone(), ..setup(Some(plan(RetryOn::FIVE_XX, 2))) });
    let step = attempt.next(answer(0, 503, &HeaderMap::new()), Millis(1), 1);
    assert_eq!(breakers.used(Resource::Retries), 1);
    timer(&mut attempt, &step);
    drop(attempt);
    assert_eq!(breakers.used(Resource::Retries), 0);
}

#[test]
fn per_try_timeout_drops_the_try_and_then_gives_up() {
    let timeouts = StreamTimeouts { global: Some(ms(2000)), per_try: Some(ms(200)), ..StreamTimeouts::default() };
    let mut attempt = running(Setup { timeouts, ..setup(Some(plan(RetryOn::FIVE_XX, 1))) });
    let step = attempt.next(Event::Timer, Millis(200), 1);
    assert_eq!(step.drop, Some(TryId(0)));
    let (step, now) = match step.action {
        Action::Wait(_) => timer(&mut attempt, &step),
        _ => (step, Millis(200)),
    };
    assert_eq!(step.action, Action::Pick(TryId(1)));
    let waiting = attempt.next(Event::Opened(TryId(1)), now, 1);
    assert_eq!(waiting.action, Action::Wait(Some(now.after(200))), "the clock of a try starts with its stream");
    let (step, _) = timer(&mut attempt, &waiting);
    assert_eq!(step, Step { drop: Some(TryId(1)), action: Action::Fail(Failure::new(Kind::PerTryTimeout)) });
    assert_eq!(attempt.flags().to_string(), "URX,UT");
}

#[test]
fn the_global_timeout_answers_or_aborts() {
    let timeouts = StreamTimeouts { global: Some(ms(300)), per_try: Some(ms(300)), ..StreamTimeouts::default() };
    let alternative = Setup { timeouts, timeout_status: Some(204), ..setup(None) };
    let mut attempt = running(alternative.clone());
    let step = attempt.next(Event::Timer, Millis(300), 1);
    assert_eq!(step.action, Action::Fail(Failure::new(Kind::UpstreamTimeout).with_status(204)));

    let mut attempt = running(alternative);
    attempt.next(answer(0, 200, &HeaderMap::new()), Millis(100), 1);
    let step = attempt.next(Event::Timer, Millis(300), 1);
    assert!(matches!(step.action, Action::Abort(_)));
    assert_eq!(attempt.flags().to_string(), "UT");
}

#[test]
fn clocks_start_when_the_request_is_complete() {
    let timeouts = StreamTimeouts { global: Some(ms(300)), per_try: Some(ms(100)), ..StreamTimeouts::default() };
    let mut attempt = Attempt::new(Setup { timeouts, ..setup(Some(plan(RetryOn::FIVE_XX, 1))) });
    assert_eq!(attempt.expected_timeout(Millis(0)), Some(100));
    assert_eq!(attempt.next(Event::Opened(TryId(0)), Millis(0), 1).action, Action::Wait(None));
    let step = attempt.next(Event::RequestComplete, Millis(1000), 1);
    assert_eq!(step.action, Action::Wait(Some(Millis(1100))));
    assert_eq!(attempt.expected_timeout(Millis(1250)), Some(50));
}

#[test]
fn an_idle_try_is_dropped_but_a_moving_one_is_not() {
    let timeouts = StreamTimeouts { per_try_idle: Some(ms(100)), ..StreamTimeouts::default() };
    let mut attempt = running(Setup { timeouts, ..setup(None) });
    attempt.next(Event::Moved(TryId(0)), Millis(90), 1);
    let step = attempt.next(Event::Timer, Millis(100), 1);
    assert_eq!(step.action, Action::Wait(Some(Millis(190))));
    let step = attempt.next(Event::Timer, Millis(190), 1);
    assert_eq!(step.action, Action::Fail(Failure::new(Kind::PerTryIdleTimeout)));
}

fn hedging(retries: u32) -> (Attempt, Step) {
    let timeouts = StreamTimeouts { per_try: Some(ms(200)), ..StreamTimeouts::default() };
    let hedged = Setup { timeouts, hedge_on_per_try_timeout: true, ..setup(Some(plan(RetryOn::FIVE_XX, retries))) };
    let mut attempt = running(hedged);
    let step = attempt.next(Event::Timer, Millis(200), 1);
    assert_eq!(step.drop, None, "the slow try goes on");
    let step = if matches!(step.action, Action::Wait(_)) { timer(&mut attempt, &step).0 } else { step };
    assert_eq!(step.action, Action::Pick(TryId(1)));
    let step = attempt.next(Event::Opened(TryId(1)), Millis(250), 1);
    (attempt, step)
}

#[test]
fn hedging_takes_the_first_good_answer() {
    let (mut attempt, _) = hedging(1);
    let step = attempt.next(answer(0, 503, &HeaderMap::new()), Millis(300), 1);
    assert_eq!(step.drop, Some(TryId(0)), "a bad answer while another try is under way");
    let step = attempt.next(answer(1, 200, &HeaderMap::new()), Millis(310), 1);
    assert_eq!(step.action, Action::Forward(TryId(1)));

    let (mut attempt, step) = hedging(1);
    let (step, _) = timer(&mut attempt, &step);
    assert!(matches!(step.action, Action::Wait(None)), "no retry is left, both go on: {step:?}");
    let step = attempt.next(answer(0, 200, &HeaderMap::new()), Millis(500), 1);
    assert_eq!(step.action, Action::Forward(TryId(0)));
    assert_eq!(attempt.live().collect::<Vec<_>>(), [TryId(0), TryId(1)], "the caller resets the others");
    assert_eq!(attempt.flags().to_string(), "URX");
    let late = attempt.next(answer(1, 200, &HeaderMap::new()), Millis(501), 1);
    assert_eq!(late.drop, Some(TryId(1)));
}

#[test]
fn the_server_says_when_to_come_back() {
    let mut limited = plan(RetryOn::FIVE_XX, 1);
    let policy = Arc::make_mut(&mut limited.policy);
    policy.reset_headers = Box::new([
        ResetHeader { name: "retry-after".parse().unwrap(), format: ResetFormat::Seconds },
        ResetHeader { name: "x-ratelimit-reset".parse().unwrap(), format: ResetFormat::UnixTimestamp },
    ]);
    let wait = |name: &'static str, value: &'static str| {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
        let mut attempt = running(setup(Some(limited.clone())));
        match attempt.next(answer(0, 503, &headers), Millis(0), 1).action {
            Action::Wait(Some(until)) => until.0,
            Action::Pick(_) => 0,
            other => panic!("{other:?}"),
        }
    };
    assert!((1000..1500).contains(&wait("retry-after", "1")));
    assert!((2000..3000).contains(&wait("x-ratelimit-reset", "1002")));
    assert!(wait("x-ratelimit-reset", "999") < 25, "a time that has passed says nothing");
    assert!(wait("retry-after", "100000") < 25, "too long is not waited for");
}

#[test]
fn a_lost_body_ends_retries() {
    let mut attempt = running(setup(Some(plan(RetryOn::FIVE_XX, 2))));
    attempt.next(Event::BodyLost, Millis(1), 1);
    let step = attempt.next(answer(0, 503, &HeaderMap::new()), Millis(2), 1);
    assert_eq!(step.action, Action::Forward(TryId(0)));

    let mut waiting = running(setup(Some(plan(RetryOn::FIVE_XX, 2))));
    let step = waiting.next(answer(0, 503, &HeaderMap::new()), Millis(2), 1);
    assert!(matches!(step.action, Action::Wait(_)));
    let step = waiting.next(Event::BodyLost, Millis(3), 1);
    assert_eq!(step.action, Action::Fail(Failure::new(Kind::RetryBufferExceeded)));
}

#[test]
fn no_host_ends_it() {
    let mut attempt = Attempt::new(setup(Some(plan(RetryOn::FIVE_XX, 2))));
    assert_eq!(
        attempt.next(Event::NoHost(TryId(0)), Millis(0), 1).action,
        Action::Fail(Failure::new(Kind::NoHealthyUpstream))
    );
    assert_eq!((attempt.flags().to_string().as_str(), attempt.count()), ("UH", 1));
}

#[test]
fn without_a_policy_nothing_is_repeated() {
    let mut attempt = running(setup(None));
    assert!(matches!(attempt.next(reset(0, Kind::UpstreamClosed), Millis(1), 1).action, Action::Fail(_)));
    assert_eq!((attempt.flags().to_string().as_str(), attempt.count()), ("UC", 1));
}

#[test]
fn http3_that_cannot_connect_falls_back_at_once() {
    let mut attempt = running(setup(Some(plan(RetryOn::HTTP3_POST_CONNECT_FAILURE, 1))));
    let failure = Failure::new(Kind::UpstreamReset);
    let broken = Broken { try_id: TryId(0), failure, over_http3: true };
    assert_eq!(attempt.next(Event::Reset(broken), Millis(9), 1).action, Action::Pick(TryId(1)));
    assert!(attempt.avoids_http3());
}

#[test]
fn retries_avoid_hosts_and_priorities_that_were_tried() {
    let mut careful = plan(RetryOn::FIVE_XX, 3);
    let policy = Arc::make_mut(&mut careful.policy);
    policy.avoid_previous_hosts = true;
    policy.avoid_previous_priorities = Some(2);
    policy.host_selection_attempts = 8;
    let mut attempt = running(setup(Some(careful)));
    let mut first = balance::Request::default();
    attempt.narrow(&mut first);
    assert!(first.exclude.is_empty(), "the first try avoids nobody");
    let step = attempt.next(reset(0, Kind::UpstreamReset), Millis(1), 1);
    assert!(is_retry(&mut attempt, step));
    let mut second = balance::Request::default();
    attempt.narrow(&mut second);
    assert_eq!((second.exclude, second.reselections, second.skip_priorities), (&[HostId(0)][..], 8, 0));
    attempt.next(Event::Picked(TryId(1), HostId(5), 1), Millis(1), 1);
    let mut third = balance::Request::default();
    attempt.narrow(&mut third);
    assert_eq!(third.skip_priorities, 0b11);
}

#[derive(Debug, Clone)]
enum Happening {
    Open,
    Sent,
    Complete,
    Answer(usize, u16),
    Break(usize),
    Lost,
    NoHost,
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        Just(Happening::Open),
        Just(Happening::Sent),
        Just(Happening::Complete),
        (0usize..3, prop::sample::select(vec![200u16, 404, 500, 503]))
            .prop_map(|(who, status)| Happening::Answer(who, status)),
        (0usize..3).prop_map(Happening::Break),
        Just(Happening::Lost),
        Just(Happening::NoHost),
        (0u64..400).prop_map(Happening::Pass),
    ];
    prop::collection::vec(one, 1..60)
}

/// Plays a story to an attempt and checks the laws at each step.
struct Play {
    attempt: Attempt,
    random: Random,
    now: Millis,
    completed: Option<Millis>,
    forwarded: bool,
    ended: Option<Millis>,
    picks: u32,
}

impl Play {
    fn live(&self, index: usize) -> TryId {
        let live: Vec<TryId> = self.attempt.live().collect();
        live.get(index % live.len().max(1)).copied().unwrap_or(TryId(99))
    }

    fn happen(&mut self, happening: &Happening) -> Result<(), TestCaseError> {
        let headers = HeaderMap::new();
        let event = match *happening {
            Happening::Open => Event::Opened(self.live(0)),
            Happening::Sent => Event::Sent(self.live(0)),
            Happening::Complete if self.completed.is_some() => return Ok(()),
            Happening::Complete => {
                self.completed = Some(self.now);
                Event::RequestComplete
            }
            Happening::Answer(index, status) => answer(self.live(index).0, status, &headers),
            Happening::Break(index) => {
                let failure = Failure::new(Kind::UpstreamClosed);
                Event::Reset(Broken { try_id: self.live(index), failure, over_http3: false })
            }
            Happening::Lost => Event::BodyLost,
            Happening::NoHost => Event::NoHost(self.live(0)),
            Happening::Pass(time) => return self.pass(time),
        };
        let step = self.attempt.next(event, self.now, self.random.draw());
        self.judge(&step)
    }

    fn pass(&mut self, time: u64) -> Result<(), TestCaseError> {
        let end = self.now.after(time);
        let mut rings = 0;
        while let Some(at) = self.attempt.until().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let step = self.attempt.next(Event::Timer, self.now, self.random.draw());
            self.judge(&step)?;
            rings += 1;
            prop_assert!(rings < 50, "the timer does not settle");
        }
        self.now = end;
        Ok(())
    }

    fn judge(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let going = !self.forwarded && self.ended.is_none();
        match &step.action {
            Action::Wait(next) => prop_assert!(next.is_none() || self.ended.is_none(), "a clock runs after the end"),
            Action::Pick(_) => {
                prop_assert!(going, "a try after the end");
                self.picks += 1;
            }
            Action::Forward(_) => {
                prop_assert!(going, "two answers");
                self.forwarded = true;
            }
            Action::Fail(_) => {
                prop_assert!(going, "a failure after the answer");
                self.ended = Some(self.now);
            }
            Action::Abort(_) => {
                prop_assert!(self.forwarded && self.ended.is_none(), "an abort without an answer");
                self.ended = Some(self.now);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_laws_hold_whatever_happens(
        retries in 0u32..5,
        hedge: bool,
        per_try in prop::option::of(1u64..500),
        global in prop::option::of(1u64..1000),
        story in happenings(),
        seed: u64,
    ) {
        let timeouts = StreamTimeouts { global: global.map(ms), per_try: per_try.map(ms), ..StreamTimeouts::default() };
        let attempt = Attempt::new(Setup {
            timeouts,
            hedge_on_per_try_timeout: hedge,
            ..setup(Some(plan(RetryOn::FIVE_XX, retries)))
        });
        let (now, random) = (Millis(0), Random::new(seed));
        let mut play = Play { attempt, random, now, completed: None, forwarded: false, ended: None, picks: 1 };
        for happening in story.iter().chain([&Happening::Pass(100_000)]) {
            play.happen(happening)?;
            prop_assert!(play.picks <= retries + 1, "{} tries", play.picks);
            prop_assert_eq!(play.attempt.count(), play.picks);
        }
        if let (Some(completed), Some(global)) = (play.completed, global) {
            let end = play.ended.expect("a request with a timeout ends");
            prop_assert!(end.since(completed) <= global, "{end:?} is later than {completed:?} and {global}");
        }
    }
}

#[test]
fn a_stream_lives_for_as_long_as_the_upstream_lets_it() {
    let limited = |retry| Setup { life: Some(ms(100)), ..setup(retry) };
    let mut attempt = running(limited(None));
    assert_eq!(
        (attempt.until(), attempt.outlived(Millis(99)), attempt.outlived(Millis(100))),
        (Some(Millis(100)), None, Some(TryId(0)))
    );
    let Action::Fail(failure) = attempt.next(Event::Timer, Millis(100), 1).action else { panic!("goes on") };
    assert_eq!((failure.kind, failure.status()), (Kind::UpstreamMaxStreamDuration, 504));
    assert!(attempt.flags().contains(Flag::UpstreamMaxStreamDurationReached));

    // The client is still sending: it is its fault.
    let mut attempt = Attempt::new(limited(None));
    attempt.next(Event::Opened(TryId(0)), Millis(50), 0);
    let Action::Fail(failure) = attempt.next(Event::Timer, Millis(150), 1).action else { panic!("goes on") };
    assert_eq!(failure.status(), 408);

    // Another try has as long again; its request went out, whatever was said of it.
    for (on, again) in
        [(RetryOn::RESET, true), (RetryOn::RESET_BEFORE_REQUEST, false), (RetryOn::CONNECT_FAILURE, false)]
    {
        let mut attempt = running(limited(Some(plan(on, 1))));
        let step = attempt.next(Event::Timer, Millis(100), 1);
        assert_eq!(is_retry(&mut attempt, step), again, "{on:?}");
    }

    // A response that began ends with it; the clock is the caller's from then on.
    let mut attempt = running(limited(None));
    attempt.next(answer(0, 200, &HeaderMap::new()), Millis(20), 1);
    assert_eq!((attempt.until(), attempt.end()), (None, Some(Millis(100))));
    assert!(matches!(attempt.next(Event::Timer, Millis(100), 1).action, Action::Abort(_)));
}
