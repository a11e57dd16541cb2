//! Owns what an HTTP rule adds to its action: retries, faults, mirrors, cross-origin policy, header changes.

use super::{backend, http_match};
use crate::{
    code,
    fields::{At, Fields},
    format, grammar,
    object::Head,
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{
    Abort, Cors, Fault, Fraction, HeaderChanges, HeaderEdit, Mirror, RetryPolicy, TextMatch,
};

/// Conditions that a proxy knows.
const CONDITIONS: [&str; 16] = [
    "5xx",
    "cancelled",
    "connect-failure",
    "deadline-exceeded",
    "envoy-ratelimited",
    "gateway-error",
    "http3-post-connect-failure",
    "internal",
    "refused-stream",
    "reset",
    "reset-before-request",
    "resource-exhausted",
    "retriable-4xx",
    "retriable-headers",
    STATUSES,
    "unavailable",
];
const STATUSES: &str = "retriable-status-codes";

pub(crate) fn retries(at: &At<'_>) -> Option<RetryPolicy> {
    let fields = at.fields();
    let attempts = fields.at("attempts").map(|at| at.int(0..=1_000_000));
    let on = fields.at("retryOn");
    let (on, statuses) = on.map(|at| conditions(&at)).unwrap_or_default();
    let per_try_timeout = fields.at("perTryTimeout").and_then(|at| at.duration()).filter(|t| !t.is_zero());
    let remote_localities = fields.bool("retryRemoteLocalities");
    let ignore_previous_hosts = fields.bool("retryIgnorePreviousHosts");
    let backoff = fields.at("backoff").and_then(|at| at.positive_duration());
    let attempts = match attempts {
        Some(attempts) => attempts?,
        None => {
            at.warn(code::SUSPICIOUS, "attempts is absent, which turns retries off; write how many you want");
            0
        }
    };
    Some(RetryPolicy { attempts, per_try_timeout, on, statuses, remote_localities, ignore_previous_hosts, backoff })
}

/// A list that mixes names and status codes. A code switches on the condition that looks at codes.
fn conditions(at: &At<'_>) -> (Vec<String>, Vec<u16>) {
    let (mut on, mut statuses) = (Vec::new(), Vec::new());
    for word in at.str().unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if CONDITIONS.contains(&word) {
            on.push(word.to_owned());
        } else if let Some(status) = word.parse::<u16>().ok().filter(|status| (100..=599).contains(status)) {
            statuses.push(status);
        } else {
            let known = CONDITIONS.join(", ");
            at.error(code::BAD_VALUE, format!("{word:?} is no condition; known are {known} and status codes"));
        }
    }
    if !statuses.is_empty() && !on.iter().any(|word| word == STATUSES) {
        on.push(STATUSES.to_owned());
    }
    (on, statuses)
}

pub(crate) fn fault(at: &At<'_>) -> Fault {
    let fields = at.fields();
    let fault = Fault {
        delay: fields.at("delay").and_then(|at| delay(&at)),
        abort: fields.at("abort").and_then(|at| abort(&at)),
    };
    if fault == Fault::default() && !at.sink.refused() {
        at.error(code::REQUIRED, "it does nothing; write delay or abort");
    }
    fault
}

fn delay(at: &At<'_>) -> Option<(std::time::Duration, Fraction)> {
    let fields = at.fields();
    let share = share(&fields, "delayed");
    if let Some(at) = fields.at("exponentialDelay") {
        at.error(code::BAD_VALUE, "exponential delays do not exist; write fixedDelay");
    }
    Some((fields.need("fixedDelay")?.positive_duration()?, share))
}

fn abort(at: &At<'_>) -> Option<(Abort, Fraction)> {
    let fields = at.fields();
    let share = share(&fields, "aborted");
    let http = fields.at("httpStatus").map(|at| at.int(200..=599).map(Abort::Http));
    let grpc = fields.at("grpcStatus").map(|at| at.parse(grpc_status).map(Abort::Grpc));
    if let Some(at) = fields.at("http2Error") {
        at.error(code::BAD_VALUE, "HTTP/2 errors cannot be injected; write httpStatus or grpcStatus");
    }
    match (http, grpc) {
        (Some(answer), None) | (None, Some(answer)) => Some((answer?, share)),
        _ => {
            at.error(code::BAD_VALUE, "write exactly one of httpStatus and grpcStatus");
            None
        }
    }
}

/// `percentage.value`, or the whole number `percent` of old manifests, honoured with its old meaning.
fn share(fields: &Fields<'_>, done: &str) -> Fraction {
    let modern = fields.at("percentage").map(|at| percentage(&at));
    match (modern, fields.at("percent")) {
        (Some(share), legacy) => {
            if let Some(legacy) = legacy {
                legacy.warn(code::LEGACY_FIELD, "percentage is written too and wins; remove percent");
            }
            share
        }
        (None, Some(legacy)) => {
            let percent: u32 = legacy.int(0..=100).unwrap_or(0);
            let message =
                format!("percent is a field of old versions, honoured here; write percentage: {{value: {percent}}}");
            legacy.warn(code::LEGACY_FIELD, message);
            grammar::percent(f64::from(percent))
        }
        (None, None) => {
            let message =
                format!("no percentage is written, so no request is {done}; write percentage: {{value: 100}} for all");
            fields.at.warn(code::SUSPICIOUS, message);
            Fraction(0)
        }
    }
}

/// `{value: 12.5}`; an absent value is zero, as in the API.
fn percentage(at: &At<'_>) -> Fraction {
    let fields = at.fields();
    fields.at("value").and_then(|at| at.float(0.0..=100.0)).map_or(Fraction(0), grammar::percent)
}

/// Names of the canonical codes of gRPC, or their numbers.
fn grpc_status(text: &str) -> Result<u32, String> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let number = (0..).zip(NAMES).find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| number);
    number
        .or_else(|| text.parse().ok().filter(|n| *n <= 16))
        .ok_or_else(|| format!("{text:?} is no gRPC status; write for example UNAVAILABLE"))
}

/// `mirrors`, or the single `mirror` with one of the spellings of its share.
pub(crate) fn mirrors(rule: &Fields<'_>, head: &Head) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for at in rule.list("mirrors") {
        let fields = at.fields();
        let fraction = fields.at("percentage").map_or(Fraction::ALL, |at| percentage(&at));
        let destination = fields.need("destination").and_then(|at| backend::destination(&at, head));
        mirrors.extend(destination.map(|destination| Mirror { destination, fraction }));
    }
    let share = mirror_share(rule);
    if let Some(at) = rule.at("mirror") {
        if !mirrors.is_empty() {
            at.error(code::CONFLICTING_FIELDS, "mirror and mirrors exclude each other; keep mirrors");
        }
        let destination = backend::destination(&at, head);
        mirrors.extend(destination.map(|destination| Mirror { destination, fraction: share.unwrap_or(Fraction::ALL) }));
    }
    mirrors
}

fn mirror_share(rule: &Fields<'_>) -> Option<Fraction> {
    let modern = rule.at("mirrorPercentage").map(|at| percentage(&at));
    let legacy = ["mirrorPercent", "mirror_percent"].into_iter().filter_map(|name| rule.at(name)).last();
    let Some(legacy) = legacy else { return modern };
    let percent: u32 = legacy.int(0..=100).unwrap_or(0);
    let message = format!("it is a field of old versions, honoured here; write mirrorPercentage: {{value: {percent}}}");
    legacy.warn(code::LEGACY_FIELD, message);
    modern.or_else(|| Some(grammar::percent(f64::from(percent))))
}

pub(crate) fn cors(at: &At<'_>) -> Cors {
    let fields = at.fields();
    let mut allow_origins: Vec<_> =
        fields.list("allowOrigins").iter().filter_map(|at| http_match::text_match(at, true)).collect();
    if let Some(legacy) = fields.at("allowOrigin") {
        legacy.warn(
            code::LEGACY_FIELD,
            "it is a field of old versions, honoured here; write allowOrigins: [{exact: ORIGIN}]",
        );
        allow_origins.extend(legacy.strings().into_iter().map(TextMatch::Exact));
    }
    let max_age = fields.at("maxAge").and_then(|at| {
        let age = at.duration()?;
        if age.subsec_nanos() != 0 {
            at.error(code::BAD_VALUE, "browsers count whole seconds; write for example \"24h\"");
        }
        Some(age)
    });
    let unmatched = [("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)];
    Cors {
        allow_origins,
        allow_methods: fields.strings("allowMethods"),
        allow_headers: fields.strings("allowHeaders"),
        expose_headers: fields.strings("exposeHeaders"),
        max_age,
        allow_credentials: fields.bool("allowCredentials"),
        forward_unmatched_preflights: fields
            .at("unmatchedPreflights")
            .and_then(|at| at.choose(&unmatched))
            .unwrap_or(true),
    }
}

pub(crate) fn headers(at: &At<'_>) -> HeaderChanges {
    let fields = at.fields();
    HeaderChanges {
        request: fields.at("request").map(|at| edit(&at, true)).unwrap_or_default(),
        response: fields.at("response").map(|at| edit(&at, false)).unwrap_or_default(),
    }
}

fn edit(at: &At<'_>, request: bool) -> HeaderEdit {
    let fields = at.fields();
    let map = |name, host_allowed| {
        let mut headers = BTreeMap::new();
        for (key, at) in fields.at(name).map(|at| at.entries()).unwrap_or_default() {
            check_name(&at, key, host_allowed);
            headers.extend(header_value(&at).map(|value| (key.to_ascii_lowercase(), value)));
        }
        headers
    };
    let (set, add) = (map("set", request), map("add", false));
    let mut remove = Vec::new();
    for at in fields.list("remove") {
        let Some(name) = at.str() else { continue };
        check_name(&at, name, false);
        remove.push(name.to_ascii_lowercase());
    }
    HeaderEdit { set, add, remove }
}

/// Text with operators, of which none may be one that a proxy does not know.
pub(crate) fn header_value(at: &At<'_>) -> Option<String> {
    if at.node.value == crate::text::Value::Null {
        return Some(String::new());
    }
    let value = at.string()?;
    if value.chars().any(|c| c.is_control() && c != '\t') {
        at.error(code::BAD_VALUE, "a header value must not hold control characters");
        return None;
    }
    at.at_text(&value, format::header)?;
    Some(value)
}

/// Pseudo headers and the host decide routing, so only a request's `set` may change the host.
pub(crate) fn check_name(at: &At<'_>, name: &str, host_allowed: bool) {
    let lower = name.to_ascii_lowercase();
    if !http_match::is_header_name(&lower) {
        at.error(code::BAD_VALUE, format!("{name:?} is not a header name"));
    } else if (lower == "host" || lower == ":authority") && !host_allowed {
        at.error(
            code::BAD_VALUE,
            "the host can only be set, and only in requests: use request.set or rewrite.authority",
        );
    } else if lower.starts_with(':') && lower != ":authority" {
        at.error(code::BAD_VALUE, "headers that begin with a colon cannot be changed; use rewrite");
    }
}
