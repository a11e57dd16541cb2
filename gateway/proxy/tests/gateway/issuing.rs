//! A control plane with TLS and a certificate authority beside it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tombolo_controlplane_api::ca::{
    IstioCertificateRequest, IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use tombolo_tests_kit::{
    ads::{Ads, Settings},
    free,
};
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{Identity, Server, ServerTlsConfig},
};

/// Signs what holders of the right token send.
pub struct Issuing {
    pub authority: Arc<crate::tls::Authority>,
    pub identity: &'static str,
    pub token: &'static str,
    pub life: Duration,
    pub issued: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl IstioCertificateService for Issuing {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let shown = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        if shown != format!("Bearer {}", self.token) {
            return Err(Status::unauthenticated("no such token"));
        }
        let leaf = self.authority.sign(&request.into_inner().csr, self.identity, self.life);
        self.issued.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.authority.root.clone()] }))
    }
}

impl Issuing {
    /// The control plane that has it.
    pub async fn start(self, identity: Identity) -> Ads {
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        let beside = Routes::new(IstioCertificateServiceServer::new(self));
        Ads::start_at(free(), Settings { server, beside, ..Settings::default() }).await
    }
}
