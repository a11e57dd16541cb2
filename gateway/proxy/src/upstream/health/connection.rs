//! Asking one endpoint once: over HTTP, gRPC or TCP, on a connection that may stay for the next time.
//!
//! Owns that connection. A failure to connect and one to be answered are the same finding: it could not be asked.

use super::Around;
use crate::{
    net::{proxy_protocol, socket::Keepalive, stream::Stream},
    tls::{context::ClientContext, verify::HostCheck},
    upstream::connect::{self, Offer, Peer, Target},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_gateway_core::{
    config::{
        Cluster, Endpoint, EndpointAddress, HeaderChanges, HealthCheck, HealthCheckKind, Metadata,
        ProxyProtocolVersion, TransportSocket,
    },
    format::Facts,
    header as changes,
    health::{Answer, Finding, grpc_answer, http_answer, received},
};

/// Bytes of a body that are read for the connection's sake; longer ones cost the connection.
const BODY: usize = 64 << 10;
/// Bytes of a TCP answer among which the expected ones may be.
const RECEIVED: usize = 64 << 10;
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// A time of gRPC has at most eight digits.
const GRPC_LONGEST: u128 = 99_999_999;
/// Version 2 of the PROXY protocol, of a connection that is nobody else's.
const LOCAL_V2: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Asks one endpoint.
pub(super) struct Probe {
    around: Around,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    settings: Arc<HealthCheck>,
    open: Option<Open>,
}

enum Open {
    Http1(http1::SendRequest<Question>),
    Http2(http2::SendRequest<Question>),
    Tcp(Box<Stream>),
}

/// It could not be asked.
struct Unreachable;

impl<E: std::error::Error> From<E> for Unreachable {
    fn from(_: E) -> Self {
        Self
    }
}

impl Probe {
    pub(super) fn new(
        around: &Around,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        settings: &Arc<HealthCheck>,
    ) -> Self {
        Self {
            around: around.clone(),
            cluster: cluster.clone(),
            endpoint: endpoint.clone(),
            settings: settings.clone(),
            open: None,
        }
    }

    /// The connection is of no use any more.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Asks once.
    pub(super) async fn ask(&mut self) -> Finding {
        let settings = self.settings.clone();
        let asked = match &settings.kind {
            HealthCheckKind::Http { .. } => self.http(&settings).await,
            HealthCheckKind::Grpc { service, authority, headers } => self.grpc(service, authority, headers).await,
            HealthCheckKind::Tcp { send, receive, proxy } => self.tcp(send.as_ref(), receive, *proxy).await,
        };
        if !settings.reuse_connection {
            self.close();
        }
        asked.unwrap_or_else(|Unreachable| {
            self.close();
            Finding::Unreachable
        })
    }

    async fn http(&mut self, settings: &HealthCheck) -> Result<Finding, Unreachable> {
        let HealthCheckKind::Http { host, path, method, http2, headers, receive, body_limit, .. } = &settings.kind
        else {
            return Err(Unreachable);
        };
        let host = self.host(host);
        let request = request(method, &host, path, headers, *http2, Bytes::new()).ok_or(Unreachable)?;
        let response = self.send(request, *http2).await?;
        let (head, body) = response.into_parts();
        let most = if receive.is_empty() { 0 } else { usize::try_from(*body_limit).unwrap_or(usize::MAX) };
        let (body, _, whole) = collect(body, most.max(BODY)).await?;
        if !whole || head.version == Version::HTTP_10 || says_close(&head.headers) {
            self.close();
        }
        let seen = body.get(..most.min(body.len())).unwrap_or_default();
        Ok(http_answer(&settings.kind, &Answer { status: head.status.as_u16(), headers: &head.headers, body: seen }))
    }

    async fn grpc(&mut self, service: &str, authority: &str, more: &HeaderChanges) -> Result<Finding, Unreachable> {
        let host = self.host(authority);
        let mut request =
            request(&Method::POST, &host, GRPC_PATH, more, true, grpc_question(service)).ok_or(Unreachable)?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        let patience = format!("{}m", self.settings.timeout.as_millis().min(GRPC_LONGEST));
        request.headers_mut().insert("grpc-timeout", HeaderValue::try_from(patience).map_err(|_| Unreachable)?);
        let response = self.send(request, true).await?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Ok(Finding::Unhealthy);
        }
        let (body, trailers, _) = collect(body, BODY).await?;
        let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse::<u16>().ok();
        Ok(grpc_answer(trailers.as_ref().and_then(status).or_else(|| status(&head.headers)), &body))
    }

    async fn tcp(
        &mut self,
        send: Option<&Bytes>,
        receive: &[Bytes],
        proxy: Option<ProxyProtocolVersion>,
    ) -> Result<Finding, Unreachable> {
        let mut stream = match self.open.take() {
            Some(Open::Tcp(stream)) => stream,
            _ => {
                let mut stream = Box::new(self.connect(Offer::Configured).await?);
                match proxy {
                    Some(ProxyProtocolVersion::V1) => {
                        let ends = stream.tcp().and_then(|tcp| Some((tcp.local_addr().ok()?, tcp.peer_addr().ok()?)));
                        let (local, peer) = ends.ok_or(Unreachable)?;
                        stream.write_all(&proxy_protocol::write_v1(local, peer)).await?;
                    }
                    Some(ProxyProtocolVersion::V2) => stream.write_all(&LOCAL_V2).await?,
                    None => {}
                }
                stream
            }
        };
        if let Some(send) = send {
            stream.write_all(send).await?;
        }
        if receive.is_empty() {
            // With nothing to wait for a connection is all; it is not kept, since its end would go unnoticed.
            return Ok(Finding::Healthy);
        }
        let mut seen = BytesMut::new();
        while !received(receive, &seen) {
            if seen.len() > RECEIVED || stream.read_buf(&mut seen).await? == 0 {
                return Err(Unreachable);
            }
        }
        self.open = Some(Open::Tcp(stream));
        Ok(Finding::Healthy)
    }

    /// What the request says it is for.
    fn host(&self, configured: &str) -> String {
        [&*self.endpoint.health_check_hostname, configured]
            .into_iter()
            .find(|host| !host.is_empty())
            .unwrap_or(&self.cluster.name)
            .to_owned()
    }

    async fn send(&mut self, request: Request<Question>, http2: bool) -> Result<Response<Incoming>, Unreachable> {
        let kept = match self.open.take() {
            Some(Open::Http1(mut sender)) => sender.ready().await.is_ok().then_some(Open::Http1(sender)),
            Some(Open::Http2(mut sender)) => sender.ready().await.is_ok().then_some(Open::Http2(sender)),
            _ => None,
        };
        let open = match kept {
            Some(open) => open,
            None => self.handshake(http2).await?,
        };
        match open {
            Open::Http1(mut sender) => {
                let response = sender.send_request(request).await?;
                self.open = Some(Open::Http1(sender));
                Ok(response)
            }
            Open::Http2(mut sender) => {
                let response = sender.send_request(request).await?;
                self.open = Some(Open::Http2(sender));
                Ok(response)
            }
            Open::Tcp(_) => Err(Unreachable),
        }
    }

    async fn handshake(&self, http2: bool) -> Result<Open, Unreachable> {
        let stream = self.connect(if http2 { Offer::Http2 } else { Offer::Http1 }).await?;
        // The task ends with the connection, and the connection with its sender.
        if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(Open::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            Ok(Open::Http1(sender))
        }
    }

    async fn connect(&self, offer: Offer) -> Result<Stream, Unreachable> {
        let target = self.target(offer).ok_or(Unreachable)?;
        connect::open(&target).await.map_err(|failure| {
            tracing::debug!(cluster = %self.cluster.name, %failure, "health check could not connect");
            Unreachable
        })
    }

    fn target(&self, offer: Offer) -> Option<Target> {
        let peer = self.peer()?;
        let (transport, proxy) = match self.transport() {
            TransportSocket::ProxyProtocol(version, inner) => (inner.as_ref(), Some(*version)),
            other => (other, None),
        };
        let tls = match transport {
            // QUIC is asked over TCP as well.
            TransportSocket::Tls(context) | TransportSocket::Quic(context) => {
                let config = self.around.configs.borrow().clone();
                let built = self.around.tls.client(context, &config, HostCheck::No).ok()?;
                let name = if context.sni.is_empty() && context.auto_host_sni {
                    self.endpoint.hostname.clone()
                } else {
                    context.sni.clone()
                };
                Some((self.offering(built), name))
            }
            TransportSocket::Raw | TransportSocket::Internal(_) | TransportSocket::ProxyProtocol(..) => None,
        };
        let bind = self.cluster.bind.as_ref().and_then(|bind| bind.source).map(|source| source.ip());
        let keepalive = self.cluster.keepalive.as_ref();
        let proxy = proxy.map(|version| {
            let to = match &peer {
                Peer::Tcp(to) => *to,
                Peer::Any(_) | Peer::Unix(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            };
            let own: IpAddr = if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            (version, SocketAddr::new(bind.or(self.around.source).unwrap_or(own), 0), to)
        });
        Some(Target {
            peer,
            tls,
            offer,
            proxy,
            from: bind.or(self.around.source),
            keepalive: keepalive.map(|k| Keepalive { time: k.time, interval: k.interval, probes: k.probes }),
            timeout: self.settings.timeout,
        })
    }

    fn peer(&self) -> Option<Peer> {
        let moved = |address: SocketAddr| match self.endpoint.health_check_port {
            Some(port) => SocketAddr::new(address.ip(), port),
            None => address,
        };
        if let Some(address) = self.endpoint.health_check_address {
            return Some(Peer::Tcp(moved(address)));
        }
        match &self.endpoint.address {
            EndpointAddress::Socket(address) => Some(Peer::Tcp(moved(*address))),
            EndpointAddress::Pipe(path) => Some(Peer::Unix(path.clone())),
            EndpointAddress::Name(..) | EndpointAddress::Internal(..) => None,
        }
    }

    fn transport(&self) -> &TransportSocket {
        match &self.settings.transport_criteria {
            None => self.cluster.transport_for(&self.endpoint.metadata),
            Some(criteria) => {
                let told = BTreeMap::from([("envoy.transport_socket_match".into(), criteria.clone())]);
                self.cluster.transport_for(&Metadata(Some(Arc::new(told))))
            }
        }
    }

    /// With the application protocols of the check in place of the cluster's.
    fn offering(&self, context: ClientContext) -> ClientContext {
        if self.settings.alpn.is_empty() {
            return context;
        }
        let mut base = (*context.base).clone();
        base.alpn_protocols = self.settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        ClientContext { base: Arc::new(base), ..context }
    }
}

fn request(
    method: &Method,
    host: &str,
    path: &str,
    more: &HeaderChanges,
    http2: bool,
    body: Bytes,
) -> Option<Request<Question>> {
    let uri = if http2 { format!("http://{host}{path}") } else { path.to_owned() };
    let mut request =
        Request::builder().method(method.clone()).uri(uri).body(Question((!body.is_empty()).then_some(body))).ok()?;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Envoy/HC"));
    if !http2 {
        headers.insert(header::HOST, HeaderValue::try_from(host).ok()?);
    }
    let values = changes::evaluate(more, &Facts::default());
    changes::apply(more, values, headers);
    Some(request)
}

/// What is asked, of a length that is not announced, as in Envoy.
struct Question(Option<Bytes>);

impl hyper::body::Body for Question {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// A `HealthCheckRequest` with its five bytes in front.
fn grpc_question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

/// The body up to a bound, its trailers, and whether that was all.
async fn collect(mut body: Incoming, most: usize) -> Result<(Bytes, Option<HeaderMap>, bool), Unreachable> {
    let (mut out, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if out.len() + data.len() > most => {
                out.extend_from_slice(data.get(..most - out.len()).unwrap_or_default());
                return Ok((out.freeze(), trailers, false));
            }
            Ok(data) => out.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((out.freeze(), trailers, true))
}

fn says_close(headers: &HeaderMap) -> bool {
    let says = |name| {
        headers.get_all(name).iter().any(|value: &HeaderValue| {
            value.to_str().is_ok_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
        })
    };
    says(header::CONNECTION) || says(header::HeaderName::from_static("proxy-connection"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grpc_question() {
        assert_eq!(grpc_question(""), Bytes::from_static(b"\0\0\0\0\0"));
        assert_eq!(grpc_question("ab"), Bytes::from_static(b"\0\0\0\0\x04\x0a\x02ab"));
        assert_eq!(&grpc_question(&"x".repeat(200))[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
    }
}
