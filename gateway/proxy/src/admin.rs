//! The admin interface: what runs and how it does, with Envoy's paths and shapes.
//!
//! Never shows a key, and changes something only by POST. Runs on the control thread, so that it answers while workers are busy.

mod body;
mod change;
mod config_dump;
mod dump;
mod pages;
mod query;
mod status;

use crate::{
    certs::Own,
    drain::Drain,
    net::bound::Bound,
    telemetry::sink::Feed,
    telemetry::{proc, series::Tables},
    upstream::keeper::Live,
    xds::{ask::Asker, client::SharedStatus, shelves::SharedShelves},
};
use body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use query::Query;
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};

/// The type of Prometheus' text.
const EXPOSITION: &str = "text/plain; version=0.0.4";
/// Connections at once; more wait.
const MOST: usize = 64;
/// Bytes of an answer that wait for a client to take them.
const MOST_BUFFERED: usize = 64 * 1024;

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
    /// What came, as it came.
    pub(crate) shelves: SharedShelves,
    /// Configuration comes from a file.
    pub(crate) file: bool,
    /// Where runtime values go.
    pub(crate) asker: Asker,
    /// Where log files are opened again.
    pub(crate) feed: Feed,
    /// Ends the process.
    pub(crate) quit: Arc<Notify>,
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
                Ok((stream, peer)) => {
                    let admin = admin.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let response = answer(&admin, &request, peer);
                            async move { Ok::<_, Infallible>(response) }
                        });
                        let mut builder = http1::Builder::new();
                        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
                        builder.max_buf_size(MOST_BUFFERED);
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

fn answer(admin: &Admin, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    let query = Query::new(request.uri().query());
    let page = request.uri().path();
    if change::PAGES.contains(&page) {
        if request.method() != Method::POST {
            let mut response =
                respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use POST to change something\n".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (status, words) = change::change(admin, page, &query, request.headers(), peer);
        return respond(status, "text/plain", words);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this page is read-only\n".to_owned());
    }
    show(admin, page, &query)
}

fn show(admin: &Admin, page: &str, query: &Query<'_>) -> Response<Body> {
    let ok = |kind, body| respond(StatusCode::OK, kind, body);
    let json = |built: Result<String, String>| match built {
        Ok(body) => ok("application/json", body),
        Err(reason) => respond(StatusCode::BAD_REQUEST, "text/plain", format!("{reason}\n")),
    };
    let format = query.get("format").unwrap_or_default();
    match page {
        "/ready" | "/healthz/ready" => match pages::ready(admin) {
            Ok(word) => ok("text/plain", format!("{word}\n")),
            Err(word) => respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{word}\n")),
        },
        "/stats/prometheus" | "/metrics" => ok(EXPOSITION, pages::metrics(admin)),
        "/stats" => match (format.as_str(), query.get("filter")) {
            ("prometheus", _) => ok(EXPOSITION, pages::metrics(admin)),
            ("json", filter) => json(status::stats(&pages::metrics(admin), filter.as_deref(), true)),
            (_, filter) => match status::stats(&pages::metrics(admin), filter.as_deref(), false) {
                Ok(body) => ok("text/plain", body),
                Err(reason) => respond(StatusCode::BAD_REQUEST, "text/plain", format!("{reason}\n")),
            },
        },
        "/config_dump" => match config_dump::answer(admin, query) {
            Ok(node) => streamed("application/json", Body::json(node)),
            Err(reason) => respond(StatusCode::BAD_REQUEST, "text/plain", format!("{reason}\n")),
        },
        "/inventory" => streamed("application/json", Body::json(dump::config(admin))),
        "/clusters" if format == "json" => streamed("application/json", Body::json(status::clusters(admin))),
        "/clusters" => streamed("text/plain", Body::lines(pages::clusters(admin))),
        "/listeners" if format == "json" => json(status::listeners(admin)),
        "/listeners" => ok("text/plain", pages::listeners(admin)),
        "/certs" => json(status::certificates(admin)),
        "/server_info" => json(status::server(admin)),
        "/runtime" => json(status::runtime(admin)),
        "/memory" => json(status::memory()),
        "/init_dump" => json(status::unready(admin)),
        "/" | "/help" => ok("text/plain", pages::HELP.to_owned()),
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "no such page; see /help\n".to_owned()),
    }
}

/// Readable JSON.
fn text(value: &serde_json::Value) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string()).map(|text| text + "\n")
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = streamed(kind, body.into());
    *response.status_mut() = status;
    response
}

fn streamed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The pairs of a query, as pages read them.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    Query::new(Some(text)).pairs().collect()
}
