//! The admin interface: what runs, how it does, read-only, with Envoy's paths.
//!
//! Never shows a key and never changes anything. Runs on the control thread, so that it answers while workers are busy.

mod dump;
mod pages;

use crate::{
    certs::Own,
    drain::Drain,
    net::bound::Bound,
    telemetry::{proc, series::Tables},
    upstream::keeper::Live,
    xds::client::SharedStatus,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Connections at once; more wait.
const MOST: usize = 64;

/// Everything that can be shown.
pub(crate) struct Admin {
    /// When the process began.
    pub(crate) started: Instant,
    /// Node id.
    pub(crate) node: String,
    /// Configuration and upstreams.
    pub(crate) live: watch::Receiver<Arc<Live>>,
    /// State of the xDS client.
    pub(crate) status: SharedStatus,
    /// Our own certificate.
    pub(crate) certificate: watch::Receiver<Own>,
    /// The process' numbers.
    pub(crate) own: Arc<proc::Own>,
    /// The workers' numbers.
    pub(crate) tables: Vec<Arc<Tables>>,
    /// Listening sockets.
    pub(crate) bound: Arc<Bound>,
    /// Access log lines lost.
    pub(crate) dropped_lines: Arc<AtomicU64>,
    /// The process' drain.
    pub(crate) drain: Drain,
}

/// Opens the socket. A port that is taken ends the start with a clear word.
pub(crate) async fn bind(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the process ends.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => {
                    let admin = admin.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let response = answer(&admin, &request);
                            async move { Ok::<_, Infallible>(response) }
                        });
                        let mut builder = http1::Builder::new();
                        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
                        // A client that breaks off is its own affair.
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this interface is read-only\n".to_owned());
    }
    let query = request.uri().query().unwrap_or("");
    let json = query.split('&').any(|pair| pair == "format=json");
    let ok = |kind, body| respond(StatusCode::OK, kind, body);
    match request.uri().path() {
        "/ready" | "/healthz/ready" => match pages::ready(admin) {
            Ok(word) => ok("text/plain", format!("{word}\n")),
            Err(word) => respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{word}\n")),
        },
        "/stats/prometheus" | "/metrics" => ok("text/plain; version=0.0.4", pages::metrics(admin)),
        "/stats" => ok("text/plain", pages::metrics(admin)),
        "/config_dump" => ok("application/json", dump::config(admin)),
        "/clusters" if json => ok("application/json", dump::clusters(admin)),
        "/clusters" => ok("text/plain", pages::clusters(admin)),
        "/listeners" if json => ok("application/json", dump::listeners(admin)),
        "/listeners" => ok("text/plain", pages::listeners(admin)),
        "/certs" => ok("application/json", dump::certificates(admin)),
        "/server_info" => ok("application/json", dump::server(admin)),
        "/" | "/help" => ok("text/plain", pages::HELP.to_owned()),
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "no such page; see /help\n".to_owned()),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
