//! Laws of distribution, and the ways of choosing that are not a policy: chains, names, zones, subsets of one.

use super::*;
use crate::config::{PeakEwma, SubsetFallback};
use proptest::{prelude::prop, prop_assert, prop_assert_eq, prop_assume, proptest};
use tombolo_federation_model::Locality;

fn plan(load: &Arc<ClusterLoad>, settings: &LbSettings) -> Arc<Plan> {
    let set = Arc::new(EndpointSet::new(load, None, false, NOW));
    Arc::new(Plan::new(&set, &Arc::new(settings.clone()), NOW))
}

fn numbered(count: u16, first: u16) -> Vec<Endpoint> {
    (first..first + count).map(endpoint).collect()
}

#[test]
fn peak_ewma_takes_the_one_that_answers_sooner() {
    let ewma = PeakEwma { decay: Duration::from_secs(10), unknown: Duration::from_millis(30) };
    let load = flat(numbered(2, 1));
    let mut picker = picker(&load, &settings(LbPolicy::PeakEwma(ewma)));
    let hosts = picker.plan().set().hosts().to_vec();
    hosts[0].state.latency().observe(50_000, &ewma, NOW);
    hosts[1].state.latency().observe(1_000, &ewma, NOW);
    let counts = spread(&mut picker, &any(), 50);
    assert_eq!(counts, BTreeMap::from([(2, 50)]));
    let _busy: Vec<_> = (0..100).map(|_| hosts[1].state.begin()).collect();
    let counts = spread(&mut picker, &any(), 50);
    assert_eq!(counts, BTreeMap::from([(1, 50)]), "a queue of a hundred is slower than a slow endpoint");
}

#[test]
fn a_named_endpoint_is_taken_while_its_health_allows() {
    let load = flat(vec![endpoint(1), endpoint(2), Endpoint { health: HealthStatus::Draining, ..endpoint(3) }]);
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut named = picker(&load, &settings(LbPolicy::RoundRobin));
    let counts = spread(&mut named, &Request { preferred: &[at(2)], ..any() }, 10);
    assert_eq!(counts, BTreeMap::from([(2, 10)]));
    let draining = [at(3)];
    let counts = spread(&mut named, &Request { preferred: &draining, ..any() }, 10);
    assert!(!counts.contains_key(&3), "{counts:?}");
    let alone = Request { preferred: &draining, only_preferred: true, ..any() };
    assert!(spread(&mut named, &alone, 10).is_empty());
    let allowed = LbSettings { override_host_statuses: 1 << 3, ..settings(LbPolicy::RoundRobin) };
    let counts = spread(&mut picker(&load, &allowed), &alone, 10);
    assert_eq!(counts, BTreeMap::from([(3, 10)]));
}

#[test]
fn a_chain_goes_on_where_a_member_ends() {
    let healthy = plan(&flat(numbered(2, 1)), &settings(LbPolicy::RoundRobin));
    let half = flat(vec![endpoint(5), Endpoint { health: HealthStatus::Unhealthy, ..endpoint(6) }]);
    let half = plan(&half, &settings(LbPolicy::RoundRobin));
    let none = plan(&flat(Vec::new()), &settings(LbPolicy::RoundRobin));
    let members = |chain: &Chain, skip: u32| {
        let mut random = Random::new(3);
        let mut counts = BTreeMap::<u32, u32>::new();
        for _ in 0..1000 {
            *counts.entry(chain.choose(skip, random.draw()).unwrap().member).or_default() += 1;
        }
        counts
    };
    let first = Chain::new([Some(&none), None, Some(&healthy), Some(&half)].into_iter(), 50.0);
    assert_eq!(members(&first, 0), BTreeMap::from([(2, 1000)]));
    let spills = Chain::new([Some(&half), Some(&healthy)].into_iter(), 50.0);
    let counts = members(&spills, 0);
    assert!(counts[&0].abs_diff(700) < 60, "half of it with spare capacity of 40 percent: {counts:?}");
    assert_eq!(members(&spills, 1), BTreeMap::from([(1, 1000)]), "a retry avoids the place of the first try");
    assert!(Chain::new([Some(&none)].into_iter(), 50.0).choose(0, 1).is_none());
}

#[test]
fn an_aim_decides_the_priority() {
    let load = load(vec![vec![locality(None, numbered(1, 1))], vec![locality(None, numbered(1, 2))]]);
    let mut picker = picker(&load, &settings(LbPolicy::RoundRobin));
    assert_eq!(spread(&mut picker, &any(), 5), BTreeMap::from([(1, 5)]));
    let second = Request { aim: Some(Aim { priority: 1, degraded: false }), ..any() };
    assert_eq!(spread(&mut picker, &second, 5), BTreeMap::from([(2, 5)]));
}

fn in_zone(zone: &str, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    let place = Locality { region: "r".into(), zone: zone.into(), subzone: String::new() };
    LocalityEndpoints { locality: place, ..locality(None, endpoints) }
}

#[test]
fn zones_of_a_plan() {
    let own = Locality { region: "r".into(), zone: "a".into(), subzone: String::new() };
    let fleet_of = |a: u16, b: u16| {
        let load = load(vec![vec![in_zone("a", numbered(a, 100)), in_zone("b", numbered(b, 200))]]);
        Fleet::new(own.clone(), &plan(&load, &settings(LbPolicy::RoundRobin)))
    };
    let upstream = load(vec![vec![in_zone("b", numbered(3, 20)), in_zone("a", numbered(3, 10))]]);
    let set = Arc::new(EndpointSet::new(&upstream, None, false, NOW));
    let picks = |fleet: &Fleet, settings: &LbSettings| {
        let mut picker = Picker::new(Arc::new(Plan::within(&set, &Arc::new(settings.clone()), Some(fleet), NOW)), 7);
        let counts = spread(&mut picker, &any(), 900);
        counts.iter().filter(|(port, _)| **port < 20).map(|(_, count)| count).sum::<usize>()
    };
    let plain = settings(LbPolicy::RoundRobin);
    assert_eq!(picks(&fleet_of(1, 1), &plain), 900, "all stay where the zone carries its share");
    let some = picks(&fleet_of(3, 1), &plain);
    assert!(some.abs_diff(600) < 60, "50 of 75 percent stay: {some}");
    let zones = |routing_enabled, min_cluster_size, force_local| LbSettings {
        locality: LocalityMode::ZoneAware {
            routing_enabled,
            min_cluster_size,
            force_local,
            fail_on_panic: false,
            by_weight: false,
        },
        ..settings(LbPolicy::Random)
    };
    assert!(picks(&fleet_of(1, 1), &zones(100.0, 7, None)).abs_diff(450) < 60, "too small a cluster");
    assert!(picks(&fleet_of(1, 1), &zones(0.0, 1, None)).abs_diff(450) < 60, "switched off");
    assert!(picks(&fleet_of(1, 1), &zones(50.0, 1, None)).abs_diff(675) < 60, "half of them so, half of them so");
    assert_eq!(picks(&fleet_of(9, 1), &zones(100.0, 1, Some(3))), 900, "kept by force");
}

#[test]
fn subsets_of_one_and_their_share_of_a_locality() {
    let selector = |single_host| SubsetSelector {
        keys: Box::new(["v".into()]),
        fallback: None,
        fallback_keys: Box::default(),
        single_host,
    };
    let subsets = |single_host, scale_locality_weight| SubsetSettings {
        fallback: SubsetFallback::None,
        default_subset: Box::default(),
        selectors: Box::new([selector(single_host)]),
        scale_locality_weight,
        locality_weight_aware: true,
        panic_mode_any: false,
        list_as_any: false,
        fallback_list: false,
    };
    let with = |subsets: SubsetSettings, locality| LbSettings {
        subsets: Some(Arc::new(subsets)),
        locality,
        ..settings(LbPolicy::RoundRobin)
    };
    let wanted = [("v".into(), Value::Text("1".into()))];
    let request = Request { subset: Some(&wanted), ..any() };
    let two = flat(vec![labelled(1, "v", "1"), labelled(2, "v", "1")]);
    let counts = spread(&mut picker(&two, &with(subsets(true, false), LocalityMode::Flat)), &request, 10);
    assert_eq!(counts, BTreeMap::from([(1, 10)]), "the first of two with one value");

    // Both localities weigh the same, but the subset has all of the first and a quarter of the second.
    let quarter = vec![labelled(2, "v", "1"), labelled(3, "v", "2"), labelled(4, "v", "2"), labelled(5, "v", "2")];
    let uneven = load(vec![vec![locality(Some(40), vec![labelled(1, "v", "1")]), locality(Some(40), quarter)]]);
    let plain = spread(&mut picker(&uneven, &with(subsets(false, false), LocalityMode::Weighted)), &request, 100);
    assert!(plain[&1].abs_diff(50) <= 1, "{plain:?}");
    let scaled = spread(&mut picker(&uneven, &with(subsets(false, true), LocalityMode::Weighted)), &request, 100);
    assert!(scaled[&1].abs_diff(80) <= 1, "{scaled:?}");
}

proptest! {
    /// Whatever the policy: over many picks each endpoint has its share of the weight.
    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(1u32..6, 2..6), policy in 0u8..3) {
        let weighted: Vec<Endpoint> =
            (1..).zip(&weights).map(|(port, weight)| Endpoint { weight: *weight, ..endpoint(port) }).collect();
        let (policy, slack) = match policy {
            0 => (LbPolicy::RoundRobin, 0.02),
            1 => (LbPolicy::Maglev(MaglevSettings { table_size: 65_537 }), 0.04),
            _ => {
                let function = RingHashFunction::XxHash;
                (LbPolicy::RingHash(RingHash { minimum_size: 4096, maximum_size: 8 << 20, function }), 0.08)
            }
        };
        let mut picker = picker(&flat(weighted), &settings(policy));
        let counts = spread(&mut picker, &any(), 4000);
        let total: u32 = weights.iter().sum();
        for (port, weight) in (1u16..).zip(&weights) {
            let share = counts.get(&port).copied().unwrap_or_default() as f64 / 4000.0;
            let want = f64::from(*weight) / f64::from(total);
            prop_assert!((share - want).abs() < slack, "{counts:?} for {weights:?}");
        }
    }

    /// Priorities share what there is, and a chain of the same priorities shares it in the same way.
    #[test]
    fn a_chain_of_one_member_is_that_member(
        levels in prop::collection::vec((0u16..6, 0u16..6), 1..4),
        mark: u64,
    ) {
        let mut port = 1;
        let mut next = |count: u16, health| -> Vec<Endpoint> {
            port += count;
            numbered(count, port - count).into_iter().map(|e| Endpoint { health, ..e }).collect()
        };
        let all: Vec<_> = levels
            .iter()
            .map(|(good, bad)| {
                let mut endpoints = next(*good, HealthStatus::Healthy);
                endpoints.extend(next(*bad, HealthStatus::Unhealthy));
                vec![locality(None, endpoints)]
            })
            .filter(|level| !level[0].endpoints.is_empty())
            .collect();
        prop_assume!(!all.is_empty());
        let one = plan(&load(all), &settings(LbPolicy::RoundRobin));
        let chosen = Chain::new([Some(&one)].into_iter(), 50.0).choose(0, mark).unwrap();
        let (priority, class) = super::super::load::choose(&one.groups[0].shares, mark);
        prop_assert_eq!(chosen.aim.priority as usize, priority);
        prop_assert_eq!(chosen.aim.degraded, class == super::super::load::Class::Degraded);
        let sum: u32 = one.groups[0].shares.iter().map(|s| s.healthy + s.degraded).sum();
        prop_assert_eq!(sum, 100);
    }
}
