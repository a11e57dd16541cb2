//! Chains of each kind, against bundles that are kept apart.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::collections::BTreeMap;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), root }
}

fn leaf(ca: &Authority, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der().clone()
}

fn bundles(pairs: &[(&str, &Authority)]) -> Bundles {
    let anchor = |ca: &Authority| webpki::anchor_from_trusted_cert(&ca.root).unwrap().to_owned();
    pairs.iter().map(|(domain, ca)| (TrustDomain::parse(domain).unwrap(), vec![anchor(ca)])).collect()
}

fn by(b: &Bundles, cert: &CertificateDer<'_>, check: Check<'_>) -> Result<Identity, NotTrusted> {
    verify(|domain| b.get(domain), cert, &[], check)
}

fn judge(b: &Bundles, cert: &CertificateDer<'_>) -> Result<Identity, NotTrusted> {
    by(b, cert, check(End::Client))
}

fn check(end: End) -> Check<'static> {
    Check::new(end, UnixTime::now())
}

type Bundles = BTreeMap<TrustDomain, Vec<TrustAnchor<'static>>>;

const EAST: &str = "spiffe://east/ns/a/sa/b";

#[test]
fn a_chain_counts_only_for_its_own_domain() {
    let (east, west) = (authority(), authority());
    let both = bundles(&[("east", &east), ("west", &west)]);
    assert_eq!(judge(&both, &leaf(&east, &[EAST], |_| {})).unwrap().to_string(), EAST);
    assert!(matches!(judge(&both, &leaf(&west, &[EAST], |_| {})), Err(NotTrusted::Chain { .. })));
    let only_west = bundles(&[("west", &west)]);
    assert!(matches!(judge(&only_west, &leaf(&east, &[EAST], |_| {})), Err(NotTrusted::NoBundle(_))));
}

#[test]
fn forms_that_are_not_an_svid() {
    let ca = authority();
    let b = bundles(&[("east", &ca)]);
    assert_eq!(judge(&b, &leaf(&ca, &[], |_| {})), Err(NotTrusted::UriNames(0)));
    assert_eq!(judge(&b, &leaf(&ca, &[EAST, "spiffe://east/x"], |_| {})), Err(NotTrusted::UriNames(2)));
    assert!(matches!(judge(&b, &leaf(&ca, &["https://east/x"], |_| {})), Err(NotTrusted::NotAnIdentity(_))));
    let as_ca = leaf(&ca, &[EAST], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(judge(&b, &as_ca), Err(NotTrusted::Issuer));
    let signs =
        leaf(&ca, &[EAST], |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]);
    assert_eq!(judge(&b, &signs), Err(NotTrusted::Issuer));
    let no_sign = leaf(&ca, &[EAST], |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(judge(&b, &no_sign), Err(NotTrusted::KeyUsage));
    assert!(matches!(judge(&b, &CertificateDer::from(vec![1, 2, 3])), Err(NotTrusted::Unreadable(_))));
}

#[test]
fn use_and_time_are_checked() {
    let ca = authority();
    let b = bundles(&[("east", &ca)]);
    let server_only = leaf(&ca, &[EAST], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(matches!(judge(&b, &server_only), Err(NotTrusted::Chain { .. })));
    assert!(by(&b, &server_only, check(End::Server)).is_ok());
    let expired = leaf(&ca, &[EAST], |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert!(matches!(judge(&b, &expired), Err(NotTrusted::Chain { .. })));
    assert!(by(&b, &expired, Check { allow_expired: true, ..check(End::Client) }).is_ok());
}
