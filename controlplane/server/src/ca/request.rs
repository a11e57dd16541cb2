//! Certificate signing requests: the public key and the proof that its owner asks, nothing else.
//!
//! Names, usages and every other extension of a request are ignored, whatever they say: the caller's token decides.

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use std::fmt;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
    },
    prelude::FromDer,
};

/// Larger than any honest request; an RSA key of 8192 bits needs about 3 KiB.
const LONGEST: usize = 16 * 1024;

/// Why a request is not accepted. Says nothing of the request's content, which is not ours to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// More bytes than any honest request has.
    TooLong,
    /// Not one PEM block of a signing request.
    NotPem,
    /// Not a signing request inside.
    Malformed,
    /// The signature is of a kind that is too weak or unknown.
    Algorithm,
    /// Whoever asks did not prove to hold the private key.
    Signature,
    /// The public key is of a kind that cannot be certified.
    Key,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the signing request is too long",
            Self::NotPem => "the signing request is not one PEM block",
            Self::Malformed => "the signing request is malformed",
            Self::Algorithm => "the signing request is signed in a way that is not accepted",
            Self::Signature => "the signing request does not prove possession of its key",
            Self::Key => "the public key of the signing request is of a kind that is not accepted",
        })
    }
}

impl std::error::Error for BadRequest {}

/// A public key whose owner proved to hold the private key.
#[derive(Debug)]
pub struct RequestedKey(SubjectPublicKeyInfo);

impl RequestedKey {
    /// Reads a request in PEM and checks its proof.
    ///
    /// # Errors
    /// When it is not a request, or proves nothing.
    pub fn from_pem(text: &str) -> Result<Self, BadRequest> {
        if text.len() > LONGEST {
            return Err(BadRequest::TooLong);
        }
        let mut blocks = CertificateSigningRequestDer::pem_slice_iter(text.as_bytes());
        let (Some(Ok(der)), None) = (blocks.next(), blocks.next()) else {
            return Err(BadRequest::NotPem);
        };
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| BadRequest::Malformed)?;
        if !rest.is_empty() {
            return Err(BadRequest::Malformed);
        }
        let accepted = [
            OID_SIG_ECDSA_WITH_SHA256,
            OID_SIG_ECDSA_WITH_SHA384,
            OID_PKCS1_SHA256WITHRSA,
            OID_PKCS1_SHA384WITHRSA,
            OID_PKCS1_SHA512WITHRSA,
            OID_SIG_ED25519,
        ];
        if !accepted.contains(&request.signature_algorithm.algorithm) {
            return Err(BadRequest::Algorithm);
        }
        request.verify_signature().map_err(|_| BadRequest::Signature)?;
        let key = request.certification_request_info.subject_pki.raw;
        Ok(Self(SubjectPublicKeyInfo::from_der(key).map_err(|_| BadRequest::Key)?))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}
