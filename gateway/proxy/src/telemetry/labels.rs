//! Istio's standard labels, worked out once per pair of sides and then only counted.
//!
//! Owns the map from what distinguishes series (a few integers) to their handles, and the rule whom to believe about
//! itself. The hot path allocates nothing: labels are rendered when a combination is first seen.

use super::{
    ends::OtherEnd,
    metadata::{self, Announcement},
    numbers::{MOST, Numbers},
    series::{Owners, RequestSeries, Tables, TcpSeries, label},
};
use crate::{
    node::WorkloadFacts,
    upstream::cluster::{Cluster, Endpoint},
};
use ahash::{AHashMap, AHashSet};
use http::HeaderMap;
use std::{cell::RefCell, sync::Arc};
use tombolo_gateway_core::{
    config::{Direction, Value},
    failure::Flags,
    head::ConnInfo,
};

const UNKNOWN: &str = "unknown";
/// Combinations that are remembered; beyond, each request looks its series up by text.
const MOST_KEYS: usize = 8192;
/// Texts that the words of others may take up. What they say of themselves must not crowd out what is known.
const MOST_TOLD: usize = MOST / 2;
/// Numbers of what stands for everything that has no number of its own.
const NO_SOURCE: u32 = 0;
const NO_DESTINATION: u32 = 1;
const NO_SERVICE: u32 = 2;
const NO_PRINCIPAL: u32 = 3;

/// The client's side of a connection, as metrics see it.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    /// Whoever calls us is the source, and we report as its destination.
    inbound: bool,
    /// Number of the client's labels, as far as they are certain.
    id: u32,
    /// The client, when it proved to be one of the mesh.
    pub(crate) end: Option<OtherEnd>,
    mutual_tls: bool,
}

/// Numbers of what is known of a destination by configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination {
    workload: u32,
    service: u32,
    epoch: u32,
}

/// What both ends of a request told of themselves, by the numbers of their labels.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// The client.
    pub(crate) source: Option<u32>,
    /// The server.
    pub(crate) destination: Option<u32>,
}

/// What is known of a finished request.
pub(crate) struct Finished<'a> {
    /// Its cluster.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Its endpoint.
    pub(crate) endpoint: Option<&'a Endpoint>,
    /// The server's end of the connection to it.
    pub(crate) end: Option<&'a OtherEnd>,
    /// What the ends told.
    pub(crate) told: Told,
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
    /// The server's end of the connection to it.
    pub(crate) end: Option<&'a OtherEnd>,
    /// Response flags.
    pub(crate) flags: Flags,
}

/// Who talks to whom, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pair {
    inbound: bool,
    mutual_tls: bool,
    source: u32,
    destination: u32,
    service: u32,
    source_principal: u32,
    destination_principal: u32,
}

impl Pair {
    /// The numbers with which its series go.
    fn of_cluster(&self) -> Owners {
        let principal = if self.inbound { NO_PRINCIPAL } else { self.destination_principal };
        [self.destination, self.service, principal]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pair: Pair,
    is_grpc: bool,
    status: u16,
    grpc: Option<u16>,
    flags: Flags,
}

/// Which role a workload has in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It called.
    Source,
    /// It was called.
    Destination,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// The labels of one worker.
pub(crate) struct Labels {
    tables: Arc<Tables>,
    own: Arc<WorkloadFacts>,
    announcement: Announcement,
    /// Rendered labels and names.
    numbers: Numbers,
    requests: RefCell<AHashMap<Key, Arc<RequestSeries>>>,
}

impl Labels {
    /// For one worker's tables.
    pub(crate) fn new(tables: Arc<Tables>, own: Arc<WorkloadFacts>, announcement: &Announcement) -> Self {
        let labels = Self {
            tables,
            own,
            announcement: announcement.apart(),
            numbers: Numbers::default(),
            requests: RefCell::default(),
        };
        // In the order of their numbers.
        let nobody = WorkloadFacts::default();
        labels.numbers.number(&side_labels(Role::Source, &nobody), NO_SOURCE);
        labels.numbers.number(&side_labels(Role::Destination, &nobody), NO_DESTINATION);
        labels.numbers.number(&service_labels(None), NO_SERVICE);
        labels.numbers.number(UNKNOWN, NO_PRINCIPAL);
        labels
    }

    /// Lets go of what only clusters had that are gone: their series, and the room that these took up.
    pub(crate) fn tidy(&self) {
        let gone = self.numbers.forget();
        if gone.is_empty() {
            return;
        }
        // Made again by text, those too that found no room.
        self.requests.borrow_mut().clear();
        let gone: AHashSet<u32> = gone.into_iter().collect();
        self.tables.requests.forget(&gone);
        self.tables.tcp.forget(&gone);
    }

    fn keep(&self, number: u32, cluster: Option<&Cluster>) {
        if let Some(cluster) = cluster {
            self.numbers.keep(number, &cluster.telemetry);
        }
    }

    /// The client's side of a connection.
    pub(crate) fn side(&self, direction: Direction, info: &ConnInfo) -> Side {
        let inbound = direction == Direction::Inbound;
        let identity = info.tls.as_ref().and_then(|t| t.peer.as_ref()).and_then(|p| p.identity.as_ref());
        let text = if inbound {
            // Until it tells more the namespace of its identity is all that is known for certain.
            let namespace = identity.and_then(|i| i.workload_parts()).map_or(UNKNOWN, |parts| parts.0).to_owned();
            side_labels(Role::Source, &WorkloadFacts { namespace, ..WorkloadFacts::default() })
        } else {
            side_labels(Role::Source, &self.own)
        };
        let end = OtherEnd::of_client(info);
        Side { inbound, id: self.numbers.number(&text, NO_SOURCE), end, mutual_tls: identity.is_some() }
    }

    /// Takes out of a message what its sender told of itself, and says what it is worth: nothing without a certificate of the
    /// mesh, and nothing when it claims another namespace than its certificate. The same words on the same connection are
    /// read once. What a server told is forgotten with the cluster that it was asked for.
    pub(crate) fn hear(
        &self,
        role: Role,
        end: Option<&OtherEnd>,
        cluster: Option<&Cluster>,
        headers: &mut HeaderMap,
    ) -> Option<u32> {
        let words = metadata::take(headers)?;
        let (end, now) = (end?, self.numbers.epoch());
        if let Some((before, number, epoch)) = &*end.told.borrow()
            && **before == *words.as_bytes()
            && *epoch == now
        {
            return *number;
        }
        let number = self.believe(role, end, words.as_bytes());
        if let Some(number) = number.filter(|_| role == Role::Destination) {
            self.keep(number, cluster);
        }
        // A copy: the header is a part of a larger buffer that would be kept with it.
        *end.told.borrow_mut() = Some((words.as_bytes().into(), number, now));
        number
    }

    fn believe(&self, role: Role, end: &OtherEnd, words: &[u8]) -> Option<u32> {
        let facts = metadata::read(words)?;
        let (namespace, _) = end.identity.workload_parts()?;
        if facts.namespace != namespace {
            return None;
        }
        let text = side_labels(role, &facts);
        let room = self.numbers.len() < MOST_TOLD;
        self.numbers.known(&text).or_else(|| room.then(|| self.numbers.number(&text, NO_SOURCE)))
    }

    /// Tells another proxy of the mesh who we are.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        self.announcement.put(headers);
    }

    /// Numbers of the names in the certificates of a connection, ours first.
    fn principals(&self, end: Option<&OtherEnd>, cluster: Option<&Cluster>) -> (u32, u32) {
        let Some(end) = end else { return (NO_PRINCIPAL, NO_PRINCIPAL) };
        let now = self.numbers.epoch();
        if let Some((own, other, _)) = end.numbers.get().filter(|(_, _, epoch)| *epoch == now) {
            return (own, other);
        }
        let number = |name: &str| self.numbers.number(name, NO_PRINCIPAL);
        let (own, other) = (number(&end.own), number(&end.identity.to_string()));
        self.keep(other, cluster);
        end.numbers.set(Some((own, other, now)));
        (own, other)
    }

    fn destination(&self, inbound: bool, cluster: Option<&Cluster>, endpoint: Option<&Endpoint>) -> Destination {
        let epoch = self.numbers.epoch();
        if let Some(known) = endpoint.and_then(|e| e.telemetry.get()).filter(|known| known.epoch == epoch) {
            return known;
        }
        let workload = if inbound {
            side_labels(Role::Destination, &self.own)
        } else {
            side_labels(Role::Destination, &endpoint.map(workload).unwrap_or_default())
        };
        let upstream = cluster.map(Cluster::upstream);
        let service = upstream.as_ref().and_then(|u| match u.cluster.metadata.get("istio", "services") {
            Some(Value::List(services)) => services.first(),
            _ => None,
        });
        let found = Destination {
            workload: self.numbers.number(&workload, NO_DESTINATION),
            service: self.numbers.number(&service_labels(service), NO_SERVICE),
            epoch,
        };
        self.keep(found.workload, cluster);
        self.keep(found.service, cluster);
        if let Some(endpoint) = endpoint {
            endpoint.telemetry.set(Some(found));
        }
        found
    }

    fn between(
        &self,
        side: &Side,
        cluster: Option<&Cluster>,
        endpoint: Option<&Endpoint>,
        upstream: Option<&OtherEnd>,
        told: Told,
    ) -> Pair {
        let destination = self.destination(side.inbound, cluster, endpoint);
        let (own, other) =
            if side.inbound { self.principals(side.end.as_ref(), None) } else { self.principals(upstream, cluster) };
        // Each side knows itself; of the other it takes the words of the other.
        let (source, workload, source_principal, destination_principal) = if side.inbound {
            (told.source.unwrap_or(side.id), destination.workload, other, own)
        } else {
            (side.id, told.destination.unwrap_or(destination.workload), own, other)
        };
        Pair {
            inbound: side.inbound,
            mutual_tls: side.mutual_tls,
            source,
            destination: workload,
            service: destination.service,
            source_principal,
            destination_principal,
        }
    }

    /// Counts a finished request.
    pub(crate) fn request(&self, side: &Side, finished: &Finished<'_>) {
        self.tidy();
        let key = Key {
            pair: self.between(side, finished.cluster, finished.endpoint, finished.end, finished.told),
            is_grpc: finished.is_grpc,
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
        let mut text = self.pair(key.pair);
        label(&mut text, "request_protocol", if key.is_grpc { "grpc" } else { "http" });
        label(&mut text, "response_code", &key.status.to_string());
        label(&mut text, "grpc_response_status", &key.grpc.map(|g| g.to_string()).unwrap_or_default());
        flags_label(&mut text, key.flags);
        label(&mut text, "connection_security_policy", policy(key.pair.inbound, key.pair.mutual_tls));
        let series = self.tables.requests.with(&text, key.pair.of_cluster());
        let mut requests = self.requests.borrow_mut();
        if requests.len() < MOST_KEYS {
            requests.insert(key, series.clone());
        }
        series
    }

    fn pair(&self, pair: Pair) -> String {
        let mut text = String::with_capacity(768);
        label(&mut text, "reporter", if pair.inbound { "destination" } else { "source" });
        for part in [pair.source, pair.destination, pair.service] {
            text.push(',');
            text.push_str(&self.numbers.text(part));
        }
        label(&mut text, "source_principal", &self.numbers.text(pair.source_principal));
        label(&mut text, "destination_principal", &self.numbers.text(pair.destination_principal));
        text
    }

    /// The series of a TCP connection.
    pub(crate) fn tcp(&self, side: &Side, finished: &TcpFinished<'_>) -> Arc<TcpSeries> {
        self.tidy();
        let told = Told::default();
        let pair = self.between(side, finished.cluster, finished.endpoint, finished.end, told);
        let mut text = self.pair(pair);
        label(&mut text, "request_protocol", "tcp");
        flags_label(&mut text, finished.flags);
        label(&mut text, "connection_security_policy", policy(side.inbound, side.mutual_tls));
        self.tables.tcp.with(&text, pair.of_cluster())
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
fn side_labels(role: Role, facts: &WorkloadFacts) -> String {
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
        label(&mut text, &format!("{}_{name}", role.word()), or_unknown(value));
    }
    text
}

/// The labels of a service, from what a cluster says of itself.
fn service_labels(service: Option<&Value>) -> String {
    let of = |key: &str| service.and_then(|s| s.get(key)).and_then(Value::as_str).unwrap_or(UNKNOWN);
    let mut text = String::with_capacity(128);
    label(&mut text, "destination_service", of("host"));
    label(&mut text, "destination_service_name", of("name"));
    label(&mut text, "destination_service_namespace", of("namespace"));
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
mod tests;
