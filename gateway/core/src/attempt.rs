//! Owns the tries of one request: when another one is made, which one answers, and when it is over.
//!
//! A state machine without I/O. The caller reports what happens ([`Event`]) and does what the returned [`Step`] says;
//! between two calls it waits for its sockets and for the time named by [`Action::Wait`]. Time and random numbers are
//! arguments. Belongs to the worker that carries the request; with one try and no retry it allocates nothing.
//!
//! Laws, each tested: no more than the allowed retries and one; no other try once a response's head went downstream; never
//! longer than the global timeout.

mod back_off;
mod conditions;
#[cfg(test)]
mod tests;

use crate::balance::{self, HostId};
use crate::breaker::{Breakers, Permit, Resource};
use crate::decision::{RetryPlan, StreamTimeouts};
use crate::failure::{Failure, Flag, Flags, Kind};
use crate::time::{Millis, Random, millis};
use back_off::BackOffs;
use conditions::Verdict;
use http::HeaderMap;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// One try, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TryId(pub u32);

/// What a request is tried by.
#[derive(Debug, Clone)]
pub struct Setup {
    /// When it is tried again; `None`: never.
    pub retry: Option<Arc<RetryPlan>>,
    /// A try that ran out of its time goes on while the next one starts.
    pub hedge_on_per_try_timeout: bool,
    /// Clocks; those of the stream (idle, life) are the caller's business.
    pub timeouts: StreamTimeouts,
    /// How long one try's stream may live; none: for ever.
    pub life: Option<Duration>,
    /// Status in place of 504.
    pub timeout_status: Option<u16>,
    /// Bounds retries.
    pub breakers: Arc<Breakers>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// An endpoint was chosen for a try.
    Picked(TryId, HostId, u32),
    /// There is no endpoint for the try.
    NoHost(TryId),
    /// The try has a stream on a connection.
    Opened(TryId),
    /// Bytes of the request went out for the try.
    Sent(TryId),
    /// Bytes moved for the try, in either direction. Needed only with a per-try idle timeout.
    Moved(TryId),
    /// The client's request is complete.
    RequestComplete,
    /// The request's body no longer fits into the buffer: it cannot be repeated.
    BodyLost,
    /// The head of a final response (not 1xx).
    Head(ResponseHead<'a>),
    /// The try broke.
    Reset(Broken),
    /// The time of the last [`Action::Wait`] has come.
    Timer,
}

/// The head of a response.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// Whose.
    pub try_id: TryId,
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Whether it fulfils one of the policy's `response_headers`; looked at only when [`Attempt::asks_headers`].
    pub listed: bool,
    /// Seconds since 1970, for headers that name a time; looked at only when [`Attempt::asks_time`].
    pub unix_seconds: u64,
}

/// A try that broke.
#[derive(Debug)]
pub struct Broken {
    /// Which.
    pub try_id: TryId,
    /// How.
    pub failure: Failure,
    /// It was HTTP/3 and the upstream speaks TCP as well: the next try is to use that.
    pub over_http3: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// Give this try up first: reset it, or drain its response. It has no more events.
    pub drop: Option<TryId>,
    /// Then do this.
    pub action: Action,
}

/// What is to be done after that.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Choose an endpoint (see [`Attempt::narrow`]) and open a stream for this try.
    Pick(TryId),
    /// Nothing but to wait for events, until then at the latest.
    Wait(Option<Millis>),
    /// Send the response of this try downstream and reset all others ([`Attempt::live`]).
    Forward(TryId),
    /// Reset all tries and answer with this failure. [`Attempt::flags`] has its flag.
    Fail(Failure),
    /// A response had begun: reset all tries and the client's stream.
    Abort(Failure),
}

#[derive(Debug)]
struct Try {
    id: TryId,
    opened: bool,
    sent: bool,
    /// Another try took its place although it goes on (hedging).
    replaced: bool,
    deadline: Option<Millis>,
    idle: Option<Millis>,
    /// When its stream has lived for too long.
    end: Option<Millis>,
}

/// The tries of one request.
#[derive(Debug)]
pub struct Attempt {
    setup: Setup,
    tries: SmallVec<[Try; 2]>,
    /// Tries begun so far.
    begun: u32,
    retries_left: u32,
    retry_at: Option<Millis>,
    back_offs: BackOffs,
    permit: Option<Permit>,
    previous: SmallVec<[HostId; 4]>,
    skip_priorities: u32,
    seen_priorities: u32,
    global: Option<Millis>,
    complete: bool,
    forwarded: Option<TryId>,
    over: bool,
    avoid_http3: bool,
    flags: Flags,
}

impl Attempt {
    /// Begins with the first try: the step to do is [`Action::Pick`] of `TryId(0)`.
    #[must_use]
    pub fn new(mut setup: Setup) -> Self {
        // A try may not outlast the request; such a bound never counts.
        let timeouts = &mut setup.timeouts;
        if timeouts.global.is_some_and(|global| timeouts.per_try.is_some_and(|per_try| per_try >= global)) {
            timeouts.per_try = None;
        }
        Self {
            retries_left: setup.retry.as_ref().map_or(0, |plan| plan.retries),
            back_offs: BackOffs::default(),
            tries: SmallVec::from_iter([Try::new(TryId(0))]),
            begun: 1,
            retry_at: None,
            permit: None,
            previous: SmallVec::new(),
            skip_priorities: 0,
            seen_priorities: 0,
            global: None,
            complete: false,
            forwarded: None,
            over: false,
            avoid_http3: false,
            flags: Flags::NONE,
            setup,
        }
    }

    /// How many tries have begun (`x-envoy-attempt-count`).
    #[must_use]
    pub fn count(&self) -> u32 {
        self.begun
    }

    /// Flags raised so far.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Tries that have not been given up.
    pub fn live(&self) -> impl Iterator<Item = TryId> {
        self.tries.iter().map(|one| one.id)
    }

    /// Whether [`ResponseHead::listed`] matters.
    #[must_use]
    pub fn asks_headers(&self) -> bool {
        self.setup.retry.as_ref().is_some_and(|plan| conditions::asks_headers(plan))
    }

    /// Whether [`ResponseHead::unix_seconds`] matters.
    #[must_use]
    pub fn asks_time(&self) -> bool {
        self.setup.retry.as_ref().is_some_and(|plan| !plan.policy.reset_headers.is_empty())
    }

    /// Whether the body must be kept: another try may still be made.
    #[must_use]
    pub fn keeps_body(&self) -> bool {
        self.forwarded.is_none() && !self.over && self.setup.retry.is_some()
    }

    /// Whether the next try is to use TCP although the upstream speaks HTTP/3.
    #[must_use]
    pub fn avoids_http3(&self) -> bool {
        self.avoid_http3
    }

    /// Says what a retry avoids.
    pub fn narrow<'a>(&'a self, request: &mut balance::Request<'a>) {
        let Some(plan) = self.setup.retry.as_ref().filter(|_| self.begun > 1) else { return };
        if plan.policy.avoid_previous_hosts {
            request.exclude = &self.previous;
        }
        request.omit_canary = plan.policy.omit_canary;
        request.reselections = plan.policy.host_selection_attempts;
        request.skip_priorities = self.skip_priorities;
    }

    /// How long the upstream has, in milliseconds (`x-envoy-expected-rq-timeout-ms`).
    #[must_use]
    pub fn expected_timeout(&self, now: Millis) -> Option<u64> {
        let timeouts = &self.setup.timeouts;
        let left = match self.global {
            Some(deadline) => Some(deadline.since(now).max(1)),
            None => timeouts.global.map(millis),
        };
        let per_try = timeouts.per_try.filter(|_| !self.setup.hedge_on_per_try_timeout).map(millis);
        match (left, per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }

    /// When [`Event::Timer`] is due, should nothing else happen before; the same as in [`Action::Wait`].
    #[must_use]
    pub fn until(&self) -> Option<Millis> {
        if self.over {
            return None;
        }
        // Asked several times for each request: a plain loop costs a tenth of a chain of iterators.
        let mut first = earlier(self.global, self.retry_at);
        for one in &self.tries {
            first = earlier(first, earlier(one.deadline, one.idle));
            if self.forwarded.is_none() {
                first = earlier(first, one.end);
            }
        }
        first
    }

    /// The try whose stream has lived for as long as the upstream lets it, should [`Event::Timer`] come now. That is no fault of its
    /// endpoint.
    #[must_use]
    pub fn outlived(&self, now: Millis) -> Option<TryId> {
        self.tries.iter().find(|one| one.end.is_some_and(|end| end <= now)).map(|one| one.id)
    }

    /// When the stream of the try that answers has lived for too long.
    #[must_use]
    pub fn end(&self) -> Option<Millis> {
        let answers = self.tries.iter().find(|one| Some(one.id) == self.forwarded)?;
        answers.end
    }

    /// Takes an event and says what is to be done.
    pub fn next(&mut self, event: Event<'_>, now: Millis, random: u64) -> Step {
        if self.over {
            return self.wait(None);
        }
        match event {
            Event::Picked(id, host, priority) => self.picked(id, host, priority),
            Event::NoHost(id) => self.no_host(id),
            Event::Opened(id) => {
                let end = self.setup.life.map(|life| now.after(millis(life)));
                self.one(id, |one| (one.opened, one.end) = (true, end));
                self.arm(now);
                self.wait(None)
            }
            Event::Sent(id) => {
                self.one(id, |one| one.sent = true);
                self.moved(id, now)
            }
            Event::Moved(id) => self.moved(id, now),
            Event::RequestComplete => {
                self.complete = true;
                self.global = self.setup.timeouts.global.map(|timeout| now.after(millis(timeout)));
                self.arm(now);
                self.wait(None)
            }
            Event::BodyLost => self.body_lost(),
            Event::Head(head) => self.head(&head, now, random),
            Event::Reset(broken) => self.broke(broken, now, random),
            Event::Timer => self.timer(now, random),
        }
    }

    fn one(&mut self, id: TryId, change: impl FnOnce(&mut Try)) {
        if let Some(one) = self.tries.iter_mut().find(|one| one.id == id) {
            change(one);
        }
    }

    fn picked(&mut self, id: TryId, host: HostId, priority: u32) -> Step {
        let Some(plan) = &self.setup.retry else { return self.wait(None) };
        if plan.policy.avoid_previous_hosts && !self.previous.contains(&host) {
            self.previous.push(host);
        }
        self.seen_priorities |= 1u32.checked_shl(priority).unwrap_or(0);
        let every = plan.policy.avoid_previous_priorities;
        if every.is_some_and(|every| (id.0 + 1).is_multiple_of(every.max(1))) {
            self.skip_priorities = self.seen_priorities;
        }
        self.wait(None)
    }

    /// Without a host there is nothing to retry, but another try may still be under way (hedging).
    fn no_host(&mut self, id: TryId) -> Step {
        self.tries.retain(|one| one.id != id);
        if self.forwarded.is_some() || !self.tries.is_empty() || self.retry_at.is_some() {
            return self.wait(None);
        }
        self.fail(Failure::new(Kind::NoHealthyUpstream))
    }

    fn moved(&mut self, id: TryId, now: Millis) -> Step {
        if let Some(idle) = self.setup.timeouts.per_try_idle {
            self.one(id, |one| one.idle = Some(now.after(millis(idle))));
        }
        self.wait(None)
    }

    /// Starts the clocks of tries that have a stream, once the request is complete.
    fn arm(&mut self, now: Millis) {
        let after = |duration: Option<std::time::Duration>| duration.map(|duration| now.after(millis(duration)));
        let StreamTimeouts { per_try, per_try_idle, .. } = self.setup.timeouts;
        // A response that began to go downstream has no time per try any more, whenever the request ends.
        let complete = self.complete && self.forwarded.is_none();
        for one in self.tries.iter_mut().filter(|one| one.opened) {
            if complete && one.deadline.is_none() && !one.replaced {
                one.deadline = after(per_try);
            }
            if one.idle.is_none() {
                one.idle = after(per_try_idle);
            }
        }
    }

    fn body_lost(&mut self) -> Step {
        self.setup.retry = None;
        if self.retry_at.take().is_some() && self.tries.is_empty() {
            return self.fail(Failure::new(Kind::RetryBufferExceeded));
        }
        self.wait(None)
    }

    fn head(&mut self, head: &ResponseHead<'_>, now: Millis, random: u64) -> Step {
        let id = head.try_id;
        let Some(at) = self.tries.iter().position(|one| one.id == id) else { return self.wait(Some(id)) };
        if self.forwarded.is_some() {
            self.tries.remove(at);
            return self.wait(Some(id));
        }
        let verdict = match &self.setup.retry {
            Some(plan) => conditions::from_head(plan, head),
            None => Verdict::No,
        };
        if verdict != Verdict::No {
            let others = self.tries.len() > 1 || self.retry_at.is_some();
            let again = if self.tries[at].replaced { others } else { self.admit(&verdict, now, random) };
            if again {
                self.tries.remove(at);
                return self.after_loss(Some(id), now);
            }
        } else {
            self.permit = None;
        }
        self.retry_at = None;
        self.forwarded = Some(id);
        let end = self.setup.life.map(|life| now.after(millis(life)));
        self.one(id, |one| {
            one.deadline = None;
            // Its stream may have opened and answered at once.
            one.end = one.end.or(end);
        });
        Step { drop: None, action: Action::Forward(id) }
    }

    fn broke(&mut self, broken: Broken, now: Millis, random: u64) -> Step {
        let Broken { try_id: id, failure, over_http3 } = broken;
        let Some(at) = self.tries.iter().position(|one| one.id == id) else { return self.wait(None) };
        if self.forwarded == Some(id) {
            return self.abort(failure);
        }
        let one = self.tries.remove(at);
        if self.forwarded.is_some() {
            return self.wait(None);
        }
        self.lost(&one, failure, over_http3, None, now, random)
    }

    /// A try is gone without a response: retries it, waits for another one, or gives up.
    fn lost(
        &mut self,
        one: &Try,
        failure: Failure,
        over_http3: bool,
        drop: Option<TryId>,
        now: Millis,
        random: u64,
    ) -> Step {
        let verdict = match &self.setup.retry {
            Some(plan) if !one.replaced => conditions::from_reset(plan, &failure, one.sent, over_http3),
            _ => Verdict::No,
        };
        if verdict != Verdict::No && self.admit(&verdict, now, random) {
            self.avoid_http3 |= over_http3;
            return self.after_loss(drop, now);
        }
        if !self.tries.is_empty() || self.retry_at.is_some() {
            return self.wait(drop);
        }
        let mut step = self.fail(failure);
        step.drop = drop;
        step
    }

    /// Whether a retry that the conditions ask for may be made. Says when by `retry_at`.
    fn admit(&mut self, verdict: &Verdict, now: Millis, random: u64) -> bool {
        if self.retry_at.is_some() {
            // One waits already (hedging); it stands for this one too.
            return true;
        }
        self.permit = None;
        if self.retries_left == 0 {
            self.flags.insert(Flag::UpstreamRetryLimitExceeded);
            return false;
        }
        self.retries_left -= 1;
        self.permit = self.setup.breakers.acquire(Resource::Retries);
        if self.permit.is_none() {
            self.flags.insert(Flag::UpstreamOverflow);
            return false;
        }
        let mut random = Random::new(random);
        let wait = match (verdict, &self.setup.retry) {
            (Verdict::RateLimited(at_least), _) => back_off::rate_limited(*at_least, &mut random),
            (Verdict::BackOff, Some(plan)) => self.back_offs.next(&plan.back_off, &mut random),
            _ => 0,
        };
        self.retry_at = Some(now.after(wait));
        true
    }

    fn after_loss(&mut self, drop: Option<TryId>, now: Millis) -> Step {
        if self.retry_at.is_some_and(|at| at <= now) { self.begin(drop) } else { self.wait(drop) }
    }

    fn begin(&mut self, drop: Option<TryId>) -> Step {
        let id = TryId(self.begun);
        self.begun += 1;
        self.retry_at = None;
        self.tries.push(Try::new(id));
        Step { drop, action: Action::Pick(id) }
    }

    fn timer(&mut self, now: Millis, random: u64) -> Step {
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        if due(self.global) {
            let failure = self.timed_out(Kind::UpstreamTimeout);
            return if self.forwarded.is_some() { self.abort(failure) } else { self.fail(failure) };
        }
        if due(self.retry_at) {
            return self.begin(None);
        }
        if let Some(at) = self.tries.iter().position(|one| due(one.deadline)) {
            self.tries[at].deadline = None;
            return self.try_timed_out(at, now, random);
        }
        if let Some(at) = self.tries.iter().position(|one| due(one.idle)) {
            let failure = Failure::new(Kind::PerTryIdleTimeout);
            if self.forwarded == Some(self.tries[at].id) {
                return self.abort(failure);
            }
            let one = self.tries.remove(at);
            return self.lost(&one, failure, false, Some(one.id), now, random);
        }
        if let Some(id) = self.outlived(now) {
            return self.life_over(id, now, random);
        }
        self.wait(None)
    }

    /// The upstream's own bound: what the client gets depends on whether it was still sending.
    fn life_over(&mut self, id: TryId, now: Millis, random: u64) -> Step {
        const REQUEST_TIMEOUT: u16 = 408;
        let failure = Failure::new(Kind::UpstreamMaxStreamDuration);
        let failure = if self.complete { failure } else { failure.with_status(REQUEST_TIMEOUT) };
        let at = self.tries.iter().position(|one| one.id == id);
        let Some(at) = at.filter(|_| self.forwarded != Some(id)) else { return self.abort(failure) };
        let one = Try { sent: true, ..self.tries.remove(at) };
        self.lost(&one, failure, false, Some(id), now, random)
    }

    fn try_timed_out(&mut self, at: usize, now: Millis, random: u64) -> Step {
        if !self.setup.hedge_on_per_try_timeout {
            let one = self.tries.remove(at);
            let failure = self.timed_out(Kind::PerTryTimeout);
            return self.lost(&one, failure, false, Some(one.id), now, random);
        }
        // It goes on; whichever answers well first is taken. No condition is asked: nothing has failed yet.
        if self.setup.retry.is_some() && self.admit(&Verdict::BackOff, now, random) {
            self.tries[at].replaced = true;
        }
        self.after_loss(None, now)
    }

    fn timed_out(&self, kind: Kind) -> Failure {
        match self.setup.timeout_status {
            Some(status) => Failure::new(kind).with_status(status),
            None => Failure::new(kind),
        }
    }

    fn wait(&self, drop: Option<TryId>) -> Step {
        Step { drop, action: Action::Wait(self.until()) }
    }

    fn fail(&mut self, failure: Failure) -> Step {
        self.close(&failure);
        Step { drop: None, action: Action::Fail(failure) }
    }

    fn abort(&mut self, failure: Failure) -> Step {
        self.close(&failure);
        Step { drop: None, action: Action::Abort(failure) }
    }

    fn close(&mut self, failure: &Failure) {
        self.over = true;
        self.permit = None;
        if let Some(flag) = failure.flag() {
            self.flags.insert(flag);
        }
    }
}

/// The earlier of two moments, of which either may never come.
fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

impl Try {
    fn new(id: TryId) -> Self {
        Self { id, opened: false, sent: false, replaced: false, deadline: None, idle: None, end: None }
    }
}
