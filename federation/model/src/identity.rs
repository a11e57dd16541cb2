//! SPIFFE identities.

use crate::TrustDomain;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A SPIFFE id (SPIFFE ID specification, section 2), kept exactly as it was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    trust_domain: TrustDomain,
    /// Begins with `/`, or is empty for the trust domain itself.
    path: Arc<str>,
}

/// Why a text is not a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnIdentity {
    /// The text that was refused.
    pub text: String,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for NotAnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a SPIFFE id: {}", self.text, self.reason)
    }
}

impl std::error::Error for NotAnIdentity {}

impl Identity {
    /// The only way in for text. Nothing is repaired: a dot segment, an empty segment, a percent sign, a
    /// port, a query or an upper-case trust domain is refused.
    ///
    /// # Errors
    /// When the text is not a SPIFFE id.
    pub fn parse(text: &str) -> Result<Self, NotAnIdentity> {
        let refuse = |reason| Err(NotAnIdentity { text: text.to_owned(), reason });
        if text.len() > 2048 {
            return refuse("it is longer than 2048 bytes");
        }
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return refuse("it does not begin with spiffe://");
        };
        let (domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let Ok(trust_domain) = TrustDomain::parse(domain) else {
            return refuse("its trust domain has a character that is not allowed");
        };
        if !path.is_empty() {
            for segment in path[1..].split('/') {
                match segment {
                    "" => return refuse("its path has an empty segment"),
                    "." | ".." => return refuse("its path has a dot segment"),
                    _ => {}
                }
                if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
                    return refuse("its path has a character other than letters, digits, '.', '-' and '_'");
                }
            }
        }
        Ok(Self { trust_domain, path: Arc::from(path) })
    }

    /// The identity of a workload: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    ///
    /// # Errors
    /// When the namespace or the account has a character that a SPIFFE path may not have.
    pub fn workload(domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, NotAnIdentity> {
        let identity = Self::parse(&format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))?;
        if identity.workload_parts() != Some((namespace, account)) {
            return Err(NotAnIdentity { text: identity.to_string(), reason: "a namespace or an account has a slash" });
        }
        Ok(identity)
    }

    /// The trust domain that vouches for the identity.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace and the service account, when the path has the form `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn workload_parts(&self) -> Option<(&str, &str)> {
        let mut parts = self.path.split('/').skip(1);
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => Some((namespace, account)),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Identity {
    type Error = NotAnIdentity;
    fn try_from(text: String) -> Result<Self, NotAnIdentity> {
        Self::parse(&text)
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_identities_take_their_parts_back() {
        let id = Identity::parse("spiffe://east.local/ns/default/sa/reviews").unwrap();
        assert_eq!(id.workload_parts(), Some(("default", "reviews")));
        assert_eq!(id.trust_domain().as_str(), "east.local");
        assert_eq!(id.to_string(), "spiffe://east.local/ns/default/sa/reviews");
    }

    #[test]
    fn nothing_is_repaired() {
        for bad in [
            "",
            "spiffe:/a/b",
            "SPIFFE://a/b",
            "spiffe://A/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/../b",
            "spiffe://a/./b",
            "spiffe://a/%2e",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/b?q",
            "spiffe://a/b#f",
            "spiffe://a/b\0",
            "spiffe:///b",
            "https://a/b",
            "spiffe://a/é",
        ] {
            assert!(Identity::parse(bad).is_err(), "{bad:?} should be refused");
        }
    }

    #[test]
    fn hostile_account_names_are_refused() {
        let domain = TrustDomain::parse("a").unwrap();
        for bad in ["", "..", "a/b", "a%2fb", "a b"] {
            assert!(Identity::workload(&domain, "default", bad).is_err(), "{bad:?} should be refused");
            assert!(Identity::workload(&domain, bad, "default").is_err(), "{bad:?} should be refused");
        }
    }
}
