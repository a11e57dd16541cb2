//! Who this gateway says it is: the xDS node message and the facts of it that telemetry repeats.
//!
//! Owns the metadata file's contents. Never decides anything from them.

use crate::telemetry::metadata::Announcement;
use prost::Message as _;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tombolo_controlplane_api::{
    node as keys,
    xds::{
        envoy::config::core::v3::{Locality, Node, node::UserAgentVersionType},
        google::protobuf::{ListValue, Struct, Value, value::Kind},
    },
};

/// The node as it is sent, and as telemetry labels need it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The message for the control plane.
    pub(crate) message: Node,
    /// What telemetry says of this proxy's own workload.
    pub(crate) workload: Arc<WorkloadFacts>,
    /// The same as other proxies are told.
    pub(crate) announcement: Arc<Announcement>,
}

/// Istio's labels of one side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct WorkloadFacts {
    /// Workload name.
    pub(crate) workload: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Value of the `app` label.
    pub(crate) app: String,
    /// Value of the `version` label.
    pub(crate) version: String,
    /// Canonical service.
    pub(crate) canonical_service: String,
    /// Canonical revision.
    pub(crate) canonical_revision: String,
    /// Cluster id.
    pub(crate) cluster: String,
}

/// Why a metadata file was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    /// It could not be read.
    #[error("metadata file {0}: {1}")]
    Read(String, std::io::Error),
    /// It is not a JSON object.
    #[error("metadata file {0} is not a JSON object: {1}")]
    Parse(String, serde_json::Error),
}

impl Identity {
    /// Builds the node from the command line's parts.
    ///
    /// # Errors
    /// When the metadata file cannot be read or is not a JSON object.
    pub(crate) fn load(id: &str, cluster: &str, metadata: Option<&Path>) -> Result<Self, MetadataError> {
        let map = match metadata {
            None => serde_json::Map::new(),
            Some(path) => {
                let name = || path.display().to_string();
                let text = std::fs::read(path).map_err(|e| MetadataError::Read(name(), e))?;
                serde_json::from_slice(&text).map_err(|e| MetadataError::Parse(name(), e))?
            }
        };
        Ok(Self::new(id, cluster, &map))
    }

    /// Builds the node from metadata that is at hand.
    #[must_use]
    pub(crate) fn new(id: &str, cluster: &str, metadata: &serde_json::Map<String, serde_json::Value>) -> Self {
        let workload = Arc::new(facts(id, metadata));
        let metadata_struct = to_struct(metadata);
        let announcement = Arc::new(Announcement::new(id, &metadata_struct, &workload));
        let message = Node {
            id: id.to_owned(),
            cluster: cluster.to_owned(),
            metadata: Some(metadata_struct),
            locality: locality(metadata),
            user_agent_name: "tombolo-gateway".to_owned(),
            client_features: vec!["xds.config.supports-resource-ttl".to_owned()],
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned())),
            ..Node::default()
        };
        Self { message, workload, announcement }
    }

    /// The node as the bytes that `--state` compares: another node's configuration must not be served.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        Node { id: self.message.id.clone(), cluster: self.message.cluster.clone(), ..Node::default() }.encode_to_vec()
    }
}

fn facts(id: &str, metadata: &serde_json::Map<String, serde_json::Value>) -> WorkloadFacts {
    let text = |key: &str| metadata.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let label = |key: &str| {
        let labels = metadata.get(keys::LABELS).and_then(|v| v.as_object());
        labels.and_then(|l| l.get(key)).and_then(|v| v.as_str()).map(str::to_owned)
    };
    // Without metadata the name and namespace are still in the id: type~ip~name.namespace~domain.
    let from_id = id.split('~').nth(2).and_then(|part| part.rsplit_once('.'));
    let or = |value: String, other: Option<&str>| {
        if value.is_empty() { other.unwrap_or_default().to_owned() } else { value }
    };
    let workload = or(or(text(keys::WORKLOAD_NAME), Some(&text(keys::NAME))), from_id.map(|p| p.0));
    let app = label("app").or_else(|| label("app.kubernetes.io/name")).unwrap_or_default();
    let version = label("version").or_else(|| label("app.kubernetes.io/version")).unwrap_or_default();
    WorkloadFacts {
        canonical_service: label("service.istio.io/canonical-name").unwrap_or_else(|| or(app.clone(), Some(&workload))),
        canonical_revision: label("service.istio.io/canonical-revision")
            .unwrap_or_else(|| or(version.clone(), Some("latest"))),
        workload,
        namespace: or(text(keys::NAMESPACE), from_id.map(|p| p.1)),
        app,
        version,
        cluster: text(keys::CLUSTER_ID),
    }
}

fn locality(metadata: &serde_json::Map<String, serde_json::Value>) -> Option<Locality> {
    let labels = metadata.get(keys::LABELS)?.as_object()?;
    let text = |key: &str| labels.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let region = text("topology.kubernetes.io/region");
    (!region.is_empty()).then(|| Locality {
        region,
        zone: text("topology.kubernetes.io/zone"),
        sub_zone: text("topology.istio.io/subzone"),
    })
}

fn to_struct(map: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: map.iter().map(|(k, v)| (k.clone(), to_value(v))).collect::<BTreeMap<_, _>>().into_iter().collect(),
    }
}

fn to_value(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(b) => Kind::BoolValue(*b),
        serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Kind::StringValue(s.clone()),
        serde_json::Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_value).collect() }),
        serde_json::Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: serde_json::Value) -> Identity {
        Identity::new(
            "sidecar~10.0.0.1~reviews-v1-abc.default~default.svc.cluster.local",
            "c",
            json.as_object().unwrap(),
        )
    }

    #[test]
    fn labels_win_and_the_id_fills_gaps() {
        let bare = node(serde_json::json!({}));
        assert_eq!(bare.workload.workload, "reviews-v1-abc");
        assert_eq!(bare.workload.namespace, "default");
        assert_eq!(bare.workload.canonical_revision, "latest");
        let full = node(serde_json::json!({
            "NAMESPACE": "shop", "WORKLOAD_NAME": "reviews-v1", "CLUSTER_ID": "east",
            "LABELS": {"app": "reviews", "version": "v1", "topology.kubernetes.io/region": "r1"},
        }));
        assert_eq!(full.workload.workload, "reviews-v1");
        assert_eq!(full.workload.canonical_service, "reviews");
        assert_eq!(full.workload.canonical_revision, "v1");
        assert_eq!(full.workload.cluster, "east");
        assert_eq!(full.message.locality.unwrap().region, "r1");
    }

    #[test]
    fn metadata_keeps_its_shape() {
        let n = node(serde_json::json!({"A": {"b": ["x", 1, true]}}));
        let fields = n.message.metadata.unwrap().fields;
        assert!(matches!(fields["A"].kind, Some(Kind::StructValue(_))));
    }
}
