//! Whose certificates are believed: the roots of each trust domain, kept apart, from files and from peers.
//!
//! Owns reading and watching the bundle files. A bundle is only ever for one trust domain. Never an authority itself.

use crate::ca::{hex, unix_seconds};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tombolo_controlplane_api::status::TrustDomainStatus;
use tombolo_federation_model::TrustDomain;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A bundle larger than this is not read.
const LARGEST: u64 = 1 << 20;

/// The roots of one trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// DER certificates.
    pub roots: Vec<Vec<u8>>,
    /// `own`, or the peer that it was configured for or came from.
    pub source: String,
}

/// All roots, by trust domain.
pub type Bundles = BTreeMap<TrustDomain, Bundle>;

/// What the engine is told.
#[must_use]
pub fn for_engine(bundles: &Bundles) -> BTreeMap<TrustDomain, Vec<Vec<u8>>> {
    bundles.iter().map(|(domain, bundle)| (domain.clone(), bundle.roots.clone())).collect()
}

/// Checks that each certificate may stand for the trust domain: it parses, it is an authority, and if it names a trust
/// domain then this one.
///
/// # Errors
/// When one may not, with the reason.
pub fn check(domain: &TrustDomain, roots: &[Vec<u8>]) -> Result<(), String> {
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let expected = format!("spiffe://{domain}");
    for root in roots {
        let (_, certificate) = X509Certificate::from_der(root).map_err(|_| "a certificate is malformed".to_owned())?;
        let serial = hex(certificate.raw_serial());
        if !certificate.is_ca() {
            return Err(format!("the certificate {serial} is not one of an authority"));
        }
        let names = certificate.subject_alternative_name().map_err(|_| "a name is malformed".to_owned())?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        for uri in uris {
            if uri.starts_with("spiffe://") && uri != expected {
                return Err(format!("the certificate {serial} is a root of {uri}, not of {expected}"));
            }
        }
    }
    Ok(())
}

/// A bundle file that is read again when it changes.
#[derive(Debug)]
pub struct BundleFile {
    path: PathBuf,
    domain: TrustDomain,
    seen: Option<(SystemTime, u64)>,
    complaint: String,
}

impl BundleFile {
    /// Not read yet.
    #[must_use]
    pub fn new(path: PathBuf, domain: TrustDomain) -> Self {
        Self { path, domain, seen: None, complaint: String::new() }
    }

    /// The trust domain that it is for.
    #[must_use]
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Why it is not in force; empty when it is.
    #[must_use]
    pub fn complaint(&self) -> &str {
        &self.complaint
    }

    /// The roots, when the file has become other than it was; a file that is gone or broken changes nothing, but is
    /// complained about.
    pub fn poll(&mut self) -> Option<Vec<Vec<u8>>> {
        match self.read() {
            Ok(roots) => {
                self.complaint.clear();
                roots
            }
            Err(complaint) => {
                if self.complaint != complaint {
                    tracing::warn!(file = %self.path.display(), trust_domain = %self.domain, reason = complaint, "a trust bundle is not in force");
                    self.complaint = complaint;
                }
                None
            }
        }
    }

    fn read(&mut self) -> Result<Option<Vec<Vec<u8>>>, String> {
        let meta = fs::metadata(&self.path).map_err(|e| e.to_string())?;
        let stamp = (meta.modified().map_err(|e| e.to_string())?, meta.len());
        if self.seen == Some(stamp) {
            return if self.complaint.is_empty() { Ok(None) } else { Err(self.complaint.clone()) };
        }
        if meta.len() > LARGEST {
            return Err("it is too large".to_owned());
        }
        let roots = read_pem(&fs::read(&self.path).map_err(|e| e.to_string())?)?;
        self.seen = Some(stamp);
        check(&self.domain, &roots)?;
        Ok(Some(roots))
    }
}

fn read_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    CertificateDer::pem_slice_iter(text).map(|der| der.map(|der| der.to_vec()).map_err(|e| e.to_string())).collect()
}

/// Writes roots as PEM, whole or not at all.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_bundle(path: &Path, roots: &[Vec<u8>]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&part, roots.iter().map(|root| crate::ca::pem(root)).collect::<String>())?;
    fs::rename(&part, path)
}

/// Roots that were written earlier, when they may still stand for the trust domain.
#[must_use]
pub fn recall_bundle(path: &Path, domain: &TrustDomain) -> Option<Vec<Vec<u8>>> {
    let roots = read_pem(&fs::read(path).ok()?).ok()?;
    check(domain, &roots).ok().map(|()| roots)
}

/// For status: how many roots a domain has, and when the last of them ends.
#[must_use]
pub fn status(bundles: &Bundles, now: SystemTime) -> Vec<TrustDomainStatus> {
    bundles
        .iter()
        .map(|(domain, bundle)| {
            let end = bundle.roots.iter().filter_map(|root| end_of(root)).max().unwrap_or(UNIX_EPOCH);
            TrustDomainStatus {
                name: domain.to_string(),
                source: bundle.source.clone(),
                roots: bundle.roots.len() as u64,
                not_after_unix: unix_seconds(end),
                seconds_left: unix_seconds(end) - unix_seconds(now),
            }
        })
        .collect()
}

fn end_of(root: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(root).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ca::Authority, config};

    fn authority(folder: &Path, domain: &str) -> Authority {
        let domain = TrustDomain::parse(domain).unwrap();
        Authority::open(folder, &domain, &config::Authority::default(), SystemTime::now()).unwrap()
    }

    #[test]
    fn a_bundle_may_come_later_and_is_for_one_domain_only() {
        let dir = tempfile::tempdir().unwrap();
        let (west, east) =
            (authority(&dir.path().join("w"), "west.local"), authority(&dir.path().join("e"), "east.local"));
        let path = dir.path().join("bundle.pem");
        let mut file = BundleFile::new(path.clone(), TrustDomain::parse("west.local").unwrap());
        assert_eq!(file.poll(), None);
        assert!(!file.complaint().is_empty());
        write_bundle(&path, &[east.root().to_vec()]).unwrap();
        assert_eq!(file.poll(), None);
        assert!(file.complaint().contains("spiffe://east.local"));
        assert_eq!(file.poll(), None);
        assert!(file.complaint().contains("spiffe://east.local"), "the complaint stays");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.poll(), None);
        write_bundle(&path, &[west.root().to_vec()]).unwrap();
        assert_eq!(file.poll(), Some(vec![west.root().to_vec()]));
        assert_eq!((file.poll(), file.complaint()), (None, ""));
    }

    #[test]
    fn a_leaf_is_no_root() {
        let dir = tempfile::tempdir().unwrap();
        let west = authority(dir.path(), "west.local");
        let identity = config::own_identity(west.trust_domain());
        let leaf = west.issue(&identity, &rcgen::KeyPair::generate().unwrap(), None, SystemTime::now()).unwrap().leaf;
        assert!(check(west.trust_domain(), &[leaf.to_vec()]).unwrap_err().contains("authority"));
    }
}
