//! Reaching the control plane: one way to connect for the xDS stream and for certificates.
//!
//! Owns the trust in the control plane and the token that is shown to it. Never used for traffic.

use crate::{
    net::{
        socket,
        stream::{Replay, Stream},
    },
    tls::{
        provider,
        verify::{HostCheck, Verifier},
    },
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio_rustls::TlsConnector;
use tombolo_gateway_core::config::{SanKind, SanMatcher, StringMatch, StringMatcher, Validation};
use tonic::{
    Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach and believe a control plane.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// HOST:PORT.
    pub(crate) address: String,
    /// PEM file with roots; present: TLS.
    pub(crate) roots: Option<PathBuf>,
    /// SPIFFE id that it must present; its host name otherwise.
    pub(crate) identity: Option<String>,
    /// File with the token that is shown.
    pub(crate) token: Option<PathBuf>,
}

/// Why the control plane cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// The roots are no roots.
    #[error("roots of the control plane: {0}")]
    Roots(String),
    /// The address is none.
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    /// The token is not one line of ASCII.
    #[error("the token cannot be sent")]
    Token,
    /// It cannot be reached or does not convince.
    #[error("{0}")]
    Connect(String),
    /// It refused.
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Remote {
    /// Opens a connection. Roots are read anew each time, so that they can be rotated on disk.
    pub(crate) async fn connect(&self) -> Result<Channel, RemoteError> {
        let tls = match &self.roots {
            Some(path) => {
                let pem = tokio::fs::read(path).await.map_err(|e| RemoteError::File(path.display().to_string(), e))?;
                Some(self.tls(&pem)?)
            }
            None => None,
        };
        let address: Arc<str> = Arc::from(self.address.as_str());
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| RemoteError::Address(self.address.clone()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let connector = tower::service_fn(move |_: Uri| {
            let (address, tls) = (address.clone(), tls.clone());
            async move { open(&address, tls).await.map(TokioIo::new) }
        });
        endpoint.connect_with_connector(connector).await.map_err(|e| RemoteError::Connect(reasons(&e)))
    }

    fn tls(&self, pem: &[u8]) -> Result<TlsConnector, RemoteError> {
        let sans: Box<[SanMatcher]> = match &self.identity {
            Some(id) => {
                let matcher = StringMatcher { kind: StringMatch::Exact(id.as_str().into()), ignore_case: false };
                Box::new([SanMatcher { kind: SanKind::Uri, matcher }])
            }
            None => Box::default(),
        };
        let validation = Validation { roots: Some(pem.to_vec().into()), san_matchers: sans, ..Validation::default() };
        let check = if self.identity.is_none() { HostCheck::Always } else { HostCheck::No };
        let verifier = Verifier::new(&validation).map_err(RemoteError::Roots)?.check_host(check);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| RemoteError::Roots(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// The `authorization` value; the file is read anew each time because tokens are short-lived.
    pub(crate) async fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, RemoteError> {
        let Some(path) = &self.token else { return Ok(None) };
        let text =
            tokio::fs::read_to_string(path).await.map_err(|e| RemoteError::File(path.display().to_string(), e))?;
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", text.trim()).parse().map_err(|_| RemoteError::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

async fn open(address: &str, tls: Option<TlsConnector>) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for to in tokio::net::lookup_host(address).await? {
        match socket::connect(to, None, None).await {
            Ok(tcp) => {
                let Some(connector) = tls else { return Ok(Stream::Tcp(Replay::new(tcp))) };
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let stream = connector
                    .connect(name, Replay::new(tcp))
                    .await
                    .map_err(|e| io::Error::other(crate::tls::explain(&e)))?;
                return Ok(Stream::TlsClient(Box::new(stream)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An error with all that caused it, since the outermost one says little.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), crate::tls::explain);
        // Layers that only repeat what is inside are left out.
        if !out.ends_with(&words) {
            out = format!("{out}: {words}");
        }
        next = cause.source();
    }
    out
}

/// Waits longer after each failure, and never in step with other proxies.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The wait before the next try: uniformly random up to the current bound, but not zero.
    pub(crate) fn wait(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.longest);
        bound.mul_f64(0.1 + 0.9 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        for n in 0..20 {
            let wait = backoff.wait();
            let bound = Duration::from_millis(200).saturating_mul(1 << n.min(10)).min(Duration::from_secs(5));
            assert!(wait > Duration::ZERO && wait <= bound, "{wait:?} after {n}");
        }
    }
}
