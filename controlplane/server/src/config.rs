//! What an operator writes: the daemon's configuration file, in YAML.
//!
//! Owns the shape of the file and its defaults. Used by the daemon, which reads it, and by the command line tool, which
//! writes it with the same types. Never opens what it names: folders, keys and sockets are opened by their owners.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tombolo_federation_model::{ClusterId, Identity, Locality, Namespace, NetworkId, SiteName, TrustDomain};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The site that this control plane speaks for.
    pub site: SiteName,
    /// Id of the cluster whose objects the sources report; the site's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The network of the cluster's addresses; the site's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// Root of the identities that this site issues, for example `east.local`.
    pub trust_domain: TrustDomain,
    /// `region/zone/subzone` of workloads that do not say where they are.
    #[serde(default, skip_serializing_if = "Locality::is_unknown")]
    pub locality: Locality,
    /// Suffix of Kubernetes service names.
    #[serde(default = "cluster_local")]
    pub domain_suffix: String,
    /// Where the daemon listens.
    pub listen: Listen,
    /// Folder for what must survive a restart. Relative paths of this file are relative to the file's own folder.
    pub state: PathBuf,
    /// The certificate authority.
    #[serde(default)]
    pub ca: Authority,
    /// Which tokens of workloads are believed; `None` issues no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// Where services, workloads and rules come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// The other control planes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// What peers may see of the own services.
    #[serde(default)]
    pub export: Export,
    /// How long a silent peer is believed.
    #[serde(default)]
    pub lease: LeaseTimes,
}

/// Addresses of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// Configuration and certificates for proxies, over TLS.
    pub xds: SocketAddr,
    /// The same configuration without TLS; must be a loopback address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xds_plaintext: Option<SocketAddr>,
    /// Where peers dial, over mutual TLS; absent when this site only dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peering: Option<SocketAddr>,
    /// Status and metrics over plain HTTP; must be a loopback address.
    pub admin: SocketAddr,
}

/// The site's certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authority {
    /// Folder of the root certificate and its key; `ca` in the state folder when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Life of an issued certificate when the request names none.
    pub leaf_ttl: Span,
    /// Longest life that a request may ask for.
    pub max_leaf_ttl: Span,
}

impl Default for Authority {
    fn default() -> Self {
        Self { dir: None, leaf_ttl: Span::from_secs(3600), max_leaf_ttl: Span::from_secs(24 * 3600) }
    }
}

/// Which tokens are believed: JSON Web Tokens signed with ES256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// JSON Web Key Set; read again when it changes.
    pub jwks: PathBuf,
    /// Audience that a token must name.
    #[serde(default = "istio_ca")]
    pub audience: String,
    /// Issuer that a token must name.
    pub issuer: String,
}

/// One place that reports services, workloads and rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Unique in this file; the source's shard carries it.
    pub name: String,
    /// How the place is read.
    pub kind: SourceKind,
    /// The folder, read with its subfolders.
    pub path: PathBuf,
    /// Namespace of objects that name none.
    #[serde(default = "default_namespace", skip_serializing_if = "is_default_namespace")]
    pub namespace: String,
}

/// How a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A folder of Kubernetes manifests, as a cluster would hold them.
    KubernetesFolder,
    /// A folder of registrations without Kubernetes, in the same formats.
    Files,
}

impl SourceKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KubernetesFolder => "kubernetes-folder",
            Self::Files => "files",
        }
    }
}

/// Another control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its site.
    pub name: SiteName,
    /// `HOST:PORT` to dial; absent when it dials us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The SPIFFE id that it must present.
    pub identity: Identity,
    /// PEM file with the roots of its trust domain. It may appear later, and is read again when it changes.
    pub bundle: PathBuf,
    /// What it may speak for.
    pub remit: Remit,
    /// True when it may pass on what other sites export. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub relay: bool,
}

/// What a peer may speak for. Anything else that it says is dropped and counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Remit {
    /// Clusters whose services and endpoints it may report.
    pub clusters: BTreeSet<ClusterId>,
    /// Networks whose gateways and addresses it may report.
    pub networks: BTreeSet<NetworkId>,
    /// Trust domains whose identities its endpoints may carry.
    pub trust_domains: BTreeSet<TrustDomain>,
}

/// What peers may see of the own services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Export {
    /// Only services that a `ServiceExport` names.
    #[default]
    None,
    /// Every service of the mesh.
    All,
}

/// How long silence is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaseTimes {
    /// Silence after which endpoints rank after fresh ones.
    pub stale_after: Span,
    /// Silence after which endpoints are dropped, unless they are the last choice.
    pub expire_after: Span,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { stale_after: Span::from_secs(15), expire_after: Span::from_secs(600) }
    }
}

/// A length of time, written as a number with a unit: `500ms`, `15s`, `10m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The length.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Milliseconds, at most what 64 bits hold.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for Span {
    fn from(length: Duration) -> Self {
        Self(Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("{text:?} is not a length of time: write a number with ms, s, m, h or d, such as 15s");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        number.checked_mul(unit).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(refuse)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.millis();
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if ms >= unit && ms.is_multiple_of(unit) {
                return write!(f, "{}{name}", ms / unit);
            }
        }
        write!(f, "{ms}ms")
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{place} is not a usable configuration: {reason}")]
    Malformed {
        /// The file, or `the text`.
        place: String,
        /// Where and why.
        reason: String,
    },
    /// Two parts contradict each other, or one may not be as it is.
    #[error("{field}: {reason}")]
    Refused {
        /// Path of the field.
        field: String,
        /// Why, and what to write instead.
        reason: String,
    },
}

impl Config {
    /// Reads a file. Relative paths in it are taken from its own folder.
    ///
    /// # Errors
    /// When the file cannot be read, is not a configuration, or contradicts itself.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let mut config = Self::from_yaml(&text, &path.display().to_string())?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads YAML text; `place` names it in errors.
    ///
    /// # Errors
    /// When the text is not a configuration or contradicts itself.
    pub fn from_yaml(text: &str, place: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_saphyr::from_str(text)
            .map_err(|e| ConfigError::Malformed { place: place.to_owned(), reason: e.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// Writes YAML text that [`Config::from_yaml`] reads back as the same value.
    ///
    /// # Errors
    /// When a path is not Unicode.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_saphyr::to_string(self)
            .map_err(|e| ConfigError::Malformed { place: "the configuration".to_owned(), reason: e.to_string() })
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        // A site's name obeys the same rules as a cluster's id, so that it parses.
        self.cluster.clone().or_else(|| ClusterId::parse(self.site.as_str()).ok()).unwrap_or_else(unreachable_name)
    }

    /// The network of the cluster's addresses.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network.clone().or_else(|| NetworkId::parse(self.site.as_str()).ok()).unwrap_or_else(unreachable_name)
    }

    /// Folder of the authority's root.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.ca.dir.clone().unwrap_or_else(|| self.state.join("ca"))
    }

    /// The file with this site's own roots, for operators and peers.
    #[must_use]
    pub fn bundle_file(&self) -> PathBuf {
        self.state.join("bundle.pem")
    }

    /// The identity of this control plane, for its servers and towards peers.
    ///
    /// # Panics
    /// Never: the path is constant and the trust domain is parsed.
    #[must_use]
    pub fn own_identity(&self) -> Identity {
        own_identity(&self.trust_domain)
    }

    /// Takes relative paths from a folder.
    fn resolve(&mut self, base: &Path) {
        let onto = |path: &mut PathBuf| *path = base.join(&*path);
        onto(&mut self.state);
        self.ca.dir.iter_mut().for_each(onto);
        self.tokens.iter_mut().for_each(|tokens| onto(&mut tokens.jwks));
        self.sources.iter_mut().for_each(|source| onto(&mut source.path));
        self.peers.iter_mut().for_each(|peer| onto(&mut peer.bundle));
    }

    /// What no single field can say.
    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field: String, reason: &str| Err(ConfigError::Refused { field, reason: reason.to_owned() });
        for (field, address) in [("xdsPlaintext", self.listen.xds_plaintext), ("admin", Some(self.listen.admin))] {
            if address.is_some_and(|address| !address.ip().is_loopback()) {
                return refuse(
                    format!("listen.{field}"),
                    "it must be a loopback address, such as 127.0.0.1, because nothing there asks who is calling",
                );
            }
        }
        if self.ca.leaf_ttl < Span::from_secs(10) || self.ca.max_leaf_ttl < self.ca.leaf_ttl {
            return refuse("ca.leafTtl".to_owned(), "it must be at least 10s and at most ca.maxLeafTtl");
        }
        if self.lease.stale_after.millis() == 0 || self.lease.expire_after < self.lease.stale_after {
            return refuse("lease".to_owned(), "staleAfter must be above zero and not above expireAfter");
        }
        let mut names = BTreeSet::new();
        for (i, source) in self.sources.iter().enumerate() {
            if source.name.is_empty() || !names.insert(&source.name) {
                return refuse(format!("sources[{i}].name"), "every source needs a name of its own");
            }
            if let Err(error) = Namespace::parse(&source.namespace) {
                return refuse(format!("sources[{i}].namespace"), &error.to_string());
            }
        }
        self.check_peers()
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        let refuse = |field: String, reason: &str| Err(ConfigError::Refused { field, reason: reason.to_owned() });
        let mut names = BTreeSet::from([&self.site]);
        for (i, peer) in self.peers.iter().enumerate() {
            if !names.insert(&peer.name) {
                return refuse(format!("peers[{i}].name"), "it is the name of this site or of another peer");
            }
            if peer.address.is_none() && self.listen.peering.is_none() {
                return refuse(format!("peers[{i}].address"), "nobody would dial: set it, or set listen.peering");
            }
            if peer.relay {
                return refuse(format!("peers[{i}].relay"), "passing on what other sites export is not supported yet");
            }
            if peer.remit.clusters.contains(&self.cluster()) {
                return refuse(
                    format!("peers[{i}].remit.clusters"),
                    "a peer may not speak for this site's own cluster",
                );
            }
            if peer.remit.trust_domains.contains(&self.trust_domain) {
                return refuse(
                    format!("peers[{i}].remit.trustDomains"),
                    "a peer may not speak for this site's own trust domain",
                );
            }
        }
        Ok(())
    }
}

/// The identity of the control plane of a trust domain.
///
/// # Panics
/// Never: the path is constant and the trust domain is parsed.
#[must_use]
pub fn own_identity(domain: &TrustDomain) -> Identity {
    Identity::workload(domain, "tombolo-system", "controlplane").unwrap_or_else(|_| unreachable_name())
}

/// Reached by no input: the texts given to the parsers above are constant or already parsed by the same rules.
fn unreachable_name<T>() -> T {
    unreachable!("a parsed name parses again")
}

fn cluster_local() -> String {
    "cluster.local".to_owned()
}

fn istio_ca() -> String {
    "istio-ca".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn is_default_namespace(namespace: &String) -> bool {
    namespace == "default"
}

// serde's `skip_serializing_if` hands out references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
site: east
trustDomain: east.local
listen: {xds: 127.1.0.1:15012, admin: 127.1.0.1:15014}
state: state
";

    #[test]
    fn a_small_file_has_defaults() {
        let config = Config::from_yaml(SMALL, "small").unwrap();
        assert_eq!(config.cluster().as_str(), "east");
        assert_eq!(config.network().as_str(), "east");
        assert_eq!(config.domain_suffix, "cluster.local");
        assert_eq!(config.export, Export::None);
        assert_eq!(config.ca.leaf_ttl.get(), Duration::from_secs(3600));
        assert_eq!(config.own_identity().to_string(), "spiffe://east.local/ns/tombolo-system/sa/controlplane");
    }

    #[test]
    fn a_full_file_survives_writing_and_reading() {
        let text = format!(
            "{SMALL}
cluster: c1
network: n1
locality: eu/eu-1
tokens: {{jwks: jwks.json, issuer: me}}
sources: [{{name: user, kind: kubernetes-folder, path: east}}, {{name: runtime, kind: files, path: run}}]
peers:
- name: west
  address: 127.2.0.1:15020
  identity: spiffe://west.local/ns/tombolo-system/sa/controlplane
  bundle: ../west/bundle.pem
  remit: {{clusters: [west], networks: [west], trustDomains: [west.local]}}
export: all
lease: {{staleAfter: 1500ms, expireAfter: 2m}}
"
        );
        let config = Config::from_yaml(&text, "full").unwrap();
        let again = Config::from_yaml(&config.to_yaml().unwrap(), "again").unwrap();
        assert_eq!(config, again);
        assert_eq!(config.lease.stale_after.millis(), 1500);
    }

    #[test]
    fn unknown_and_contradicting_fields_are_named() {
        let check = |more: &str, expect: &str| {
            let error = Config::from_yaml(&format!("{SMALL}{more}"), "x.yaml").unwrap_err().to_string();
            assert!(error.contains(expect), "{error:?} should name {expect:?}");
        };
        check("exprt: all\n", "exprt");
        check("lease: {staleAfter: 15}\n", "15");
        check("lease: {staleAfter: 2m, expireAfter: 1m}\n", "lease");
        check("sources: [{name: a, kind: files, path: x}, {name: a, kind: files, path: y}]\n", "sources[1].name");
        check("sources: [{name: a, kind: cloud, path: x}]\n", "cloud");
        let peer = "identity: spiffe://w/ns/a/sa/b, bundle: b.pem";
        check(&format!("peers: [{{name: east, {peer}, address: 'h:1', remit: {{}}}}]\n"), "peers[0].name");
        check(&format!("peers: [{{name: west, {peer}, remit: {{}}}}]\n"), "peers[0].address");
        check(
            &format!("peers: [{{name: west, {peer}, address: 'h:1', remit: {{trustDomains: [east.local]}}}}]\n"),
            "remit.trustDomains",
        );
        let open = SMALL.replace("admin: 127.1.0.1", "admin: 0.0.0.0");
        assert!(Config::from_yaml(&open, "x").unwrap_err().to_string().contains("listen.admin"));
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cp.yaml");
        std::fs::write(&file, SMALL).unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(config.state, folder.path().join("state"));
        assert_eq!(config.ca_dir(), folder.path().join("state/ca"));
    }

    #[test]
    fn spans_have_units() {
        for (text, ms) in [("500ms", 500), ("15s", 15_000), ("10m", 600_000), ("1h", 3_600_000), ("2d", 172_800_000)] {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!((span.millis(), span.to_string().as_str()), (ms, text));
        }
        for bad in ["", "s", "15", "-1s", "1.5s", "1 s", "99999999999999999999s", "999999999999999999d"] {
            assert!(Span::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
