//! Is this certificate chain an identity of the mesh? One answer for everybody: the leaf must have exactly one URI name, a
//! SPIFFE id, and a key that may sign but issues nothing; the chain must end in the roots of *that* id's trust domain and
//! of no other; no issuer on the way may be constrained to other names (SPIFFE X509-SVID, sections 2 to 5). DNS names and
//! addresses are ignored.
//!
//! Pure: the moment is an argument. Never authorizes: knowing who it is does not mean that it may. Used by the exchange between
//! control planes and by gateways.

mod chain;
#[cfg(test)]
mod tests;

pub use chain::{Check, End, NotTrusted, verify, verify_to};

use rustls::pki_types::CertificateDer;
use tombolo_federation_model::{Identity, TrustDomain};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree, NameConstraints, ParsedExtension},
    prelude::FromDer,
};

/// The identity that a leaf certificate claims. It is worth nothing before the chain is verified.
///
/// # Errors
/// When the certificate is not a leaf with exactly one SPIFFE id.
pub fn claimed_identity(leaf: &CertificateDer<'_>) -> Result<Identity, NotTrusted> {
    let (rest, certificate) =
        X509Certificate::from_der(leaf).map_err(|error| NotTrusted::Unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(NotTrusted::Unreadable("something follows it".to_owned()));
    }
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => return Err(NotTrusted::Issuer),
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err(NotTrusted::Issuer);
            }
            ParsedExtension::KeyUsage(usage) if !usage.digital_signature() => return Err(NotTrusted::KeyUsage),
            ParsedExtension::ParseError { error } => return Err(NotTrusted::Unreadable(error.to_string())),
            _ => {}
        }
    }
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|error| NotTrusted::Unreadable(error.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(NotTrusted::UriNames(uris.len())) };
    Identity::parse(uri).map_err(|error| NotTrusted::NotAnIdentity(error.to_string()))
}

/// Whether an issuer's URI name constraints allow the trust domain. The library does not judge them.
#[must_use]
pub fn may_vouch_for(issuer: &CertificateDer<'_>, domain: &TrustDomain) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(issuer) else { return false };
    match certificate.name_constraints() {
        Ok(None) => true,
        Ok(Some(constraints)) => constraints_allow(constraints.value, domain.as_str()),
        Err(_) => false,
    }
}

fn constraints_allow(constraints: &NameConstraints<'_>, host: &str) -> bool {
    let uris = |trees: &Option<Vec<GeneralSubtree<'_>>>| -> Vec<String> {
        let bases = trees.iter().flatten().map(|tree| &tree.base);
        bases.filter_map(|base| if let GeneralName::URI(uri) = base { Some((*uri).to_owned()) } else { None }).collect()
    };
    let (permitted, excluded) = (uris(&constraints.permitted_subtrees), uris(&constraints.excluded_subtrees));
    let within = |base: &String| base == host || (base.starts_with('.') && host.ends_with(base.as_str()));
    !excluded.iter().any(within) && (permitted.is_empty() || permitted.iter().any(within))
}
