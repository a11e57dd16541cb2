//! Names. Each is a cheap clone; each is parsed once where text enters.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc};

/// Labels of a workload, service or selector.
pub type Labels = BTreeMap<String, String>;

/// Named parts of services: the labels that endpoints of a part have, by name, by host.
pub type Subsets = BTreeMap<Host, BTreeMap<String, Labels>>;

/// Why a text is not an acceptable name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAName {
    /// What was expected, for example `cluster id`.
    pub what: &'static str,
    /// The text that was refused.
    pub text: String,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a {}: {}", self.text, self.what, self.reason)
    }
}

impl std::error::Error for NotAName {}

/// Letters, digits, `-`, `_` and `.`, at most 253 bytes, beginning with a letter or digit.
fn check_plain(what: &'static str, text: &str) -> Result<(), NotAName> {
    let refuse = |reason| Err(NotAName { what, text: text.to_owned(), reason });
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > 253 {
        return refuse("it is longer than 253 bytes");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("it must begin with a letter or digit");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return refuse("only letters, digits, '-', '_' and '.' are allowed");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The only way in.
            ///
            /// # Errors
            /// When the text is empty, too long or has a character that is not allowed.
            pub fn parse(text: &str) -> Result<Self, NotAName> {
                check_plain($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(text: String) -> Result<Self, NotAName> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// A member cluster: an owner of services and a failure domain. A VM fleet or an edge site is one too.
    ClusterId,
    "cluster id"
);
name!(
    /// A set of addresses that reach each other directly.
    NetworkId,
    "network id"
);
name!(
    /// A site: one control plane with its replicas, and what it speaks for.
    SiteName,
    "site name"
);
name!(
    /// A Kubernetes-style namespace.
    Namespace,
    "namespace"
);

/// The root of a set of identities, as in `spiffe://TRUST-DOMAIN/…` (SPIFFE ID specification, section 2.1):
/// lower-case letters, digits, `.`, `-`, `_`, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The only way in.
    ///
    /// # Errors
    /// When the text is no trust domain name.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let refuse = |reason| Err(NotAName { what: "trust domain", text: text.to_owned(), reason });
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > 255 {
            return refuse("it is longer than 255 bytes");
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if !text.bytes().all(allowed) {
            return refuse("only lower-case letters, digits, '.', '-' and '_' are allowed");
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        Self::parse(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.as_ref().to_owned()
    }
}

/// A DNS host name or host pattern in canonical form: lower case, no trailing dot. The patterns are
/// `*` (any host) and `*.suffix` (any host below the suffix, at any depth, but not the suffix itself).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Arc<str>);

impl Host {
    /// The only way in. Accepts names, IP addresses and patterns.
    ///
    /// # Errors
    /// When a label is empty or too long, or `*` stands anywhere but as the whole first label.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let refuse = |reason| Err(NotAName { what: "host", text: text.to_owned(), reason });
        if text.is_empty() {
            return refuse("it is empty; to match any host write \"*\"");
        }
        if text == "*" || text.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(Arc::from(text)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > 253 {
            return refuse("it is longer than 253 bytes");
        }
        let body = name.strip_prefix("*.").unwrap_or(&name);
        for label in body.split('.') {
            if label.is_empty() {
                return refuse("it has an empty label");
            }
            if label.len() > 63 {
                return refuse("a label is longer than 63 bytes");
            }
            if label.contains('*') {
                return refuse("'*' may only stand alone or as the whole first label");
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return refuse("a label has a character other than letters, digits, '-' and '_'");
            }
        }
        Ok(Self(Arc::from(name)))
    }

    /// The host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `*` and `*.suffix`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every host that `other` stands for is one that this host or pattern stands for.
    /// `*.com` covers `a.b.com` and `*.b.com`, but not `com`.
    #[must_use]
    pub fn covers(&self, other: &Host) -> bool {
        match self.0.strip_prefix('*') {
            None => self == other,
            Some("") => true,
            Some(dot_suffix) => {
                let tail = other.0.strip_prefix('*').unwrap_or(&other.0);
                tail.len() >= dot_suffix.len()
                    && tail.ends_with(dot_suffix)
                    && (other.is_wildcard() || tail.len() > dot_suffix.len())
            }
        }
    }

    /// Whether any host is matched by both.
    #[must_use]
    pub fn overlaps(&self, other: &Host) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Order by specificity: exact hosts first, then longer suffixes, `*` last.
    #[must_use]
    pub fn specificity(&self) -> (bool, usize) {
        (!self.is_wildcard(), self.0.len())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Host {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        Self::parse(&text)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn hosts_have_one_form() {
        assert_eq!(host("Reviews.Default.SVC."), host("reviews.default.svc"));
        for bad in ["", "a..b", "a*b", "b.*", "a b", "*x.com", "é.com"] {
            assert!(Host::parse(bad).is_err(), "{bad} should be refused");
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below_it_only() {
        assert!(host("*").covers(&host("a")));
        assert!(host("*.com").covers(&host("a.b.com")));
        assert!(host("*.com").covers(&host("*.b.com")));
        assert!(host("*.com").covers(&host("*.com")));
        assert!(!host("*.com").covers(&host("com")));
        assert!(!host("*.com").covers(&host("xcom")));
        assert!(!host("*.b.com").covers(&host("*.com")));
        assert!(!host("a.com").covers(&host("*.com")));
        assert!(host("a.com").overlaps(&host("*.com")));
    }

    #[test]
    fn trust_domains_are_lower_case() {
        assert!(TrustDomain::parse("east.local").is_ok());
        for bad in ["", "East", "a/b", "a b", "td:1"] {
            assert!(TrustDomain::parse(bad).is_err(), "{bad} should be refused");
        }
    }
}
