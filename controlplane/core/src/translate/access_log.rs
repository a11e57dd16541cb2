//! One line for each request or connection.

use super::{
    encode::{Tree, json_format, put},
    wire::{accesslog, protobuf},
};
use crate::intent::MeshSettings;
use std::collections::BTreeMap;

/// Fields of the JSON form, by the name that log pipelines know from Istio.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// The log of a listener, unless the mesh wants none.
pub(super) fn access_log(mesh: &MeshSettings) -> Vec<accesslog::AccessLog> {
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    // Written field by field because the JSON form is a map; see `encode`. 1: path, 5: log_format.
    let mut file = Vec::new();
    put(&mut file, 1, mesh.access_log_file.as_bytes());
    if mesh.access_log_json {
        let fields: BTreeMap<String, Tree> =
            FIELDS.iter().map(|(name, value)| ((*name).to_owned(), Tree::text(*value))).collect();
        put(&mut file, 5, &json_format(&fields));
    } else if !mesh.access_log_format.is_empty() {
        let mut text = Vec::new();
        // 5: text_format_source as a data source with 3: inline_string. The plain text field is deprecated.
        let mut source = Vec::new();
        put(&mut source, 3, mesh.access_log_format.as_bytes());
        put(&mut text, 5, &source);
        put(&mut file, 5, &text);
    }
    let config = protobuf::Any {
        type_url: "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog".to_owned(),
        value: file,
    };
    vec![accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(config)),
    }]
}
