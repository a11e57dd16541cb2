//! Envoy's secret discovery service with one secret, `default`: the proxy's own certificate.
//!
//! Owns both variants of the stream. Never serves anything else: trust bundles come from the control plane.

use crate::certs::Own;
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use std::pin::Pin;
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::wrappers::UnixListenerStream;
use tombolo_controlplane_api::{
    node::SECRET_DEFAULT,
    xds::{
        envoy::{
            config::core::v3::{DataSource, data_source::Specifier},
            extensions::transport_sockets::tls::v3::{Secret as Message, TlsCertificate, secret::Type},
            service::{
                discovery::v3::{
                    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
                },
                secret::v3::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer},
            },
        },
        google::protobuf::Any,
    },
};
use tombolo_federation_sync::content_version;
use tombolo_gateway_core::config::Secret;
use tonic::{Request, Response, Status, Streaming, transport::Server};

const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until `stop`.
pub(super) async fn serve(
    listener: UnixListener,
    own: watch::Receiver<Own>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let service = SecretDiscoveryServiceServer::new(Service { own });
    Server::builder().add_service(service).serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop).await
}

struct Service {
    own: watch::Receiver<Own>,
}

/// The certificate as it travels, with a version that changes with its content.
struct Encoded {
    body: Any,
    version: String,
}

fn encode(own: &Own) -> Option<Encoded> {
    let Some(Secret::Certificate(certificate)) = own.secret.as_deref() else { return None };
    let inline = |bytes: &[u8]| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
    };
    let message = Message {
        name: SECRET_DEFAULT.to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&certificate.chain),
            private_key: inline(certificate.key.pem()),
            ..TlsCertificate::default()
        })),
    };
    // The version names the chain only: a key has no business in a hash that is logged.
    let version = content_version(&certificate.chain).to_string();
    Some(Encoded { body: Any { type_url: SECRET_TYPE.to_owned(), value: message.encode_to_vec() }, version })
}

/// What one stream has asked for and been given.
#[derive(Default)]
struct Progress {
    asked: bool,
    sent: Option<String>,
    count: u64,
}

impl Progress {
    /// The certificate, when it was asked for and is news to the reader.
    fn due(&mut self, own: &Own) -> Option<(Encoded, String)> {
        if !self.asked {
            return None;
        }
        let encoded = encode(own)?;
        if self.sent.as_ref() == Some(&encoded.version) {
            return None;
        }
        self.sent = Some(encoded.version.clone());
        self.count += 1;
        let nonce = self.count.to_string();
        Some((encoded, nonce))
    }
}

fn warn_refused(detail: Option<&tombolo_controlplane_api::xds::google::rpc::Status>) {
    if let Some(detail) = detail {
        tracing::warn!(reason = %detail.message, "Envoy refused the certificate");
    }
}

/// Runs one stream: `note` reads a request, `answer` forms a response.
fn answers<Q, A>(
    mut requests: Streaming<Q>,
    mut own: watch::Receiver<Own>,
    note: impl Fn(&Q, &mut Progress) + Send + 'static,
    answer: impl Fn(Encoded, String) -> A + Send + 'static,
) -> Answers<A>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    let (out, results) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut progress = Progress::default();
        loop {
            let newest = own.borrow_and_update().clone();
            if let Some((encoded, nonce)) = progress.due(&newest)
                && out.send(Ok(answer(encoded, nonce))).await.is_err()
            {
                return;
            }
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => note(&request, &mut progress),
                    // Envoy went away or broke the stream; it comes back by itself.
                    Some(Err(_)) | None => return,
                },
                changed = own.changed() => if changed.is_err() { return },
            }
        }
    });
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(results))
}

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let note = |request: &DeltaDiscoveryRequest, progress: &mut Progress| {
            warn_refused(request.error_detail.as_ref());
            progress.asked |= request.resource_names_subscribe.iter().any(|name| name == SECRET_DEFAULT);
            if request.resource_names_unsubscribe.iter().any(|name| name == SECRET_DEFAULT) {
                *progress = Progress { count: progress.count, ..Progress::default() };
            }
        };
        let answer = |encoded: Encoded, nonce: String| DeltaDiscoveryResponse {
            system_version_info: encoded.version.clone(),
            resources: vec![Resource {
                name: SECRET_DEFAULT.to_owned(),
                version: encoded.version,
                resource: Some(encoded.body),
                ..Resource::default()
            }],
            type_url: SECRET_TYPE.to_owned(),
            nonce,
            ..DeltaDiscoveryResponse::default()
        };
        Ok(Response::new(answers(request.into_inner(), self.own.clone(), note, answer)))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let note = |request: &DiscoveryRequest, progress: &mut Progress| {
            warn_refused(request.error_detail.as_ref());
            progress.asked = request.resource_names.iter().any(|name| name == SECRET_DEFAULT);
        };
        let answer = |encoded: Encoded, nonce: String| DiscoveryResponse {
            version_info: encoded.version,
            resources: vec![encoded.body],
            type_url: SECRET_TYPE.to_owned(),
            nonce,
            ..DiscoveryResponse::default()
        };
        Ok(Response::new(answers(request.into_inner(), self.own.clone(), note, answer)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("only the streams are served"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tombolo_gateway_core::config::{Certificate, PrivateKey};

    fn own(chain: &str) -> Own {
        let key = PrivateKey::from_pem(b"key".to_vec());
        let certificate = Certificate { chain: chain.as_bytes().to_vec().into(), key };
        Own { secret: Some(Arc::new(Secret::Certificate(certificate))), ..Own::default() }
    }

    #[test]
    fn a_certificate_is_sent_once_and_again_when_it_changes() {
        let mut progress = Progress::default();
        assert!(progress.due(&own("a")).is_none(), "nobody asked");
        progress.asked = true;
        assert!(progress.due(&Own::default()).is_none(), "there is none yet");
        assert_eq!(progress.due(&own("a")).unwrap().1, "1");
        assert!(progress.due(&own("a")).is_none(), "nothing changed");
        assert_eq!(progress.due(&own("b")).unwrap().1, "2");
    }
}
