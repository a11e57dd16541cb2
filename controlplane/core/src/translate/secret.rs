//! Secrets that the control plane serves: trust bundles, and the certificates of gateways.

use super::{Resources, encode, pb, wire::tls};
use crate::{
    bind::{View, complain, may_hold},
    intent::{ClientTlsMode, Gateway, Meta, NamedRef, ServerTlsMode, TlsSecret},
    stage::Reader,
};
use base64::Engine;
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};
use tombolo_controlplane_api::node;
use tombolo_federation_model::Severity;
use tombolo_federation_sync::Resource;

/// All trust bundles as one validation context: each certificate is checked against the roots of its own trust domain only.
#[must_use]
pub fn roots(reader: &Reader<'_>) -> Option<Arc<Resource>> {
    let bundles = reader.bundles()?;
    let domains: Vec<_> = bundles
        .iter()
        .filter(|(_, roots)| !roots.is_empty())
        .map(|(domain, roots)| tls::spiffe_cert_validator_config::TrustDomain {
            name: domain.to_string(),
            trust_bundle: Some(pb::inline(roots.iter().map(|der| pem(der)).collect::<String>().as_bytes())),
            ..Default::default()
        })
        .collect();
    if domains.is_empty() {
        // A validator that trusts nobody is refused by Envoy; without the secret its listeners wait, which is what is meant.
        return None;
    }
    let validator = tls::SpiffeCertValidatorConfig { trust_domains: domains, ..Default::default() };
    let context = tls::CertificateValidationContext {
        custom_validator_config: Some(pb::extension("envoy.tls.cert_validator.spiffe", &validator)),
        ..Default::default()
    };
    Some(secret(node::SECRET_ROOTS, tls::secret::Type::ValidationContext(context)))
}

fn secret(name: &str, content: tls::secret::Type) -> Arc<Resource> {
    let secret = tls::Secret { name: name.to_owned(), r#type: Some(content) };
    encode::resource(name, secret.encode_to_vec())
}

/// What a gateway's certificate is called on the wire, in Istio's words.
pub(super) fn secret_name(view: View<'_, '_>, credential: &NamedRef) -> String {
    if credential.namespace == view.audience.namespace {
        format!("kubernetes://{}", credential.name)
    } else {
        format!("kubernetes-gateway://{}/{}", credential.namespace, credential.name)
    }
}

/// What the roots that go with it are called.
pub(super) fn roots_name(view: View<'_, '_>, credential: &NamedRef) -> String {
    format!("{}-cacert", secret_name(view, credential))
}

/// The certificate that a gateway may use: one of its own namespace, or one that a grant lets it have; and only with its key.
pub(super) fn usable<'w>(
    view: View<'_, 'w>,
    gateway: Option<&Meta>,
    credential: &NamedRef,
) -> Option<&'w Arc<TlsSecret>> {
    let found = may_hold(view, gateway, credential).then(|| view.reader.secret(credential)).flatten();
    found.filter(|s| s.certificate.is_some() && s.key.is_some())
}

/// The roots for client certificates: of the secret itself, or of the one named after it.
pub(super) fn usable_roots<'w>(view: View<'_, 'w>, gateway: Option<&Meta>, credential: &NamedRef) -> Option<&'w [u8]> {
    let beside = NamedRef { namespace: credential.namespace.clone(), name: format!("{}-cacert", credential.name) };
    let of = |name: &NamedRef| {
        may_hold(view, gateway, name).then(|| view.reader.secret(name)).flatten().and_then(|s| s.roots.as_deref())
    };
    of(credential).or_else(|| of(&beside))
}

/// The secrets of a class of gateways: those that its servers and destinations name.
#[must_use]
pub fn gateway_secrets(view: View<'_, '_>) -> Resources {
    let mut out = Resources::default();
    let mut secrets: BTreeMap<String, Arc<Resource>> = BTreeMap::new();
    for (gateway, credential) in named_credentials(view, &mut out) {
        let gateway = gateway.as_ref().map(|gateway| &gateway.meta);
        if let Some(found) = usable(view, gateway, &credential) {
            let certificate = tls::TlsCertificate {
                certificate_chain: found.certificate.as_deref().map(pb::inline),
                private_key: found.key.as_deref().map(pb::inline),
                ..Default::default()
            };
            let name = secret_name(view, &credential);
            secrets.insert(name.clone(), secret(&name, tls::secret::Type::TlsCertificate(certificate)));
        }
        if let Some(pem) = usable_roots(view, gateway, &credential) {
            let context = tls::CertificateValidationContext { trusted_ca: Some(pb::inline(pem)), ..Default::default() };
            let name = roots_name(view, &credential);
            secrets.insert(name.clone(), secret(&name, tls::secret::Type::ValidationContext(context)));
        }
    }
    out.value = secrets.into_values().collect();
    out
}

fn named_credentials(view: View<'_, '_>, out: &mut Resources) -> Vec<(Option<Arc<Gateway>>, NamedRef)> {
    let mut found = Vec::new();
    let Some(plan) = view.reader.plan(view.id) else { return found };
    for listener in &plan.listeners {
        let crate::bind::ListenerKind::Tls(chains) = &listener.kind else { continue };
        for chain in chains {
            let server = chain.server.server();
            let Some(settings) = server.tls.as_ref().filter(|s| !matches!(s.mode, ServerTlsMode::Mesh)) else {
                continue;
            };
            for credential in settings.credentials.iter().map(|named| named.at(&view.audience.namespace)) {
                let gateway = &chain.server.gateway;
                if !may_hold(view, Some(&gateway.meta), &credential) {
                    let text = format!(
                        "secret {}/{} is in another namespace than the gateway ({}) or its workload ({}), and no \
                         ReferenceGrant there permits both to have it; it is not given away",
                        credential.namespace, credential.name, gateway.meta.namespace, view.audience.namespace
                    );
                    let field = format!("{}.tls.credentialName", server.field);
                    out.complaints.push(complain(
                        Severity::Error,
                        "SECRET_NOT_ALLOWED",
                        &chain.server.gateway.meta.object,
                        field,
                        text,
                    ));
                }
                found.push((Some(gateway.clone()), credential));
            }
        }
    }
    found.extend(client_credentials(view).into_iter().map(|credential| (None, credential)));
    found
}

/// Certificates that destinations name for TLS to services; gateways alone are given them.
fn client_credentials(view: View<'_, '_>) -> Vec<NamedRef> {
    let Some(scope) = view.reader.scope(view.id) else { return Vec::new() };
    let mut found = Vec::new();
    for key in scope.services.values() {
        let Some(service) = view.reader.service(key) else { continue };
        let effective = crate::bind::destination(view, service);
        let policies = std::iter::once(&effective.policy).chain(effective.subsets.iter().map(|s| &s.policy));
        let tls = policies.flat_map(|p| std::iter::once(p).chain(p.ports.values())).filter_map(|p| p.tls.as_ref());
        let names = tls
            .filter(|t| matches!(t.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))
            .filter_map(|t| t.credential.clone());
        found.extend(names.map(|name| NamedRef { namespace: view.audience.namespace.clone(), name }));
    }
    found
}

/// RFC 7468, section 2: lines of 64 characters between a pair of labels.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_64_characters() {
        let text = super::pem(&[7; 60]);
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [27, 64, 16, 25]);
    }
}
