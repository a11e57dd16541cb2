//! The site's certificate authority: one root per trust domain, short-lived X.509 SVIDs below it.
//!
//! Owns the root's key. Names a certificate only after what a verified token says, never after what the request says.
//! Never logs a token, a key or a request. Used by the certificate service and by the daemon's own servers.

mod own;
mod request;
mod root;
mod service;
mod token;

#[cfg(test)]
pub(crate) mod tests;

pub use own::{OwnCertificate, OwnIdentity};
pub use request::{BadRequest, RequestedKey};
pub use root::RootError;
pub use service::CertificateService;
pub(crate) use service::{authorization, pem, refusal};
pub use token::{Claimed, TokenError, TokenVerifier};

use crate::config::Span;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tombolo_federation_model::{Identity, TrustDomain};

/// How far a certificate's beginning lies in the past, so that a neighbour whose clock is a little behind takes it.
const BACKDATE: Duration = Duration::from_secs(60);

/// The root with its key, ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_not_after: SystemTime,
    trust_domain: TrustDomain,
    default_life: Duration,
    longest_life: Duration,
}

/// An issued certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate itself.
    pub leaf: CertificateDer<'static>,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// End of its life.
    pub not_after: SystemTime,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The root has less life left than a certificate needs.
    #[error("the root certificate has expired")]
    RootExpired,
    /// The name is of another trust domain.
    #[error("{0} is not of this authority's trust domain")]
    ForeignIdentity(Identity),
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// The system gave no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

impl Authority {
    /// The trust domain of every name that is issued here.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificate.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// End of the root's life.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    /// Issues a certificate for a public key whose owner has proven to hold the private one. `life` of `None` or zero
    /// means the default; it is capped by the configuration and by the root's own end.
    ///
    /// # Errors
    /// When the identity is foreign, the root is at its end, or signing fails.
    pub fn issue(
        &self,
        identity: &Identity,
        key: &impl PublicKeyData,
        life: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        if identity.trust_domain() != &self.trust_domain {
            return Err(IssueError::ForeignIdentity(identity.clone()));
        }
        let life = life.filter(|l| !l.is_zero()).unwrap_or(self.default_life).min(self.longest_life);
        let not_after = (now + life).min(self.root_not_after);
        if not_after <= now {
            return Err(IssueError::RootExpired);
        }
        let serial = random_serial()?;
        let uri = identity.to_string().try_into()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(now - BACKDATE);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(not_after);
        let leaf = params.signed_by(key, &self.issuer)?;
        Ok(Issued { leaf: leaf.der().clone(), serial: hex(&serial), not_after })
    }

    /// Sets how long certificates live.
    #[must_use]
    pub fn with_lives(mut self, default: Span, longest: Span) -> Self {
        self.default_life = default.get();
        self.longest_life = longest.get();
        self
    }
}

/// 16 random bytes whose first bit is clear (a serial number is positive) and whose first byte is not zero (its
/// encoding is then unique).
fn random_serial() -> Result<[u8; 16], IssueError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(IssueError::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The certificate writer's dates are made from a day and a duration, because their type is not exported.
fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970 of a time, for status.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> i64 {
    i64::try_from(since_1970(time).as_secs()).unwrap_or(i64::MAX)
}
