//! TLS without cryptography: a certificate is a name and the root that vouches for it.
//!
//! Owns the handshake's decisions: whether each side's certificate is believed by the other's configuration, and which protocol
//! is agreed on. Everything about whom to believe is read from the proxies' configuration. Never parses a real certificate.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::sync::Arc;
use tombolo_federation_model::{Identity, TrustDomain};
use tombolo_gateway_core::{
    config::{
        Certificate, Config, DownstreamTls, PrivateKey, SanKind, Secret, SecretRef, TlsCommon, UpstreamTls, Validation,
        ValidationSource,
    },
    head::{PeerCertificate, TlsInfo},
};

/// The root of a trust domain, where certificates have DER.
pub(crate) fn root(domain: &TrustDomain) -> Vec<u8> {
    format!("the root of {domain}, long enough to take more than one line of text in its armour").into_bytes()
}

/// The certificate of a workload, as its agent would keep it.
pub(crate) fn certificate(identity: &Identity) -> Secret {
    Secret::Certificate(Certificate {
        chain: Shown::of(identity).write().into_bytes().into(),
        key: PrivateKey::from_pem(b"a key".to_vec()),
    })
}

/// A certificate that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// A SPIFFE id, or whatever text a gateway's own certificate has.
    pub(crate) name: String,
    /// Base64 of the root that vouches for it.
    root: String,
}

impl Shown {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self { name: identity.to_string(), root: STANDARD.encode(root(identity.trust_domain())) }
    }

    /// A name that another domain's root vouches for.
    pub(crate) fn forged(name: &str, domain: &TrustDomain) -> Self {
        Self { name: name.to_owned(), root: STANDARD.encode(root(domain)) }
    }

    fn write(&self) -> String {
        format!("{}\n{}", self.name, self.root)
    }

    fn read(chain: &[u8]) -> Self {
        let text = String::from_utf8_lossy(chain);
        let (name, root) = text.split_once('\n').unwrap_or((&text, ""));
        Self { name: name.to_owned(), root: root.to_owned() }
    }
}

/// How a client judges the server.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Not at all.
    Anybody,
    /// By its configuration.
    Checked(Arc<Validation>),
}

/// A client's hello, with what it will show when asked.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Server name; empty: none.
    pub sni: String,
    /// Protocols offered.
    pub alpn: Vec<String>,
    pub(crate) shown: Option<Shown>,
    /// How it judges the server.
    pub trust: Trust,
}

impl Hello {
    /// Of a client that has no certificate and believes everybody.
    #[must_use]
    pub fn stranger(sni: &str, alpn: &[&str]) -> Self {
        let alpn = alpn.iter().map(|name| (*name).to_owned()).collect();
        Self { sni: sni.to_owned(), alpn, shown: None, trust: Trust::Anybody }
    }

    /// The same with a certificate for a SPIFFE id that the root of another domain vouches for, or its own.
    #[must_use]
    pub fn showing(mut self, identity: &str, vouched_by: &TrustDomain) -> Self {
        self.shown = Some(Shown::forged(identity, vouched_by));
        self
    }

    /// What a proxy says to an upstream.
    pub(crate) fn of_upstream(context: &UpstreamTls, sni: &str, config: &Config) -> Result<Self, String> {
        let common = &context.common;
        let trust = match validation(common, config)? {
            None => Trust::Anybody,
            Some(validation) => Trust::Checked(validation),
        };
        let alpn = common.alpn.iter().map(ToString::to_string).collect();
        Ok(Self { sni: sni.to_owned(), alpn, shown: own(common, config)?, trust })
    }
}

/// The first own certificate, if one is configured.
fn own(common: &TlsCommon, config: &Config) -> Result<Option<Shown>, String> {
    let Some(first) = common.certificates.first() else { return Ok(None) };
    let secret = match first {
        SecretRef::Inline(secret) => secret,
        SecretRef::Named(_, name) => config.secrets.get(name).ok_or_else(|| format!("no secret {name}"))?,
        SecretRef::Files { chain, .. } => return Err(format!("nothing is read from {chain} here")),
    };
    match &**secret {
        Secret::Certificate(certificate) => Ok(Some(Shown::read(&certificate.chain))),
        Secret::Validation(_) => Err("a secret is no certificate".to_owned()),
    }
}

/// How the other side is judged; a combined one has the roots of the secret and the names of the configuration.
fn validation(common: &TlsCommon, config: &Config) -> Result<Option<Arc<Validation>>, String> {
    let named = |name: &str| match config.secrets.get(name).map(|secret| &**secret) {
        Some(Secret::Validation(validation)) => Ok(validation.clone()),
        Some(Secret::Certificate(_)) => Err(format!("secret {name} is no validation")),
        None => Err(format!("no secret {name}")),
    };
    Ok(match &common.validation {
        None => None,
        Some(ValidationSource::Inline(validation)) => Some(validation.clone()),
        Some(ValidationSource::Named(_, name)) => Some(named(name)?),
        Some(ValidationSource::Combined(extra, _, name)) => {
            let roots = named(name)?;
            let mut both = (*roots).clone();
            if !extra.san_matchers.is_empty() {
                both.san_matchers.clone_from(&extra.san_matchers);
            }
            Some(Arc::new(both))
        }
    })
}

/// Whether a certificate is believed.
fn judge(validation: &Validation, shown: &Shown) -> Result<(), String> {
    let text = |pem: &[u8]| String::from_utf8_lossy(pem).lines().filter(|l| !l.starts_with("---")).collect::<String>();
    if validation.bundles.is_empty() {
        let known = validation.roots.as_ref().is_some_and(|roots| text(roots).contains(&shown.root));
        if !known && !validation.accept_untrusted {
            return Err(format!("nobody vouches for {:?}", shown.name));
        }
    } else {
        let identity = Identity::parse(&shown.name).map_err(|error| error.to_string())?;
        let bundle = validation.bundles.iter().find(|bundle| bundle.trust_domain == *identity.trust_domain());
        let bundle = bundle.ok_or_else(|| format!("no bundle for {}", identity.trust_domain()))?;
        if !text(&bundle.roots).contains(&shown.root) {
            return Err(format!("the root of {} does not vouch for {identity}", identity.trust_domain()));
        }
    }
    let fits = |kind: SanKind| matches!(kind, SanKind::Uri | SanKind::Any);
    let names = &validation.san_matchers;
    if names.is_empty() || names.iter().any(|rule| fits(rule.kind) && rule.matcher.fits(shown.name.as_bytes())) {
        return Ok(());
    }
    Err(format!("{} is none of the names that are expected", shown.name))
}

/// What both sides know when the handshake is over.
pub(crate) struct Agreed {
    /// For the server.
    pub(crate) info: TlsInfo,
    /// Who the client is.
    pub(crate) peer: Option<String>,
}

/// Both sides' judgement.
pub(crate) fn handshake(hello: &Hello, server: &DownstreamTls, config: &Config) -> Result<Agreed, String> {
    if server.require_sni && hello.sni.is_empty() {
        return Err("the server wants a server name".to_owned());
    }
    let shown = own(&server.common, config)?.ok_or("the server has no certificate")?;
    if let Trust::Checked(validation) = &hello.trust {
        judge(validation, &shown).map_err(|reason| format!("the client refuses the server: {reason}"))?;
    }
    let asks = validation(&server.common, config)?;
    let peer = match (&asks, &hello.shown) {
        (Some(validation), Some(client)) => {
            judge(validation, client).map_err(|reason| format!("the server refuses the client: {reason}"))?;
            Some(client.clone())
        }
        (Some(_), None) if server.require_client_certificate => {
            return Err("the server refuses the client: it has no certificate".to_owned());
        }
        _ => None,
    };
    let alpn = server.common.alpn.iter().find(|name| hello.alpn.iter().any(|offered| **offered == ***name));
    let info = TlsInfo {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        alpn: alpn.map(ToString::to_string).unwrap_or_default(),
        local_uris: vec![shown.name],
        peer: peer.as_ref().map(|client| PeerCertificate {
            verified: true,
            identity: Identity::parse(&client.name).ok(),
            uris: vec![client.name.clone()],
            ..PeerCertificate::default()
        }),
        ..TlsInfo::default()
    };
    Ok(Agreed { info, peer: peer.map(|client| client.name) })
}
