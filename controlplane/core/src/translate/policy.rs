//! How endpoints of an upstream are chosen, limited and ejected.

use super::{
    pb::{boolean, duration, percent, transport_socket, uint, uint64},
    wire::{cluster, core, protobuf, proxy_protocol},
};
use crate::intent::{
    Algorithm, ConnectionPool, HashTable, LoadBalancer, LocalityPolicy, OutlierDetection, RetryBudget, TrafficPolicy,
    Warmup,
};
use std::time::Duration;

/// Sets balancing, limits, ejection and timeouts of an upstream whose endpoints the control plane knows.
pub(super) fn apply(
    policy: &TrafficPolicy,
    mesh_locality: &LocalityPolicy,
    default_connect: Option<Duration>,
    to: &mut cluster::Cluster,
) {
    let pool = policy.connection_pool.clone().unwrap_or_default();
    load_balancer(policy.load_balancer.as_ref(), to);
    to.circuit_breakers = Some(circuit_breakers(&pool, policy.retry_budget));
    to.connect_timeout = Some(duration(pool.connect_timeout.or(default_connect).unwrap_or(Duration::from_secs(10))));
    to.upstream_connection_options = keepalive(&pool);
    to.outlier_detection = policy.outlier.as_ref().map(outlier);
    let locality = policy.load_balancer.as_ref().and_then(|lb| lb.locality.as_ref()).unwrap_or(mesh_locality);
    to.common_lb_config = Some(common(policy.outlier.as_ref(), locality));
}

/// No panic threshold unless one is asked for: when everything is ejected the answer is 503, not a gamble.
fn common(outlier: Option<&OutlierDetection>, locality: &LocalityPolicy) -> cluster::cluster::CommonLbConfig {
    use cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let threshold = outlier.and_then(|o| o.min_health_percent).unwrap_or(0);
    // Weights of places count only when the user gives them; otherwise every endpoint of a priority counts by its own weight.
    let weighted = !locality.distribute.is_empty() && locality.enabled != Some(false);
    cluster::cluster::CommonLbConfig {
        healthy_panic_threshold: Some(percent(f64::from(threshold))),
        locality_config_specifier: weighted
            .then_some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
        ..Default::default()
    }
}

fn load_balancer(settings: Option<&LoadBalancer>, to: &mut cluster::Cluster) {
    use cluster::cluster::{LbConfig, LbPolicy};
    let slow_start = settings.and_then(|lb| lb.warmup.as_ref()).map(slow_start);
    let algorithm = settings.and_then(|lb| lb.algorithm.as_ref()).unwrap_or(&Algorithm::LeastRequest);
    let (policy, config) = match algorithm {
        Algorithm::RoundRobin => {
            let config = slow_start.map(|s| {
                LbConfig::RoundRobinLbConfig(cluster::cluster::RoundRobinLbConfig { slow_start_config: Some(s) })
            });
            (LbPolicy::RoundRobin, config)
        }
        Algorithm::LeastRequest | Algorithm::Passthrough => {
            let config = slow_start.map(|s| {
                LbConfig::LeastRequestLbConfig(cluster::cluster::LeastRequestLbConfig {
                    slow_start_config: Some(s),
                    ..Default::default()
                })
            });
            (LbPolicy::LeastRequest, config)
        }
        Algorithm::Random => (LbPolicy::Random, None),
        Algorithm::ConsistentHash { table: HashTable::Ring(size), .. } => {
            let config = cluster::cluster::RingHashLbConfig { minimum_ring_size: uint64(*size), ..Default::default() };
            (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)))
        }
        Algorithm::ConsistentHash { table: HashTable::Maglev(size), .. } => (
            LbPolicy::Maglev,
            Some(LbConfig::MaglevLbConfig(cluster::cluster::MaglevLbConfig { table_size: uint64(*size) })),
        ),
    };
    to.lb_policy = policy.into();
    to.lb_config = config;
}

fn slow_start(warmup: &Warmup) -> cluster::cluster::SlowStartConfig {
    cluster::cluster::SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: Some(core::RuntimeDouble {
            default_value: warmup.aggression,
            runtime_key: "slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(percent(warmup.min_percent)),
    }
}

/// Unlimited where nothing is said: Envoy's own defaults are too low for a service mesh.
fn circuit_breakers(pool: &ConnectionPool, budget: Option<RetryBudget>) -> cluster::CircuitBreakers {
    let limit = |value: Option<u32>| uint(value.unwrap_or(u32::MAX));
    let budget = budget.map(|budget| cluster::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(percent(budget.percent)),
        min_retry_concurrency: uint(budget.min_concurrency),
        budget_interval: None,
    });
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending_requests),
        max_requests: limit(pool.max_requests),
        max_retries: limit(pool.max_retries),
        retry_budget: budget,
        track_remaining: true,
        ..Default::default()
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

fn keepalive(pool: &ConnectionPool) -> Option<cluster::UpstreamConnectionOptions> {
    let (probes, time, interval) = pool.tcp_keepalive?;
    let seconds = |time: Option<Duration>| uint(u32::try_from(time?.as_secs()).unwrap_or(u32::MAX));
    let keepalive = core::TcpKeepalive {
        keepalive_probes: probes.and_then(uint),
        keepalive_time: seconds(time),
        keepalive_interval: seconds(interval),
    };
    Some(cluster::UpstreamConnectionOptions { tcp_keepalive: Some(keepalive), ..Default::default() })
}

fn outlier(settings: &OutlierDetection) -> cluster::OutlierDetection {
    // A threshold of zero means off, which Envoy says by enforcing with zero percent.
    let off = |count: Option<u32>| (count == Some(0)).then_some(protobuf::UInt32Value { value: 0 });
    let count = |count: Option<u32>| count.filter(|n| *n > 0).and_then(uint);
    let gateway = count(settings.consecutive_gateway_errors);
    cluster::OutlierDetection {
        consecutive_5xx: count(settings.consecutive_5xx),
        enforcing_consecutive_5xx: off(settings.consecutive_5xx),
        enforcing_consecutive_gateway_failure: gateway.as_ref().and(uint(100)),
        consecutive_gateway_failure: gateway,
        split_external_local_origin_errors: settings.split_local_origin,
        consecutive_local_origin_failure: count(settings.consecutive_local_origin),
        enforcing_consecutive_local_origin_failure: off(settings.consecutive_local_origin),
        enforcing_success_rate: uint(0),
        interval: settings.interval.map(duration),
        base_ejection_time: settings.base_ejection_time.map(duration),
        max_ejection_percent: settings.max_ejection_percent.and_then(uint),
        always_eject_one_host: boolean(true),
        ..Default::default()
    }
}

/// Puts the PROXY protocol before a socket.
pub(super) fn proxied(version: Option<u8>, socket: core::TransportSocket) -> core::TransportSocket {
    let Some(version) = version else { return socket };
    let version =
        if version == 1 { core::proxy_protocol_config::Version::V1 } else { core::proxy_protocol_config::Version::V2 };
    let config = proxy_protocol::ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig { version: version.into(), ..Default::default() }),
        transport_socket: Some(socket),
        ..Default::default()
    };
    transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
}
