//! What proxies of a mesh tell each other of their workloads, in Istio's headers.
//!
//! Owns the headers' form: the node's id beside a protobuf struct in base64. Says nothing about who may be believed. Both
//! are taken out of every message that passes, so that neither an application nor a stranger ever sees them.

use crate::node::WorkloadFacts;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tombolo_controlplane_api::{
    node as keys,
    xds::google::protobuf::{Struct, Value, value::Kind},
};

/// Who tells: the id of its xDS node.
const ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
/// What it tells.
const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// More is not read.
const LONGEST: usize = 8 * 1024;
/// Longer names are no names of workloads.
const LONGEST_NAME: usize = 253;
/// Part of a node's metadata that is not in [`keys`]: the object that made the workload.
const OWNER: &str = "OWNER";
/// What is told of a node's metadata.
const TOLD: [&str; 6] =
    [keys::NAME, keys::NAMESPACE, keys::CLUSTER_ID, keys::WORKLOAD_NAME, OWNER, "PLATFORM_METADATA"];
/// What is told of its labels: those that metrics name.
const TOLD_LABELS: [&str; 6] = [
    "app",
    "version",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
];

/// What this proxy tells.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    id: HeaderValue,
    metadata: HeaderValue,
}

impl Default for Announcement {
    fn default() -> Self {
        Self { id: HeaderValue::from_static(""), metadata: HeaderValue::from_static("") }
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn as_text(value: Option<&Value>) -> Option<&str> {
    match value?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

impl Announcement {
    /// From the node's id, its metadata, and what metrics say of the same workload: both sides then say the same.
    pub(crate) fn new(id: &str, metadata: &Struct, facts: &WorkloadFacts) -> Self {
        let mut told = Struct::default();
        for key in TOLD {
            if let Some(value) = metadata.fields.get(key) {
                told.fields.insert(key.to_owned(), value.clone());
            }
        }
        for (key, value) in [
            (keys::NAMESPACE, &facts.namespace),
            (keys::WORKLOAD_NAME, &facts.workload),
            (keys::CLUSTER_ID, &facts.cluster),
        ] {
            told.fields.entry(key.to_owned()).or_insert_with(|| text(value));
        }
        let mut labels = Struct::default();
        if let Some(Kind::StructValue(all)) = metadata.fields.get(keys::LABELS).and_then(|v| v.kind.as_ref()) {
            for key in TOLD_LABELS {
                if let Some(value) = all.fields.get(key) {
                    labels.fields.insert(key.to_owned(), value.clone());
                }
            }
        }
        for (key, value) in [(TOLD_LABELS[4], &facts.canonical_service), (TOLD_LABELS[5], &facts.canonical_revision)] {
            labels.fields.entry(key.to_owned()).or_insert_with(|| text(value));
        }
        told.fields.insert(keys::LABELS.to_owned(), Value { kind: Some(Kind::StructValue(labels)) });
        let encoded = STANDARD.encode(told.encode_to_vec());
        Self {
            id: HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            metadata: HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static("")),
        }
    }

    /// The same in memory of its own: a copy for one worker, which shares no counter with others.
    pub(crate) fn apart(&self) -> Self {
        let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        Self { id: copy(&self.id), metadata: copy(&self.metadata) }
    }

    /// Puts it into a message for a proxy of the mesh.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        if !self.metadata.is_empty() {
            headers.insert(ID, self.id.clone());
            headers.insert(METADATA, self.metadata.clone());
        }
    }
}

/// Takes what is told out of a message.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers.remove(ID);
    headers.remove(METADATA)
}

/// Reads what was told; nothing when it is not of the form, or says no workload and namespace.
pub(crate) fn read(told: &[u8]) -> Option<WorkloadFacts> {
    if told.len() > LONGEST {
        return None;
    }
    let told = Struct::decode(STANDARD.decode(told).ok()?.as_slice()).ok()?;
    let field = |key: &str| name(as_text(told.fields.get(key)));
    let labels = match told.fields.get(keys::LABELS).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => Some(labels),
        _ => None,
    };
    let label = |key: &str| name(labels.and_then(|l| as_text(l.fields.get(key))));
    let either = |first: &str, second: &str| label(first).or_else(|| label(second)).unwrap_or_default();
    let workload = field(keys::WORKLOAD_NAME).or_else(|| field(keys::NAME))?;
    let (app, version) = (either(TOLD_LABELS[0], TOLD_LABELS[2]), either(TOLD_LABELS[1], TOLD_LABELS[3]));
    let or = |value: &str, other: &str| if value.is_empty() { other.to_owned() } else { value.to_owned() };
    Some(WorkloadFacts {
        canonical_service: label(TOLD_LABELS[4]).unwrap_or_else(|| or(&app, &workload)),
        canonical_revision: label(TOLD_LABELS[5]).unwrap_or_else(|| or(&version, "latest")),
        namespace: field(keys::NAMESPACE)?,
        cluster: field(keys::CLUSTER_ID).unwrap_or_default(),
        workload,
        app,
        version,
    })
}

/// A value that may become one of a metric's label.
fn name(text: Option<&str>) -> Option<String> {
    text.filter(|t| !t.is_empty() && t.len() <= LONGEST_NAME && !t.chars().any(char::is_control)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Identity;

    fn node(metadata: serde_json::Value) -> (Announcement, WorkloadFacts) {
        let node = Identity::new(
            "sidecar~10.0.0.1~reviews-v1-0.shop~shop.svc.cluster.local",
            "c",
            metadata.as_object().unwrap(),
        );
        let told = Announcement::new(&node.message.id, node.message.metadata.as_ref().unwrap(), &node.workload);
        (told, (*node.workload).clone())
    }

    #[test]
    fn what_is_told_is_what_is_read() {
        for metadata in [
            serde_json::json!({}),
            serde_json::json!({"NAMESPACE": "shop", "WORKLOAD_NAME": "reviews-v1", "CLUSTER_ID": "east", "OWNER": "kubernetes://x",
                "SECRET": "hunter2", "LABELS": {"app": "reviews", "version": "v1", "other": "hunter2"}}),
        ] {
            let (told, facts) = node(metadata);
            let mut headers = HeaderMap::new();
            told.apart().put(&mut headers);
            assert_eq!(headers.len(), 2);
            let value = take(&mut headers).unwrap();
            assert!(headers.is_empty());
            assert_eq!(read(value.as_bytes()).unwrap(), facts);
            let plain = STANDARD.decode(value.as_bytes()).unwrap();
            assert!(!plain.windows(7).any(|w| w == b"hunter2"), "only what metrics name is told");
        }
    }

    #[test]
    fn what_istio_tells_is_understood() {
        // Written by hand after the fields that Istio's proxies send.
        let labels = Struct { fields: [("app".to_owned(), text("web"))].into_iter().collect() };
        let fields = [
            ("NAME", text("web-7c-x")),
            ("NAMESPACE", text("shop")),
            ("WORKLOAD_NAME", text("web")),
            ("MESH_ID", text("m")),
            ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
        ];
        let told = Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() };
        let facts = read(STANDARD.encode(told.encode_to_vec()).as_bytes()).unwrap();
        assert_eq!(
            (facts.workload.as_str(), facts.app.as_str(), facts.canonical_service.as_str()),
            ("web", "web", "web")
        );
        assert_eq!((facts.namespace.as_str(), facts.canonical_revision.as_str()), ("shop", "latest"));
    }

    #[test]
    fn nonsense_is_nothing() {
        assert!(read(b"***").is_none());
        assert!(read(STANDARD.encode([0xff; 40]).as_bytes()).is_none());
        assert!(read(&vec![b'A'; LONGEST + 4]).is_none());
        let long = Struct {
            fields: [("NAME".to_owned(), text(&"x".repeat(300))), ("NAMESPACE".to_owned(), text("n"))]
                .into_iter()
                .collect(),
        };
        assert!(read(STANDARD.encode(long.encode_to_vec()).as_bytes()).is_none());
    }
}
