//! Owns zone-aware routing: how many of the requests of the first priority stay in the own zone, and where the rest goes.
//!
//! Every gateway of a fleet does the same sum over the same numbers: the zones of the fleet itself (the local cluster) and
//! those of the upstream. Requests stay in their zone as far as its share of the upstream carries its share of the fleet.
//! Arithmetic only, in hundredths of a percent and in the order in which Envoy rounds.

use super::host::Health;
use super::plan::Plan;
use crate::time::Random;
use tombolo_federation_model::Locality;

/// The fleet that this gateway is one of, as zone-aware routing needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// Where this gateway is.
    pub own: Locality,
    zones: Vec<Zone>,
    hosts: usize,
    panic: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Zone {
    locality: Locality,
    hosts: u64,
    weight: u64,
}

impl Fleet {
    /// The fleet as its own cluster's plan shows it.
    #[must_use]
    pub fn new(own: Locality, plan: &Plan) -> Self {
        let set = plan.set();
        let mut zones: Vec<Zone> = Vec::new();
        for host in set.hosts().iter().filter(|host| host.priority == 0 && host.health() == Health::Healthy) {
            let Some(locality) = set.locality(host) else { continue };
            let weight = u64::from(host.endpoint.weight.max(1));
            match zones.iter_mut().find(|zone| zone.locality == *locality) {
                Some(zone) => (zone.hosts, zone.weight) = (zone.hosts + 1, zone.weight + weight),
                None => zones.push(Zone { locality: locality.clone(), hosts: 1, weight }),
            }
        }
        let hosts = set.hosts().iter().filter(|host| host.priority == 0).count();
        Self { own, zones, hosts, panic: plan.in_panic() }
    }

    /// Whether nothing can be learnt from it.
    pub(super) fn is_empty(&self) -> bool {
        self.hosts == 0
    }

    /// Whether too few of its members are healthy for its numbers to be believed.
    pub(super) fn in_panic(&self) -> bool {
        self.panic
    }

    fn share(&self, locality: &Locality, by_weight: bool) -> u64 {
        let size = |zone: &Zone| if by_weight { zone.weight } else { zone.hosts };
        let total: u64 = self.zones.iter().map(size).sum();
        let part = self.zones.iter().find(|zone| zone.locality == *locality).map_or(0, size);
        (WHOLE * part).checked_div(total).unwrap_or_default()
    }
}

/// What zones are measured in: hundredths of a percent.
const WHOLE: u64 = 10_000;

/// The healthy endpoints of one zone of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) locality: &'a Locality,
    pub(super) hosts: u64,
    pub(super) weight: u64,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// All to the own zone, by its number.
    Direct(u32),
    /// Some to the own zone, the others by what other zones have left.
    Residual {
        /// The own zone and how many of [`WHOLE`] requests stay in it.
        own: Option<(u32, u64)>,
        /// By zone, each with those before it added.
        left: Box<[u64]>,
    },
}

/// How requests are routed over these zones. `force`: with so many endpoints in the own zone all stay there.
pub(super) fn route(fleet: &Fleet, sides: &[Side<'_>], force: Option<u32>, by_weight: bool) -> Route {
    let size = |side: &Side<'_>| if by_weight { side.weight } else { side.hosts };
    let total: u64 = sides.iter().map(size).sum();
    let upstream = |side: &Side<'_>| (WHOLE * size(side)).checked_div(total).unwrap_or_default();
    // Without endpoints a zone's share of the fleet does not matter.
    let local = |side: &Side<'_>| if side.hosts == 0 { 0 } else { fleet.share(side.locality, by_weight) };
    let own = sides.iter().position(|side| *side.locality == fleet.own);
    if let Some(own) = own {
        let side = &sides[own];
        let forced = force.is_some_and(|least| side.hosts > 0 && side.hosts >= u64::from(least));
        if forced || (upstream(side) > 0 && upstream(side) >= local(side)) {
            return Route::Direct(own as u32);
        }
    }
    let mut sum = 0;
    let left = sides.iter().enumerate().map(|(at, side)| {
        if Some(at) != own {
            sum += upstream(side).saturating_sub(local(side));
        }
        sum
    });
    let left: Box<[u64]> = left.collect();
    let stays = own.map(|own| {
        let local = local(&sides[own]);
        (own as u32, (upstream(&sides[own]) * WHOLE).checked_div(local).unwrap_or_default())
    });
    Route::Residual { own: stays, left }
}

impl Route {
    /// The zone of one request.
    pub(super) fn choose(&self, random: &mut Random) -> u32 {
        let (own, left) = match self {
            Route::Direct(own) => return *own,
            Route::Residual { own, left } => (own, left),
        };
        if let Some((zone, stay)) = own
            && random.below(WHOLE) < *stay
        {
            return *zone;
        }
        let capacity = left.last().copied().unwrap_or_default();
        if capacity == 0 {
            // Rounding can leave nothing.
            return random.below(left.len() as u64) as u32;
        }
        let mark = random.below(capacity);
        left.iter().position(|sum| mark < *sum).unwrap_or_default() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(zone: &str) -> Locality {
        Locality { region: "r".into(), zone: zone.into(), subzone: String::new() }
    }

    fn fleet(own: &str, zones: &[(&str, u64)]) -> Fleet {
        let zones: Vec<Zone> =
            zones.iter().map(|(zone, hosts)| Zone { locality: at(zone), hosts: *hosts, weight: *hosts }).collect();
        let hosts = zones.iter().map(|zone| zone.hosts as usize).sum();
        Fleet { own: at(own), zones, hosts, panic: false }
    }

    fn routed(fleet: &Fleet, upstream: &[(&str, u64)], force: Option<u32>) -> Route {
        let places: Vec<Locality> = upstream.iter().map(|(zone, _)| at(zone)).collect();
        let sides: Vec<Side<'_>> = places
            .iter()
            .zip(upstream)
            .map(|(locality, (_, hosts))| Side { locality, hosts: *hosts, weight: *hosts })
            .collect();
        route(fleet, &sides, force, false)
    }

    #[test]
    fn a_zone_that_carries_its_share_keeps_all() {
        assert_eq!(routed(&fleet("a", &[("a", 1), ("b", 1)]), &[("b", 3), ("a", 3)], None), Route::Direct(1));
        assert_eq!(routed(&fleet("a", &[("a", 1), ("b", 2)]), &[("a", 3), ("b", 3)], None), Route::Direct(0));
    }

    #[test]
    fn what_is_too_much_goes_where_room_is_left() {
        // 40 % of the fleet, 25 % of the upstream: five of eight stay, the rest goes two to one.
        let route = routed(&fleet("a", &[("a", 4), ("b", 4), ("c", 2)]), &[("a", 2), ("b", 4), ("c", 2)], None);
        let left: Box<[u64]> = Box::new([0, 1000, 1500]);
        assert_eq!(route, Route::Residual { own: Some((0, 6250)), left });
        assert_eq!(routed(&fleet("a", &[("a", 9), ("b", 1)]), &[("a", 2), ("b", 8)], Some(2)), Route::Direct(0));
    }

    #[test]
    fn an_upstream_that_is_not_in_the_own_zone_is_shared() {
        let route = routed(&fleet("a", &[("a", 1), ("b", 1)]), &[("b", 1), ("c", 1)], None);
        let left: Box<[u64]> = Box::new([0, 5000]);
        assert_eq!(route, Route::Residual { own: None, left });
    }

    proptest! {
        /// With every gateway of the fleet doing this, each endpoint of the upstream gets the same load.
        #[test]
        fn the_whole_fleet_together_is_even(
            local in prop::collection::vec(1u64..30, 2..5),
            upstream in prop::collection::vec(1u64..30, 2..5),
        ) {
            let names = ["a", "b", "c", "d"];
            let count = local.len().min(upstream.len());
            let fleet_zones: Vec<(&str, u64)> = names.iter().copied().zip(local).take(count).collect();
            let sides: Vec<(&str, u64)> = names.iter().copied().zip(upstream).take(count).collect();
            let total: u64 = fleet_zones.iter().map(|(_, hosts)| hosts).sum();
            let mut load = vec![0.0; count];
            for (zone, hosts) in &fleet_zones {
                let weight = *hosts as f64 / total as f64;
                match routed(&fleet(zone, &fleet_zones), &sides, None) {
                    Route::Direct(zone) => load[zone as usize] += weight,
                    Route::Residual { own, left } => {
                        let stay = own.map_or(0.0, |(_, stay)| stay as f64 / WHOLE as f64);
                        if let Some((zone, _)) = own {
                            load[zone as usize] += weight * stay;
                        }
                        let capacity = *left.last().unwrap() as f64;
                        let mut before = 0;
                        for (zone, sum) in left.iter().enumerate() {
                            if capacity > 0.0 {
                                load[zone] += weight * (1.0 - stay) * (sum - before) as f64 / capacity;
                            }
                            before = *sum;
                        }
                    }
                }
            }
            let endpoints: u64 = sides.iter().map(|(_, hosts)| hosts).sum();
            for (share, (_, hosts)) in load.iter().zip(&sides) {
                prop_assert!((share - *hosts as f64 / endpoints as f64).abs() < 0.01, "{load:?} for {sides:?}");
            }
        }
    }
}
