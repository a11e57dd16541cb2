//! Owns how much of the load each priority gets: overprovisioning, spill-over, degraded hosts and panic.
//!
//! Arithmetic only, in whole percent and in the order in which Envoy rounds, because shares are compared with its own.

/// Hosts of one priority by health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u32,
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    /// Wait for their first health check and do not count at all.
    pub(super) excluded: u32,
}

/// Share of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) healthy: u32,
    pub(super) degraded: u32,
    pub(super) panic: bool,
}

/// Which hosts of a priority were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Healthy,
    Degraded,
}

/// Shares of all priorities; they add up to 100.
pub(super) fn shares(counts: &[Counts], overprovisioning: u32, panic_threshold: f64) -> Box<[Share]> {
    shares_by(counts, |_| overprovisioning, panic_threshold)
}

/// The same where each priority has an overprovisioning factor of its own.
pub(super) fn shares_by(
    counts: &[Counts],
    overprovisioning: impl Fn(usize) -> u32,
    panic_threshold: f64,
) -> Box<[Share]> {
    let availability = |part: u32, place: usize, counts: &Counts| match counts.all - counts.excluded {
        0 => 0,
        total => (u64::from(overprovisioning(place)) * u64::from(part) / u64::from(total)).min(100) as u32,
    };
    let healthy: Vec<u32> = counts.iter().enumerate().map(|(at, c)| availability(c.healthy, at, c)).collect();
    let degraded: Vec<u32> = counts.iter().enumerate().map(|(at, c)| availability(c.degraded, at, c)).collect();
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let mut shares = vec![Share::default(); counts.len()];
    if total > 0 {
        spread(&mut shares, &healthy, &degraded, total);
    }
    if panic_threshold <= 0.0 && total == 0 {
        shares[0].healthy = 100;
        return shares.into();
    }
    for (share, counts) in shares.iter_mut().zip(counts) {
        share.panic = total != 100 && below_threshold(counts, panic_threshold);
    }
    if shares.iter().all(|share| share.panic) {
        by_size(&mut shares, counts);
    }
    shares.into()
}

fn spread(shares: &mut [Share], healthy: &[u32], degraded: &[u32], total: u32) {
    let mut left = 100;
    for (share, available) in shares.iter_mut().zip(healthy) {
        share.healthy = (available * 100 / total).min(left);
        left -= share.healthy;
    }
    for (share, available) in shares.iter_mut().zip(degraded) {
        share.degraded = (available * 100 / total).min(left);
        left -= share.degraded;
    }
    // What rounding left over goes to the first that can take it.
    if let Some(first) = healthy.iter().position(|available| *available > 0) {
        shares[first].healthy += left;
    } else if let Some(first) = degraded.iter().position(|available| *available > 0) {
        shares[first].degraded += left;
    }
}

fn below_threshold(counts: &Counts, threshold: f64) -> bool {
    let total = counts.all - counts.excluded;
    let percent = |part: u32| if total == 0 { 0.0 } else { 100.0 * f64::from(part) / f64::from(total) };
    percent(counts.healthy) + percent(counts.degraded) < threshold.clamp(0.0, 100.0)
}

/// Every priority panics: health says nothing any more, so load goes by the number of hosts.
fn by_size(shares: &mut [Share], counts: &[Counts]) {
    let total: u64 = counts.iter().map(|c| u64::from(c.all)).sum();
    for share in shares.iter_mut() {
        (share.healthy, share.degraded) = (0, 0);
    }
    if total == 0 {
        shares[0].healthy = 100;
        return;
    }
    let mut left = 100;
    for (share, counts) in shares.iter_mut().zip(counts) {
        share.healthy = (100 * u64::from(counts.all) / total) as u32;
        left -= share.healthy;
    }
    if let Some(first) = counts.iter().position(|c| c.all > 0) {
        shares[first].healthy += left;
    }
}

/// Chooses a priority by a hash or a random number.
#[inline]
pub(super) fn choose(shares: &[Share], hash: u64) -> (usize, Class) {
    if shares.len() == 1 && shares[0].degraded == 0 {
        return (0, Class::Healthy);
    }
    let mark = (hash % 100) as u32 + 1;
    let mut sum = 0;
    for (priority, share) in shares.iter().enumerate() {
        sum += share.healthy;
        if mark <= sum {
            return (priority, Class::Healthy);
        }
    }
    for (priority, share) in shares.iter().enumerate() {
        sum += share.degraded;
        if mark <= sum {
            return (priority, Class::Degraded);
        }
    }
    (0, Class::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level(all: u32, healthy: u32, degraded: u32) -> Counts {
        Counts { all, healthy, degraded, excluded: 0 }
    }

    fn loads(counts: &[Counts], overprovisioning: u32, panic: f64) -> Vec<(u32, u32, bool)> {
        shares(counts, overprovisioning, panic).iter().map(|s| (s.healthy, s.degraded, s.panic)).collect()
    }

    #[test]
    fn half_healthy_spills_thirty_percent() {
        assert_eq!(loads(&[level(2, 1, 0), level(1, 1, 0)], 140, 50.0), [(70, 0, false), (30, 0, false)]);
        assert_eq!(loads(&[level(3, 2, 0), level(1, 1, 0)], 100, 50.0), [(66, 0, false), (34, 0, false)]);
    }

    #[test]
    fn degraded_hosts_take_what_healthy_ones_cannot() {
        let levels = [level(100, 10, 20), level(100, 20, 10), level(100, 10, 0)];
        let found: Vec<_> = shares(&levels, 100, 0.0).iter().map(|s| (s.healthy, s.degraded)).collect();
        assert_eq!(found, [(16, 28), (28, 14), (14, 0)]);
    }

    #[test]
    fn panic_begins_below_the_threshold() {
        assert_eq!(loads(&[level(3, 1, 0)], 140, 50.0), [(100, 0, true)]);
        assert_eq!(loads(&[level(2, 1, 0)], 140, 50.0), [(100, 0, false)]);
        assert_eq!(loads(&[level(1, 0, 0)], 140, 0.0), [(100, 0, false)]);
        assert_eq!(loads(&[level(0, 0, 0)], 140, 50.0), [(100, 0, true)]);
        assert_eq!(loads(&[level(1, 0, 0), level(3, 0, 0)], 140, 50.0), [(25, 0, true), (75, 0, true)]);
    }

    proptest! {
        #[test]
        fn shares_always_add_up(
            levels in prop::collection::vec((0u32..20, 0u32..20, 0u32..20, 0u32..20), 1..5),
            overprovisioning in 100u32..200,
            panic in 0.0f64..100.0,
            hash: u64,
        ) {
            let counts: Vec<Counts> = levels
                .into_iter()
                .map(|(healthy, degraded, bad, excluded)| {
                    Counts { all: healthy + degraded + bad + excluded, healthy, degraded, excluded }
                })
                .collect();
            let shares = shares(&counts, overprovisioning, panic);
            prop_assert_eq!(shares.iter().map(|s| s.healthy + s.degraded).sum::<u32>(), 100);
            let (priority, _) = choose(&shares, hash);
            prop_assert!(priority < counts.len());
        }
    }
}
