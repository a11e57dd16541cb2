//! Authorities and certificates for tests.

use crate::Credentials;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// An issuer of certificates, and the chain from it to below its root.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
}

/// What a leaf is asked to look like.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) issuer: bool,
    pub(crate) expired: bool,
}

impl Leaf {
    pub(crate) fn of(uri: &str) -> Self {
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Self { uris: vec![uri.to_owned()], usages, issuer: false, expired: false }
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root, above: Vec::new() }
    }

    /// An intermediate; `within` constrains it to the URI names of one host.
    pub(crate) fn intermediate(&self, name: &str, within: Option<&str>) -> Self {
        let mut params = authority_params(name);
        if let Some(host) = within {
            params.custom_extensions.push(permitted_uris(host));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let above = [vec![certificate.der().clone()], self.above.clone()].concat();
        Self { issuer: Issuer::new(params, key), root: self.root.clone(), above }
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    pub(crate) fn issue(&self, leaf: &Leaf) -> Credentials {
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.extended_key_usages.clone_from(&leaf.usages);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if leaf.issuer {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if leaf.expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate: Certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = [vec![certificate.der().clone()], self.above.clone()].concat();
        Credentials { chain, key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())) }
    }

    pub(crate) fn identity(&self, uri: &str) -> Credentials {
        self.issue(&Leaf::of(uri))
    }
}

/// The name constraints extension with one permitted URI host.
fn permitted_uris(host: &str) -> CustomExtension {
    let wrap = |tag: u8, content: Vec<u8>| [vec![tag, u8::try_from(content.len()).unwrap()], content].concat();
    let tree = wrap(0x30, wrap(0x86, host.as_bytes().to_vec()));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], wrap(0x30, wrap(0xa0, tree)));
    extension.set_criticality(true);
    extension
}
