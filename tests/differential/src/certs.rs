//! Certificates for both sides of the test. Owns two authorities: one that is trusted where trust is configured, and one that
//! nobody trusts.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{collections::BTreeMap, sync::OnceLock};

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate in PEM.
    pub chain: String,
    /// Key in PEM.
    pub key: String,
}

impl Identity {
    /// The certificate.
    ///
    /// # Panics
    /// Never: it was made here.
    #[must_use]
    pub fn der(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(|c| c.expect("PEM made here")).collect()
    }

    /// The key.
    ///
    /// # Panics
    /// Never: it was made here.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM made here")
    }
}

/// Everything that was made.
pub struct Certs {
    /// The trusted authority, in PEM.
    pub ca: String,
    /// The authority that nobody trusts, in PEM.
    pub other_ca: String,
    made: BTreeMap<&'static str, Identity>,
}

/// Name, subject alternative names, signed by the other authority.
const MADE: &[(&str, &[&str], bool)] = &[
    ("svc", &["svc.test"], false),
    ("a", &["a.test"], false),
    ("wild", &["*.wild.test"], false),
    ("default", &["default.test"], false),
    ("backend", &["backend.test", "127.0.0.1"], false),
    ("backend-other", &["backend.test"], true),
    ("client", &["spiffe://test/ns/a/sa/client", "client.test"], false),
    ("client-plain", &["client.test"], false),
    ("client-other", &["spiffe://test/ns/a/sa/client"], true),
];

/// The certificates of this process.
///
/// # Panics
/// When they cannot be made.
#[must_use]
pub fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(|| make().expect("certificates can be made"))
}

impl Certs {
    /// A certificate by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn of(&self, name: &str) -> &Identity {
        self.made.get(name).unwrap_or_else(|| panic!("no certificate {name}"))
    }

    /// The name of a certificate that was seen.
    #[must_use]
    pub fn name(&self, der: &[u8]) -> &'static str {
        let found = self.made.iter().find(|(_, made)| made.der().first().is_some_and(|c| c.as_ref() == der));
        found.map_or("unknown", |(name, _)| name)
    }
}

fn make() -> Result<Certs, rcgen::Error> {
    let (ca, other) = (authority("trusted")?, authority("other")?);
    let mut made = BTreeMap::new();
    for (name, names, by_other) in MADE {
        made.insert(*name, leaf(name, names, if *by_other { &other } else { &ca })?);
    }
    Ok(Certs { ca: ca.pem(), other_ca: other.pem(), made })
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn leaf(name: &str, names: &[&str], issuer: &CertifiedIssuer<'static, KeyPair>) -> Result<Identity, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for san in names {
        params.subject_alt_names.push(match (*san).parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if san.contains("://") => SanType::URI((*san).try_into()?),
            Err(_) => SanType::DnsName((*san).try_into()?),
        });
    }
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Identity { chain: certificate.pem(), key: key.serialize_pem() })
}
