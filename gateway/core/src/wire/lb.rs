//! How endpoints are chosen.

use super::{
    Refusal,
    any::{At, Decoded, duration, header_name, opt_duration, refuse, structure, texts, type_name, u32_or, unpack},
};
use crate::config::{
    LbPolicy, LbSettings, LeastRequest, LocalityMode, MaglevSettings, PeakEwma, RingHash, RingHashFunction, SlowStart,
    SubsetFallback, SubsetSelector, SubsetSettings, Value,
};
use prost::Name as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb,
                cluster::{self as c, LbConfig, LbPolicy as Legacy, common_lb_config as clc, lb_subset_config as lsc},
            },
            core::v3::RuntimeDouble,
        },
        extensions::load_balancing_policies::{
            cluster_provided::v3::ClusterProvided,
            common::v3::{
                self as common,
                locality_lb_config::{self as llc, zone_aware_lb_config::LocalityBasis as Basis},
            },
            least_request::v3 as least,
            maglev::v3::Maglev,
            override_host::v3::{OverrideHost, override_host::OverrideHostSource},
            pick_first::v3::PickFirst,
            random::v3::Random,
            ring_hash::v3 as ring,
            round_robin::v3::RoundRobin,
            subset::v3::{Subset, subset::LbSubsetSelector},
            wrr_locality::v3::WrrLocality,
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Any, Struct},
};

/// The parts of a cluster that say how endpoints are chosen.
pub(super) struct Parts {
    pub(super) legacy: Legacy,
    pub(super) config: Option<LbConfig>,
    pub(super) subsets: Option<c::LbSubsetConfig>,
    pub(super) common: Option<c::CommonLbConfig>,
    pub(super) policy: Option<pb::LoadBalancingPolicy>,
}

/// The name of our own policy, in a `TypedStruct`.
const PEAK_EWMA: &str = "tombolo.load_balancing_policies.peak_ewma.v1.PeakEwma";

/// A struct with the name of its type (`xds.type.v3.TypedStruct` and the older `udpa.type.v1` alike).
#[derive(Clone, PartialEq, prost::Message)]
struct NamedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

const LEAST: LeastRequest = LeastRequest { choices: 2, active_request_bias: 1.0, full_scan: false };
const RING: RingHash = RingHash { minimum_size: 1024, maximum_size: 8 << 20, function: RingHashFunction::XxHash };
const TABLE: MaglevSettings = MaglevSettings { table_size: 65_537 };

fn plain(policy: LbPolicy) -> LbSettings {
    LbSettings {
        policy,
        panic_threshold: 50.0,
        fail_on_panic: false,
        locality: LocalityMode::Flat,
        subsets: None,
        slow_start: None,
        ignore_new_until_checked: false,
        override_host_statuses: 0,
        hash_by_hostname: false,
        hash_balance_factor: None,
        override_headers: Box::default(),
    }
}

pub(super) fn settings(parts: Parts) -> Decoded<LbSettings> {
    let mut settings = match parts.policy {
        // The newer way wins over all of the older one but the common settings.
        Some(policy) => policies(policy, 0).at("load_balancing_policy")?,
        None => legacy(parts.legacy, parts.config)?,
    };
    if let Some(common) = parts.common {
        apply_common(common, &mut settings).at("common_lb_config")?;
    }
    if let Some(subsets) = parts.subsets.map(subsets).transpose().at("lb_subset_config")?.flatten() {
        settings.subsets = Some(Arc::new(subsets));
    }
    settings.fail_on_panic = matches!(settings.locality, LocalityMode::ZoneAware { fail_on_panic: true, .. });
    Ok(settings)
}

fn legacy(policy: Legacy, config: Option<LbConfig>) -> Decoded<LbSettings> {
    let mut settings = plain(match policy {
        Legacy::RoundRobin => LbPolicy::RoundRobin,
        Legacy::LeastRequest => LbPolicy::LeastRequest(LEAST),
        Legacy::RingHash => LbPolicy::RingHash(RING),
        Legacy::Random => LbPolicy::Random,
        Legacy::Maglev => LbPolicy::Maglev(TABLE),
        Legacy::ClusterProvided => LbPolicy::ByDiscovery,
        Legacy::LoadBalancingPolicyConfig => return Err(Refusal::new("load_balancing_policy", "missing")),
    });
    match (config, &mut settings.policy) {
        (None | Some(LbConfig::OriginalDstLbConfig(_)), _) => {}
        (Some(LbConfig::RoundRobinLbConfig(config)), LbPolicy::RoundRobin) => {
            settings.slow_start =
                config.slow_start_config.map(legacy_slow_start).transpose().at("round_robin_lb_config")?;
        }
        (Some(LbConfig::LeastRequestLbConfig(config)), LbPolicy::LeastRequest(least)) => {
            least.choices = choices(config.choice_count).at("least_request_lb_config.choice_count")?;
            least.active_request_bias = number(config.active_request_bias.as_ref(), 1.0);
            settings.slow_start =
                config.slow_start_config.map(legacy_slow_start).transpose().at("least_request_lb_config")?;
        }
        (Some(LbConfig::RingHashLbConfig(config)), LbPolicy::RingHash(ring)) => {
            use c::ring_hash_lb_config::HashFunction;
            let function = super::any::known::<HashFunction>(config.hash_function);
            let murmur = function.at("ring_hash_lb_config.hash_function")? == HashFunction::MurmurHash2;
            *ring =
                ring_of(config.minimum_ring_size.map(|n| n.value), config.maximum_ring_size.map(|n| n.value), murmur)
                    .at("ring_hash_lb_config")?;
        }
        (Some(LbConfig::MaglevLbConfig(config)), LbPolicy::Maglev(table)) => {
            *table = table_of(config.table_size.map(|n| n.value)).at("maglev_lb_config.table_size")?;
        }
        (Some(_), _) => return Err(Refusal::new("lb_config", "is for another policy")),
    }
    Ok(settings)
}

fn number(value: Option<&RuntimeDouble>, default: f64) -> f64 {
    value.map_or(default, |value| value.default_value)
}

fn choices(count: Option<tombolo_controlplane_api::xds::google::protobuf::UInt32Value>) -> Result<u32, String> {
    let count = u32_or(count, 2);
    if count < 2 { Err("less than 2".to_owned()) } else { Ok(count) }
}

fn ring_of(minimum: Option<u64>, maximum: Option<u64>, murmur: bool) -> Result<RingHash, String> {
    let (minimum_size, maximum_size) = (minimum.unwrap_or(RING.minimum_size), maximum.unwrap_or(RING.maximum_size));
    if minimum_size > maximum_size || maximum_size > RING.maximum_size {
        return Err(format!("ring sizes {minimum_size} to {maximum_size}"));
    }
    let function = if murmur { RingHashFunction::Murmur2 } else { RingHashFunction::XxHash };
    Ok(RingHash { minimum_size, maximum_size, function })
}

fn table_of(size: Option<u64>) -> Result<MaglevSettings, String> {
    let table_size = size.unwrap_or(TABLE.table_size);
    let prime = table_size >= 2 && (2..).take_while(|d| d * d <= table_size).all(|d| !table_size.is_multiple_of(d));
    if table_size > 5_000_011 || !prime {
        return Err(format!("{table_size} is not a prime up to 5000011"));
    }
    Ok(MaglevSettings { table_size })
}

fn legacy_slow_start(message: c::SlowStartConfig) -> Decoded<SlowStart> {
    let c::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = message;
    slow_start(common::SlowStartConfig { slow_start_window, aggression, min_weight_percent })
}

fn slow_start(message: common::SlowStartConfig) -> Decoded<SlowStart> {
    let common::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = message;
    Ok(SlowStart {
        window: opt_duration(slow_start_window.as_ref(), "slow_start_window")?.unwrap_or_default(),
        aggression: number(aggression.as_ref(), 1.0),
        min_weight_percent: percent(min_weight_percent, 10.0),
    })
}

fn percent(value: Option<Percent>, default: f64) -> f64 {
    value.map_or(default, |percent| percent.value)
}

/// The first policy that is known, as Envoy takes it.
fn policies(message: pb::LoadBalancingPolicy, depth: u32) -> Decoded<LbSettings> {
    if depth > 4 {
        return Err(Refusal::new("policies", "nested too deep"));
    }
    let mut names = Vec::new();
    for (at, policy) in message.policies.into_iter().enumerate() {
        let Some(config) = policy.typed_extension_config.and_then(|extension| extension.typed_config) else { continue };
        if let Some(settings) = policy_of(&config, depth).nth("policies", at)? {
            return Ok(settings);
        }
        names.push(type_name(&config).to_owned());
    }
    Err(Refusal::unsupported(format!("policies ({})", names.join(", "))))
}

fn policy_of(config: &Any, depth: u32) -> Decoded<Option<LbSettings>> {
    let kind = type_name(config);
    Ok(Some(if kind == RoundRobin::full_name() {
        let RoundRobin { slow_start_config, locality_lb_config } = unpack(config)?;
        let slow_start = slow_start_config.map(slow_start).transpose().at("slow_start_config")?;
        LbSettings { slow_start, locality: locality(locality_lb_config)?, ..plain(LbPolicy::RoundRobin) }
    } else if kind == least::LeastRequest::full_name() {
        least_request(unpack(config)?)?
    } else if kind == Random::full_name() {
        let Random { locality_lb_config } = unpack(config)?;
        LbSettings { locality: locality(locality_lb_config)?, ..plain(LbPolicy::Random) }
    } else if kind == ring::RingHash::full_name() {
        ring_hash(unpack(config)?)?
    } else if kind == Maglev::full_name() {
        let Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } = unpack(config)?;
        let table = table_of(table_size.map(|n| n.value)).at("table_size")?;
        let locality = if locality_weighted_lb_config.is_some() { LocalityMode::Weighted } else { LocalityMode::Flat };
        consistent(LbSettings { locality, ..plain(LbPolicy::Maglev(table)) }, consistent_hashing_lb_config)?
    } else if kind == PickFirst::full_name() {
        let PickFirst { shuffle_address_list } = unpack(config)?;
        refuse!(shuffle_address_list);
        plain(LbPolicy::PickFirst)
    } else if kind == OverrideHost::full_name() {
        override_host(unpack(config)?, depth)?
    } else if kind == Subset::full_name() {
        subset_policy(unpack(config)?, depth)?
    } else if super::filter::inner_type(config) == PEAK_EWMA {
        plain(LbPolicy::PeakEwma(peak_ewma(config)?))
    } else if kind == WrrLocality::full_name() {
        let WrrLocality { endpoint_picking_policy } = unpack(config)?;
        let inner = endpoint_picking_policy.ok_or_else(|| Refusal::new("endpoint_picking_policy", "missing"))?;
        LbSettings { locality: LocalityMode::Weighted, ..policies(inner, depth + 1).at("endpoint_picking_policy")? }
    } else if kind == ClusterProvided::full_name() {
        plain(LbPolicy::ByDiscovery)
    } else {
        return Ok(None);
    }))
}

fn least_request(message: least::LeastRequest) -> Decoded<LbSettings> {
    let full = message.selection_method() == least::least_request::SelectionMethod::FullScan;
    let least::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method: _,
    } = message;
    let policy = LbPolicy::LeastRequest(LeastRequest {
        choices: choices(choice_count).at("choice_count")?,
        active_request_bias: number(active_request_bias.as_ref(), 1.0),
        full_scan: full || super::any::bool_or(enable_full_scan, false),
    });
    let slow_start = slow_start_config.map(slow_start).transpose().at("slow_start_config")?;
    Ok(LbSettings { slow_start, locality: locality(locality_lb_config)?, ..plain(policy) })
}

fn ring_hash(message: ring::RingHash) -> Decoded<LbSettings> {
    let murmur = message.hash_function() == ring::ring_hash::HashFunction::MurmurHash2;
    let ring::RingHash {
        hash_function: _,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = message;
    let ring = ring_of(minimum_ring_size.map(|n| n.value), maximum_ring_size.map(|n| n.value), murmur)
        .at("minimum_ring_size")?;
    let mut settings = plain(LbPolicy::RingHash(ring));
    settings.hash_by_hostname = use_hostname_for_hashing;
    settings.hash_balance_factor = hash_balance_factor.map(|factor| factor.value);
    settings.locality = if locality_weighted_lb_config.is_some() { LocalityMode::Weighted } else { LocalityMode::Flat };
    consistent(settings, consistent_hashing_lb_config)
}

fn override_host(message: OverrideHost, depth: u32) -> Decoded<LbSettings> {
    let OverrideHost { override_host_sources, selected_host_key, fallback_policy } = message;
    refuse!(selected_host_key);
    if override_host_sources.is_empty() {
        return Err(Refusal::new("override_host_sources", "empty"));
    }
    let source = |(at, source): (usize, OverrideHostSource)| {
        if source.metadata.is_some() {
            return Err(Refusal::unsupported(format!("override_host_sources[{at}].metadata")));
        }
        header_name(&source.header).nth("override_host_sources", at)
    };
    let headers = override_host_sources.into_iter().enumerate().map(source).collect::<Decoded<_>>()?;
    let fallback = fallback_policy.ok_or_else(|| Refusal::new("fallback_policy", "missing"))?;
    Ok(LbSettings { override_headers: headers, ..policies(fallback, depth + 1).at("fallback_policy")? })
}

/// The newer form of subsets: the same fields around a policy. It is read as the older form.
fn subset_policy(message: Subset, depth: u32) -> Decoded<LbSettings> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy,
    } = message;
    refuse!(allow_redundant_keys);
    let selector = |s: LbSubsetSelector| lsc::LbSubsetSelector {
        keys: s.keys,
        single_host_per_subset: s.single_host_per_subset,
        fallback_policy: s.fallback_policy,
        fallback_keys_subset: s.fallback_keys_subset,
    };
    let older = c::LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors: subset_selectors.into_iter().map(selector).collect(),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    };
    let inner = subset_lb_policy.ok_or_else(|| Refusal::new("subset_lb_policy", "missing"))?;
    let subsets = subsets(older)?.map(Arc::new);
    Ok(LbSettings { subsets, ..policies(inner, depth + 1).at("subset_lb_policy")? })
}

/// Our own policy, for which there is no message type: a struct that names it.
fn peak_ewma(config: &Any) -> Decoded<PeakEwma> {
    let message: NamedStruct = super::any::decode(&config.value)?;
    let mut settings = PeakEwma { decay: Duration::from_secs(10), unknown: Duration::from_millis(30) };
    let Some(fields) = message.value else { return Ok(settings) };
    let Value::Map(fields) = structure(&fields, 0).at("value")? else { return Ok(settings) };
    for (name, value) in fields.iter() {
        let time =
            value.as_str().and_then(seconds).ok_or_else(|| Refusal::new(&**name, "not a time such as \"10s\""))?;
        match &**name {
            "decay" if time > Duration::ZERO => settings.decay = time,
            "decay" => return Err(Refusal::new("decay", "0")),
            "unknown" => settings.unknown = time,
            other => return Err(Refusal::unsupported(other)),
        }
    }
    Ok(settings)
}

/// As JSON writes durations: seconds with an `s` at the end.
fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

fn consistent(mut settings: LbSettings, message: Option<common::ConsistentHashingLbConfig>) -> Decoded<LbSettings> {
    let Some(common::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy }) =
        message
    else {
        return Ok(settings);
    };
    refuse!(hash_policy);
    settings.hash_by_hostname |= use_hostname_for_hashing;
    settings.hash_balance_factor = hash_balance_factor.map(|factor| factor.value).or(settings.hash_balance_factor);
    Ok(settings)
}

fn locality(message: Option<common::LocalityLbConfig>) -> Decoded<LocalityMode> {
    Ok(match message.and_then(|message| message.locality_config_specifier) {
        None => LocalityMode::Flat,
        Some(llc::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityMode::Weighted,
        Some(llc::LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            let llc::ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_locality_direct_routing,
                force_local_zone,
                locality_basis,
            } = zone;
            let by_weight = match Basis::try_from(locality_basis) {
                Ok(basis) => basis == Basis::HealthyHostsWeight,
                Err(_) => return Err(Refusal::new("locality_basis", format!("{locality_basis} is not known"))),
            };
            let force = force_local_zone.map(|force| u32_or(force.min_size, 1));
            LocalityMode::ZoneAware {
                routing_enabled: percent(routing_enabled, 100.0),
                min_cluster_size: min_cluster_size.map_or(6, |size| size.value),
                // The older switch stays local whatever there is.
                force_local: force.or(force_locality_direct_routing.then_some(1)),
                fail_on_panic: fail_traffic_on_panic,
                by_weight,
            }
        }
    })
}

fn apply_common(message: c::CommonLbConfig, settings: &mut LbSettings) -> Decoded<()> {
    let c::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = message;
    refuse!(close_connections_on_host_set_change);
    settings.panic_threshold = percent(healthy_panic_threshold, 50.0);
    if !(0.0..=100.0).contains(&settings.panic_threshold) {
        return Err(Refusal::new("healthy_panic_threshold", "not from 0 to 100"));
    }
    // Changes are taken as they come.
    update_merge_window.as_ref().map(duration).transpose().at("update_merge_window")?;
    let _ = update_merge_window;
    settings.ignore_new_until_checked = ignore_new_hosts_until_first_hc;
    if let Some(statuses) = override_host_status {
        settings.override_host_statuses = statuses.statuses.iter().fold(0, |bits, status| bits | (1 << (*status & 31)));
    }
    if let Some(clc::ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor }) =
        consistent_hashing_lb_config
    {
        settings.hash_by_hostname |= use_hostname_for_hashing;
        settings.hash_balance_factor = hash_balance_factor.map(|factor| factor.value).or(settings.hash_balance_factor);
    }
    match locality_config_specifier {
        None => {}
        Some(clc::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => settings.locality = LocalityMode::Weighted,
        Some(clc::LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            settings.locality = LocalityMode::ZoneAware {
                routing_enabled: percent(zone.routing_enabled, 100.0),
                min_cluster_size: zone.min_cluster_size.map_or(6, |size| size.value),
                force_local: None,
                fail_on_panic: zone.fail_traffic_on_panic,
                by_weight: false,
            };
        }
    }
    Ok(())
}

/// `None` without selectors: then Envoy makes no subsets.
fn subsets(message: c::LbSubsetConfig) -> Decoded<Option<SubsetSettings>> {
    let c::LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = message;
    if subset_selectors.is_empty() {
        return Ok(None);
    }
    let fallback = match lsc::LbSubsetFallbackPolicy::try_from(fallback_policy) {
        Ok(lsc::LbSubsetFallbackPolicy::NoFallback) => SubsetFallback::None,
        Ok(lsc::LbSubsetFallbackPolicy::AnyEndpoint) => SubsetFallback::Any,
        Ok(lsc::LbSubsetFallbackPolicy::DefaultSubset) => SubsetFallback::Default,
        Err(_) => return Err(Refusal::new("fallback_policy", format!("{fallback_policy} is not known"))),
    };
    let fallback_list = match lsc::LbSubsetMetadataFallbackPolicy::try_from(metadata_fallback_policy) {
        Ok(policy) => policy == lsc::LbSubsetMetadataFallbackPolicy::FallbackList,
        Err(_) => return Err(Refusal::new("metadata_fallback_policy", "not known")),
    };
    let default_subset = match default_subset.map(|subset| structure(&subset, 0)).transpose().at("default_subset")? {
        Some(Value::Map(map)) => map.iter().map(|(key, value)| (Arc::clone(key), value.clone())).collect(),
        _ => Box::default(),
    };
    let alone = subset_selectors.len() == 1;
    let selectors =
        subset_selectors.into_iter().enumerate().map(|(at, s)| selector(s, alone).nth("subset_selectors", at));
    Ok(Some(SubsetSettings {
        fallback,
        default_subset,
        selectors: selectors.collect::<Decoded<_>>()?,
        scale_locality_weight,
        locality_weight_aware,
        panic_mode_any,
        list_as_any,
        fallback_list,
    }))
}

fn selector(message: lsc::LbSubsetSelector, alone: bool) -> Decoded<SubsetSelector> {
    use lsc::lb_subset_selector::LbSubsetSelectorFallbackPolicy as F;
    let fallback = match F::try_from(message.fallback_policy) {
        Ok(F::NotDefined) => None,
        Ok(F::NoFallback) => Some(SubsetFallback::None),
        Ok(F::AnyEndpoint) => Some(SubsetFallback::Any),
        Ok(F::DefaultSubset) => Some(SubsetFallback::Default),
        Ok(F::KeysSubset) => Some(SubsetFallback::Keys),
        Err(_) => return Err(Refusal::new("fallback_policy", "not known")),
    };
    let lsc::LbSubsetSelector { mut keys, single_host_per_subset, fallback_policy: _, mut fallback_keys_subset } =
        message;
    keys.sort();
    keys.dedup();
    fallback_keys_subset.sort();
    if keys.is_empty() {
        return Err(Refusal::new("keys", "empty"));
    }
    if single_host_per_subset && (!alone || keys.len() > 1) {
        return Err(Refusal::new("single_host_per_subset", "needs one selector with one key"));
    }
    let fewer = fallback_keys_subset.len() < keys.len() && fallback_keys_subset.iter().all(|key| keys.contains(key));
    if fallback == Some(SubsetFallback::Keys) && (fallback_keys_subset.is_empty() || !fewer) {
        return Err(Refusal::new("fallback_keys_subset", "not a smaller part of keys"));
    }
    Ok(SubsetSelector {
        keys: texts(&keys),
        fallback,
        fallback_keys: texts(&fallback_keys_subset),
        single_host: single_host_per_subset,
    })
}
