//! From configured TLS contexts to rustls configurations, built once per context and set of secrets.
//!
//! Owns the cache that all workers share. A new rustls configuration is made whenever the context or a secret in it
//! changes, and with it new ticket keys: a session never outlives the trust it was opened under.

use super::{
    credentials::{self, Credentials},
    files::{Files, Reader, Reads},
    provider,
    verify::{HostCheck, Verifier},
};
use ahash::AHashMap;
use rustls::{
    ClientConfig, NamedGroup, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tombolo_gateway_core::config::{
    Certificate, Config, DownstreamTls, Secret, SecretRef, SecretSource, TlsCommon, TlsVersion, UpstreamTls,
    Validation, ValidationSource,
};

/// TLS as server, ready to use.
#[derive(Clone)]
pub(crate) struct ServerContext {
    /// With the configured application protocols.
    pub(crate) with_alpn: Arc<ServerConfig>,
    /// For clients that share no protocol with us: they get none instead of an alert, as from Envoy.
    pub(crate) without_alpn: Arc<ServerConfig>,
    /// Connections without SNI are refused.
    pub(crate) require_sni: bool,
    /// Names in the certificate that is shown.
    pub(crate) own: Arc<super::spiffe::Names>,
    /// Clients are judged, and the verdict counts.
    pub(crate) verifies: bool,
}

/// TLS as client, ready to use.
#[derive(Clone)]
pub(crate) struct ClientContext {
    /// Everything but the server's name and the application protocols.
    pub(crate) base: Arc<ClientConfig>,
    /// With `h2` alone, where the upstream's version decides.
    pub(crate) h2: Arc<ClientConfig>,
    /// With `http/1.1` alone.
    pub(crate) http1: Arc<ClientConfig>,
    /// With both.
    pub(crate) either: Arc<ClientConfig>,
    /// Identifies the context and its secrets among all that this process ever built.
    pub(crate) id: u64,
    /// Who we are to a server of the mesh; nothing where the certificate is not this proxy's own or the server is not judged.
    pub(crate) own: Option<Arc<str>>,
}

/// All contexts in use.
#[derive(Default)]
pub(crate) struct TlsStore {
    servers: Mutex<AHashMap<usize, Entry<DownstreamTls, ServerContext>>>,
    clients: Mutex<AHashMap<usize, Entry<UpstreamTls, ClientContext>>>,
    /// Those by which servers must have the name that requests are for.
    named: Mutex<AHashMap<usize, Entry<UpstreamTls, ClientContext>>>,
    next: std::sync::atomic::AtomicU64,
    /// Files that contexts are read from.
    pub(crate) files: Files,
}

struct Entry<C, T> {
    /// Kept, so that its address cannot come to mean another context.
    context: Arc<C>,
    secrets: Secrets,
    /// The files it was read from, as they were.
    reads: Reads,
    built: Result<T, Arc<str>>,
}

type Secrets = Vec<Option<Arc<Secret>>>;

impl fmt::Debug for TlsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStore").finish_non_exhaustive()
    }
}

fn same(a: &Secrets, b: &Secrets) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|pair| match pair {
            (Some(x), Some(y)) => Arc::ptr_eq(x, y),
            (None, None) => true,
            _ => false,
        })
}

/// The secrets that a context names, in a fixed order.
fn secrets_of(common: &TlsCommon, config: &Config) -> Secrets {
    let certificates = common.certificates.iter().map(|c| match c {
        SecretRef::Inline(secret) => Some(secret.clone()),
        SecretRef::Named(_, name) => config.secrets.get(name).cloned(),
        SecretRef::Files { .. } => None,
    });
    let validation = match &common.validation {
        Some(ValidationSource::Named(_, name) | ValidationSource::Combined(_, _, name)) => {
            Some(config.secrets.get(name).cloned())
        }
        Some(ValidationSource::Inline(_)) | None => None,
    };
    certificates.chain(validation).collect()
}

fn find<C, T: Clone>(
    map: &Mutex<AHashMap<usize, Entry<C, T>>>,
    files: &Files,
    context: &Arc<C>,
    secrets: Secrets,
    build: impl FnOnce(&Secrets, &mut Reader<'_>) -> Result<T, String>,
) -> Result<T, Arc<str>> {
    let key = Arc::as_ptr(context).cast::<u8>() as usize;
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    let before = map.remove(&key).filter(|e| same(&e.secrets, &secrets));
    if let Some(entry) = before.as_ref().filter(|e| e.reads.are_current()) {
        let built = entry.built.clone();
        map.extend(before.map(|entry| (key, entry)));
        return built;
    }
    // What nobody else holds any more belongs to a configuration that is gone.
    map.retain(|_, entry| Arc::strong_count(&entry.context) > 1);
    let mut reader = Reader::new(files);
    let built = match (build(&secrets, &mut reader), before.map(|entry| entry.built)) {
        (Ok(built), _) => Ok(built),
        (Err(reason), Some(Ok(old))) => {
            // Only files changed: halfway through a replacement they need not fit each other.
            tracing::warn!(%reason, "files for TLS changed and cannot be used; what was read before stays in force");
            Ok(old)
        }
        (Err(reason), _) => Err(Arc::from(reason)),
    };
    let reads = reader.done();
    map.insert(key, Entry { context: context.clone(), secrets, reads, built: built.clone() });
    built
}

impl TlsStore {
    /// The server side of a filter chain.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub(crate) fn server(&self, context: &Arc<DownstreamTls>, config: &Config) -> Result<ServerContext, Arc<str>> {
        let secrets = secrets_of(&context.common, config);
        find(&self.servers, &self.files, context, secrets, |secrets, reader| build_server(context, secrets, reader))
    }

    /// The client side of a cluster.
    ///
    /// # Errors
    /// When a secret is missing or cannot be used.
    pub(crate) fn client(
        &self,
        context: &Arc<UpstreamTls>,
        config: &Config,
        host: HostCheck,
    ) -> Result<ClientContext, Arc<str>> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let secrets = secrets_of(&context.common, config);
        // The same context may be used with the check and without.
        let of = if host == HostCheck::Always { &self.named } else { &self.clients };
        find(of, &self.files, context, secrets, |secrets, reader| build_client(context, secrets, reader, (id, host)))
    }
}

fn certificates(common: &TlsCommon, secrets: &Secrets, reader: &mut Reader<'_>) -> Result<Vec<Credentials>, String> {
    let mut all = Vec::with_capacity(common.certificates.len());
    for (reference, secret) in common.certificates.iter().zip(secrets) {
        all.push(match (reference, secret.as_deref()) {
            (SecretRef::Files { chain, key }, _) => {
                let (leaf, private) = (reader.read(chain)?, reader.read(key)?);
                Credentials::from_pem(&leaf, &private).map_err(|e| format!("{chain} with {key}: {e}"))?
            }
            (_, Some(Secret::Certificate(Certificate { chain, key, .. }))) => {
                Credentials::from_pem(chain, key.pem()).map_err(|e| format!("{}: {e}", name_of(reference)))?
            }
            (_, Some(Secret::Validation(_))) => return Err(format!("{} is not a certificate", name_of(reference))),
            (_, None) => return Err(format!("{} is not here yet", name_of(reference))),
        });
    }
    Ok(all)
}

fn name_of(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Inline(_) => "the inline certificate".to_owned(),
        SecretRef::Named(_, name) => format!("secret {name:?}"),
        SecretRef::Files { chain, .. } => format!("the certificate in {chain}"),
    }
}

/// The validation that applies, and the names rules written beside a secret.
fn verifier(common: &TlsCommon, secrets: &Secrets, reader: &mut Reader<'_>) -> Result<Option<Verifier>, String> {
    let last = || match secrets.last() {
        Some(Some(secret)) => match &**secret {
            Secret::Validation(validation) => Ok(validation.clone()),
            Secret::Certificate(_) => Err("the trust secret is a certificate".to_owned()),
        },
        _ => Err("the trust secret is not here yet".to_owned()),
    };
    let validation = match &common.validation {
        None => return Ok(None),
        Some(ValidationSource::Inline(validation)) => validation.clone(),
        Some(ValidationSource::Named(..)) => last()?,
        Some(ValidationSource::Combined(beside, ..)) => Arc::new(combine(beside, &*last()?)),
    };
    let validation = with_file(validation, reader)?;
    Verifier::new(&validation).map(Some)
}

/// The same with what is in the file of roots.
fn with_file(validation: Arc<Validation>, reader: &mut Reader<'_>) -> Result<Arc<Validation>, String> {
    let Some(path) = &validation.roots_file else { return Ok(validation) };
    let mut roots = validation.roots.as_deref().unwrap_or_default().to_vec();
    roots.push(b'\n');
    roots.extend_from_slice(&reader.read(path)?);
    Ok(Arc::new(Validation { roots: Some(roots.into()), roots_file: None, ..(*validation).clone() }))
}

/// The secret brings the roots, the rest comes from the place of use where that says something.
fn combine(beside: &Validation, secret: &Validation) -> Validation {
    let mut out = secret.clone();
    if !beside.san_matchers.is_empty() {
        out.san_matchers = beside.san_matchers.clone();
    }
    if !beside.spki_hashes.is_empty() {
        out.spki_hashes = beside.spki_hashes.clone();
    }
    if !beside.certificate_hashes.is_empty() {
        out.certificate_hashes = beside.certificate_hashes.clone();
    }
    if out.bundles.is_empty() && !beside.bundles.is_empty() {
        out.bundles = beside.bundles.clone();
    }
    out.roots_file = out.roots_file.or_else(|| beside.roots_file.clone());
    out.crl = out.crl.or_else(|| beside.crl.clone());
    out.crl_leaf_only |= beside.crl_leaf_only;
    out.allow_expired |= beside.allow_expired;
    out.accept_untrusted |= beside.accept_untrusted;
    out
}

fn versions(common: &TlsCommon) -> Vec<&'static SupportedProtocolVersion> {
    let low = common.min_version.unwrap_or(TlsVersion::V12);
    let high = common.max_version.unwrap_or(TlsVersion::V13);
    let mut out = Vec::new();
    if high >= TlsVersion::V13 {
        out.push(&TLS13);
    }
    if low <= TlsVersion::V12 {
        out.push(&TLS12);
    }
    out
}

/// The process' provider, restricted to the TLS 1.2 ciphers and to the groups that are named. Names that rustls does not have are
/// left out; when none remains its own list stands, which has no weak one.
fn crypto(common: &TlsCommon) -> Arc<CryptoProvider> {
    if common.ciphers.is_empty() && common.groups.is_empty() {
        return provider();
    }
    let mut narrowed = (*provider()).clone();
    let group =
        |name: &Arc<str>| narrowed.kx_groups.iter().copied().find(|one| group_names(one.name()).contains(&&**name));
    let groups: Vec<_> = common.groups.iter().filter_map(group).collect();
    if !groups.is_empty() {
        narrowed.kx_groups = groups;
    }
    if common.ciphers.is_empty() {
        return Arc::new(narrowed);
    }
    let suites = narrowed.cipher_suites.clone();
    narrowed.cipher_suites.retain(|suite| {
        suite.version() == &TLS13
            || common.ciphers.iter().any(|name| openssl_name(suite.suite()).is_some_and(|n| name.contains(n)))
    });
    let tls12 = narrowed.cipher_suites.iter().any(|s| s.version() == &TLS12);
    if !tls12 {
        narrowed.cipher_suites = suites;
    }
    Arc::new(narrowed)
}

/// OpenSSL's names of a group.
fn group_names(group: NamedGroup) -> &'static [&'static str] {
    match group {
        NamedGroup::X25519 => &["X25519"],
        NamedGroup::secp256r1 => &["P-256", "prime256v1"],
        NamedGroup::secp384r1 => &["P-384", "secp384r1"],
        NamedGroup::secp521r1 => &["P-521", "secp521r1"],
        NamedGroup::X25519MLKEM768 => &["X25519MLKEM768"],
        _ => &[],
    }
}

/// OpenSSL's name of a TLS 1.2 suite.
pub(crate) fn openssl_name(suite: rustls::CipherSuite) -> Option<&'static str> {
    Some(match suite {
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        rustls::CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

fn build_server(context: &DownstreamTls, secrets: &Secrets, reader: &mut Reader<'_>) -> Result<ServerContext, String> {
    let own = certificates(&context.common, secrets, reader)?;
    if own.is_empty() {
        return Err("there is no certificate to show".to_owned());
    }
    let builder = ServerConfig::builder_with_provider(crypto(&context.common))
        .with_protocol_versions(&versions(&context.common))
        .map_err(|e| e.to_string())?;
    let verifier = verifier(&context.common, secrets, reader)?;
    let verifies = verifier.as_ref().is_some_and(Verifier::is_strict);
    let builder = match verifier {
        Some(verifier) => {
            builder.with_client_cert_verifier(Arc::new(verifier.required(context.require_client_certificate)))
        }
        None if context.require_client_certificate => {
            return Err("client certificates are required but nothing verifies them".to_owned());
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(&own)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Clients put the longest key first whatever it costs; the provider's order knows better.
    config.ignore_client_order = true;
    if context.disable_tickets {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Ticketer::new().map_err(|e| e.to_string())?;
        config.send_tls13_tickets = 1;
    }
    let without = config.clone();
    config.alpn_protocols = context.common.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let shown = own.first().and_then(|own| own.chain().first()).and_then(|leaf| super::spiffe::names(leaf).ok());
    Ok(ServerContext {
        with_alpn: Arc::new(config),
        without_alpn: Arc::new(without),
        require_sni: context.require_sni,
        own: Arc::new(shown.unwrap_or_default()),
        verifies,
    })
}

fn build_client(
    context: &UpstreamTls,
    secrets: &Secrets,
    reader: &mut Reader<'_>,
    (id, host): (u64, HostCheck),
) -> Result<ClientContext, String> {
    let builder = ClientConfig::builder_with_provider(crypto(&context.common))
        .with_protocol_versions(&versions(&context.common))
        .map_err(|e| e.to_string())?;
    let verifier = verifier(&context.common, secrets, reader)?
        .unwrap_or_else(Verifier::anybody)
        .check_host(if context.auto_sni_san_validation { host.max(HostCheck::AskedName) } else { host });
    let strict = verifier.is_strict();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let shown = certificates(&context.common, secrets, reader)?.into_iter().next();
    let of_the_mesh = matches!(context.common.certificates.first(), Some(SecretRef::Named(SecretSource::Own, _)));
    let own = shown.as_ref().filter(|_| strict && of_the_mesh).map(|own| Arc::from(own.facts().name.as_str()));
    let mut config = match shown {
        Some(own) => builder.with_client_cert_resolver(own.resolver()),
        None => builder.with_no_client_auth(),
    };
    config.resumption = match context.max_session_keys {
        0 => Resumption::disabled(),
        // Few: each context talks to the replicas of one service.
        n => Resumption::in_memory_sessions(usize::try_from(n).unwrap_or(1).clamp(1, 64)),
    };
    config.alpn_protocols = context.common.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let with = |names: &[&[u8]]| {
        let mut other = config.clone();
        other.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        Arc::new(other)
    };
    Ok(ClientContext {
        h2: with(&[b"h2"]),
        http1: with(&[b"http/1.1"]),
        either: with(&[b"h2", b"http/1.1"]),
        base: Arc::new(config),
        id,
        own,
    })
}

/// Chooses among several certificates by the name the client asks for.
#[derive(Debug)]
struct BySni(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl BySni {
    fn new(own: &[Credentials]) -> Self {
        let names = |c: &Credentials| {
            c.chain().first().and_then(|leaf| super::spiffe::names(leaf).ok()).unwrap_or_default().dns
        };
        Self(own.iter().map(|c| (names(c), c.certified())).collect())
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let ([_, _, ..], Some(asked)) = (self.0.as_slice(), hello.server_name()) {
            let covers = |name: &String| {
                name.eq_ignore_ascii_case(asked)
                    || name
                        .strip_prefix("*.")
                        .zip(asked.split_once('.'))
                        .is_some_and(|(suffix, (_, rest))| suffix.eq_ignore_ascii_case(rest))
            };
            let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
            if let Some((_, key)) = self.0.iter().find(|(names, key)| names.iter().any(covers) && fits(key)) {
                return Some(key.clone());
            }
        }
        let usable = self.0.iter().find(|(_, key)| key.key.choose_scheme(hello.signature_schemes()).is_some());
        usable.or(self.0.first()).map(|(_, key)| key.clone())
    }
}

/// What may be shown of the certificates in a configuration: name of the secret, and facts of its leaf.
pub(crate) fn inventory(config: &Config) -> Vec<(Arc<str>, credentials::Facts)> {
    let mut out: Vec<_> = config
        .secrets
        .iter()
        .filter_map(|(name, secret)| match &**secret {
            Secret::Certificate(c) => {
                Credentials::from_pem(&c.chain, c.key.pem()).ok().map(|own| (name.clone(), own.facts().clone()))
            }
            Secret::Validation(_) => None,
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}
