//! Counters and gauges of the control plane, in Prometheus text format.
//!
//! Names that Istio users have dashboards for are Istio's (`pilot_…`, `citadel_…`); ours begin with `tombolo_`. Labels are
//! from closed sets or from configuration, never from what a client sends.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{fmt::Write, time::Duration};
use tombolo_controlplane_api::status::SiteStatus;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabel {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SeverityLabel {
    severity: String,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    pushes: Family<TypeLabel, Counter>,
    rejects: Counter,
    convergence: Histogram,
    csr: Counter,
    issued: Counter,
    batches: Counter,
    inputs: Counter,
    computed: Counter,
    step: Histogram,
    proxies: Gauge,
    services: Gauge,
    endpoints: Gauge,
    stale_endpoints: Gauge,
    healthy: Gauge,
    source_age: Family<NameLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
    peer_age: Family<NameLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
    out_of_remit: Family<NameLabel, Gauge>,
    certificate_left: Family<NameLabel, Gauge>,
    diagnostics: Family<SeverityLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let seconds = || Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0]);
        let mut metrics = Self {
            registry: Registry::default(),
            pushes: Family::default(),
            rejects: Counter::default(),
            convergence: seconds(),
            csr: Counter::default(),
            issued: Counter::default(),
            batches: Counter::default(),
            inputs: Counter::default(),
            computed: Counter::default(),
            step: seconds(),
            proxies: Gauge::default(),
            services: Gauge::default(),
            endpoints: Gauge::default(),
            stale_endpoints: Gauge::default(),
            healthy: Gauge::default(),
            source_age: Family::default(),
            peer_age: Family::default(),
            out_of_remit: Family::default(),
            certificate_left: Family::default(),
            diagnostics: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("pilot_xds_pushes", "Responses sent to proxies", self.pushes.clone());
        r.register("pilot_total_xds_rejects", "Responses that proxies refused", self.rejects.clone());
        r.register(
            "pilot_proxy_convergence_time",
            "Seconds from a publish to the last acknowledgement of a proxy",
            self.convergence.clone(),
        );
        r.register("pilot_xds", "Proxies connected", self.proxies.clone());
        r.register("pilot_services", "Services known", self.services.clone());
        r.register("citadel_server_csr_count", "Certificate requests", self.csr.clone());
        r.register("citadel_server_success_cert_issuance_count", "Certificates issued", self.issued.clone());
        r.register("tombolo_world_batches", "Batches of changes applied", self.batches.clone());
        r.register("tombolo_world_inputs", "Changes applied", self.inputs.clone());
        r.register(
            "tombolo_world_computed",
            "Outputs computed because something they read changed",
            self.computed.clone(),
        );
        r.register(
            "tombolo_world_step_seconds",
            "Seconds to apply a batch and compute what changed",
            self.step.clone(),
        );
        r.register("tombolo_registry_endpoints", "Endpoints known", self.endpoints.clone());
        r.register(
            "tombolo_registry_stale_endpoints",
            "Endpoints whose source is silent",
            self.stale_endpoints.clone(),
        );
        r.register("tombolo_healthy", "1 when nothing needs a person", self.healthy.clone());
        r.register("tombolo_source_age_seconds", "Age of what a source reported", self.source_age.clone());
        r.register("tombolo_peer_age_seconds", "Age of what a peer reported", self.peer_age.clone());
        r.register("tombolo_peer_out_of_remit", "Messages of a peer outside of its remit", self.out_of_remit.clone());
        r.register("tombolo_certificate_seconds_left", "Life left of a certificate", self.certificate_left.clone());
        r.register("tombolo_diagnostics", "Complaints about objects", self.diagnostics.clone());
    }

    /// A response left for a proxy.
    pub fn pushed(&self, type_url: &str) {
        self.pushes.get_or_create(&TypeLabel { r#type: short_type(type_url) }).inc();
    }

    /// A proxy refused a response.
    pub fn rejected(&self) {
        self.rejects.inc();
    }

    /// A proxy acknowledged everything of a publish.
    pub fn converged(&self, after: Duration) {
        self.convergence.observe(after.as_secs_f64());
    }

    /// A certificate was asked for.
    pub fn certificate_request(&self, granted: bool) {
        self.csr.inc();
        if granted {
            self.issued.inc();
        }
    }

    /// Outputs were computed.
    pub fn computed(&self, outputs: usize) {
        self.computed.inc_by(outputs as u64);
    }

    /// A batch of changes was applied.
    pub fn batch(&self, inputs: u64, took: Duration) {
        self.batches.inc();
        self.inputs.inc_by(inputs);
        self.step.observe(took.as_secs_f64());
    }

    /// The text of a scrape; what the status knows is taken from it.
    #[must_use]
    pub fn render(&self, status: &SiteStatus) -> String {
        self.take(status);
        let mut text = String::new();
        // Writing to a string cannot fail, and every metric encodes itself.
        let _ = encode(&mut text, &self.registry);
        plain(&text)
    }

    fn take(&self, status: &SiteStatus) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.proxies.set(count(status.proxies.iter().filter(|p| p.connected).count() as u64));
        self.services.set(count(status.registry.services));
        self.endpoints.set(count(status.registry.endpoints));
        self.stale_endpoints.set(count(status.registry.stale_endpoints));
        self.healthy.set(i64::from(status.healthy));
        let name = |name: &str| NameLabel { name: name.to_owned() };
        for source in &status.sources {
            self.source_age.get_or_create(&name(&source.name)).set(source.age_ms as f64 / 1000.0);
        }
        for peer in &status.peers {
            self.peer_age.get_or_create(&name(&peer.name)).set(peer.age_ms as f64 / 1000.0);
            self.out_of_remit.get_or_create(&name(&peer.name)).set(count(peer.out_of_remit));
        }
        for certificate in &status.certificates {
            self.certificate_left.get_or_create(&name(&certificate.name)).set(certificate.seconds_left);
        }
        for severity in ["info", "warning", "error"] {
            let n = status.diagnostics.iter().filter(|d| d.severity == severity).count() as u64;
            self.diagnostics.get_or_create(&SeverityLabel { severity: severity.to_owned() }).set(count(n));
        }
    }
}

/// The habitual short name of a resource type.
#[must_use]
pub fn short_type(type_url: &str) -> &'static str {
    match type_url.rsplit('.').next().unwrap_or_default() {
        "Cluster" => "cds",
        "ClusterLoadAssignment" => "eds",
        "Listener" => "lds",
        "RouteConfiguration" => "rds",
        "Secret" => "sds",
        "TypedExtensionConfig" => "ecds",
        _ => "other",
    }
}

/// Prometheus' own text format from OpenMetrics: Istio's counters have no `_total`, and there is no end mark.
fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let istio = line.starts_with("pilot_") || line.starts_with("citadel_");
        let name_end = line.find(['{', ' ']).unwrap_or(line.len());
        match line[..name_end].strip_suffix("_total") {
            Some(name) if istio => {
                let _ = writeln!(text, "{name}{}", &line[name_end..]);
            }
            _ => {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_names_are_as_dashboards_know_them() {
        let metrics = Metrics::new();
        metrics.pushed("type.googleapis.com/envoy.config.cluster.v3.Cluster");
        metrics.rejected();
        metrics.batch(3, Duration::from_millis(2));
        let text = metrics.render(&SiteStatus { healthy: true, ..SiteStatus::default() });
        for line in [
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects 1",
            "tombolo_world_inputs_total 3",
            "tombolo_healthy 1",
            "pilot_proxy_convergence_time_count 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} should be in\n{text}");
        }
        assert!(!text.contains("EOF"));
    }
}
