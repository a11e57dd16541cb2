//! Tests of `balance`.

mod laws;

use super::*;
use crate::config::{
    ClusterLoad, DropOverload, Endpoint, EndpointAddress, HealthStatus, LbPolicy, LbSettings, LeastRequest,
    LocalityEndpoints, LocalityMode, MaglevSettings, Metadata, Priority, RingHash, RingHashFunction, SlowStart,
    SubsetFallback, SubsetSelector, SubsetSettings, Value,
};
use crate::failure::Kind;
use crate::time::{Millis, Random};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) const NOW: Millis = Millis(1000);

pub(super) fn settings(policy: LbPolicy) -> LbSettings {
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

pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
        more_addresses: Box::default(),
        hostname: "".into(),
        health: HealthStatus::Unknown,
        weight: 1,
        metadata: Metadata::default(),
        locality_metadata: Metadata::default(),
        health_check_port: None,
        health_check_address: None,
        health_check_hostname: "".into(),
        skip_health_check: false,
    }
}

fn labelled(port: u16, key: &str, value: &str) -> Endpoint {
    let labels = Value::Map(Arc::new(BTreeMap::from([(key.into(), Value::Text(value.into()))])));
    let metadata = Metadata(Some(Arc::new(BTreeMap::from([("envoy.lb".into(), labels)]))));
    Endpoint { metadata, ..endpoint(port) }
}

fn locality(weight: Option<u32>, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    LocalityEndpoints { locality: Default::default(), weight, endpoints: endpoints.into_iter().map(Arc::new).collect() }
}

fn load(priorities: Vec<Vec<LocalityEndpoints>>) -> Arc<ClusterLoad> {
    let priorities = priorities.into_iter().map(|localities| Priority { localities: localities.into() });
    Arc::new(ClusterLoad {
        name: "c".into(),
        priorities: priorities.collect(),
        overprovisioning: 140,
        weighted_localities: false,
        drops: Box::default(),
    })
}

pub(super) fn flat(endpoints: Vec<Endpoint>) -> Arc<ClusterLoad> {
    load(vec![vec![locality(None, endpoints)]])
}

pub(super) fn picker(load: &Arc<ClusterLoad>, settings: &LbSettings) -> Picker {
    let set = Arc::new(EndpointSet::new(load, None, false, NOW));
    Picker::new(Arc::new(Plan::new(&set, &Arc::new(settings.clone()), NOW)), 7)
}

pub(super) fn port(picker: &Picker, index: u32) -> u16 {
    match &picker.plan().host(index).endpoint.address {
        EndpointAddress::Socket(address) => address.port(),
        other => panic!("no socket: {other:?}"),
    }
}

/// How often each port is picked in `picks` picks.
fn spread(picker: &mut Picker, request: &Request<'_>, picks: usize) -> BTreeMap<u16, usize> {
    let mut random = Random::new(5);
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        if let Some(index) = picker.pick(request, random.draw(), NOW) {
            *counts.entry(port(picker, index)).or_default() += 1;
        }
    }
    counts
}

fn any() -> Request<'static> {
    Request::default()
}

#[test]
fn round_robin_is_even_and_weights_are_exact() {
    let even = flat(vec![endpoint(1), endpoint(2), endpoint(3)]);
    let counts = spread(&mut picker(&even, &settings(LbPolicy::RoundRobin)), &any(), 30);
    assert_eq!(counts, BTreeMap::from([(1, 10), (2, 10), (3, 10)]));
    let weighted = flat(vec![Endpoint { weight: 3, ..endpoint(1) }, endpoint(2)]);
    let counts = spread(&mut picker(&weighted, &settings(LbPolicy::RoundRobin)), &any(), 80);
    assert!(counts[&1].abs_diff(60) <= 1, "{counts:?}");
}

#[test]
fn least_request_prefers_the_idle_host() {
    let load = flat(vec![endpoint(1), endpoint(2)]);
    let least = LeastRequest { choices: 2, active_request_bias: 1.0, full_scan: false };
    let mut picker = picker(&load, &settings(LbPolicy::LeastRequest(least)));
    let _busy: Vec<_> = (0..5).map(|_| picker.plan().set().hosts()[0].state.begin()).collect();
    let counts = spread(&mut picker, &any(), 400);
    assert!((60..140).contains(&counts[&1]), "only when both draws name it: {counts:?}");

    let scan = LeastRequest { full_scan: true, ..least };
    let set = picker.plan().set().clone();
    let mut scanning =
        Picker::new(Arc::new(Plan::new(&set, &Arc::new(settings(LbPolicy::LeastRequest(scan))), NOW)), 1);
    assert_eq!(spread(&mut scanning, &any(), 10), BTreeMap::from([(2, 10)]));
}

#[test]
fn weighted_least_request_divides_by_load() {
    let load = flat(vec![Endpoint { weight: 4, ..endpoint(1) }, endpoint(2)]);
    let least = LeastRequest { choices: 2, active_request_bias: 1.0, full_scan: false };
    let mut picker = picker(&load, &settings(LbPolicy::LeastRequest(least)));
    let _busy: Vec<_> = (0..3).map(|_| picker.plan().set().hosts()[0].state.begin()).collect();
    let counts = spread(&mut picker, &any(), 100);
    assert!(counts[&1].abs_diff(50) <= 2, "4 over 4 requests equals 1 over 1: {counts:?}");
}

#[test]
fn unhealthy_draining_and_ejected_hosts_get_nothing_until_panic() {
    let bad = |health, port| Endpoint { health, ..endpoint(port) };
    let load = flat(vec![bad(HealthStatus::Draining, 1), endpoint(2), endpoint(3)]);
    let mut picker = picker(&load, &settings(LbPolicy::RoundRobin));
    assert_eq!(spread(&mut picker, &any(), 10), BTreeMap::from([(2, 5), (3, 5)]));
    let set = picker.plan().set().clone();
    set.hosts()[1].state.set_ejected(true);
    picker.update(Arc::new(Plan::new(&set, &Arc::new(settings(LbPolicy::RoundRobin)), NOW)));
    assert!(picker.plan().in_panic());
    assert_eq!(spread(&mut picker, &any(), 9).len(), 3, "one of three is below half: all are used");

    let calm = LbSettings { panic_threshold: 0.0, ..settings(LbPolicy::RoundRobin) };
    picker.update(Arc::new(Plan::new(&set, &Arc::new(calm), NOW)));
    assert_eq!(spread(&mut picker, &any(), 9), BTreeMap::from([(3, 9)]));
    let strict = LbSettings { fail_on_panic: true, ..settings(LbPolicy::RoundRobin) };
    picker.update(Arc::new(Plan::new(&set, &Arc::new(strict), NOW)));
    assert!(spread(&mut picker, &any(), 9).is_empty());
}

#[test]
fn nobody_is_picked_where_there_is_nobody() {
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random, LbPolicy::Maglev(MaglevSettings { table_size: 251 })] {
        let empty = settings(policy.clone());
        assert!(spread(&mut picker(&flat(vec![]), &empty), &any(), 3).is_empty());
        assert!(spread(&mut picker(&load(vec![]), &empty), &any(), 3).is_empty());
        let calm = LbSettings { panic_threshold: 0.0, ..settings(policy) };
        let bad = flat(vec![Endpoint { health: HealthStatus::Unhealthy, ..endpoint(1) }]);
        assert!(spread(&mut picker(&bad, &calm), &any(), 3).is_empty());
    }
}

#[test]
fn priorities_spill_and_degraded_hosts_help() {
    let bad = Endpoint { health: HealthStatus::Unhealthy, ..endpoint(2) };
    let half =
        load(vec![vec![locality(None, vec![endpoint(1), bad.clone()])], vec![locality(None, vec![endpoint(3)])]]);
    let counts = spread(&mut picker(&half, &settings(LbPolicy::RoundRobin)), &any(), 1000);
    assert!(counts[&1].abs_diff(700) < 60 && counts[&3].abs_diff(300) < 60, "{counts:?}");
    let skipping = Request { skip_priorities: 1, ..any() };
    let counts = spread(&mut picker(&half, &settings(LbPolicy::RoundRobin)), &skipping, 20);
    assert_eq!(counts, BTreeMap::from([(3, 20)]));

    let degraded = flat(vec![endpoint(1), bad, Endpoint { health: HealthStatus::Degraded, ..endpoint(3) }]);
    let counts = spread(&mut picker(&degraded, &settings(LbPolicy::RoundRobin)), &any(), 1000);
    assert!(counts[&1].abs_diff(500) < 60 && counts[&3].abs_diff(500) < 60, "{counts:?}");
}

#[test]
fn localities_share_by_weight_and_by_what_they_have_left() {
    let bad = Endpoint { health: HealthStatus::Unhealthy, ..endpoint(3) };
    let load = load(vec![vec![
        locality(Some(1), vec![endpoint(1)]),
        locality(Some(3), vec![endpoint(2)]),
        locality(None, vec![endpoint(9)]),
    ]]);
    let by_weight = LbSettings { locality: LocalityMode::Weighted, ..settings(LbPolicy::RoundRobin) };
    assert_eq!(spread(&mut picker(&load, &by_weight), &any(), 40), BTreeMap::from([(1, 10), (2, 30)]));

    let half_gone = self::load(vec![vec![
        locality(Some(10), vec![endpoint(1)]),
        locality(Some(10), vec![endpoint(2), bad.clone(), Endpoint { ..bad.clone() }, endpoint(4)]),
    ]]);
    let counts = spread(&mut picker(&half_gone, &by_weight), &any(), 170);
    assert_eq!(counts[&1], 100, "10 against 10 times 0.7: {counts:?}");
}

#[test]
fn avoided_hosts_are_avoided_as_far_as_reselections_go() {
    let load = flat(vec![endpoint(1), endpoint(2)]);
    let mut picker = picker(&load, &settings(LbPolicy::RoundRobin));
    let first = picker.plan().set().hosts()[0].id();
    let avoiding = Request { exclude: &[first], reselections: 8, ..any() };
    assert_eq!(spread(&mut picker, &avoiding, 10), BTreeMap::from([(2, 10)]));
    let both: Vec<HostId> = picker.plan().set().hosts().iter().map(Host::id).collect();
    let nobody_left = Request { exclude: &both, reselections: 8, ..any() };
    assert_eq!(spread(&mut picker, &nobody_left, 10).values().sum::<usize>(), 10, "a host is better than none");
}

#[test]
fn state_outlives_an_update_and_dies_with_the_address() {
    let before = EndpointSet::new(&flat(vec![endpoint(1), endpoint(2)]), None, false, NOW);
    before.hosts()[1].state.set_ejected(true);
    let moved = flat(vec![Endpoint { weight: 9, ..endpoint(2) }, endpoint(3)]);
    let after = EndpointSet::new(&moved, Some(&before), true, Millis(5000));
    assert!(Arc::ptr_eq(&before.hosts()[1].state, &after.hosts()[0].state));
    assert!(after.hosts()[0].state.is_ejected() && !after.hosts()[0].state.is_unchecked());
    assert!(after.hosts()[1].state.is_unchecked());
    let again = EndpointSet::new(&flat(vec![endpoint(1)]), Some(&after), false, NOW);
    assert_ne!(again.hosts()[0].id(), before.hosts()[0].id(), "identities are not used twice");
    let twice = EndpointSet::new(&flat(vec![endpoint(1), endpoint(1)]), None, false, NOW);
    assert_eq!(twice.hosts()[0].id(), twice.hosts()[1].id());
}

#[test]
fn hosts_that_wait_for_their_first_check_do_not_count() {
    let load = flat(vec![endpoint(1), endpoint(2), endpoint(3)]);
    let set = Arc::new(EndpointSet::new(&load, None, true, NOW));
    set.hosts()[0].state.set_checked(Health::Healthy, NOW);
    let waiting = LbSettings { ignore_new_until_checked: true, ..settings(LbPolicy::RoundRobin) };
    let mut picker = Picker::new(Arc::new(Plan::new(&set, &Arc::new(waiting), NOW)), 0);
    assert!(!picker.plan().in_panic());
    assert_eq!(spread(&mut picker, &any(), 5), BTreeMap::from([(1, 5)]));
}

#[test]
fn a_fresh_host_starts_slowly() {
    let slow = SlowStart { window: Duration::from_secs(10), aggression: 1.0, min_weight_percent: 10.0 };
    let gentle = LbSettings { slow_start: Some(slow), ..settings(LbPolicy::RoundRobin) };
    let old = EndpointSet::new(&flat(vec![endpoint(1)]), None, false, Millis(0));
    let set = Arc::new(EndpointSet::new(&flat(vec![endpoint(1), endpoint(2)]), Some(&old), false, Millis(50_000)));
    let mut picker = Picker::new(Arc::new(Plan::new(&set, &Arc::new(gentle), Millis(50_000))), 0);
    let mut share_at = |now| {
        let picks: Vec<_> = (0..220).filter_map(|_| picker.pick(&any(), 0, Millis(now))).collect();
        picks.iter().filter(|index| **index == 1).count()
    };
    assert!(share_at(50_000).abs_diff(20) <= 3);
    assert!(share_at(55_000).abs_diff(73) <= 5);
    assert!(share_at(60_000).abs_diff(110) <= 2);
}

fn subset_settings(fallback: SubsetFallback) -> LbSettings {
    let selector = SubsetSelector {
        keys: Box::new(["v".into()]),
        fallback: None,
        fallback_keys: Box::default(),
        single_host: false,
    };
    let subsets = SubsetSettings {
        fallback,
        default_subset: Box::new([("v".into(), Value::Text("2".into()))]),
        selectors: Box::new([selector]),
        scale_locality_weight: false,
        locality_weight_aware: false,
        panic_mode_any: false,
        list_as_any: false,
        fallback_list: false,
    };
    LbSettings { subsets: Some(Arc::new(subsets)), ..settings(LbPolicy::RoundRobin) }
}

#[test]
fn subsets_and_their_fallbacks() {
    let load = flat(vec![labelled(1, "v", "1"), labelled(2, "v", "1"), labelled(3, "v", "2"), endpoint(4)]);
    let ask = |value: &str| vec![(Arc::<str>::from("v"), Value::Text(value.into()))];
    let counts = |fallback, criteria: Option<&[(Arc<str>, Value)]>| {
        spread(&mut picker(&load, &subset_settings(fallback)), &Request { subset: criteria, ..any() }, 12)
    };
    assert_eq!(counts(SubsetFallback::None, Some(&ask("1"))), BTreeMap::from([(1, 6), (2, 6)]));
    assert!(counts(SubsetFallback::None, Some(&ask("9"))).is_empty());
    assert!(counts(SubsetFallback::None, None).is_empty());
    assert_eq!(counts(SubsetFallback::Any, Some(&ask("9"))).len(), 4);
    assert_eq!(counts(SubsetFallback::Default, Some(&ask("9"))), BTreeMap::from([(3, 12)]));
    assert_eq!(counts(SubsetFallback::Default, None), BTreeMap::from([(3, 12)]));
}

#[test]
fn a_hash_names_the_same_host_as_long_as_it_lives() {
    let ring = RingHash { minimum_size: 128, maximum_size: 8 << 20, function: RingHashFunction::XxHash };
    for policy in [LbPolicy::RingHash(ring), LbPolicy::Maglev(MaglevSettings { table_size: 251 })] {
        let load = flat((1..=4).map(endpoint).collect());
        let mut first = picker(&load, &settings(policy.clone()));
        let mut turned = picker(&flat((1..=4).rev().map(endpoint).collect()), &settings(policy));
        for key in 0..200u64 {
            let request = Request { hash: Some(crate::hash::text(&key.to_le_bytes())), ..any() };
            let a = first.pick(&request, key, NOW).unwrap();
            let b = turned.pick(&request, !key, NOW).unwrap();
            assert_eq!(port(&first, a), port(&turned, b), "neither order nor chance matters");
        }
    }
}

#[test]
fn bounded_load_passes_the_overflow_on() {
    let bounded =
        LbSettings { hash_balance_factor: Some(150), ..settings(LbPolicy::Maglev(MaglevSettings { table_size: 251 })) };
    let mut picker = picker(&flat((1..=4).map(endpoint).collect()), &bounded);
    let request = Request { hash: Some(42), ..any() };
    let mut held = Vec::new();
    for _ in 0..40 {
        let index = picker.pick(&request, 0, NOW).unwrap();
        held.push(picker.plan().host(index).state.begin());
    }
    let most = picker.plan().set().hosts().iter().map(|host| host.state.active()).max().unwrap();
    assert!(most <= 17, "no host is far above one and a half times the average of ten: {most}");
}

#[test]
fn drops_say_whether_anything_is_let_through() {
    let drop = |per_million| [DropOverload { category: "x".into(), per_million }];
    assert_eq!(drop_overload(&drop(1_000_000), 1).unwrap().kind, Kind::UnconditionalDropOverload);
    assert_eq!(drop_overload(&drop(0), 1), None);
    let dropped = (0..1000).filter_map(|random| drop_overload(&drop(300_000), random));
    let kinds: Vec<_> = dropped.map(|drop| drop.kind).collect();
    assert!(kinds.len().abs_diff(300) < 60 && kinds.iter().all(|kind| *kind == Kind::DropOverload));
}
