//! Endpoints.

use super::{
    Refusal, address,
    any::{At, Decoded, filled, known, metadata, port, refuse, u32_or, within},
    matcher,
};
use crate::config::{
    ClusterLoad, DropOverload, Endpoint, EndpointAddress, HealthStatus, LocalityEndpoints, Metadata, Priority,
};
use std::{net::SocketAddr, sync::Arc};
use tombolo_controlplane_api::xds::envoy::{
    config::{
        core::v3 as core,
        endpoint::v3::{self as pb, cluster_load_assignment as cla, lb_endpoint::HostIdentifier},
    },
    r#type::v3::fractional_percent::DenominatorType,
};
use tombolo_federation_model::Locality;

/// As Envoy: more are a mistake.
const MOST_PRIORITIES: u32 = 128;
/// Spare capacity in percent that a priority is trusted with when nothing is said.
const OVERPROVISIONING: u32 = 140;

pub(super) fn assignment(message: pb::ClusterLoadAssignment) -> Decoded<ClusterLoad> {
    let pb::ClusterLoadAssignment { cluster_name, endpoints, named_endpoints, policy } = message;
    refuse!(named_endpoints);
    let mut priorities: Vec<Vec<LocalityEndpoints>> = Vec::new();
    for (at, locality) in endpoints.into_iter().enumerate() {
        let (priority, group) = group(locality).nth("endpoints", at)?;
        if priorities.len() <= priority {
            priorities.resize_with(priority + 1, Vec::new);
        }
        priorities[priority].push(group);
    }
    let (drops, overprovisioning) = limits(policy.unwrap_or_default()).at("policy")?;
    Ok(ClusterLoad {
        name: cluster_name.into(),
        priorities: priorities.into_iter().map(|localities| Priority { localities: localities.into() }).collect(),
        overprovisioning,
        weighted_localities: false,
        drops,
    })
}

/// Names need a cluster that asks for them in the DNS.
pub(super) fn only_addresses(load: &ClusterLoad) -> Decoded<()> {
    let endpoints = load.priorities.iter().flat_map(|p| &p.localities).flat_map(|l| &l.endpoints);
    for endpoint in endpoints {
        if let EndpointAddress::Name(name, _) = &endpoint.address {
            return Err(Refusal::new("endpoints", format!("{name:?} is not an IP address")));
        }
    }
    Ok(())
}

fn limits(message: cla::Policy) -> Decoded<(Box<[DropOverload]>, u32)> {
    let cla::Policy { drop_overloads, overprovisioning_factor, endpoint_stale_after, weighted_priority_health } =
        message;
    refuse!(endpoint_stale_after, weighted_priority_health);
    if drop_overloads.len() > 1 {
        return Err(Refusal::new("drop_overloads", "more than one category"));
    }
    let drops = drop_overloads.into_iter().enumerate().map(|(at, drop)| {
        let told = drop.drop_percentage.unwrap_or_default();
        known::<DenominatorType>(told.denominator).at("drop_percentage.denominator").nth("drop_overloads", at)?;
        let share = matcher::share(&told, "");
        let per_million = u64::from(share.numerator) * 1_000_000 / u64::from(share.denominator);
        let per_million = u32::try_from(per_million).ok().filter(|share| *share <= 1_000_000);
        let per_million =
            per_million.ok_or_else(|| "more than all".to_owned()).at("drop_percentage").nth("drop_overloads", at)?;
        let category = filled(drop.category).at("category").nth("drop_overloads", at)?;
        Ok(DropOverload { category: category.into(), per_million })
    });
    let factor = u32_or(overprovisioning_factor, OVERPROVISIONING);
    if factor == 0 {
        return Err(Refusal::new("overprovisioning_factor", "0"));
    }
    Ok((drops.collect::<Decoded<_>>()?, factor))
}

fn group(message: pb::LocalityLbEndpoints) -> Decoded<(usize, LocalityEndpoints)> {
    let pb::LocalityLbEndpoints {
        locality,
        metadata: meta,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = message;
    // Proximity is not used by any of Envoy's policies.
    let _ = proximity;
    let lb_endpoints = match lb_config {
        None => lb_endpoints,
        Some(pb::locality_lb_endpoints::LbConfig::LoadBalancerEndpoints(list)) => list.lb_endpoints,
        Some(pb::locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(_)) => {
            return Err(Refusal::unsupported("leds_cluster_locality_config"));
        }
    };
    if priority > MOST_PRIORITIES {
        return Err(Refusal::new("priority", format!("more than {MOST_PRIORITIES}")));
    }
    let shared = metadata(meta.as_ref()).at("metadata")?;
    let endpoints =
        lb_endpoints.into_iter().enumerate().map(|(at, e)| endpoint(e, &shared).map(Arc::new).nth("lb_endpoints", at));
    let endpoints = endpoints.collect::<Decoded<_>>()?;
    let core::Locality { region, zone, sub_zone } = locality.unwrap_or_default();
    let weight = within(load_balancing_weight, 1..=u32::MAX, "load_balancing_weight")?;
    let priority = usize::try_from(priority).unwrap_or_default();
    Ok((priority, LocalityEndpoints { locality: Locality { region, zone, subzone: sub_zone }, weight, endpoints }))
}

fn endpoint(message: pb::LbEndpoint, locality: &Metadata) -> Decoded<Endpoint> {
    let told = core::HealthStatus::try_from(message.health_status);
    let health =
        match told.map_err(|_| Refusal::new("health_status", format!("{} is not known", message.health_status)))? {
            core::HealthStatus::Unknown => HealthStatus::Unknown,
            core::HealthStatus::Healthy => HealthStatus::Healthy,
            core::HealthStatus::Unhealthy => HealthStatus::Unhealthy,
            core::HealthStatus::Draining => HealthStatus::Draining,
            core::HealthStatus::Timeout => HealthStatus::Timeout,
            core::HealthStatus::Degraded => HealthStatus::Degraded,
        };
    let pb::LbEndpoint { health_status: _, metadata: meta, load_balancing_weight, host_identifier } = message;
    let Some(HostIdentifier::Endpoint(inner)) = host_identifier else {
        return Err(Refusal::new("endpoint", "missing"));
    };
    let pb::Endpoint { address: place, health_check_config, hostname, additional_addresses, observability_name } =
        inner;
    // Only names statistics.
    let _ = observability_name;
    let check = health_check_config.unwrap_or_default();
    let check_address = check.address.map(further_address).transpose().at("endpoint.health_check_config.address")?;
    let check_port = port(check.port_value).at("endpoint.health_check_config.port_value")?;
    let place = place.ok_or_else(|| Refusal::new("endpoint.address", "missing"))?;
    let more = additional_addresses.into_iter().enumerate();
    Ok(Endpoint {
        address: address::endpoint(place).at("endpoint.address")?,
        more_addresses: more
            .map(|(at, a)| further(a).nth("endpoint.additional_addresses", at))
            .collect::<Decoded<_>>()?,
        hostname: hostname.into(),
        health,
        weight: within(load_balancing_weight, 1..=u32::MAX, "load_balancing_weight")?.unwrap_or(1),
        metadata: metadata(meta.as_ref()).at("metadata")?,
        locality_metadata: locality.clone(),
        health_check_port: (check_port != 0).then_some(check_port),
        health_check_address: check_address,
        health_check_hostname: check.hostname.into(),
        skip_health_check: check.disable_active_health_check,
    })
}

fn further(message: pb::endpoint::AdditionalAddress) -> Decoded<SocketAddr> {
    let place = message.address.ok_or_else(|| Refusal::new("address", "missing"))?;
    further_address(place).at("address")
}

fn further_address(place: core::Address) -> Decoded<SocketAddr> {
    match address::endpoint(place)? {
        EndpointAddress::Socket(socket) => Ok(socket),
        _ => Err(Refusal::new("", "not an IP address")),
    }
}
