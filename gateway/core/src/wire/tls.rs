//! TLS contexts and secrets.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, data, distinct, opt_duration, refuse, texts, type_name, unpack},
    matcher,
};
use crate::config::{
    Bundle, Certificate, DownstreamTls, FetchTimeout, PrivateKey, SanKind, SanMatcher, Secret, SecretRef, SecretSource,
    TlsCommon, TlsVersion, UpstreamTls, Validation, ValidationSource,
};
use bytes::Bytes;
use prost::Name as _;
use std::sync::Arc;
use tombolo_controlplane_api::{
    node::SDS_UPSTREAM,
    xds::envoy::{
        config::core::v3::{
            ConfigSource, DataSource, config_source::ConfigSourceSpecifier as S, data_source::Specifier,
            grpc_service::TargetSpecifier,
        },
        extensions::transport_sockets::tls::v3::{
            self as pb, common_tls_context::ValidationContextType as V, downstream_tls_context::SessionTicketKeysType,
            secret::Type, subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol,
        },
    },
};
use tombolo_federation_model::TrustDomain;

pub(super) fn downstream(message: pb::DownstreamTlsContext) -> Decoded<DownstreamTls> {
    let pb::DownstreamTlsContext {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = message;
    opt_duration(session_timeout.as_ref(), "session_timeout")?;
    // Which certificate is taken when the SNI fits none is the library's choice, as are the order of ciphers and how long a ticket
    // is good for; nothing of a session is kept here.
    let _ = (full_scan_certs_on_sni_mismatch, prefer_client_ciphers, disable_stateful_session_resumption);
    let _ = session_timeout;
    refuse!(ocsp_staple_policy);
    let disable_tickets = match session_ticket_keys_type {
        None => false,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => disabled,
        Some(SessionTicketKeysType::SessionTicketKeys(_)) => return Err(Refusal::unsupported("session_ticket_keys")),
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
            return Err(Refusal::unsupported("session_ticket_keys_sds_secret_config"));
        }
    };
    let common = common(common_tls_context.unwrap_or_default()).at("common_tls_context")?;
    if common.certificates.is_empty() {
        return Err(Refusal::new("common_tls_context", "a server needs a certificate"));
    }
    let require_client_certificate = bool_or(require_client_certificate, false);
    Ok(DownstreamTls { common, require_client_certificate, require_sni: bool_or(require_sni, false), disable_tickets })
}

pub(super) fn upstream(message: pb::UpstreamTlsContext) -> Decoded<UpstreamTls> {
    let pb::UpstreamTlsContext {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = message;
    // rustls never renegotiates and always looks at key usage.
    let _ = (allow_renegotiation, enforce_rsa_key_usage);
    if sni.len() > 255 {
        return Err(Refusal::new("sni", "longer than 255 bytes"));
    }
    Ok(UpstreamTls {
        common: common(common_tls_context.unwrap_or_default()).at("common_tls_context")?,
        sni: sni.into(),
        auto_host_sni,
        auto_sni_san_validation,
        max_session_keys: super::any::u32_or(max_session_keys, 1),
    })
}

fn common(message: pb::CommonTlsContext) -> Decoded<TlsCommon> {
    let pb::CommonTlsContext {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = message;
    refuse!(tls_certificate_provider_instance, custom_tls_certificate_selector, tls_certificate_certificate_provider);
    refuse!(tls_certificate_certificate_provider_instance, custom_handshaker, key_log);
    let fetch_timeout = longest_fetch(&tls_certificate_sds_secret_configs, validation_context_type.as_ref())?;
    let mut certificates = Vec::new();
    for (at, inline) in tls_certificates.into_iter().enumerate() {
        certificates.push(inline_certificate(inline).nth("tls_certificates", at)?);
    }
    for (at, named) in tls_certificate_sds_secret_configs.into_iter().enumerate() {
        let (source, name) = secret_ref(named).nth("tls_certificate_sds_secret_configs", at)?;
        certificates.push(SecretRef::Named(source, name));
    }
    let (min_version, max_version, ciphers, groups) = parameters(tls_params.unwrap_or_default()).at("tls_params")?;
    Ok(TlsCommon {
        certificates: certificates.into(),
        validation: validation_context_type.map(validation_source).transpose()?,
        alpn: texts(&alpn_protocols),
        min_version,
        max_version,
        ciphers,
        groups,
        fetch_timeout,
    })
}

type Parameters = (Option<TlsVersion>, Option<TlsVersion>, Box<[Arc<str>]>, Box<[Arc<str>]>);

fn parameters(message: pb::TlsParameters) -> Decoded<Parameters> {
    let (lowest, highest) = (message.tls_minimum_protocol_version(), message.tls_maximum_protocol_version());
    let pb::TlsParameters {
        tls_minimum_protocol_version: _,
        tls_maximum_protocol_version: _,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = message;
    refuse!(signature_algorithms, compliance_policies);
    let min = match lowest {
        TlsProtocol::TlsAuto => None,
        // Lower than 1.2 is not spoken: a wish to allow it too is fulfilled as far as it is safe.
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 | TlsProtocol::TlSv12 => Some(TlsVersion::V12),
        TlsProtocol::TlSv13 => Some(TlsVersion::V13),
    };
    let max = match highest {
        TlsProtocol::TlsAuto => None,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            return Err(Refusal::new("tls_maximum_protocol_version", "lower than 1.2"));
        }
        TlsProtocol::TlSv12 => Some(TlsVersion::V12),
        TlsProtocol::TlSv13 => Some(TlsVersion::V13),
    };
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Refusal::new("tls_maximum_protocol_version", "lower than the minimum"));
    }
    for (field, names) in [("cipher_suites", &cipher_suites), ("ecdh_curves", &ecdh_curves)] {
        for (at, name) in names.iter().enumerate() {
            named(name).nth(field, at)?;
        }
    }
    distinct(&ecdh_curves, "ecdh_curves")?;
    Ok((min, max, texts(&cipher_suites), texts(&ecdh_curves)))
}

/// A name, or several with the signs by which OpenSSL puts them together. Names that nobody knows are left out where they are used.
fn named(text: &str) -> Result<(), String> {
    match text.chars().find(|c| !c.is_ascii_graphic() && *c != ' ') {
        Some(other) => Err(format!("{other:?} is in no name")),
        None => Ok(()),
    }
}

/// How long the secrets of one context may take: as long as the most patient reference says.
fn longest_fetch(certificates: &[pb::SdsSecretConfig], validation: Option<&V>) -> Decoded<FetchTimeout> {
    let of_validation = match validation {
        Some(V::ValidationContextSdsSecretConfig(named)) => Some(named),
        Some(V::CombinedValidationContext(combined)) => combined.validation_context_sds_secret_config.as_ref(),
        _ => None,
    };
    let sources = certificates.iter().chain(of_validation).filter_map(|named| named.sds_config.as_ref());
    let mut longest: Option<FetchTimeout> = None;
    for source in sources {
        let told = super::any::fetch_timeout(source).at("sds_config")?;
        longest = Some(longest.map_or(told, |longest| longest.or_longer(told)));
    }
    Ok(longest.unwrap_or_default())
}

/// Who supplies a named secret, and its name.
fn secret_ref(message: pb::SdsSecretConfig) -> Decoded<(SecretSource, Arc<str>)> {
    let pb::SdsSecretConfig { name, sds_config } = message;
    let source = sds_config.ok_or_else(|| Refusal::new("sds_config", "missing: static secrets are not supported"))?;
    Ok((secret_source(source).at("sds_config")?, name.into()))
}

fn secret_source(source: ConfigSource) -> Decoded<SecretSource> {
    match source.config_source_specifier {
        Some(S::Ads(_) | S::Self_(_)) => Ok(SecretSource::Ads),
        Some(S::ApiConfigSource(api)) => {
            let target = api.grpc_services.first().and_then(|service| service.target_specifier.as_ref());
            match target {
                Some(TargetSpecifier::EnvoyGrpc(grpc)) if grpc.cluster_name == SDS_UPSTREAM => Ok(SecretSource::Own),
                _ => Err(Refusal::new("api_config_source", format!("only the cluster {SDS_UPSTREAM:?} is supported"))),
            }
        }
        Some(S::Path(_) | S::PathConfigSource(_)) => Err(Refusal::unsupported("path_config_source")),
        None => Err(Refusal::new("config_source_specifier", "missing")),
    }
}

fn validation_source(message: V) -> Decoded<ValidationSource> {
    Ok(match message {
        V::ValidationContext(context) => {
            ValidationSource::Inline(Arc::new(whole_validation(context).at("validation_context")?))
        }
        V::ValidationContextSdsSecretConfig(named) => {
            let (source, name) = secret_ref(named).at("validation_context_sds_secret_config")?;
            ValidationSource::Named(source, name)
        }
        V::CombinedValidationContext(combined) => combined_source(combined).at("combined_validation_context")?,
        V::ValidationContextCertificateProvider(_) => {
            return Err(Refusal::unsupported("validation_context_certificate_provider"));
        }
        V::ValidationContextCertificateProviderInstance(_) => {
            return Err(Refusal::unsupported("validation_context_certificate_provider_instance"));
        }
    })
}

fn combined_source(message: pb::common_tls_context::CombinedCertificateValidationContext) -> Decoded<ValidationSource> {
    let pb::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = message;
    refuse!(validation_context_certificate_provider, validation_context_certificate_provider_instance);
    let inline = validation(default_validation_context.unwrap_or_default()).at("default_validation_context")?;
    let named = validation_context_sds_secret_config
        .ok_or_else(|| Refusal::new("validation_context_sds_secret_config", "missing"))?;
    let (source, name) = secret_ref(named).at("validation_context_sds_secret_config")?;
    Ok(ValidationSource::Combined(Arc::new(inline), source, name))
}

fn opt_data(source: Option<&DataSource>, field: &str) -> Decoded<Option<Bytes>> {
    source.map(|source| data(source).map(Bytes::from)).transpose().at(field)
}

/// Where distributions keep the roots of the operating system. A control plane that names one of these files means "the system's
/// roots", whatever the file is called here.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn is_system_bundle(source: &DataSource) -> bool {
    matches!(&source.specifier, Some(Specifier::Filename(path)) if SYSTEM_BUNDLES.contains(&path.as_str()))
}

/// The absolute path of a file that is not watched; relative ones would depend on where the proxy was started.
fn named_file(source: &DataSource) -> Option<Arc<str>> {
    match &source.specifier {
        Some(Specifier::Filename(path)) if path.starts_with('/') && source.watched_directory.is_none() => {
            Some(Arc::from(path.as_str()))
        }
        _ => None,
    }
}

/// A validation that nothing is added to. Anybody can make a certificate with any name, so names without roots are refused,
/// as by Envoy; without this they would verify nobody, which is safe but says nothing.
fn whole_validation(message: pb::CertificateValidationContext) -> Decoded<Validation> {
    let validation = validation(message)?;
    let rootless = validation.roots.is_none() && validation.roots_file.is_none() && !validation.system_roots;
    if !validation.san_matchers.is_empty() && rootless && validation.bundles.is_empty() {
        return Err(Refusal::new("match_typed_subject_alt_names", "names mean nothing without trusted_ca"));
    }
    Ok(validation)
}

fn validation(message: pb::CertificateValidationContext) -> Decoded<Validation> {
    let accept_untrusted = message.trust_chain_verification()
        == pb::certificate_validation_context::TrustChainVerification::AcceptUntrusted;
    let pb::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification: _,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = message;
    refuse!(
        ca_certificate_provider_instance,
        watched_directory,
        require_signed_certificate_timestamp,
        max_verify_depth
    );
    // A hint to clients, which we never give.
    let _ = suppress_client_ca_list;
    let bundles =
        custom_validator_config.map(|config| bundles(config.typed_config)).transpose().at("custom_validator_config")?;
    let mut san_matchers = Vec::new();
    for (at, typed) in match_typed_subject_alt_names.into_iter().enumerate() {
        san_matchers.push(san(typed).nth("match_typed_subject_alt_names", at)?);
    }
    for (at, untyped) in match_subject_alt_names.into_iter().enumerate() {
        let matcher = matcher::string(untyped).nth("match_subject_alt_names", at)?;
        san_matchers.push(SanMatcher { kind: SanKind::Any, matcher });
    }
    let inline = match trusted_ca.as_ref().and_then(|ca| ca.specifier.as_ref()) {
        Some(Specifier::InlineString(text)) => Some(text.as_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Some(&bytes[..]),
        _ => None,
    };
    if inline.is_some_and(|text| !text.windows(11).any(|w| w == b"-----BEGIN ")) {
        return Err(Refusal::new("trusted_ca", "no certificate"));
    }
    let system_bundle = trusted_ca.as_ref().is_some_and(is_system_bundle);
    let roots_file = trusted_ca.as_ref().filter(|_| !system_bundle).and_then(named_file);
    let inline_roots = trusted_ca.filter(|_| !system_bundle && roots_file.is_none());
    let hash = |text: &String| Arc::from(text.replace(':', "").to_ascii_lowercase());
    Ok(Validation {
        roots: opt_data(inline_roots.as_ref(), "trusted_ca")?,
        roots_file,
        system_roots: system_root_certs.is_some() || system_bundle,
        bundles: bundles.unwrap_or_default().into(),
        san_matchers: san_matchers.into(),
        spki_hashes: texts(&verify_certificate_spki),
        certificate_hashes: verify_certificate_hash.iter().map(hash).collect(),
        crl: opt_data(crl.as_ref(), "crl")?,
        crl_leaf_only: only_verify_leaf_cert_crl,
        allow_expired: allow_expired_certificate,
        accept_untrusted,
    })
}

fn bundles(config: Option<tombolo_controlplane_api::xds::google::protobuf::Any>) -> Decoded<Vec<Bundle>> {
    let config = config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
    if type_name(&config) != pb::SpiffeCertValidatorConfig::full_name() {
        return Err(Refusal::unsupported(type_name(&config)));
    }
    let pb::SpiffeCertValidatorConfig { trust_domains, trust_bundles } = unpack(&config)?;
    refuse!(trust_bundles);
    if trust_domains.is_empty() {
        return Err(Refusal::new("trust_domains", "empty"));
    }
    let mut all: Vec<Bundle> = Vec::with_capacity(trust_domains.len());
    for (at, domain) in trust_domains.into_iter().enumerate() {
        let bundle = bundle(domain).nth("trust_domains", at)?;
        if all.iter().any(|other| other.trust_domain == bundle.trust_domain) {
            return Err(Refusal::new(format!("trust_domains[{at}]"), "is there twice"));
        }
        all.push(bundle);
    }
    Ok(all)
}

fn bundle(message: pb::spiffe_cert_validator_config::TrustDomain) -> Decoded<Bundle> {
    let pb::spiffe_cert_validator_config::TrustDomain { name, trust_bundle, workload_trust_domain } = message;
    refuse!(workload_trust_domain);
    let trust_domain = TrustDomain::parse(&name).map_err(|error| Refusal::new("name", error.to_string()))?;
    let roots =
        opt_data(trust_bundle.as_ref(), "trust_bundle")?.ok_or_else(|| Refusal::new("trust_bundle", "missing"))?;
    Ok(Bundle { trust_domain, roots })
}

fn san(message: pb::SubjectAltNameMatcher) -> Decoded<SanMatcher> {
    let kind = match message.san_type() {
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::Email => SanKind::Email,
        SanType::IpAddress => SanKind::Ip,
        SanType::OtherName => return Err(Refusal::unsupported("san_type OTHER_NAME")),
        SanType::Unspecified => return Err(Refusal::new("san_type", "missing")),
    };
    let wanted = message.matcher.ok_or_else(|| Refusal::new("matcher", "missing"))?;
    Ok(SanMatcher { kind, matcher: matcher::string(wanted).at("matcher")? })
}

/// A certificate where it is used: written out, or in two files. Files are not opened here: one that is missing must not
/// cost the listener its neighbours.
fn inline_certificate(message: pb::TlsCertificate) -> Decoded<SecretRef> {
    let files = |source: &Option<DataSource>| source.as_ref().and_then(named_file);
    if let (Some(chain), Some(key)) = (files(&message.certificate_chain), files(&message.private_key)) {
        let rest = pb::TlsCertificate { certificate_chain: None, private_key: None, ..message };
        if rest != pb::TlsCertificate::default() {
            return Err(Refusal::unsupported("more than certificate_chain and private_key in files"));
        }
        return Ok(SecretRef::Files { chain, key });
    }
    Ok(SecretRef::Inline(Arc::new(Secret::Certificate(certificate(message)?))))
}

fn certificate(message: pb::TlsCertificate) -> Decoded<Certificate> {
    let pb::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = message;
    refuse!(pkcs12, watched_directory, private_key_provider, password, signed_certificate_timestamp, tls_params);
    let chain = opt_data(certificate_chain.as_ref(), "certificate_chain")?
        .ok_or_else(|| Refusal::new("certificate_chain", "missing"))?;
    if !has_section(&chain, "CERTIFICATE-----") {
        return Err(Refusal::new("certificate_chain", "no PEM of a certificate"));
    }
    let key = private_key.as_ref().ok_or_else(|| Refusal::new("private_key", "missing"))?;
    let key = PrivateKey::from_pem(data(key).at("private_key")?);
    if !has_section(key.pem(), "PRIVATE KEY-----") {
        return Err(Refusal::new("private_key", "no PEM of a private key"));
    }
    // Nothing is stapled: clients that want to know ask elsewhere.
    opt_data(ocsp_staple.as_ref(), "ocsp_staple")?;
    let _ = ocsp_staple;
    Ok(Certificate { chain, key })
}

/// Whether there is a section of a kind, as RFC 7468 delimits it. What is in it is judged where it is used.
fn has_section(pem: &[u8], kind: &str) -> bool {
    let Ok(text) = std::str::from_utf8(pem) else { return false };
    let delimits = |line: &str, word: &str| line.trim_end().strip_prefix(word).is_some_and(|rest| rest.ends_with(kind));
    let begins = text.lines().position(|line| delimits(line, "-----BEGIN "));
    begins.is_some_and(|begins| text.lines().skip(begins).any(|line| delimits(line, "-----END ")))
}

/// A secret and its name.
pub(super) fn secret(message: pb::Secret) -> Decoded<(Arc<str>, Secret)> {
    let pb::Secret { name, r#type } = message;
    let secret = match r#type {
        Some(Type::TlsCertificate(inner)) => Secret::Certificate(certificate(inner).at("tls_certificate")?),
        Some(Type::ValidationContext(inner)) => {
            Secret::Validation(Arc::new(whole_validation(inner).at("validation_context")?))
        }
        Some(Type::SessionTicketKeys(_)) => return Err(Refusal::unsupported("session_ticket_keys")),
        Some(Type::GenericSecret(_)) => return Err(Refusal::unsupported("generic_secret")),
        None => return Err(Refusal::new("type", "missing")),
    };
    Ok((name.into(), secret))
}
