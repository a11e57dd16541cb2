//! A client made of quinn and h3.

use bytes::{Buf as _, Bytes, BytesMut};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request, Response};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use std::{net::SocketAddr, sync::Arc};
use tombolo_tests_protocols::certificates::Leaf;

/// A connection.
pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: quinn::Connection,
    pub(crate) sender: SendRequest<OpenStreams, Bytes>,
    /// Ends with the connection and says how.
    pub(crate) driver: tokio::task::JoinHandle<h3::error::ConnectionError>,
}

/// A response with all that it consists of.
pub(crate) struct Got {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Settings that believe a root and show a certificate, if any.
pub(crate) fn settings(root: &str, own: Option<&Leaf>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match own {
        Some(leaf) => {
            let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h3".to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

impl Client {
    pub(crate) async fn open(at: SocketAddr, settings: ClientConfig) -> Result<Self, String> {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(settings, at, "localhost").unwrap();
        let connection = connecting.await.map_err(|e| e.to_string())?;
        let (mut driver, sender) =
            h3::client::new(h3_quinn::Connection::new(connection.clone())).await.map_err(|e| e.to_string())?;
        let driver = tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { endpoint, connection, sender, driver })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Got, String> {
        self.ask(Request::get(format!("https://localhost{path}")).body(()).unwrap(), Bytes::new(), None).await
    }

    pub(crate) async fn ask(
        &mut self,
        request: Request<()>,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<Got, String> {
        let stream = self.sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (mut send, mut receive) = stream.split();
        let sending = tokio::spawn(async move {
            if !body.is_empty() {
                send.send_data(body).await?;
            }
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).await?;
            }
            send.finish().await
        });
        let head = receive.recv_response().await.map_err(|e| e.to_string())?;
        let mut got = BytesMut::new();
        while let Some(mut data) = receive.recv_data().await.map_err(|e| e.to_string())? {
            got.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        let trailers = receive.recv_trailers().await.map_err(|e| e.to_string())?;
        sending.await.unwrap().map_err(|e| e.to_string())?;
        Ok(Got { head, body: got.freeze(), trailers })
    }
}
