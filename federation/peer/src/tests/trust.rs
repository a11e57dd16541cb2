//! Which chains prove an identity.

use super::certificates::{Authority, Leaf};
use crate::{
    Credentials, TrustMap,
    verify::{End, NotTrusted, claimed_identity, verify_chain},
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::UnixTime;
use tombolo_federation_identity::may_vouch_for;
use tombolo_federation_model::TrustDomain;

const EAST: &str = "spiffe://east.local/ns/default/sa/a";

fn trust(entries: &[(&str, &Authority)]) -> TrustMap {
    entries.iter().map(|(domain, authority)| (TrustDomain::parse(domain).unwrap(), authority.roots())).collect()
}

fn judge(credentials: &Credentials, trust: &TrustMap, end: End) -> Result<String, NotTrusted> {
    verify_chain(&credentials.chain, trust, end, UnixTime::now()).map(|identity| identity.to_string())
}

#[test]
fn a_chain_proves_the_identity_of_its_own_trust_domain_only() {
    let (east, west) = (Authority::root("east"), Authority::root("west"));
    let trust = trust(&[("east.local", &east), ("west.local", &west)]);
    assert_eq!(judge(&east.identity(EAST), &trust, End::Client).unwrap(), EAST);
    assert_eq!(judge(&east.intermediate("below", None).identity(EAST), &trust, End::Server).unwrap(), EAST);
    // A root of one trust domain vouches for nobody in another.
    assert!(matches!(judge(&west.identity(EAST), &trust, End::Client), Err(NotTrusted::Chain { .. })));
    let north = judge(&east.identity("spiffe://north.local/x"), &trust, End::Client).unwrap_err();
    assert_eq!(north.to_string(), "no bundle for trust domain north.local");
}

#[test]
fn a_leaf_has_exactly_one_spiffe_id() {
    let east = Authority::root("east");
    let trust = trust(&[("east.local", &east)]);
    let with = |uris: &[&str]| Leaf { uris: uris.iter().map(|uri| (*uri).to_owned()).collect(), ..Leaf::of(EAST) };
    assert_eq!(judge(&east.issue(&with(&[])), &trust, End::Client), Err(NotTrusted::UriNames(0)));
    assert_eq!(judge(&east.issue(&with(&[EAST, EAST])), &trust, End::Client), Err(NotTrusted::UriNames(2)));
    for bad in ["https://east.local/a", "spiffe://EAST.local/a", "spiffe://east.local/%61", "spiffe://east.local/../a"]
    {
        let verdict = judge(&east.issue(&with(&[bad])), &trust, End::Client);
        assert!(matches!(verdict, Err(NotTrusted::NotAnIdentity(_))), "{bad}: {verdict:?}");
    }
}

#[test]
fn an_issuer_is_no_leaf_and_usages_are_kept_apart() {
    let east = Authority::root("east");
    let trust = trust(&[("east.local", &east)]);
    let issuer = Leaf { issuer: true, ..Leaf::of(EAST) };
    assert_eq!(judge(&east.issue(&issuer), &trust, End::Client), Err(NotTrusted::Issuer));
    let serves = Leaf { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..Leaf::of(EAST) };
    assert!(judge(&east.issue(&serves), &trust, End::Server).is_ok());
    assert!(matches!(judge(&east.issue(&serves), &trust, End::Client), Err(NotTrusted::Chain { .. })));
    let expired = Leaf { expired: true, ..Leaf::of(EAST) };
    assert!(matches!(judge(&east.issue(&expired), &trust, End::Client), Err(NotTrusted::Chain { .. })));
}

#[test]
fn a_constrained_intermediate_cannot_mint_foreign_identities() {
    let root = Authority::root("shared");
    let trust = trust(&[("east.local", &root), ("west.local", &root)]);
    let only_west = root.intermediate("west only", Some("west.local"));
    assert!(judge(&only_west.identity(EAST), &trust, End::Client).is_err());
    // Our own check says so too, whatever the library thinks of such constraints.
    let below = |within| root.intermediate("below", Some(within)).identity(EAST).chain[1].clone();
    let east = TrustDomain::parse("east.local").unwrap();
    let allowed: Vec<_> = ["east.local", ".local", "west.local", "st.local", ".east.local"]
        .into_iter()
        .filter(|within| may_vouch_for(&below(within), &east))
        .collect();
    assert_eq!(allowed, ["east.local", ".local"]);
    // The library refuses every chain with such a constraint, even where the name is within: safe, if strict.
    let within = root.intermediate("east only", Some("east.local")).identity(EAST);
    assert!(matches!(judge(&within, &trust, End::Client), Err(NotTrusted::Chain { .. })));
}

#[test]
fn an_empty_bundle_and_garbage_are_refused() {
    let east = Authority::root("east");
    let credentials = east.identity(EAST);
    let empty: TrustMap = [(TrustDomain::parse("east.local").unwrap(), Vec::new())].into();
    assert!(matches!(judge(&credentials, &empty, End::Client), Err(NotTrusted::NoBundle(_))));
    let garbage: TrustMap = [(TrustDomain::parse("east.local").unwrap(), vec![vec![1, 2, 3].into()])].into();
    assert!(matches!(judge(&credentials, &garbage, End::Client), Err(NotTrusted::Chain { .. })));
    assert_eq!(verify_chain(&[], &garbage, End::Client, UnixTime::now()), Err(NotTrusted::NoCertificate));
    assert!(claimed_identity(&vec![0x30, 0x03, 0x02].into()).is_err());
    let trailing = [credentials.chain[0].to_vec(), vec![0]].concat();
    assert!(claimed_identity(&trailing.into()).is_err());
}
