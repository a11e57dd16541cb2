//! Clients: one request at a time, or a connection that is kept.

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// `GET` on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Result<Got, AnyError> {
    let request = Request::get(path).header("host", "test").body(Full::default())?;
    Connection::http1(TcpStream::connect(address).await?).await?.send(request).await
}

pub async fn get_host(address: SocketAddr, host: &str, path: &str) -> Got {
    let request = Request::get(path).header("host", host).body(Full::default()).unwrap();
    Connection::open(address).await.send(request).await.unwrap()
}

pub enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        Self::http1(TcpStream::connect(address).await.unwrap()).await.unwrap()
    }

    pub async fn http1(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, AnyError> {
        let (send, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(send))
    }

    pub async fn http2(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, AnyError> {
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Self::Http2(send))
    }

    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Got, AnyError> {
        let response = match self {
            Self::Http1(send) => {
                send.ready().await?;
                send.send_request(request).await?
            }
            Self::Http2(send) => {
                send.ready().await?;
                if let Some(host) = request.headers_mut().remove("host") {
                    *request.uri_mut() =
                        format!("http://{}{}", host.to_str()?, request.uri().path_and_query().unwrap()).parse()?;
                }
                *request.version_mut() = Version::HTTP_2;
                send.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned();
        let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
        Ok(Got { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Result<Got, AnyError> {
        self.send(Request::get(path).header("host", host).body(Full::default())?).await
    }
}
