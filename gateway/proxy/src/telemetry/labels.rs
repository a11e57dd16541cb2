//! Istio's standard labels, worked out once per pair of sides and then only counted.
//!
//! Owns the map from what distinguishes series (a few integers) to their handles. The hot path allocates nothing: labels
//! are rendered when a combination is first seen.

use super::series::{RequestSeries, Tables, TcpSeries, label};
use crate::{
    node::WorkloadFacts,
    upstream::cluster::{Cluster, Endpoint},
};
use ahash::AHashMap;
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tombolo_gateway_core::{
    config::{Direction, Value},
    failure::Flags,
    head::ConnInfo,
};

const UNKNOWN: &str = "unknown";
/// Combinations that are remembered; beyond, each request looks its series up by text.
const MOST: usize = 8192;

/// The client's side of a connection, as metrics see it.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// Whoever calls us is the source, and we report as its destination.
    inbound: bool,
    /// Number of the client's labels.
    id: u32,
    mutual_tls: bool,
}

/// What is known of a finished request.
pub(crate) struct Finished<'a> {
    /// Its cluster.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Its endpoint.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// HTTP status.
    pub(crate) status: u16,
    /// gRPC status.
    pub(crate) grpc: Option<u16>,
    /// It was gRPC.
    pub(crate) is_grpc: bool,
    /// Response flags.
    pub(crate) flags: Flags,
    /// How long it took.
    pub(crate) micros: u64,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the response's body.
    pub(crate) sent: u64,
}

/// What is known of a TCP connection.
pub(crate) struct TcpFinished<'a> {
    /// Its cluster.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Its endpoint.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// Response flags.
    pub(crate) flags: Flags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    inbound: bool,
    mutual_tls: bool,
    is_grpc: bool,
    source: u32,
    destination: u32,
    status: u16,
    grpc: Option<u16>,
    flags: Flags,
}

/// The labels of one worker.
pub(crate) struct Labels {
    tables: Arc<Tables>,
    own: Arc<WorkloadFacts>,
    /// Rendered labels of sources and destinations, by number.
    texts: RefCell<Vec<Rc<str>>>,
    numbers: RefCell<AHashMap<Rc<str>, u32>>,
    requests: RefCell<AHashMap<Key, Arc<RequestSeries>>>,
}

impl Labels {
    /// For one worker's tables.
    pub(crate) fn new(tables: Arc<Tables>, own: Arc<WorkloadFacts>) -> Self {
        Self { tables, own, texts: RefCell::default(), numbers: RefCell::default(), requests: RefCell::default() }
    }

    fn number(&self, text: &str) -> u32 {
        if let Some(number) = self.numbers.borrow().get(text) {
            return *number;
        }
        let mut texts = self.texts.borrow_mut();
        if texts.len() >= MOST {
            // The first one is as good as any: the series behind it is bounded as well.
            return 0;
        }
        let shared: Rc<str> = Rc::from(text);
        let number = u32::try_from(texts.len()).unwrap_or(0);
        texts.push(shared.clone());
        self.numbers.borrow_mut().insert(shared, number);
        number
    }

    fn text(&self, number: u32) -> Rc<str> {
        let texts = self.texts.borrow();
        usize::try_from(number).ok().and_then(|at| texts.get(at)).cloned().unwrap_or_else(|| Rc::from(""))
    }

    /// The client's side of a connection.
    pub(crate) fn side(&self, direction: Direction, info: &ConnInfo) -> Side {
        let inbound = direction == Direction::Inbound;
        let peer = info.tls.as_ref().and_then(|t| t.peer.as_ref());
        let identity = peer.and_then(|p| p.identity.as_ref());
        let text = if inbound {
            let principal = identity.map(ToString::to_string);
            // Without an exchange of metadata the principal is all that is known for certain.
            let parts = identity.and_then(|i| i.workload_parts());
            let facts =
                WorkloadFacts { namespace: parts.map_or(UNKNOWN, |p| p.0).to_owned(), ..WorkloadFacts::default() };
            side_labels("source", &facts, principal.as_deref().unwrap_or(UNKNOWN))
        } else {
            side_labels("source", &self.own, UNKNOWN)
        };
        Side { inbound, id: self.number(&text), mutual_tls: identity.is_some() }
    }

    fn destination(&self, inbound: bool, cluster: Option<&Cluster>, endpoint: Option<&Endpoint>) -> u32 {
        if let Some(known) = endpoint.and_then(|e| e.telemetry.get()) {
            return known;
        }
        let mut text = if inbound {
            side_labels("destination", &self.own, UNKNOWN)
        } else {
            side_labels("destination", &endpoint.map(workload).unwrap_or_default(), UNKNOWN)
        };
        let upstream = cluster.map(Cluster::upstream);
        let service = upstream.as_ref().and_then(|u| match u.cluster.metadata.get("istio", "services") {
            Some(Value::List(services)) => services.first().cloned(),
            _ => None,
        });
        let of =
            |key: &str| service.as_ref().and_then(|s| s.get(key)).and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
        label(&mut text, "destination_service", &of("host"));
        label(&mut text, "destination_service_name", &of("name"));
        label(&mut text, "destination_service_namespace", &of("namespace"));
        let number = self.number(&text);
        if let Some(endpoint) = endpoint {
            endpoint.telemetry.set(Some(number));
        }
        number
    }

    /// Counts a finished request.
    pub(crate) fn request(&self, side: &Side, finished: &Finished<'_>) {
        let key = Key {
            inbound: side.inbound,
            mutual_tls: side.mutual_tls,
            is_grpc: finished.is_grpc,
            source: side.id,
            destination: self.destination(side.inbound, finished.cluster, finished.endpoint),
            status: finished.status,
            grpc: finished.grpc,
            flags: finished.flags,
        };
        let found = self.requests.borrow().get(&key).cloned();
        let series = found.unwrap_or_else(|| self.make(key));
        series.total.add(1);
        #[allow(clippy::cast_precision_loss, reason = "histograms need no more")]
        {
            series.duration.observe(finished.micros as f64 / 1000.0);
            series.request_bytes.observe(finished.received as f64);
            series.response_bytes.observe(finished.sent as f64);
        }
    }

    fn make(&self, key: Key) -> Arc<RequestSeries> {
        let mut text = self.pair(key.inbound, key.source, key.destination);
        label(&mut text, "request_protocol", if key.is_grpc { "grpc" } else { "http" });
        label(&mut text, "response_code", &key.status.to_string());
        label(&mut text, "grpc_response_status", &key.grpc.map(|g| g.to_string()).unwrap_or_default());
        flags_label(&mut text, key.flags);
        label(&mut text, "connection_security_policy", policy(key.inbound, key.mutual_tls));
        let series = self.tables.requests.with(&text);
        let mut requests = self.requests.borrow_mut();
        if requests.len() < MOST {
            requests.insert(key, series.clone());
        }
        series
    }

    fn pair(&self, inbound: bool, source: u32, destination: u32) -> String {
        let mut text = String::with_capacity(512);
        label(&mut text, "reporter", if inbound { "destination" } else { "source" });
        for part in [self.text(source), self.text(destination)] {
            text.push(',');
            text.push_str(&part);
        }
        text
    }

    /// The series of a TCP connection.
    pub(crate) fn tcp(&self, side: &Side, finished: &TcpFinished<'_>) -> Arc<TcpSeries> {
        let destination = self.destination(side.inbound, finished.cluster, finished.endpoint);
        let mut text = self.pair(side.inbound, side.id, destination);
        label(&mut text, "request_protocol", "tcp");
        flags_label(&mut text, finished.flags);
        label(&mut text, "connection_security_policy", policy(side.inbound, side.mutual_tls));
        self.tables.tcp.with(&text)
    }
}

fn policy(inbound: bool, mutual_tls: bool) -> &'static str {
    match (inbound, mutual_tls) {
        (false, _) => UNKNOWN,
        (true, true) => "mutual_tls",
        (true, false) => "none",
    }
}

fn flags_label(text: &mut String, flags: Flags) {
    let mut short = Vec::new();
    flags.write_short(&mut short);
    label(text, "response_flags", &String::from_utf8_lossy(&short));
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

/// The labels of one side; names begin with its role.
fn side_labels(role: &str, facts: &WorkloadFacts, principal: &str) -> String {
    let mut text = String::with_capacity(256);
    for (name, value) in [
        ("workload", &facts.workload),
        ("workload_namespace", &facts.namespace),
        ("app", &facts.app),
        ("version", &facts.version),
        ("canonical_service", &facts.canonical_service),
        ("canonical_revision", &facts.canonical_revision),
        ("cluster", &facts.cluster),
    ] {
        label(&mut text, &format!("{role}_{name}"), or_unknown(value));
    }
    label(&mut text, &format!("{role}_principal"), principal);
    text
}

/// The workload behind an endpoint: `name;namespace;canonical;revision;cluster` in its metadata.
fn workload(endpoint: &Endpoint) -> WorkloadFacts {
    let host = endpoint.host.borrow();
    let told = host
        .as_ref()
        .and_then(|h| h.endpoint.metadata.get("istio", "workload"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut parts = told.split(';').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (workload, namespace, canonical_service, canonical_revision, cluster) =
        (next(), next(), next(), next(), next());
    WorkloadFacts {
        app: canonical_service.clone(),
        version: canonical_revision.clone(),
        workload,
        namespace,
        canonical_service,
        canonical_revision,
        cluster,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_says_unknown_for_what_it_does_not_know() {
        let text = side_labels("source", &WorkloadFacts { workload: "w".into(), ..WorkloadFacts::default() }, "p");
        assert!(text.starts_with("source_workload=\"w\",source_workload_namespace=\"unknown\""), "{text}");
        assert!(text.ends_with("source_principal=\"p\""));
    }

    #[test]
    fn numbers_are_stable_and_bounded() {
        let labels = Labels::new(Arc::default(), Arc::default());
        let first = labels.number("a");
        assert_eq!(labels.number("a"), first);
        for n in 0..MOST + 10 {
            labels.number(&n.to_string());
        }
        assert_eq!(labels.texts.borrow().len(), MOST);
    }
}
