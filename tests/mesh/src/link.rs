//! A stream between two processes, as a network would treat it: everything arrives late, in order, or the stream breaks and
//! what was under way is lost.
//!
//! Owns delays and breaks, drawn from its own seed. Never looks at what it carries.

use std::collections::VecDeque;
use tombolo_gateway_core::time::Random;

/// How a link treats its stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// A message takes up to so many milliseconds.
    pub delay: u64,
    /// Of so many messages one breaks the stream; 0: none does.
    pub break_one_in: u64,
}

/// A link with what is under way on it.
#[derive(Debug)]
pub struct Link<M> {
    weather: Weather,
    random: Random,
    up: Lane<M>,
    down: Lane<M>,
    /// When the stream is to be opened; `None`: it is open.
    opens: Option<u64>,
    cut: bool,
    breaks: u64,
}

#[derive(Debug)]
struct Lane<M> {
    messages: VecDeque<(u64, M)>,
    last: u64,
}

impl<M> Lane<M> {
    fn new() -> Self {
        Self { messages: VecDeque::new(), last: 0 }
    }

    fn push(&mut self, at: u64, message: M) {
        // A stream keeps its order whatever its delays.
        self.last = self.last.max(at);
        self.messages.push_back((self.last, message));
    }

    fn take(&mut self, now: u64) -> Option<M> {
        if self.messages.front().is_some_and(|(at, _)| *at <= now) {
            return self.messages.pop_front().map(|(_, message)| message);
        }
        None
    }
}

impl<M> Link<M> {
    /// A link whose stream is opened at once.
    #[must_use]
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            random: Random::new(seed),
            up: Lane::new(),
            down: Lane::new(),
            opens: Some(0),
            cut: false,
            breaks: 0,
        }
    }

    /// Treats what comes from now on in another way.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// True when the stream is to be opened now: both ends begin anew.
    pub fn opens(&mut self, now: u64) -> bool {
        let due = !self.cut && self.opens.is_some_and(|at| at <= now);
        if due {
            self.opens = None;
        }
        due
    }

    /// Whether a stream is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.opens.is_none()
    }

    /// How often the stream broke.
    #[must_use]
    pub fn breaks(&self) -> u64 {
        self.breaks
    }

    /// Sends towards the owner of the resources. False: the stream broke.
    pub fn send_up(&mut self, now: u64, message: M) -> bool {
        self.send(now, message, true)
    }

    /// Sends towards the reader. False: the stream broke.
    pub fn send_down(&mut self, now: u64, message: M) -> bool {
        self.send(now, message, false)
    }

    fn send(&mut self, now: u64, message: M, up: bool) -> bool {
        if !self.is_open() {
            return false;
        }
        if self.weather.break_one_in > 0 && self.random.below(self.weather.break_one_in) == 0 {
            self.disconnect(now);
            return false;
        }
        let at = now + self.random.below(self.weather.delay + 1);
        let lane = if up { &mut self.up } else { &mut self.down };
        lane.push(at, message);
        true
    }

    /// What has arrived at the owner.
    pub fn take_up(&mut self, now: u64) -> Option<M> {
        self.up.take(now)
    }

    /// What has arrived at the reader.
    pub fn take_down(&mut self, now: u64) -> Option<M> {
        self.down.take(now)
    }

    /// Breaks the stream: what was under way is lost, and it is opened again a little later.
    pub fn disconnect(&mut self, now: u64) {
        (self.up, self.down) = (Lane::new(), Lane::new());
        self.breaks += 1;
        self.opens = Some(now + 1 + self.random.below(self.weather.delay + 1));
    }

    /// Breaks the stream until [`heal`](Self::heal).
    pub fn cut(&mut self, now: u64) {
        self.disconnect(now);
        self.cut = true;
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&mut self) {
        self.cut = false;
    }

    /// When something happens next by itself.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let arrivals = [&self.up, &self.down].into_iter().filter_map(|lane| lane.messages.front()).map(|(at, _)| *at);
        arrivals.chain(self.opens.filter(|_| !self.cut)).min()
    }
}
