//! Faults on purpose.

use crate::{
    config::{Abort, AbortKind, Delay, DelayKind, Fault, Fraction},
    head::Head,
    names,
    route::headers_match,
    time::Random,
};
use http::HeaderName;
use std::time::Duration;

/// What was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) delay: Option<Duration>,
    /// HTTP status and, for gRPC aborts, the gRPC status.
    pub(crate) abort: Option<(u16, Option<u32>)>,
    pub(crate) response_kbps: Option<u64>,
}

/// Draws what happens to a request. `active` faults are going on already.
pub(crate) fn inject(fault: &Fault, cluster: &str, head: &Head, active: u32, random: &mut Random) -> Injected {
    if !concerns(fault, cluster, head) || fault.max_active.is_some_and(|max| active >= max) {
        return Injected::default();
    }
    Injected {
        response_kbps: fault.response_rate.as_ref().and_then(|rate| {
            let kbps = rate.kbps.or_else(|| number(head, names::X_ENVOY_FAULT_THROUGHPUT_RESPONSE))?;
            let told = rate.kbps.is_none().then_some(names::X_ENVOY_FAULT_THROUGHPUT_RESPONSE_PERCENTAGE);
            hit(&rate.share, told, head, random).then_some(kbps)
        }),
        delay: fault.delay.as_ref().and_then(|delay| draw_delay(delay, head, random)),
        abort: fault.abort.as_ref().and_then(|abort| draw_abort(abort, head, random)),
    }
}

fn concerns(fault: &Fault, cluster: &str, head: &Head) -> bool {
    let node = || head.headers.get(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE).and_then(|node| node.to_str().ok());
    (fault.upstream_cluster.is_empty() || &*fault.upstream_cluster == cluster)
        && (fault.downstream_nodes.is_empty()
            || node().is_some_and(|node| fault.downstream_nodes.iter().any(|n| &**n == node)))
        && headers_match(&fault.headers, head)
}

fn draw_delay(delay: &Delay, head: &Head, random: &mut Random) -> Option<Duration> {
    let (duration, told) = match delay.kind {
        DelayKind::Fixed(duration) => (duration, None),
        DelayKind::Header => (
            Duration::from_millis(number(head, names::X_ENVOY_FAULT_DELAY_REQUEST)?),
            Some(names::X_ENVOY_FAULT_DELAY_REQUEST_PERCENTAGE),
        ),
    };
    (hit(&delay.share, told, head, random) && !duration.is_zero()).then_some(duration)
}

fn draw_abort(abort: &Abort, head: &Head, random: &mut Random) -> Option<(u16, Option<u32>)> {
    let percentage = Some(names::X_ENVOY_FAULT_ABORT_REQUEST_PERCENTAGE);
    let (status, told) = match abort.kind {
        AbortKind::Http(status) => ((status, None), None),
        AbortKind::Grpc(status) => ((200, Some(status)), None),
        AbortKind::Header => {
            let http = number(head, names::X_ENVOY_FAULT_ABORT_REQUEST).filter(|status| (200..600).contains(status));
            let grpc =
                || number(head, names::X_ENVOY_FAULT_ABORT_GRPC_REQUEST).and_then(|status| u32::try_from(status).ok());
            match http.and_then(|status| u16::try_from(status).ok()) {
                Some(status) => ((status, None), percentage),
                None => ((200, Some(grpc()?)), percentage),
            }
        }
    };
    hit(&abort.share, told, head, random).then_some(status)
}

fn number(head: &Head, name: HeaderName) -> Option<u64> {
    head.headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// A share, which a header may make smaller but not larger.
fn hit(share: &Fraction, told: Option<HeaderName>, head: &Head, random: &mut Random) -> bool {
    let told = told.and_then(|name| number(head, name)).and_then(|told| u32::try_from(told).ok());
    match told {
        Some(told) => Fraction { numerator: told.min(share.numerator), ..share.clone() }.hit(random.draw()),
        None => share.hit(random.draw()),
    }
}
