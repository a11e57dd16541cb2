//! Istio's standard labels, worked out once per pair of sides and then only counted.
//!
//! Owns the map from what distinguishes series (a few integers) to their handles, and the rule whom to believe about
//! itself. The hot path allocates nothing: labels are rendered when a combination is first seen.

use super::{
    ends::OtherEnd,
    metadata::{self, Announcement},
    series::{RequestSeries, Tables, TcpSeries, label},
};
use crate::{
    node::WorkloadFacts,
    upstream::cluster::{Cluster, Endpoint},
};
use ahash::AHashMap;
use http::HeaderMap;
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tombolo_gateway_core::{
    config::{Direction, Value},
    failure::Flags,
    head::ConnInfo,
};

const UNKNOWN: &str = "unknown";
/// Combinations that are remembered; beyond, each request looks its series up by text.
const MOST: usize = 8192;
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
    /// Rendered labels and names, by number.
    texts: RefCell<Vec<Rc<str>>>,
    numbers: RefCell<AHashMap<Rc<str>, u32>>,
    requests: RefCell<AHashMap<Key, Arc<RequestSeries>>>,
}

impl Labels {
    /// For one worker's tables.
    pub(crate) fn new(tables: Arc<Tables>, own: Arc<WorkloadFacts>, announcement: &Announcement) -> Self {
        let labels = Self {
            tables,
            own,
            announcement: announcement.apart(),
            texts: RefCell::default(),
            numbers: RefCell::default(),
            requests: RefCell::default(),
        };
        // In the order of their numbers.
        let nobody = WorkloadFacts::default();
        labels.number(&side_labels(Role::Source, &nobody), NO_SOURCE);
        labels.number(&side_labels(Role::Destination, &nobody), NO_DESTINATION);
        labels.number(&service_labels(None), NO_SERVICE);
        labels.number(UNKNOWN, NO_PRINCIPAL);
        labels
    }

    fn number(&self, text: &str, otherwise: u32) -> u32 {
        if let Some(number) = self.numbers.borrow().get(text) {
            return *number;
        }
        let mut texts = self.texts.borrow_mut();
        if texts.len() >= MOST {
            return otherwise;
        }
        let shared: Rc<str> = Rc::from(text);
        let number = u32::try_from(texts.len()).unwrap_or(otherwise);
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
        let identity = info.tls.as_ref().and_then(|t| t.peer.as_ref()).and_then(|p| p.identity.as_ref());
        let text = if inbound {
            // Until it tells more the namespace of its identity is all that is known for certain.
            let namespace = identity.and_then(|i| i.workload_parts()).map_or(UNKNOWN, |parts| parts.0).to_owned();
            side_labels(Role::Source, &WorkloadFacts { namespace, ..WorkloadFacts::default() })
        } else {
            side_labels(Role::Source, &self.own)
        };
        let end = OtherEnd::of_client(info);
        Side { inbound, id: self.number(&text, NO_SOURCE), end, mutual_tls: identity.is_some() }
    }

    /// Takes out of a message what its sender told of itself, and says what it is worth: nothing without a certificate of the
    /// mesh, and nothing when it claims another namespace than its certificate. The same words on the same connection are
    /// read once.
    pub(crate) fn hear(&self, role: Role, end: Option<&OtherEnd>, headers: &mut HeaderMap) -> Option<u32> {
        let words = metadata::take(headers)?;
        let end = end?;
        if let Some((before, number)) = &*end.told.borrow()
            && **before == *words.as_bytes()
        {
            return *number;
        }
        let number = self.believe(role, end, words.as_bytes());
        // A copy: the header is a part of a larger buffer that would be kept with it.
        *end.told.borrow_mut() = Some((words.as_bytes().into(), number));
        number
    }

    fn believe(&self, role: Role, end: &OtherEnd, words: &[u8]) -> Option<u32> {
        let facts = metadata::read(words)?;
        let (namespace, _) = end.identity.workload_parts()?;
        if facts.namespace != namespace {
            return None;
        }
        let text = side_labels(role, &facts);
        let known = self.numbers.borrow().get(text.as_str()).copied();
        let room = self.texts.borrow().len() < MOST_TOLD;
        known.or_else(|| room.then(|| self.number(&text, NO_SOURCE)))
    }

    /// Tells another proxy of the mesh who we are.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        self.announcement.put(headers);
    }

    /// Numbers of the names in the certificates of a connection, ours first.
    fn principals(&self, end: Option<&OtherEnd>) -> (u32, u32) {
        let Some(end) = end else { return (NO_PRINCIPAL, NO_PRINCIPAL) };
        end.numbers.get().unwrap_or_else(|| {
            let numbers = (self.number(&end.own, NO_PRINCIPAL), self.number(&end.identity.to_string(), NO_PRINCIPAL));
            end.numbers.set(Some(numbers));
            numbers
        })
    }

    fn destination(&self, inbound: bool, cluster: Option<&Cluster>, endpoint: Option<&Endpoint>) -> Destination {
        if let Some(known) = endpoint.and_then(|e| e.telemetry.get()) {
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
            workload: self.number(&workload, NO_DESTINATION),
            service: self.number(&service_labels(service), NO_SERVICE),
        };
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
        let (own, other) = self.principals(if side.inbound { side.end.as_ref() } else { upstream });
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
        let series = self.tables.requests.with(&text);
        let mut requests = self.requests.borrow_mut();
        if requests.len() < MOST {
            requests.insert(key, series.clone());
        }
        series
    }

    fn pair(&self, pair: Pair) -> String {
        let mut text = String::with_capacity(768);
        label(&mut text, "reporter", if pair.inbound { "destination" } else { "source" });
        for part in [self.text(pair.source), self.text(pair.destination), self.text(pair.service)] {
            text.push(',');
            text.push_str(&part);
        }
        label(&mut text, "source_principal", &self.text(pair.source_principal));
        label(&mut text, "destination_principal", &self.text(pair.destination_principal));
        text
    }

    /// The series of a TCP connection.
    pub(crate) fn tcp(&self, side: &Side, finished: &TcpFinished<'_>) -> Arc<TcpSeries> {
        let told = Told::default();
        let mut text = self.pair(self.between(side, finished.cluster, finished.endpoint, finished.end, told));
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
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tombolo_federation_model::Identity;

    fn end(identity: &str) -> OtherEnd {
        OtherEnd {
            identity: Identity::parse(identity).unwrap(),
            own: Arc::from("spiffe://east.local/ns/shop/sa/own"),
            numbers: Cell::new(None),
            told: RefCell::new(None),
        }
    }

    fn labels() -> Labels {
        Labels::new(Arc::default(), Arc::default(), &Announcement::default())
    }

    fn words(namespace: &str) -> HeaderMap {
        let metadata = serde_json::json!({"NAMESPACE": namespace, "WORKLOAD_NAME": "web-v1", "LABELS": {"app": "web"}});
        let node = crate::node::Identity::new("sidecar~1.2.3.4~web-0.shop~x", "c", metadata.as_object().unwrap());
        let mut headers = HeaderMap::new();
        node.announcement.put(&mut headers);
        headers
    }

    #[test]
    fn a_side_says_unknown_for_what_it_does_not_know() {
        let text = side_labels(Role::Source, &WorkloadFacts { workload: "w".into(), ..WorkloadFacts::default() });
        assert!(text.starts_with("source_workload=\"w\",source_workload_namespace=\"unknown\""), "{text}");
    }

    #[test]
    fn numbers_are_stable_and_bounded() {
        let labels = labels();
        let first = labels.number("a", NO_SOURCE);
        assert_eq!(labels.number("a", NO_SOURCE), first);
        for n in 0..MOST + 10 {
            labels.number(&n.to_string(), NO_SOURCE);
        }
        assert_eq!(labels.texts.borrow().len(), MOST);
        assert_eq!(labels.number("one more", NO_PRINCIPAL), NO_PRINCIPAL);
        assert_eq!(&*labels.text(NO_PRINCIPAL), UNKNOWN);
    }

    #[test]
    fn only_a_peer_of_the_mesh_is_believed_and_only_about_its_own_namespace() {
        let (labels, peer) = (labels(), end("spiffe://east.local/ns/shop/sa/web"));
        let mut headers = words("shop");
        assert_eq!(labels.hear(Role::Source, None, &mut headers), None);
        assert!(headers.is_empty(), "the words of strangers go no further either");
        let number = labels.hear(Role::Source, Some(&peer), &mut words("shop")).unwrap();
        let text = labels.text(number);
        assert!(text.contains("source_workload=\"web-v1\"") && text.contains("source_app=\"web\""), "{text}");
        assert_eq!(labels.hear(Role::Source, Some(&peer), &mut words("shop")), Some(number));
        assert_eq!(labels.hear(Role::Source, Some(&peer), &mut words("bank")), None);
        assert_eq!(labels.hear(Role::Source, Some(&end("spiffe://east.local/odd")), &mut words("shop")), None);
    }

    #[test]
    fn the_words_of_others_cannot_take_all_the_room() {
        let (labels, peer) = (labels(), end("spiffe://east.local/ns/shop/sa/web"));
        for n in 0..MOST {
            labels.number(&n.to_string(), NO_SOURCE);
            if labels.texts.borrow().len() >= MOST_TOLD {
                break;
            }
        }
        assert_eq!(labels.hear(Role::Source, Some(&peer), &mut words("shop")), None);
    }

    #[test]
    fn each_reporter_names_both_principals() {
        let labels = labels();
        let peer = end("spiffe://west.local/ns/shop/sa/web");
        for inbound in [true, false] {
            let side = Side { inbound, id: NO_SOURCE, end: inbound.then(|| peer.clone()), mutual_tls: inbound };
            let text = labels.pair(labels.between(&side, None, None, Some(&peer), Told::default()));
            let (source, destination) =
                if inbound { ("west.local", "east.local") } else { ("east.local", "west.local") };
            assert!(text.contains(&format!("source_principal=\"spiffe://{source}")), "{text}");
            assert!(text.contains(&format!("destination_principal=\"spiffe://{destination}")), "{text}");
        }
    }
}
