//! What this control plane says about itself and its federation.
//!
//! Owns the judgement whether something needs a person. Reads what the subsystems report; never asks them to do anything.

use crate::{
    ca::{Authority, OwnIdentity, hex, unix_seconds},
    config::Config,
    peers::PeerReports,
    proxies::ProxyTable,
    sources::SourceReport,
    trust::{self, Bundles},
    world::{Ended, Summary, World},
};
use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};
use tokio::sync::watch;
use tombolo_controlplane_api::status::{
    CertificateStatus, DiagnosticStatus, FederationStatus, ProxyStatus, RegistryStatus, SiteStatus, SourceStatus,
};
use tombolo_federation_model::{Diagnostic, Severity};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A proxy may lag behind for this long before a person is told.
const PATIENCE_MS: u64 = 10_000;
/// A source that was not confirmed for this long is stale.
const SOURCE_STALE_MS: u64 = 15_000;

/// Everything that the status is made of.
pub struct Reporter {
    /// The configuration.
    pub config: Arc<Config>,
    /// When the process began.
    pub started: Instant,
    /// The engine.
    pub world: World,
    /// The sources.
    pub sources: Vec<watch::Receiver<SourceReport>>,
    /// The proxies.
    pub table: Arc<ProxyTable>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// The own certificate.
    pub own: OwnIdentity,
    /// The roots that are believed.
    pub bundles: watch::Receiver<Arc<Bundles>>,
    /// The peers.
    pub peers: PeerReports,
}

impl Reporter {
    /// This site and what its peers say about theirs.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn federation(&self) -> Result<FederationStatus, Ended> {
        Ok(FederationStatus { site: self.site().await?, others: self.peers.others() })
    }

    /// This site.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn site(&self) -> Result<SiteStatus, Ended> {
        let summary = self.world.summary().await?;
        let now = SystemTime::now();
        let mut status = SiteStatus {
            site: self.config.site.to_string(),
            cluster: self.config.cluster().to_string(),
            network: self.config.network().to_string(),
            trust_domain: self.config.trust_domain.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            healthy: true,
            problems: Vec::new(),
            sources: self.sources.iter().map(|source| source_status(&source.borrow())).collect(),
            peers: self.peers.status(),
            registry: registry(&summary),
            proxies: self.proxies(),
            certificates: self.certificates(now),
            trust_domains: trust::status(&self.bundles.borrow(), now),
            diagnostics: self.diagnostics(summary),
            uptime_ms: millis(self.started.elapsed()),
        };
        status.problems = self.problems(&status);
        status.healthy = status.problems.is_empty();
        Ok(status)
    }

    /// Every proxy.
    #[must_use]
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        self.table.status(Instant::now())
    }

    /// What readiness waits for; `None` when ready. Peers never hold it up.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.sources.iter().find_map(|source| {
            let report = source.borrow();
            (!report.synced).then(|| match &report.problem {
                Some(problem) => format!("source {} is not synced: {problem}", report.name),
                None => format!("source {} is not synced", report.name),
            })
        })
    }

    fn certificates(&self, now: SystemTime) -> Vec<CertificateStatus> {
        let line = |name: &str, serial: String, end: SystemTime| CertificateStatus {
            name: name.to_owned(),
            serial,
            not_after_unix: unix_seconds(end),
            seconds_left: unix_seconds(end) - unix_seconds(now),
        };
        let root = X509Certificate::from_der(self.authority.root());
        let root_serial = root.map(|(_, certificate)| hex(certificate.raw_serial())).unwrap_or_default();
        let own = self.own.current();
        vec![
            line("ca", root_serial, self.authority.root_not_after()),
            line("controlplane", own.serial.clone(), own.not_after),
        ]
    }

    fn diagnostics(&self, summary: Summary) -> Vec<DiagnosticStatus> {
        let mut all: Vec<Diagnostic> =
            self.sources.iter().flat_map(|source| source.borrow().folder.diagnostics.clone()).collect();
        all.extend(summary.diagnostics);
        // Worst first; within one severity by object.
        all.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
        all.dedup();
        let mut lines: Vec<DiagnosticStatus> = all.into_iter().map(diagnostic).collect();
        let refusals = self.proxies().into_iter().filter(|proxy| proxy.connected && !proxy.rejected.is_empty());
        lines.extend(refusals.map(|proxy| DiagnosticStatus {
            severity: "error".to_owned(),
            code: "REFUSED_BY_PROXY".to_owned(),
            object: format!("Proxy {}", proxy.id),
            message: proxy.rejected,
            ..DiagnosticStatus::default()
        }));
        lines
    }

    /// What needs a person.
    fn problems(&self, status: &SiteStatus) -> Vec<String> {
        let mut problems = Vec::new();
        for (source, report) in status.sources.iter().zip(&self.sources) {
            if source.state != "fresh" {
                let reason = report.borrow().problem.clone().map(|p| format!(": {p}")).unwrap_or_default();
                problems.push(format!("source {} is {}{reason}", source.name, source.state));
            }
        }
        for peer in status.peers.iter().filter(|peer| peer.state != "connected") {
            let reason = if peer.reason.is_empty() { String::new() } else { format!(": {}", peer.reason) };
            problems.push(format!("peer {} is {}{reason}", peer.name, peer.state));
        }
        let refused: u64 = status.sources.iter().map(|source| source.refused).sum();
        if refused > 0 {
            problems.push(format!("{refused} objects or files are not in force as they stand"));
        }
        for proxy in status.proxies.iter().filter(|proxy| proxy.connected) {
            if !proxy.rejected.is_empty() {
                problems.push(format!("proxy {} refused its configuration", proxy.id));
            } else if !proxy.synced && proxy.age_ms > PATIENCE_MS {
                problems.push(format!("proxy {} has not acknowledged its configuration", proxy.id));
            }
        }
        problems.extend(self.ending(status));
        problems
    }

    /// Certificates that a quarter of their life before the end have not been renewed, and roots near their end.
    fn ending(&self, status: &SiteStatus) -> Vec<String> {
        let mut problems = Vec::new();
        let own_quarter = i64::try_from(self.config.ca.leaf_ttl.get().as_secs() / 4).unwrap_or(i64::MAX);
        for certificate in &status.certificates {
            let least = if certificate.name == "ca" { 30 * 86_400 } else { own_quarter };
            if certificate.seconds_left < least {
                problems.push(format!("certificate {} ends in {} s", certificate.name, certificate.seconds_left));
            }
        }
        for domain in status.trust_domains.iter().filter(|domain| domain.seconds_left < 7 * 86_400) {
            problems.push(format!("the roots of {} end in {} s", domain.name, domain.seconds_left));
        }
        problems
    }
}

fn source_status(report: &SourceReport) -> SourceStatus {
    let age_ms = millis(report.confirmed.elapsed());
    let state = if !report.synced {
        "syncing"
    } else if report.problem.is_some() || age_ms > SOURCE_STALE_MS {
        "stale"
    } else {
        "fresh"
    };
    SourceStatus {
        name: report.name.clone(),
        kind: report.kind.as_str().to_owned(),
        state: state.to_owned(),
        services: report.folder.services,
        workloads: report.folder.workloads,
        objects: report.folder.objects,
        refused: report.folder.refused,
        age_ms,
    }
}

fn registry(summary: &Summary) -> RegistryStatus {
    let totals = &summary.totals;
    RegistryStatus {
        services: totals.services as u64,
        endpoints: totals.endpoints as u64,
        stale_endpoints: totals.stale_endpoints as u64,
        exported: totals.exported as u64,
        imported: totals.imported as u64,
        revision: totals.revision,
    }
}

fn diagnostic(d: Diagnostic) -> DiagnosticStatus {
    let severity = match d.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    DiagnosticStatus {
        severity: severity.to_owned(),
        code: d.code,
        object: d.object.to_string(),
        field: d.field,
        message: d.message,
        place: d.place,
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
