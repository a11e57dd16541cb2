//! Owns which requests a filter lets pass: into a log, or to a mapper of answers made here.

use super::Record;
use crate::{
    config::{ComparisonOp, LogFilter},
    failure::{Flag, Flags},
    route::header_matches,
};
use std::sync::Arc;

/// What a filter asks that is not in the record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Question {
    /// Milliseconds from begin to end.
    pub millis: u64,
    /// gRPC status of the response.
    pub grpc: Option<u16>,
    /// A random number.
    pub random: u64,
    /// The request was a health check.
    pub health_check: bool,
    /// The request is traced.
    pub traced: bool,
}

/// Whether a filter lets a request pass.
#[must_use]
pub fn passes(filter: &LogFilter, record: &Record<'_>, question: Question) -> bool {
    match filter {
        LogFilter::Status(op, bound) => compare(*op, u64::from(record.facts.status.unwrap_or(0)), u64::from(*bound)),
        LogFilter::Duration(op, bound) => compare(*op, question.millis, u64::from(*bound)),
        LogFilter::NotHealthCheck => !question.health_check,
        LogFilter::Traceable => question.traced,
        LogFilter::Share(share) => share.hit(question.random),
        LogFilter::Header(matcher) => record.facts.head.is_some_and(|head| header_matches(matcher, head)),
        LogFilter::Flags(names) => flagged(names, record.facts.flags),
        LogFilter::GrpcStatus(codes, inverted) => question.grpc.is_some_and(|code| codes.contains(&code)) != *inverted,
        LogFilter::Metadata(place, value, otherwise) => {
            let found = record.facts.head.and_then(|head| place.find(&head.metadata));
            found.map_or(*otherwise, |found| value.as_ref().is_some_and(|value| value.fits(Some(found))))
        }
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
