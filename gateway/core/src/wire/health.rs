//! Active checks, circuit breakers and outlier detection.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, one_line, opt_duration, refuse, some_time, structure, texts, u32_or, within},
    header, matcher,
};
use crate::config::{CircuitBreakers, HealthCheck, HealthCheckKind, OutlierDetection, ProxyProtocolVersion, Threshold};
use bytes::Bytes;
use std::time::Duration;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{self as pb, circuit_breakers::Thresholds},
            core::v3::{
                self as core, RequestMethod,
                health_check::{self as hc, HealthChecker, payload::Payload},
            },
        },
        r#type::v3::{CodecClientType, Int64Range},
    },
    google::protobuf::UInt32Value,
};

/// Between checks of a cluster that has had no traffic.
const NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Bytes of an answer's body that are looked at.
const BODY: u64 = 1024;

pub(super) fn check(message: core::HealthCheck) -> Decoded<HealthCheck> {
    let core::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = message;
    // Where events go changes nothing about the checks: ours go to the log. The other two do nothing in Envoy either.
    let _ = (event_log_path, event_logger, alt_port, event_service);
    let needed = |value: Option<&_>, field: &str| match opt_duration(value, field)? {
        None => Err(Refusal::new(field, "missing")),
        Some(Duration::ZERO) => Err(Refusal::new(field, "0")),
        Some(time) => Ok(time),
    };
    let interval = needed(interval.as_ref(), "interval")?;
    // Envoy asks that they are there, not that they are more than 0.
    let threshold = |value: Option<UInt32Value>, field: &str| match value {
        Some(count) => Ok(count.value.max(1)),
        None => Err(Refusal::new(field, "missing")),
    };
    let checker = health_checker.ok_or_else(|| Refusal::new("health_checker", "missing"))?;
    let time = |value: Option<_>, field: &str, default: Duration| match opt_duration(value, field)? {
        Some(Duration::ZERO) => Err(Refusal::new(field, "0")),
        time => Ok(time.unwrap_or(default)),
    };
    let no_traffic = time(no_traffic_interval.as_ref(), "no_traffic_interval", NO_TRAFFIC)?;
    let unhealthy = time(unhealthy_interval.as_ref(), "unhealthy_interval", interval)?;
    Ok(HealthCheck {
        kind: kind(checker)?,
        timeout: needed(timeout.as_ref(), "timeout")?,
        interval,
        no_traffic_interval: no_traffic,
        no_traffic_healthy_interval: time(
            no_traffic_healthy_interval.as_ref(),
            "no_traffic_healthy_interval",
            no_traffic,
        )?,
        unhealthy_interval: unhealthy,
        unhealthy_edge_interval: time(unhealthy_edge_interval.as_ref(), "unhealthy_edge_interval", unhealthy)?,
        healthy_edge_interval: time(healthy_edge_interval.as_ref(), "healthy_edge_interval", interval)?,
        jitter: opt_duration(interval_jitter.as_ref(), "interval_jitter")?.unwrap_or_default(),
        jitter_percent: interval_jitter_percent,
        initial_jitter: opt_duration(initial_jitter.as_ref(), "initial_jitter")?.unwrap_or_default(),
        unhealthy_threshold: threshold(unhealthy_threshold, "unhealthy_threshold")?,
        healthy_threshold: threshold(healthy_threshold, "healthy_threshold")?,
        reuse_connection: bool_or(reuse_connection, true),
        transport_criteria: transport_socket_match_criteria
            .map(|criteria| structure(&criteria, 0))
            .transpose()
            .at("transport_socket_match_criteria")?,
        alpn: tls_options.map(|options| texts(&options.alpn_protocols)).unwrap_or_default(),
        log_failures: always_log_health_check_failures,
        log_successes: always_log_health_check_success,
    })
}

fn kind(checker: HealthChecker) -> Decoded<HealthCheckKind> {
    match checker {
        HealthChecker::HttpHealthCheck(check) => http(check).at("http_health_check"),
        HealthChecker::TcpHealthCheck(check) => tcp(check).at("tcp_health_check"),
        HealthChecker::GrpcHealthCheck(check) => {
            let headers = header::changes(check.initial_metadata, &[], "grpc_health_check.initial_metadata", "")?;
            Ok(HealthCheckKind::Grpc { service: check.service_name.into(), authority: check.authority.into(), headers })
        }
        HealthChecker::CustomHealthCheck(check) => {
            Err(Refusal::unsupported(format!("custom_health_check {}", check.name)))
        }
    }
}

fn http(message: hc::HttpHealthCheck) -> Decoded<HealthCheckKind> {
    let (method, http2) = (message.method(), message.codec_client_type() == CodecClientType::Http2);
    if message.codec_client_type() == CodecClientType::Http3 {
        return Err(Refusal::unsupported("codec_client_type HTTP3"));
    }
    let hc::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type: _,
        service_name_matcher,
        method: _,
    } = message;
    // Envoy sends no body either.
    refuse!(send);
    if path.is_empty() {
        return Err(Refusal::new("path", "missing"));
    }
    one_line(&path).at("path")?;
    one_line(&host).at("host")?;
    let headers = header::changes(
        request_headers_to_add,
        &request_headers_to_remove,
        "request_headers_to_add",
        "request_headers_to_remove",
    )?;
    let method = match method {
        RequestMethod::MethodUnspecified | RequestMethod::Get => ::http::Method::GET,
        RequestMethod::Head => ::http::Method::HEAD,
        RequestMethod::Post => ::http::Method::POST,
        RequestMethod::Put => ::http::Method::PUT,
        RequestMethod::Delete => ::http::Method::DELETE,
        RequestMethod::Options => ::http::Method::OPTIONS,
        RequestMethod::Trace => ::http::Method::TRACE,
        RequestMethod::Patch => ::http::Method::PATCH,
        RequestMethod::Connect => return Err(Refusal::new("method", "CONNECT")),
    };
    let (expected, retriable) =
        (ranges(&expected_statuses, "expected_statuses")?, ranges(&retriable_statuses, "retriable_statuses")?);
    Ok(HealthCheckKind::Http {
        host: host.into(),
        path: path.into(),
        method,
        http2,
        expected,
        retriable,
        headers,
        service: service_name_matcher.map(matcher::string).transpose().at("service_name_matcher")?,
        receive: payloads(receive)?,
        body_limit: response_buffer_size.map_or(BODY, |size| size.value),
    })
}

fn ranges(list: &[Int64Range], field: &str) -> Decoded<Box<[(u16, u16)]>> {
    let one = |range: &Int64Range| {
        let (start, end) = (u16::try_from(range.start).ok()?, u16::try_from(range.end).ok()?);
        (100 <= start && start < end && end <= 600).then_some((start, end))
    };
    list.iter().map(|range| one(range).ok_or_else(|| Refusal::new(field, "not a range from 100 to 600"))).collect()
}

fn tcp(message: hc::TcpHealthCheck) -> Decoded<HealthCheckKind> {
    let hc::TcpHealthCheck { send, receive, proxy_protocol_config } = message;
    let proxy = proxy_protocol_config.map(|config| {
        if config.version() == core::proxy_protocol_config::Version::V2 {
            ProxyProtocolVersion::V2
        } else {
            ProxyProtocolVersion::V1
        }
    });
    Ok(HealthCheckKind::Tcp { receive: payloads(receive)?, send: send.map(bytes).transpose().at("send")?, proxy })
}

fn payloads(list: Vec<hc::Payload>) -> Decoded<Box<[Bytes]>> {
    list.into_iter().enumerate().map(|(at, payload)| bytes(payload).nth("receive", at)).collect()
}

fn bytes(payload: hc::Payload) -> Decoded<Bytes> {
    match payload.payload {
        // Text is hexadecimal.
        Some(Payload::Text(text)) => hexadecimal(&text).ok_or_else(|| Refusal::new("text", "not hexadecimal")),
        Some(Payload::Binary(bytes)) => Ok(Bytes::from(bytes)),
        None => Err(Refusal::new("payload", "missing")),
    }
}

fn hexadecimal(text: &str) -> Option<Bytes> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

pub(super) fn breakers(message: pb::CircuitBreakers) -> Decoded<CircuitBreakers> {
    let pb::CircuitBreakers { thresholds, per_host_thresholds } = message;
    let mut breakers = CircuitBreakers::default();
    // Of two for one priority the first counts.
    for (at, one) in thresholds.into_iter().enumerate().rev() {
        let high = is_high(&one).nth("thresholds", at)?;
        let decoded = threshold(one).nth("thresholds", at)?;
        *if high { &mut breakers.high } else { &mut breakers.default } = decoded;
    }
    for (at, one) in per_host_thresholds.into_iter().enumerate().rev() {
        let high = is_high(&one).nth("per_host_thresholds", at)?;
        let most = per_host(one).nth("per_host_thresholds", at)?;
        *if high { &mut breakers.per_host_connections_high } else { &mut breakers.per_host_connections } = most;
    }
    Ok(breakers)
}

/// Only connections are bounded per endpoint.
fn per_host(message: Thresholds) -> Decoded<Option<u32>> {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    refuse!(max_pending_requests, max_requests, max_retries, retry_budget, track_remaining, max_connection_pools);
    Ok(max_connections.map(|most| most.value))
}

fn is_high(message: &Thresholds) -> Result<bool, String> {
    match core::RoutingPriority::try_from(message.priority) {
        Ok(priority) => Ok(priority == core::RoutingPriority::High),
        Err(_) => Err("priority is not known".to_owned()),
    }
}

fn threshold(message: Thresholds) -> Decoded<Threshold> {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = message;
    let plain = Threshold::default();
    let budget = match retry_budget {
        None => None,
        Some(budget) => {
            let pb::circuit_breakers::thresholds::RetryBudget {
                budget_percent,
                budget_interval,
                min_retry_concurrency,
            } = budget;
            refuse!(budget_interval);
            let percent = budget_percent.map_or(20.0, |percent| percent.value);
            if !(0.0..=100.0).contains(&percent) {
                return Err(Refusal::new("retry_budget.budget_percent", format!("{percent} is not from 0 to 100")));
            }
            Some((percent, u32_or(min_retry_concurrency, 3)))
        }
    };
    Ok(Threshold {
        connections: u32_or(max_connections, plain.connections),
        pending: u32_or(max_pending_requests, plain.pending),
        requests: u32_or(max_requests, plain.requests),
        retries: u32_or(max_retries, plain.retries),
        pools: u32_or(max_connection_pools, plain.pools),
        retry_budget: budget,
        track_remaining,
    })
}

pub(super) fn outlier(message: pb::OutlierDetection) -> Decoded<OutlierDetection> {
    let pb::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = message;
    refuse!(monitors, detect_degraded_hosts);
    let time = |value: Option<_>, default: u64, field: &str| match value {
        Some(value) => some_time(&value).at(field),
        None => Ok(Duration::from_secs(default)),
    };
    let share = |value: Option<UInt32Value>, default: u32, field: &str| {
        within(value, 0..=100, field).map(|share| share.unwrap_or(default))
    };
    let base_ejection = time(base_ejection_time, 30, "base_ejection_time")?;
    Ok(OutlierDetection {
        consecutive_5xx: u32_or(consecutive_5xx, 5),
        enforcing_consecutive_5xx: share(enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx")?,
        consecutive_gateway_failure: u32_or(consecutive_gateway_failure, 5),
        enforcing_consecutive_gateway_failure: share(
            enforcing_consecutive_gateway_failure,
            0,
            "enforcing_consecutive_gateway_failure",
        )?,
        split_external_local_origin: split_external_local_origin_errors,
        consecutive_local_origin_failure: u32_or(consecutive_local_origin_failure, 5),
        enforcing_consecutive_local_origin_failure: share(
            enforcing_consecutive_local_origin_failure,
            100,
            "enforcing_consecutive_local_origin_failure",
        )?,
        interval: time(interval, 10, "interval")?,
        base_ejection,
        max_ejection: match max_ejection_time {
            Some(most) => {
                let most = some_time(&most).at("max_ejection_time")?;
                if most < base_ejection {
                    return Err(Refusal::new("max_ejection_time", "shorter than base_ejection_time"));
                }
                most
            }
            None => Duration::from_secs(300).max(base_ejection),
        },
        max_ejection_jitter: opt_duration(max_ejection_time_jitter.as_ref(), "max_ejection_time_jitter")?
            .unwrap_or_default(),
        max_ejection_percent: share(max_ejection_percent, 10, "max_ejection_percent")?,
        always_eject_one: bool_or(always_eject_one_host, false),
        enforcing_success_rate: share(enforcing_success_rate, 100, "enforcing_success_rate")?,
        success_rate_minimum_hosts: u32_or(success_rate_minimum_hosts, 5),
        success_rate_request_volume: u32_or(success_rate_request_volume, 100),
        success_rate_stdev_factor: u32_or(success_rate_stdev_factor, 1900),
        enforcing_local_origin_success_rate: share(
            enforcing_local_origin_success_rate,
            100,
            "enforcing_local_origin_success_rate",
        )?,
        failure_percentage_threshold: share(failure_percentage_threshold, 85, "failure_percentage_threshold")?,
        enforcing_failure_percentage: share(enforcing_failure_percentage, 0, "enforcing_failure_percentage")?,
        enforcing_failure_percentage_local_origin: share(
            enforcing_failure_percentage_local_origin,
            0,
            "enforcing_failure_percentage_local_origin",
        )?,
        failure_percentage_minimum_hosts: u32_or(failure_percentage_minimum_hosts, 5),
        failure_percentage_request_volume: u32_or(failure_percentage_request_volume, 50),
        uneject_on_healthy_check: bool_or(successful_active_health_check_uneject_host, true),
    })
}
