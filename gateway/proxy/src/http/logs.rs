//! Access logs of one worker: formats compiled once per place of use, filters judged, lines handed to the sink.
//!
//! Owns the compiled forms. Never writes itself.

use crate::telemetry::sink::Lines;
use ahash::AHashMap;
use std::{any::Any, cell::RefCell, rc::Rc, sync::Arc};
use tombolo_gateway_core::{
    accesslog::{LineFormat, Record},
    config::{AccessLog, ComparisonOp, LogFilter, LogSink},
    failure::{Flag, Flags},
    route::header_matches,
};

/// The logs of one place (a connection manager, a TCP proxy).
pub(crate) type Compiled = Rc<[(LogSink, LineFormat, Option<LogFilter>)]>;

/// What holds the configuration, and the logs compiled from it.
type Place = (Arc<dyn Any + Send + Sync>, Compiled);

/// Every place's compiled logs.
#[derive(Default)]
pub(crate) struct Logs {
    /// By the address of what holds them, which is kept so that the address cannot come to mean something else.
    places: RefCell<AHashMap<usize, Place>>,
}

/// What a filter asks that is not in the record.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    /// Milliseconds from begin to end.
    pub(crate) millis: u64,
    /// gRPC status of the response.
    pub(crate) grpc: Option<u16>,
    /// A random number.
    pub(crate) random: u64,
}

impl Logs {
    /// The compiled logs of a place.
    pub(crate) fn of<T: Any + Send + Sync>(&self, place: &Arc<T>, logs: &[AccessLog]) -> Compiled {
        let key = Arc::as_ptr(place).cast::<u8>() as usize;
        if let Some((_, compiled)) = self.places.borrow().get(&key) {
            return compiled.clone();
        }
        let compile = |log: &AccessLog| match LineFormat::compile(&log.format) {
            Ok(format) => Some((log.sink.clone(), format, log.filter.clone())),
            Err(reason) => {
                // Refused when the configuration was read; what remains cannot be written.
                tracing::warn!(%reason, "access log not written");
                None
            }
        };
        let compiled: Compiled = logs.iter().filter_map(compile).collect();
        self.places.borrow_mut().insert(key, (place.clone(), compiled.clone()));
        compiled
    }

    /// Writes the record of something that is not HTTP.
    pub(crate) fn write(logs: &Compiled, lines: &Rc<Lines>, record: &Record<'_>, millis: u64, random: u64) {
        write(logs, lines, record, Question { millis, grpc: None, random });
    }

    /// Forgets places that are gone.
    pub(crate) fn sweep(&self) {
        self.places
            .borrow_mut()
            .retain(|_, (place, compiled)| Arc::strong_count(place) > 1 || Rc::strong_count(compiled) > 1);
    }
}

/// Writes a record to every log whose filter lets it pass.
pub(crate) fn write(logs: &Compiled, lines: &Rc<Lines>, record: &Record<'_>, question: Question) {
    for (sink, format, filter) in logs.iter() {
        if filter.as_ref().is_none_or(|filter| passes(filter, record, question)) {
            lines.line(sink, |out| format.render(record, out));
        }
    }
}

fn passes(filter: &LogFilter, record: &Record<'_>, question: Question) -> bool {
    match filter {
        LogFilter::Status(op, bound) => compare(*op, u64::from(record.facts.status.unwrap_or(0)), u64::from(*bound)),
        LogFilter::Duration(op, bound) => compare(*op, question.millis, u64::from(*bound)),
        // There is no health check filter: no request is one. Nothing is traced yet.
        LogFilter::NotHealthCheck => true,
        LogFilter::Traceable => false,
        LogFilter::Share(share) => share.hit(question.random),
        LogFilter::Header(matcher) => record.facts.head.is_some_and(|head| header_matches(matcher, head)),
        LogFilter::Flags(names) => flagged(names, record.facts.flags),
        LogFilter::GrpcStatus(codes, inverted) => question.grpc.is_some_and(|code| codes.contains(&code)) != *inverted,
        LogFilter::And(all) => all.iter().all(|f| passes(f, record, question)),
        LogFilter::Or(any) => any.iter().any(|f| passes(f, record, question)),
    }
}

fn flagged(names: &[Arc<str>], flags: Flags) -> bool {
    if names.is_empty() {
        return !flags.is_empty();
    }
    names.iter().filter_map(|name| Flag::parse(name)).any(|flag| flags.contains(flag))
}

fn compare(op: ComparisonOp, value: u64, bound: u64) -> bool {
    match op {
        ComparisonOp::Equal => value == bound,
        ComparisonOp::NotEqual => value != bound,
        ComparisonOp::AtLeast => value >= bound,
        ComparisonOp::AtMost => value <= bound,
    }
}
