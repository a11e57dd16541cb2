//! The filter that answers health checks, as configured.

use crate::config::HeaderMatcher;
use std::sync::Arc;

/// Answers health checks here.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckFilter {
    /// Health checks go upstream all the same; they are only known as such to access logs.
    pub pass_through: bool,
    /// Which requests are health checks: all must hold.
    pub headers: Box<[HeaderMatcher]>,
    /// How much of these clusters must be healthy, in percent.
    pub min_healthy: Box<[(Arc<str>, f64)]>,
}

impl HealthCheckFilter {
    /// Whether enough is healthy. `count` says of a cluster how many of its endpoints may be used and how many there are; `None`
    /// when there is no such cluster.
    #[must_use]
    pub fn is_healthy(&self, count: impl Fn(&Arc<str>) -> Option<(usize, usize)>) -> bool {
        self.min_healthy.iter().all(|(cluster, least)| match count(cluster) {
            None => false,
            Some((_, 0)) => *least == 0.0,
            #[expect(clippy::cast_precision_loss, reason = "no cluster has so many endpoints")]
            Some((healthy, all)) => healthy as f64 >= all as f64 * least / 100.0,
        })
    }
}
