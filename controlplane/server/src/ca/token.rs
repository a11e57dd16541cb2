//! Tokens of workloads: JSON Web Tokens as Kubernetes projects them, checked against a key set on disk.
//!
//! Owns the decision who is calling. A token that is not wholly right names nobody. Never logs a token or a part of one.

use crate::config::Tokens as Settings;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, JwkSet},
};
use serde::Deserialize;
use std::{
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tombolo_federation_model::{Identity, TrustDomain};

/// Seconds by which the clocks of issuer and reader may differ.
const LEEWAY: u64 = 30;
/// A key set larger than this is not read.
const LARGEST_KEY_SET: u64 = 1 << 20;
const PREFIX: &str = "system:serviceaccount:";

/// Who a token says is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The name that certificates of this caller get.
    pub identity: Identity,
    /// The pod, when the token is bound to one.
    pub pod: Option<String>,
}

/// Why a token names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None was sent.
    #[error("no bearer token was sent")]
    Missing,
    /// It is not a token of the kind that is accepted.
    #[error("the token is malformed or of a kind that is not accepted")]
    Malformed,
    /// None of the keys signed it.
    #[error("the token is not signed by a known key")]
    Signature,
    /// It is over, or has not begun.
    #[error("the token has expired or is not valid yet")]
    Expired,
    /// It is meant for others.
    #[error("the token is meant for another audience")]
    Audience,
    /// It is from somebody else.
    #[error("the token is from another issuer")]
    Issuer,
    /// It lacks a claim, or its claims contradict each other.
    #[error("the token does not name a service account: {0}")]
    Subject(String),
    /// Nobody can be recognized at the moment.
    #[error("tokens cannot be checked: {0}")]
    Keys(String),
}

/// Checks tokens.
pub struct TokenVerifier {
    settings: Settings,
    trust_domain: TrustDomain,
    validation: Validation,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    seen: Option<(SystemTime, u64)>,
    keys: Vec<(Option<String>, DecodingKey)>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

#[derive(Deserialize)]
struct Bound {
    namespace: Option<String>,
    pod: Option<Named>,
    serviceaccount: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl TokenVerifier {
    /// Checks tokens against the settings; identities are of the given trust domain. The key set is read when it is
    /// first needed, because it may appear after the daemon.
    #[must_use]
    pub fn new(settings: Settings, trust_domain: TrustDomain) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[&settings.audience]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Self { settings, trust_domain, validation, keys: Mutex::new(Keys::default()) }
    }

    /// Who sent the request with this `authorization` value.
    ///
    /// # Errors
    /// When there is no token, or it is not wholly right.
    pub fn bearer(&self, authorization: Option<&str>) -> Result<Claimed, TokenError> {
        let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or(TokenError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Missing);
        }
        self.verify(token.trim())
    }

    fn verify(&self, token: &str) -> Result<Claimed, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg != Algorithm::ES256 {
            return Err(TokenError::Malformed);
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.refresh(&self.settings.jwks)?;
        let candidates = keys.keys.iter().filter(|(id, _)| match (&header.kid, id) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        });
        let mut outcome = Err(TokenError::Signature);
        for (_, key) in candidates {
            outcome = match jsonwebtoken::decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return self.name(data.claims),
                Err(error) => Err(reason(error.kind())),
            };
            if outcome.as_ref().is_err_and(|e| *e != TokenError::Signature) {
                break;
            }
        }
        outcome
    }

    /// The account that the claims agree on.
    fn name(&self, claims: Claims) -> Result<Claimed, TokenError> {
        let refuse = |reason: &str| Err(TokenError::Subject(reason.to_owned()));
        let Some((namespace, account)) = claims.sub.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')) else {
            return refuse("its subject is not system:serviceaccount:NAMESPACE:NAME");
        };
        let bound = claims.kubernetes;
        if let Some(bound) = &bound {
            let other = |claim: Option<&str>, subject: &str| claim.is_some_and(|claim| claim != subject);
            if other(bound.namespace.as_deref(), namespace)
                || other(bound.serviceaccount.as_ref().map(|a| a.name.as_str()), account)
            {
                return refuse("its subject and its bound claims contradict each other");
            }
        }
        let Ok(identity) = Identity::workload(&self.trust_domain, namespace, account) else {
            return refuse("the namespace or the account has a character that an identity may not have");
        };
        Ok(Claimed { identity, pod: bound.and_then(|b| b.pod).map(|pod| pod.name) })
    }
}

impl Keys {
    /// Reads the key set again when the file is not the one that was seen. A key set that is gone or broken recognizes
    /// nobody: falling back to the keys of before would keep a withdrawn key alive.
    fn refresh(&mut self, path: &Path) -> Result<(), TokenError> {
        let failed = |reason: String| TokenError::Keys(format!("key set {}: {reason}", path.display()));
        let meta = fs::metadata(path).map_err(|e| failed(describe(&e)))?;
        let seen = (meta.modified().map_err(|e| failed(e.to_string()))?, meta.len());
        if self.seen == Some(seen) {
            return Ok(());
        }
        self.seen = None;
        self.keys.clear();
        if meta.len() > LARGEST_KEY_SET {
            return Err(failed("it is too large".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|e| failed(describe(&e)))?;
        let set: JwkSet = serde_json::from_str(&text).map_err(|_| failed("it is not a JSON Web Key Set".to_owned()))?;
        for key in &set.keys {
            let usable =
                matches!(&key.algorithm, AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256);
            if let (true, Ok(decoding)) = (usable, DecodingKey::from_jwk(key)) {
                self.keys.push((key.common.key_id.clone(), decoding));
            }
        }
        if self.keys.is_empty() {
            return Err(failed("it has no P-256 key".to_owned()));
        }
        self.seen = Some(seen);
        tracing::info!(keys = self.keys.len(), file = %path.display(), "read the key set of the token issuer");
        Ok(())
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there yet".to_owned(),
        _ => error.to_string(),
    }
}

fn reason(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => TokenError::Expired,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) => TokenError::Subject(format!("it has no {claim} claim")),
        // The library's list of reasons is open.
        _ => TokenError::Malformed,
    }
}
