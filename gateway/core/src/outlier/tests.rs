//! Tests of `outlier`.

use super::*;
use crate::balance::{HostId, HostState};
use crate::time::Millis;
use std::{sync::Arc, time::Duration};

fn defaults() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(300),
        max_ejection_jitter: Duration::ZERO,
        max_ejection_percent: 10,
        always_eject_one: false,
        enforcing_success_rate: 100,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        enforcing_local_origin_success_rate: 100,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        uneject_on_healthy_check: true,
    }
}

fn cluster(settings: OutlierDetection, hosts: u64) -> (Detector, Vec<Arc<HostState>>) {
    let states: Vec<_> = (0..hosts).map(|id| Arc::new(HostState::new(HostId(id), Millis(0)))).collect();
    let mut detector = Detector::new(Arc::new(settings), Millis(0));
    detector.hosts(states.iter());
    (detector, states)
}

fn all_may_go() -> OutlierDetection {
    OutlierDetection { max_ejection_percent: 100, ..defaults() }
}

fn report(detector: &mut Detector, host: &HostState, outcome: Outcome, now: Millis) -> bool {
    let cause = host.outliers().record(detector.settings(), outcome);
    cause.is_some_and(|cause| detector.suspect(host.id(), cause, now, 1))
}

#[test]
fn exactly_the_configured_run_of_errors_ejects() {
    let (mut detector, hosts) = cluster(OutlierDetection { consecutive_5xx: 3, ..all_may_go() }, 2);
    for _ in 0..2 {
        assert!(!report(&mut detector, &hosts[0], Outcome::Status(500), Millis(1)));
    }
    report(&mut detector, &hosts[0], Outcome::Status(200), Millis(1));
    for _ in 0..2 {
        assert!(!report(&mut detector, &hosts[0], Outcome::Status(500), Millis(1)));
    }
    assert!(report(&mut detector, &hosts[0], Outcome::Status(500), Millis(1)));
    assert!(hosts[0].is_ejected() && !hosts[1].is_ejected());
}

#[test]
fn ejections_grow_longer_and_shrink_back() {
    let settings = OutlierDetection {
        consecutive_5xx: 1,
        base_ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(50),
        ..all_may_go()
    };
    let (mut detector, hosts) = cluster(settings, 2);
    assert!(report(&mut detector, &hosts[0], Outcome::Status(503), Millis(0)));
    assert!(!detector.tick(Millis(20_000), 0) && hosts[0].is_ejected());
    assert!(detector.tick(Millis(30_000), 0) && !hosts[0].is_ejected());
    // The second time takes twice as long, but no longer than the maximum.
    assert!(report(&mut detector, &hosts[0], Outcome::Status(503), Millis(30_000)));
    assert!(!detector.tick(Millis(70_000), 0));
    assert!(detector.tick(Millis(80_000), 0));
    // Two quiet sweeps and it starts from the beginning.
    detector.tick(Millis(90_000), 0);
    detector.tick(Millis(100_000), 0);
    assert!(report(&mut detector, &hosts[0], Outcome::Status(503), Millis(100_000)));
    assert!(detector.tick(Millis(130_000), 0));
}

#[test]
fn the_share_of_ejected_hosts_is_bounded() {
    let settings = OutlierDetection { consecutive_5xx: 1, max_ejection_percent: 50, ..defaults() };
    let (mut detector, hosts) = cluster(settings, 4);
    for host in &hosts {
        report(&mut detector, host, Outcome::Status(500), Millis(0));
    }
    assert_eq!(detector.ejected(), 2);

    let settings = OutlierDetection { consecutive_5xx: 1, ..defaults() };
    let (mut detector, hosts) = cluster(settings.clone(), 2);
    assert!(!report(&mut detector, &hosts[0], Outcome::Status(500), Millis(0)), "half is more than a tenth");
    let (mut detector, hosts) = cluster(OutlierDetection { always_eject_one: true, ..settings }, 2);
    assert!(report(&mut detector, &hosts[0], Outcome::Status(500), Millis(0)));
    assert!(!report(&mut detector, &hosts[1], Outcome::Status(500), Millis(0)));
}

#[test]
fn failures_to_connect_count_as_answers_unless_split() {
    let (mut detector, hosts) = cluster(OutlierDetection { consecutive_5xx: 2, ..all_may_go() }, 1);
    assert!(!report(&mut detector, &hosts[0], Outcome::ConnectFailed, Millis(0)));
    assert!(!report(&mut detector, &hosts[0], Outcome::Connected, Millis(0)), "a session that began ends the run");
    assert!(!report(&mut detector, &hosts[0], Outcome::ConnectFailed, Millis(0)));
    assert!(report(&mut detector, &hosts[0], Outcome::TimedOut, Millis(0)));

    let split = OutlierDetection {
        consecutive_5xx: 2,
        consecutive_local_origin_failure: 3,
        split_external_local_origin: true,
        ..all_may_go()
    };
    let (mut detector, hosts) = cluster(split, 1);
    assert!(!report(&mut detector, &hosts[0], Outcome::ConnectFailed, Millis(0)));
    assert!(!report(&mut detector, &hosts[0], Outcome::ConnectFailed, Millis(0)));
    assert!(report(&mut detector, &hosts[0], Outcome::ConnectFailed, Millis(0)));
}

#[test]
fn gateway_errors_eject_only_when_asked_to() {
    let asked =
        OutlierDetection { consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, ..all_may_go() };
    let (mut detector, hosts) = cluster(asked, 1);
    report(&mut detector, &hosts[0], Outcome::Status(502), Millis(0));
    report(&mut detector, &hosts[0], Outcome::Status(500), Millis(0));
    assert!(!report(&mut detector, &hosts[0], Outcome::Status(502), Millis(0)), "a 500 is no gateway error");
    assert!(report(&mut detector, &hosts[0], Outcome::Status(504), Millis(0)));
}

#[test]
fn a_host_far_below_the_others_is_ejected() {
    let (mut detector, hosts) = cluster(OutlierDetection { consecutive_5xx: 1000, ..all_may_go() }, 6);
    for (index, host) in hosts.iter().enumerate() {
        for request in 0..100 {
            let failed = index == 0 && request % 2 == 0;
            host.outliers().record(detector.settings(), Outcome::Status(if failed { 500 } else { 200 }));
        }
    }
    assert!(detector.tick(Millis(10_000), 0));
    assert!(hosts[0].is_ejected());
    assert_eq!(detector.ejected(), 1);
    assert!(!detector.tick(Millis(20_000), 0), "counts of an interval are used once");
}

#[test]
fn too_large_a_share_of_failures_ejects_when_enforced() {
    let settings = OutlierDetection {
        consecutive_5xx: 1000,
        enforcing_success_rate: 0,
        enforcing_failure_percentage: 100,
        failure_percentage_threshold: 40,
        ..all_may_go()
    };
    let (mut detector, hosts) = cluster(settings, 5);
    for host in &hosts {
        for request in 0..50 {
            let failed = host.id() == HostId(3) && request % 2 == 0;
            host.outliers().record(detector.settings(), Outcome::Status(if failed { 503 } else { 200 }));
        }
    }
    assert!(detector.tick(Millis(10_000), 0));
    assert!(hosts[3].is_ejected());
}

#[test]
fn a_passed_health_check_readmits() {
    let (mut detector, hosts) = cluster(OutlierDetection { consecutive_5xx: 1, ..all_may_go() }, 1);
    assert!(report(&mut detector, &hosts[0], Outcome::Status(500), Millis(0)));
    assert!(detector.readmit(hosts[0].id()) && !hosts[0].is_ejected());
    assert!(!detector.readmit(hosts[0].id()));
}
