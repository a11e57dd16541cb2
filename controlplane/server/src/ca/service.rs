//! The certificate signing service that proxies call, with Istio's messages.

use super::{Authority, RequestedKey, TokenError, TokenVerifier};
use crate::metrics::Metrics;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tombolo_controlplane_api::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use tonic::{Request, Response, Status};

/// Largest request in bytes; a signing request is far smaller.
const LARGEST_REQUEST: usize = 64 * 1024;

/// Answers signing requests.
pub struct CertificateService {
    authority: Arc<Authority>,
    tokens: Option<Arc<TokenVerifier>>,
    metrics: Arc<Metrics>,
}

impl CertificateService {
    /// The service, ready to be added to a server. Without a verifier every call is refused.
    #[must_use]
    pub fn server(
        authority: Arc<Authority>,
        tokens: Option<Arc<TokenVerifier>>,
        metrics: Arc<Metrics>,
    ) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(Self { authority, tokens, metrics })
            .max_decoding_message_size(LARGEST_REQUEST)
    }

    fn sign(&self, request: &Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Status> {
        let tokens = self.tokens.as_ref().ok_or_else(|| Status::unauthenticated("this site issues no certificates"))?;
        let claimed = tokens.bearer(authorization(request.metadata())).map_err(|e| refusal(&e))?;
        let body = request.get_ref();
        let impersonates = |name: &str| body.metadata.as_ref().is_some_and(|m| m.fields.contains_key(name));
        if impersonates("ImpersonatedIdentity") {
            return Err(Status::permission_denied("nobody may ask for certificates of others here"));
        }
        let key = RequestedKey::from_pem(&body.csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let life = u64::try_from(body.validity_duration).ok().map(Duration::from_secs);
        let issued = self
            .authority
            .issue(&claimed.identity, key.key(), life, SystemTime::now())
            .map_err(|e| Status::internal(e.to_string()))?;
        tracing::info!(identity = %claimed.identity, serial = %issued.serial, "issued a certificate");
        Ok(IstioCertificateResponse { cert_chain: vec![pem(&issued.leaf), pem(self.authority.root())] })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let outcome = self.sign(&request);
        self.metrics.certificate_request(outcome.is_ok());
        if let Err(status) = &outcome {
            tracing::warn!(from = ?request.remote_addr(), reason = status.message(), "refused a certificate request");
        }
        outcome.map(Response::new)
    }
}

/// The `authorization` value of a call.
pub(crate) fn authorization(metadata: &tonic::metadata::MetadataMap) -> Option<&str> {
    metadata.get("authorization").and_then(|value| value.to_str().ok())
}

/// A missing key set is our trouble and worth a retry; anything else is the caller's.
pub(crate) fn refusal(error: &TokenError) -> Status {
    match error {
        TokenError::Keys(_) => Status::unavailable(error.to_string()),
        TokenError::Missing
        | TokenError::Malformed
        | TokenError::Signature
        | TokenError::Expired
        | TokenError::Audience
        | TokenError::Issuer
        | TokenError::Subject(_) => Status::unauthenticated(error.to_string()),
    }
}

/// A certificate as PEM text.
pub(crate) fn pem(certificate: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body = STANDARD.encode(certificate);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
