//! Retry and hedge policies.

use super::{
    Refusal,
    any::{At, Decoded, header_name, opt_duration, refuse, some_time, timeout, type_name, u32_or, unpack, within},
    matcher,
};
use crate::{
    config::{BackOff, Hedge, ResetFormat, ResetHeader, RetryPolicy},
    forward::parse_retry_on,
};
use prost::Name as _;
use std::time::Duration;
use tombolo_controlplane_api::xds::envoy::{
    config::route::v3::{self as pb, retry_policy as rp},
    extensions::retry::{
        host::{omit_canary_hosts::v3::OmitCanaryHostsPredicate, previous_hosts::v3::PreviousHostsPredicate},
        priority::previous_priorities::v3::PreviousPrioritiesConfig,
    },
};

pub(super) fn policy(message: pb::RetryPolicy) -> Decoded<RetryPolicy> {
    let pb::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = message;
    refuse!(retry_options_predicates, refresh_cluster_on_retry);
    let (reset_headers, reset_max) = reset(rate_limited_retry_back_off).at("rate_limited_retry_back_off")?;
    let predicates = predicates(retry_host_predicate)?;
    let codes = retriable_status_codes.iter().map(|code| u16::try_from(*code).map_err(|_| "not a status".to_owned()));
    Ok(RetryPolicy {
        // Envoy ignores words that it does not know; so do we, since clients send the same list in a header.
        on: parse_retry_on(&retry_on).0,
        retries: u32_or(num_retries, 1),
        per_try_timeout: timeout(per_try_timeout.as_ref(), None, "per_try_timeout")?,
        per_try_idle_timeout: timeout(per_try_idle_timeout.as_ref(), None, "per_try_idle_timeout")?,
        status_codes: codes.collect::<Result<_, _>>().at("retriable_status_codes")?,
        response_headers: matcher::headers(retriable_headers, "retriable_headers")?,
        request_headers: matcher::headers(retriable_request_headers, "retriable_request_headers")?,
        back_off: back_off(retry_back_off).at("retry_back_off")?,
        reset_headers,
        reset_max,
        avoid_previous_hosts: predicates.previous_hosts,
        avoid_previous_priorities: retry_priority.map(priorities).transpose().at("retry_priority")?,
        omit_canary: predicates.omit_canary,
        host_selection_attempts: u32::try_from(host_selection_retry_max_attempts).unwrap_or_default().max(1),
    })
}

#[derive(Default)]
struct Predicates {
    previous_hosts: bool,
    omit_canary: bool,
}

fn predicates(list: Vec<rp::RetryHostPredicate>) -> Decoded<Predicates> {
    let mut found = Predicates::default();
    for (at, predicate) in list.into_iter().enumerate() {
        let kind = match &predicate.config_type {
            Some(rp::retry_host_predicate::ConfigType::TypedConfig(config)) => type_name(config).to_owned(),
            None => predicate.name,
        };
        if kind == PreviousHostsPredicate::full_name() || kind == "envoy.retry_host_predicates.previous_hosts" {
            found.previous_hosts = true;
        } else if kind == OmitCanaryHostsPredicate::full_name()
            || kind == "envoy.retry_host_predicates.omit_canary_hosts"
        {
            found.omit_canary = true;
        } else {
            return Err(Refusal::unsupported(format!("retry_host_predicate[{at}].{kind}")));
        }
    }
    Ok(found)
}

fn priorities(message: rp::RetryPriority) -> Decoded<u32> {
    let Some(rp::retry_priority::ConfigType::TypedConfig(config)) = message.config_type else {
        return Err(Refusal::new("typed_config", "missing"));
    };
    let config: PreviousPrioritiesConfig = unpack(&config).at("typed_config")?;
    u32::try_from(config.update_frequency).map_err(|_| Refusal::new("update_frequency", "not positive"))
}

fn back_off(message: Option<rp::RetryBackOff>) -> Decoded<BackOff> {
    let Some(rp::RetryBackOff { base_interval, max_interval }) = message else {
        return Ok(BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) });
    };
    let base = base_interval.as_ref().ok_or_else(|| Refusal::new("base_interval", "missing"))?;
    let base = some_time(base).at("base_interval")?.max(Duration::from_millis(1));
    let max = max_interval.as_ref().map(some_time).transpose().at("max_interval")?;
    let max = max.unwrap_or(base * 10).max(Duration::from_millis(1));
    if max < base {
        return Err(Refusal::new("max_interval", "less than base_interval"));
    }
    Ok(BackOff { base, max })
}

fn reset(message: Option<rp::RateLimitedRetryBackOff>) -> Decoded<(Box<[ResetHeader]>, Duration)> {
    let default = Duration::from_secs(300);
    let Some(rp::RateLimitedRetryBackOff { reset_headers, max_interval }) = message else {
        return Ok((Box::default(), default));
    };
    let headers = reset_headers.into_iter().enumerate().map(|(at, header)| {
        let format = match header.format() {
            rp::ResetHeaderFormat::Seconds => ResetFormat::Seconds,
            rp::ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
        };
        Ok(ResetHeader { name: header_name(&header.name).nth("reset_headers", at)?, format })
    });
    Ok((headers.collect::<Decoded<_>>()?, opt_duration(max_interval.as_ref(), "max_interval")?.unwrap_or(default)))
}

pub(super) fn hedge(message: pb::HedgePolicy) -> Decoded<Hedge> {
    let pb::HedgePolicy { initial_requests, additional_request_chance, hedge_on_per_try_timeout } = message;
    within(initial_requests, 1..=u32::MAX, "initial_requests")?;
    // As in Envoy: only a try that ran out of its time gets company.
    let _ = (initial_requests, additional_request_chance);
    Ok(Hedge { on_per_try_timeout: hedge_on_per_try_timeout })
}
