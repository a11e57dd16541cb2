//! Tokens for proxies, as a cluster would project them into pods: a signing key of the site, its public half as a key
//! set for the control plane, and one signed token for each proxy.
//!
//! Owns the key for the length of a run; it is never written to disk. Used by `up` only.

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use std::time::Duration;

/// Audience that control planes ask for.
pub(crate) const AUDIENCE: &str = "istio-ca";
/// Life of a token; written anew at half of it.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Signs the tokens of one site.
pub(crate) struct Signer {
    key: EncodingKey,
    key_id: String,
    jwks: String,
    issuer: String,
}

/// Whose token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service_account: &'a str,
    pub(crate) pod: &'a str,
}

impl Signer {
    /// A fresh key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn generate(site: &str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate().context("cannot generate a token key")?;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).context("cannot use the token key")?;
        // An uncompressed point: one marker byte, then the coordinates.
        let coordinates = pair.public_key_raw().get(1..65).context("the token key is not on P-256")?;
        let (x, y) = coordinates.split_at(32);
        let key_id = format!("{site}-{}", URL_SAFE_NO_PAD.encode(&x[..6]));
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]});
        Ok(Self { key, key_id, jwks: jwks.to_string(), issuer: format!("https://{site}.tombolo.internal") })
    }

    /// The public half, as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// What tokens name as their issuer.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token that starts to be valid at `now`, in Unix seconds.
    ///
    /// # Errors
    /// When signing fails.
    pub(crate) fn sign(&self, holder: Holder<'_>, now: u64) -> anyhow::Result<String> {
        let Holder { namespace, service_account, pod } = holder;
        let claims = json!({
            "iss": self.issuer,
            "aud": [AUDIENCE],
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
            "iat": now,
            "nbf": now,
            "exp": now + LIFE.as_secs(),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": pod},
                "serviceaccount": {"name": service_account},
            },
        });
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).context("cannot sign a token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

    #[test]
    fn tokens_verify_with_the_published_keys_and_say_who() {
        let signer = Signer::generate("east").unwrap();
        let holder = Holder { namespace: "shop", service_account: "reviews", pod: "reviews-v1-0" };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let token = signer.sign(holder, now).unwrap();

        let keys: JwkSet = serde_json::from_str(signer.jwks()).unwrap();
        let id = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&id).unwrap()).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[signer.issuer()]);
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "system:serviceaccount:shop:reviews");
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], "reviews-v1-0");
        assert_eq!(claims["kubernetes.io"]["serviceaccount"]["name"], "reviews");

        let other = Signer::generate("east").unwrap();
        let forged = other.sign(holder, now).unwrap();
        assert!(jsonwebtoken::decode::<serde_json::Value>(&forged, &key, &rules).is_err());
    }
}
