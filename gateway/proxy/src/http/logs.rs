//! Access logs of one worker: formats compiled once per place of use, filters judged, lines handed to the sink.
//!
//! Owns the compiled forms. Never writes itself.

use crate::telemetry::sink::Lines;
use ahash::AHashMap;
use std::{any::Any, cell::RefCell, rc::Rc, sync::Arc};
use tombolo_gateway_core::{
    accesslog::{LineFormat, Question, Record, passes},
    config::{AccessLog, LogFilter, LogSink},
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
        write(logs, lines, record, Question { millis, random, ..Question::default() });
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
