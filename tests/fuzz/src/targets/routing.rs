//! What a request brings into routing, and the small languages of configuration.

use crate::Target;
use http::HeaderValue;
use rcgen::{BasicConstraints, CertificateParams, GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType};
use rustls::pki_types::CertificateDer;
use tombolo_federation_identity::{claimed_identity, may_vouch_for};
use tombolo_federation_model::{Identity, TrustDomain};
use tombolo_gateway_core::{
    accesslog::{LineFormat, Record},
    config::{EscapedSlashes, PathSettings},
    format::{Facts, Format},
    head::Head,
    request::path::{Normalized, normalize},
};
use tombolo_gateway_proxy::fuzzing;

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "path", feed: path, seeds: paths },
    Target { name: "header_format", feed: header_format, seeds: formats },
    Target { name: "log_format", feed: log_format, seeds: formats },
    Target { name: "spiffe_id", feed: spiffe_id, seeds: ids },
    Target { name: "certificate", feed: certificate, seeds: certificates },
    Target { name: "peer_metadata", feed: peer_metadata, seeds: told },
];

const SLASHES: [EscapedSlashes; 4] =
    [EscapedSlashes::Keep, EscapedSlashes::Reject, EscapedSlashes::Redirect, EscapedSlashes::Unescape];

/// A canonical path is canonical: normalising it again changes nothing.
fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for escaped_slashes in SLASHES {
        for (normalize_path, merge_slashes) in [(true, true), (true, false), (false, true)] {
            let settings = PathSettings { normalize: normalize_path, merge_slashes, escaped_slashes };
            let once = match normalize(text, settings) {
                Normalized::Changed(path) | Normalized::Redirect(path) => path,
                Normalized::Same | Normalized::Refused => continue,
            };
            let again = normalize(&once, settings);
            assert_eq!(again, Normalized::Same, "{text:?} became {once:?} and is not done ({settings:?})");
        }
    }
}

fn paths() -> Vec<Vec<u8>> {
    [
        "/a/../b//c/./d?x=/../y",
        "/%2e%2e/%2Fa%5cb",
        "/a%2f..%2fb",
        "/%41%7e%zz",
        "\\a\\..\\b",
        "/a;b=c/..;/d",
        "*",
        "",
        "/%",
    ]
    .map(|path| path.as_bytes().to_vec())
    .to_vec()
}

/// A request to render formats with. Nothing in it breaks lines, so nothing that is rendered from it may.
fn sample() -> Head {
    let mut head = Head { authority: "a.test".into(), path: "/p?q=1&r=%0d%0a".into(), ..Head::default() };
    head.headers.insert("x", HeaderValue::from_static("\"1\"\t{}"));
    head
}

fn breaks(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b'\r' | b'\n' | 0)).count()
}

/// What is compiled remembers its text; text without operators stands for itself; nothing is rendered in two ways, and
/// operators break no lines.
fn header_format(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(format) = Format::parse(text) else { return };
    assert_eq!(format.text(), text, "another text");
    let head = sample();
    let facts = Facts { head: Some(&head), status: Some(200), ..Facts::default() };
    let first = format.render(&facts);
    assert_eq!(first, format.render(&facts), "{text:?} is rendered in two ways");
    if let Some(fixed) = format.fixed() {
        assert_eq!(first, fixed.as_bytes(), "{text:?} has no operators");
    }
    assert!(breaks(&first) <= breaks(input), "{text:?} breaks lines: {}", first.escape_ascii());
}

/// The same for lines of logs, which are added to what is there.
fn log_format(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(format) = LineFormat::text(text) else { return };
    let head = sample();
    let facts = Facts { head: Some(&head), status: Some(200), ..Facts::default() };
    let record = Record { facts, ..Record::default() };
    let (mut first, mut second) = (b"before".to_vec(), Vec::new());
    format.render(&record, &mut first);
    format.render(&record, &mut second);
    let added = first.strip_prefix(b"before").expect("what was there before is gone");
    assert_eq!(added, second, "{text:?} is rendered in two ways");
    // A line may get its own end.
    assert!(breaks(added) <= breaks(input) + 1, "{text:?} breaks lines: {}", added.escape_ascii());
}

fn formats() -> Vec<Vec<u8>> {
    [
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS%",
        "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)% %REQ(a?b):10% %%x",
        "%DYNAMIC_METADATA(com.test:key:inner):5% %DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_METADATA([\"a\", \"b\"])%",
        "%DURATION% %BYTES_SENT% %RESP(x)% %TRAILER(y):3%",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What is read is written the same: there is one spelling of an identity.
fn spiffe_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(identity) = Identity::parse(text) {
        assert_eq!(identity.to_string(), text, "read and written otherwise");
    }
}

fn ids() -> Vec<Vec<u8>> {
    ["spiffe://east.local/ns/default/sa/reviews", "spiffe://a", "spiffe://A/b", "spiffe://a/../b", "spiffe://a/b//c"]
        .map(|id| id.as_bytes().to_vec())
        .to_vec()
}

/// Whoever a certificate claims to be, it is somebody with one spelling.
fn certificate(input: &[u8]) {
    let leaf = CertificateDer::from(input);
    if let Ok(identity) = claimed_identity(&leaf) {
        assert_eq!(Identity::parse(&identity.to_string()).ok(), Some(identity), "a claim that is no identity");
    }
    if let Ok(domain) = TrustDomain::parse("east.local") {
        let _ = may_vouch_for(&leaf, &domain);
    }
}

fn certificates() -> Vec<Vec<u8>> {
    let sample = |names: &[&str], ca: bool| -> Option<Vec<u8>> {
        let mut params = CertificateParams::new(Vec::new()).ok()?;
        for name in names {
            params.subject_alt_names.push(SanType::URI((*name).try_into().ok()?));
        }
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("east.local".into())],
                excluded_subtrees: Vec::new(),
            });
        }
        let signed = params.self_signed(&KeyPair::generate().ok()?).ok()?;
        Some(signed.der().to_vec())
    };
    [
        sample(&["spiffe://east.local/ns/a/sa/b"], false),
        sample(&["spiffe://east.local/a", "spiffe://west.local/a"], false),
        sample(&[], true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a peer tells of itself is words that fit on a line of metrics, or nothing.
fn peer_metadata(input: &[u8]) {
    if let Some((workload, namespace)) = fuzzing::peer_metadata(input) {
        for word in [workload, namespace] {
            assert!(!word.contains(char::is_control), "{word:?} breaks lines");
            assert!(word.len() <= input.len(), "{word:?} is longer than what was told");
        }
    }
}

fn told() -> Vec<Vec<u8>> {
    // A protobuf structure with NAME and NAMESPACE, in base64; and pieces of it.
    ["ChAKBE5BTUUSCBoGcG9kLTEyCh4KCU5BTUVTUEFDRRIRGg9kZWZhdWx0LXRlc3RpbmcKEAoNV09SS0xPQURfTkFNRRIFGgNhYmM=", "Cgp4", ""]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
