//! The root on disk: made at the first start, read at the later ones, refused when others could read its key.

use super::{Authority, hex, random_serial, since_1970};
use crate::config::Authority as Settings;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tombolo_federation_model::TrustDomain;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Life of a new root.
const ROOT_LIFE: Duration = Duration::from_secs(3652 * 86_400);
const CERTIFICATE: &str = "root.pem";
const KEY: &str = "root-key.pem";

/// Why the root is not usable.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A file could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read the key.
    #[error("{path} has mode {mode:o}: others could read the key of the certificate authority; run chmod 600 {path}")]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// One of the two files is missing.
    #[error("{0} is missing beside the other file of the root: restore it, or remove both for a new root")]
    Half(PathBuf),
    /// The file does not hold what it should.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Making a root failed.
    #[error("cannot make a root certificate: {0}")]
    Make(String),
}

impl Authority {
    /// Reads the root of a folder, or makes one when the folder has none.
    ///
    /// # Errors
    /// When a file cannot be read or written, when others may read the key, when only one of the two files is there, or
    /// when the root is of another trust domain.
    pub fn open(folder: &Path, domain: &TrustDomain, settings: &Settings, now: SystemTime) -> Result<Self, RootError> {
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => make(folder, domain, now)?,
            (true, false) => return Err(RootError::Half(key)),
            (false, true) => return Err(RootError::Half(certificate)),
        }
        let authority = read(&certificate, &key, domain)?;
        Ok(authority.with_lives(settings.leaf_ttl, settings.max_leaf_ttl))
    }
}

fn read(certificate: &Path, key: &Path, domain: &TrustDomain) -> Result<Authority, RootError> {
    let unusable = |path: &Path, reason: String| RootError::Unusable { path: path.to_owned(), reason };
    let mode = fs::metadata(key).map_err(at(key))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(RootError::Exposed { path: key.to_owned(), mode });
    }
    let key_text = Zeroizing::new(fs::read_to_string(key).map_err(at(key))?);
    let pair = KeyPair::from_pem(&key_text).map_err(|_| unusable(key, "it holds no private key".to_owned()))?;
    let text = fs::read(certificate).map_err(at(certificate))?;
    let root = CertificateDer::from_pem_slice(&text).map_err(|e| unusable(certificate, e.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&root).map_err(|e| unusable(certificate, e.to_string()))?;
    if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
        return Err(unusable(certificate, "its public key is not that of the key beside it".to_owned()));
    }
    if !parsed.is_ca() {
        return Err(unusable(certificate, "it is not the certificate of an authority".to_owned()));
    }
    let expected = format!("spiffe://{domain}");
    let named = parsed.subject_alternative_name().ok().flatten().is_some_and(|names| {
        names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == expected))
    });
    if !named {
        return Err(unusable(certificate, format!("it is not a root of the trust domain {domain}")));
    }
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let issuer = Issuer::from_ca_cert_der(&root, pair).map_err(|e| unusable(certificate, e.to_string()))?;
    Ok(Authority {
        issuer,
        root_not_after: UNIX_EPOCH + Duration::from_secs(end),
        trust_domain: domain.clone(),
        default_life: Duration::from_secs(3600),
        longest_life: Duration::from_secs(86_400),
        root,
    })
}

/// Makes a key and a self-signed root. The key is written first: a crash in between leaves half a root, which is reported
/// at the next start instead of being replaced silently.
fn make(folder: &Path, domain: &TrustDomain, now: SystemTime) -> Result<(), RootError> {
    let failed = |e: &dyn std::fmt::Display| RootError::Make(e.to_string());
    let pair = KeyPair::generate().map_err(|e| failed(&e))?;
    let serial = random_serial().map_err(|e| failed(&e))?;
    let mut name = format!("tombolo {domain}");
    name.truncate(64); // The longest common name that X.509 allows; a trust domain is ASCII.
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "Tombolo");
    let uri = format!("spiffe://{domain}").try_into().map_err(|e: rcgen::Error| failed(&e))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now - super::BACKDATE);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now + ROOT_LIFE);
    let root = params.self_signed(&pair).map_err(|e| failed(&e))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    write_private(&folder.join(KEY), &Zeroizing::new(pair.serialize_pem()))?;
    write_private(&folder.join(CERTIFICATE), &root.pem())?;
    tracing::info!(trust_domain = %domain, serial = %hex(&serial), folder = %folder.display(), "made a root certificate");
    Ok(())
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), RootError> {
    let mut part = path.to_owned();
    part.set_extension("part");
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> RootError + use<> {
    let path = path.to_owned();
    move |error| RootError::File { path: path.clone(), error }
}
