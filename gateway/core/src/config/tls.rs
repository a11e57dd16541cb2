//! TLS as server and as client, and the secrets it needs.
//!
//! Owns the types. Never parses certificates: PEM stays as it came, the I/O layer hands it to its TLS library and says what
//! is wrong with it. Private keys are wiped when dropped and never shown.

use super::StringMatcher;
use bytes::Bytes;
use std::{fmt, sync::Arc};
use tombolo_federation_model::TrustDomain;

/// What server and client have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsCommon {
    /// Own certificates; a server chooses by SNI and key kind.
    pub certificates: Box<[SecretRef]>,
    /// How the other side is verified. `None`: not at all (a server then asks for no client certificate).
    pub validation: Option<ValidationSource>,
    /// Protocols offered (client) or accepted in order of preference (server).
    pub alpn: Box<[Arc<str>]>,
    /// Lowest version; `None`: 1.2.
    pub min_version: Option<TlsVersion>,
    /// Highest version; `None`: 1.3.
    pub max_version: Option<TlsVersion>,
    /// OpenSSL names for TLS 1.2; empty: the library's.
    pub ciphers: Box<[Arc<str>]>,
    /// Names of key exchange groups; empty: the library's (post-quantum hybrid first).
    pub groups: Box<[Arc<str>]>,
    /// How long secrets may take to arrive.
    pub fetch_timeout: super::FetchTimeout,
}

/// TLS versions that are spoken. Older ones are raised to 1.2 or refused by `wire`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretRef {
    /// Written where it is used.
    Inline(Arc<Secret>),
    /// By name; see [`SecretSource`].
    Named(SecretSource, Arc<str>),
    /// A certificate in two PEM files of the proxy's own machine, by absolute paths. The I/O layer reads them where it sets
    /// TLS up, and again when they change; what is wrong with them concerns only who would show this certificate.
    Files {
        /// The chain, leaf first.
        chain: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
}

/// Who supplies a named secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// The control plane, over the aggregated stream: in [`Config::secrets`](super::Config::secrets) by its name.
    Ads,
    /// The proxy itself (its own identity, whose key never leaves it). The I/O layer feeds it to `assemble`; in
    /// [`Config::secrets`](super::Config::secrets) by its name too.
    Own,
}

/// TLS as server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DownstreamTls {
    /// See [`TlsCommon`].
    pub common: TlsCommon,
    /// Connections without a client certificate are refused.
    pub require_client_certificate: bool,
    /// Connections without SNI are refused.
    pub require_sni: bool,
    /// No session tickets.
    pub disable_tickets: bool,
}

/// TLS as client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpstreamTls {
    /// See [`TlsCommon`]. Without `certificates` none is presented.
    pub common: TlsCommon,
    /// SNI; empty: none.
    pub sni: Arc<str>,
    /// SNI from the endpoint's host name (DNS clusters) when `sni` is empty or overridden by the request's host
    /// ([`UpstreamHttp::auto_sni`](super::UpstreamHttp::auto_sni)).
    pub auto_host_sni: bool,
    /// The certificate must name the SNI.
    pub auto_sni_san_validation: bool,
    /// How many sessions are kept for resumption; 0: none.
    pub max_session_keys: u32,
}

/// How the other side's certificate is judged.
#[derive(Debug, Clone, PartialEq)]
pub enum ValidationSource {
    /// By what is written here.
    Inline(Arc<Validation>),
    /// By a secret.
    Named(SecretSource, Arc<str>),
    /// By a secret, with what is written here in addition: the secret brings the roots, the rest comes from here where it says
    /// something.
    Combined(Arc<Validation>, SecretSource, Arc<str>),
}

/// What a certificate must fulfil.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Validation {
    /// Roots in PEM; `None`: none.
    pub roots: Option<Bytes>,
    /// File with further roots in PEM, on the proxy's own machine, read again when it changes. A file that cannot be read
    /// verifies nobody.
    pub roots_file: Option<Arc<str>>,
    /// Roots of the operating system.
    pub system_roots: bool,
    /// Roots per trust domain: the certificate must be a SPIFFE certificate, verified by the bundle of the trust domain that it
    /// claims and by no other. When not empty, `roots` and `system_roots` do not count.
    pub bundles: Arc<[Bundle]>,
    /// One of them must match one of the certificate's names; empty: any name.
    pub san_matchers: Box<[SanMatcher]>,
    /// Base64 SHA-256 of the public key; one must match when not empty.
    pub spki_hashes: Box<[Arc<str>]>,
    /// Lower-case hexadecimal SHA-256 of the certificate; one must match when not empty.
    pub certificate_hashes: Box<[Arc<str>]>,
    /// Revocation lists in PEM.
    pub crl: Option<Bytes>,
    /// Only the leaf is looked up in the revocation lists.
    pub crl_leaf_only: bool,
    /// Certificates out of date pass.
    pub allow_expired: bool,
    /// Certificates that do not verify pass (and count as not verified).
    pub accept_untrusted: bool,
}

/// The roots of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// PEM.
    pub roots: Bytes,
}

/// The kind of a name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// Any kind (the older, untyped way).
    Any,
    /// DNS name; wildcards in the certificate count.
    Dns,
    /// URI (SPIFFE ids).
    Uri,
    /// E-mail address.
    Email,
    /// IP address.
    Ip,
}

/// A condition on a name in a certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct SanMatcher {
    /// Of which kind of name.
    pub kind: SanKind,
    /// What it must be.
    pub matcher: StringMatcher,
}

/// A named secret.
#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    /// An own certificate with its key.
    Certificate(Certificate),
    /// How others are verified.
    Validation(Arc<Validation>),
}

/// An own certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub chain: Bytes,
    /// PEM.
    pub key: PrivateKey,
}

/// A private key in PEM: wiped when dropped, never shown.
#[derive(Clone, PartialEq)]
pub struct PrivateKey(Arc<zeroize::Zeroizing<Vec<u8>>>);

impl PrivateKey {
    /// Takes a key in PEM.
    #[must_use]
    pub fn from_pem(pem: Vec<u8>) -> Self {
        Self(Arc::new(zeroize::Zeroizing::new(pem)))
    }

    /// The key in PEM. Do not copy it to where it is not wiped.
    #[must_use]
    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
