//! Hostile requests, hostile tokens, and what an honest certificate looks like.

use super::*;
use crate::config::{Authority as Settings, Tokens};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::{BasicConstraints, CustomExtension, DnType};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

fn domain() -> TrustDomain {
    TrustDomain::parse("east.local").unwrap()
}

fn open(folder: &Path) -> Result<Authority, RootError> {
    Authority::open(folder, &domain(), &Settings::default(), SystemTime::now())
}

fn reviews() -> Identity {
    Identity::parse("spiffe://east.local/ns/default/sa/reviews").unwrap()
}

#[test]
fn the_root_is_made_once_and_kept() {
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca");
    let first = open(&ca).unwrap();
    let again = open(&ca).unwrap();
    assert_eq!(first.root(), again.root());
    assert_eq!(first.root_not_after(), again.root_not_after());
    for file in ["root.pem", "root-key.pem"] {
        assert_eq!(fs::metadata(ca.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    let other =
        Authority::open(&ca, &TrustDomain::parse("west.local").unwrap(), &Settings::default(), SystemTime::now());
    assert!(other.err().unwrap().to_string().contains("west.local"));
}

#[test]
fn a_root_that_others_could_read_is_refused() {
    let folder = TempDir::new().unwrap();
    open(folder.path()).unwrap();
    let key = folder.path().join("root-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(folder.path()), Err(RootError::Exposed { mode: 0o640, .. })));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(folder.path().join("root.pem")).unwrap();
    assert!(matches!(open(folder.path()), Err(RootError::Half(_))));
}

#[test]
fn a_key_of_another_root_is_refused() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    open(one.path()).unwrap();
    open(two.path()).unwrap();
    fs::copy(two.path().join("root.pem"), one.path().join("root.pem")).unwrap();
    assert!(matches!(open(one.path()), Err(RootError::Unusable { .. })));
}

#[test]
fn an_issued_certificate_has_one_name_and_is_no_authority() {
    let folder = TempDir::new().unwrap();
    let authority = open(folder.path()).unwrap();
    let now = SystemTime::now();
    let issued = authority.issue(&reviews(), &KeyPair::generate().unwrap(), None, now).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.leaf).unwrap();
    let (_, root) = X509Certificate::from_der(authority.root()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert!(root.is_ca() && !leaf.is_ca());
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "a certificate without a subject needs critical names");
    assert!(matches!(names.value.general_names[..], [GeneralName::URI("spiffe://east.local/ns/default/sa/reviews")]));
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any);
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    assert_eq!(from, unix_seconds(now) - 60);
    assert_eq!(until, unix_seconds(now) + 3600);
}

#[test]
fn lives_are_capped() {
    let folder = TempDir::new().unwrap();
    let authority = open(folder.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let now = SystemTime::now();
    let life = |asked: u64| {
        let issued = authority.issue(&reviews(), &key, Some(Duration::from_secs(asked)), now).unwrap();
        issued.not_after.duration_since(now).unwrap().as_secs()
    };
    assert_eq!((life(0), life(60), life(10_000_000)), (3600, 60, 86_400));
    let late = authority.root_not_after() - Duration::from_secs(5);
    let issued = authority.issue(&reviews(), &key, None, late).unwrap();
    assert_eq!(issued.not_after, authority.root_not_after());
    assert!(matches!(
        authority.issue(&reviews(), &key, None, authority.root_not_after()),
        Err(IssueError::RootExpired)
    ));
    let foreign = Identity::parse("spiffe://west.local/ns/default/sa/reviews").unwrap();
    assert!(matches!(authority.issue(&foreign, &key, None, now), Err(IssueError::ForeignIdentity(_))));
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let authority = open(folder.path()).unwrap();
    let pair = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    greedy.subject_alt_names.push(SanType::URI("spiffe://east.local/ns/kube-system/sa/admin".try_into().unwrap()));
    greedy.subject_alt_names.push(SanType::URI("spiffe://west.local/ns/x/sa/y".try_into().unwrap()));
    greedy.distinguished_name.push(DnType::CommonName, "root");
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]));
    let request = greedy.serialize_request(&pair).unwrap().pem().unwrap();
    let key = RequestedKey::from_pem(&request).unwrap();
    let issued = authority.issue(&reviews(), key.key(), None, SystemTime::now()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.leaf).unwrap();
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), pair.public_key_raw());
    assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    assert!(!leaf.is_ca());
    assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(leaf.extensions().iter().all(|e| e.oid.to_id_string() != "1.2.3.4"));
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let pair = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&pair).unwrap();
    let pem = request.pem().unwrap();
    let other = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wrap = |der: &[u8]| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der))
    };
    let mut forged = request.der().to_vec();
    // The last byte belongs to the signature.
    *forged.last_mut().unwrap() ^= 1;
    let mut trailing = request.der().to_vec();
    trailing.push(0);
    // The key of one request inside the other, whose signature then does not fit.
    let swapped: Vec<u8> = {
        let (one, two) = (pair.public_key_raw(), request.der());
        let at = two.windows(one.len()).position(|w| w == one).unwrap();
        let mut der = two.to_vec();
        let foreign = {
            let (_, parsed) =
                x509_parser::certification_request::X509CertificationRequest::from_der(other.der()).unwrap();
            parsed.certification_request_info.subject_pki.subject_public_key.data.to_vec()
        };
        der[at..at + foreign.len()].copy_from_slice(&foreign);
        der
    };
    let check =
        |text: &str, expect: BadRequest| assert_eq!(RequestedKey::from_pem(text).unwrap_err(), expect, "{text}");
    check("", BadRequest::NotPem);
    check("hello", BadRequest::NotPem);
    check(&format!("{pem}{pem}"), BadRequest::NotPem);
    check(&wrap(b"hello"), BadRequest::Malformed);
    check(&wrap(&trailing), BadRequest::Malformed);
    check(&wrap(&forged), BadRequest::Signature);
    check(&wrap(&swapped), BadRequest::Signature);
    check(&"x".repeat(20_000), BadRequest::TooLong);
    RequestedKey::from_pem(&pem).unwrap();
}

pub(crate) struct Issuer {
    key: EncodingKey,
    jwk: Jwk,
}

impl Issuer {
    pub(crate) fn new(id: &str) -> Self {
        let pair = KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        Self { key, jwk }
    }

    pub(crate) fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

pub(crate) fn write_keys(path: &Path, issuers: &[&Issuer]) {
    let keys: Vec<_> = issuers.iter().map(|i| &i.jwk).collect();
    fs::write(path, json!({ "keys": keys }).to_string()).unwrap();
}

pub(crate) fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": "up", "aud": ["istio-ca"], "exp": unix_seconds(SystemTime::now()) + 600,
        "sub": "system:serviceaccount:default:reviews",
        "kubernetes.io": {"namespace": "default", "pod": {"name": "reviews-0"}, "serviceaccount": {"name": "reviews"}},
    });
    change(&mut claims);
    claims
}

pub(crate) fn verifier(path: &Path) -> TokenVerifier {
    let settings = Tokens { jwks: path.to_owned(), audience: "istio-ca".to_owned(), issuer: "up".to_owned() };
    TokenVerifier::new(settings, domain())
}

#[test]
fn an_honest_token_names_its_account() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    let issuer = Issuer::new("a");
    write_keys(&path, &[&issuer]);
    let verifier = verifier(&path);
    for kid in [Some("a"), None] {
        let token = issuer.sign(kid, &claims(|_| {}));
        let claimed = verifier.bearer(Some(&format!("Bearer {token}"))).unwrap();
        assert_eq!(claimed, Claimed { identity: reviews(), pod: Some("reviews-0".to_owned()) });
    }
}

#[test]
fn a_token_that_is_not_wholly_right_names_nobody() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    let (issuer, stranger) = (Issuer::new("a"), Issuer::new("a"));
    write_keys(&path, &[&issuer]);
    let verifier = verifier(&path);
    let check = |token: &str, expect: fn(&TokenError) -> bool| {
        let error = verifier.bearer(Some(&format!("Bearer {token}"))).unwrap_err();
        assert!(expect(&error), "{error:?}");
    };
    let signed = |change: fn(&mut Value)| issuer.sign(Some("a"), &claims(change));
    let now = unix_seconds(SystemTime::now());
    check(&issuer.sign(Some("a"), &claims(|c| c["exp"] = (now - 120).into())), |e| *e == TokenError::Expired);
    check(&issuer.sign(Some("a"), &claims(|c| c["nbf"] = (now + 120).into())), |e| *e == TokenError::Expired);
    check(&signed(|c| c["aud"] = json!(["kubernetes"])), |e| *e == TokenError::Audience);
    check(&signed(|c| c["iss"] = "me".into()), |e| *e == TokenError::Issuer);
    check(&stranger.sign(Some("a"), &claims(|_| {})), |e| *e == TokenError::Signature);
    check(&issuer.sign(Some("b"), &claims(|_| {})), |e| *e == TokenError::Signature);
    let subject = |e: &TokenError| matches!(e, TokenError::Subject(_));
    check(
        &signed(|c| {
            c.as_object_mut().unwrap().remove("exp");
        }),
        subject,
    );
    check(
        &signed(|c| {
            c.as_object_mut().unwrap().remove("sub");
        }),
        |e| *e != TokenError::Missing,
    );
    check(&signed(|c| c["sub"] = "reviews".into()), subject);
    check(&signed(|c| c["kubernetes.io"]["namespace"] = "prod".into()), subject);
    check(&signed(|c| c["kubernetes.io"]["serviceaccount"]["name"] = "admin".into()), subject);
    for hostile in
        ["a/b:c", "..:c", "a:..", "a:b/../c", "a:b%2fc", ":c", "a:", "a:b c", "a:b\0", "a:é", "a:b:c", "a:b?x"]
    {
        let bad = claims(|c| {
            c["sub"] = format!("system:serviceaccount:{hostile}").into();
            c.as_object_mut().unwrap().remove("kubernetes.io");
        });
        check(&issuer.sign(Some("a"), &bad), subject);
    }
    check("a.b.c", |e| *e == TokenError::Malformed);
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims(|_| {}),
        &EncodingKey::from_secret(fs::read(&path).unwrap().as_slice()),
    );
    check(&hmac.unwrap(), |e| *e == TokenError::Malformed);
    assert_eq!(verifier.bearer(None), Err(TokenError::Missing));
    assert_eq!(verifier.bearer(Some("Basic abc")), Err(TokenError::Missing));
}

#[test]
fn the_key_set_may_come_later_and_change() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    let verifier = verifier(&path);
    let (old, new) = (Issuer::new("old"), Issuer::new("a-new-key"));
    let bearer = |issuer: &Issuer| format!("Bearer {}", issuer.sign(None, &claims(|_| {})));
    let refused = |text: &str| verifier.bearer(Some(text)).unwrap_err();
    assert!(matches!(refused(&bearer(&old)), TokenError::Keys(_)));
    write_keys(&path, &[&old]);
    verifier.bearer(Some(&bearer(&old))).unwrap();
    write_keys(&path, &[&new]);
    verifier.bearer(Some(&bearer(&new))).unwrap();
    assert_eq!(refused(&bearer(&old)), TokenError::Signature);
    fs::write(&path, "{").unwrap();
    assert!(matches!(refused(&bearer(&new)), TokenError::Keys(_)));
}

#[tokio::test]
async fn the_own_certificate_names_the_control_plane() {
    let folder = TempDir::new().unwrap();
    let authority = std::sync::Arc::new(open(folder.path()).unwrap());
    let (own, _renewal) = OwnIdentity::start(authority, crate::config::own_identity(&domain())).unwrap();
    let current = own.current();
    let (_, leaf) = X509Certificate::from_der(&current.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(matches!(
        names.value.general_names[..],
        [GeneralName::URI("spiffe://east.local/ns/tombolo-system/sa/controlplane")]
    ));
    assert!(!format!("{current:?}").contains("PRIVATE"));
}
