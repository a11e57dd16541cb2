//! The page for operators and for the command line: status, readiness, metrics and debug views, over plain HTTP on loopback.
//!
//! Reads only. Never changes anything, so that whoever reaches it can do no harm.

use crate::{
    debug,
    metrics::Metrics,
    status::Reporter,
    world::{Ended, Published, World},
};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the page shows.
#[derive(Clone)]
pub struct Admin {
    /// Makes the status.
    pub reporter: Arc<Reporter>,
    /// Answers debug questions.
    pub world: World,
    /// What was counted.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Serves until told to stop.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let router = Router::new()
            .route("/", get(index))
            .route("/status", get(status))
            .route("/healthz", get(alive))
            .route("/healthz/live", get(alive))
            .route("/healthz/ready", get(ready))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/debug/registry", get(registry))
            .route("/debug/proxies", get(proxies))
            .route("/debug/config", get(config))
            .with_state(self);
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin page ended");
        }
    }
}

async fn index() -> &'static str {
    "/status\n/healthz/live\n/healthz/ready\n/metrics\n/debug/registry\n/debug/proxies\n/debug/config?proxy=ID\n"
}

async fn alive() -> &'static str {
    "alive\n"
}

async fn status(State(admin): State<Admin>) -> Response {
    match admin.reporter.federation().await {
        Ok(status) => Json(status).into_response(),
        Err(ended) => unavailable(ended),
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.reporter.waits_for() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.reporter.site().await {
        Ok(status) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render(&status))
            .into_response(),
        Err(ended) => unavailable(ended),
    }
}

async fn registry(State(admin): State<Admin>) -> Response {
    match admin.world.registry().await {
        Ok(registry) => Json(registry).into_response(),
        Err(ended) => unavailable(ended),
    }
}

async fn proxies(State(admin): State<Admin>) -> Response {
    Json(admin.reporter.proxies()).into_response()
}

#[derive(Deserialize)]
struct Which {
    proxy: String,
}

async fn config(State(admin): State<Admin>, Query(which): Query<Which>) -> Response {
    match admin.world.config(which.proxy).await {
        Ok(Some(Published { snapshot, .. })) => Json(debug::snapshot(&snapshot)).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "no such proxy is connected, see /debug/proxies\n").into_response(),
        Err(ended) => unavailable(ended),
    }
}

fn unavailable(ended: Ended) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{ended}\n")).into_response()
}
