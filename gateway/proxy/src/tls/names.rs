//! Matching the names of a certificate against configured rules, and the fingerprints that rules may pin.
//!
//! Pure.

use super::spiffe::{Names, Refusal};
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tombolo_gateway_core::config::{SanKind, SanMatcher, StringMatch};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Whether a rule is fulfilled by one of a certificate's names.
pub(crate) fn matches(rule: &SanMatcher, names: &Names) -> bool {
    let text = |value: &str| rule.matcher.fits(value.as_bytes());
    let dns = || names.dns.iter().any(|name| text(name) || wildcard(rule, name));
    let uri = || names.uris.iter().any(|name| text(name));
    let email = || names.emails.iter().any(|name| text(name));
    let ip = || names.ips.iter().any(|ip| text(&ip.to_string()));
    match rule.kind {
        SanKind::Dns => dns(),
        SanKind::Uri => uri(),
        SanKind::Email => email(),
        SanKind::Ip => ip(),
        SanKind::Any => uri() || dns() || email() || ip(),
    }
}

/// `*.example.com` in the certificate stands for exactly one more label.
fn wildcard(rule: &SanMatcher, name: &str) -> bool {
    let StringMatch::Exact(wanted) = &rule.matcher.kind else { return false };
    let Some(suffix) = name.strip_prefix("*.") else { return false };
    match wanted.split_once('.') {
        Some((label, rest)) => !label.is_empty() && rest.eq_ignore_ascii_case(suffix) && suffix.contains('.'),
        None => false,
    }
}

/// Base64 SHA-256 of the public key, and lower-case hexadecimal SHA-256 of the certificate.
pub(crate) fn fingerprints(leaf: &[u8]) -> Result<(String, String), Refusal> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Unreadable)?;
    let spki = digest::digest(&digest::SHA256, certificate.public_key().raw);
    Ok((STANDARD.encode(spki), sha256_hex(leaf)))
}

/// Lower-case hexadecimal SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_gateway_core::config::StringMatcher;

    fn rule(kind: SanKind, exact: &str) -> SanMatcher {
        SanMatcher { kind, matcher: StringMatcher { kind: StringMatch::Exact(exact.into()), ignore_case: false } }
    }

    #[test]
    fn kinds_are_kept_apart() {
        let names = Names { uris: vec!["spiffe://a/b".into()], dns: vec!["*.a.example".into()], ..Names::default() };
        assert!(matches(&rule(SanKind::Uri, "spiffe://a/b"), &names));
        assert!(!matches(&rule(SanKind::Dns, "spiffe://a/b"), &names));
        assert!(matches(&rule(SanKind::Any, "spiffe://a/b"), &names));
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let names = Names { dns: vec!["*.a.example".into()], ..Names::default() };
        assert!(matches(&rule(SanKind::Dns, "x.a.example"), &names));
        assert!(!matches(&rule(SanKind::Dns, "x.y.a.example"), &names));
        assert!(!matches(&rule(SanKind::Dns, "a.example"), &names));
        assert!(!matches(&rule(SanKind::Dns, ".a.example"), &names));
    }
}
