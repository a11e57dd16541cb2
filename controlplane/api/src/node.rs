//! Keys of the xDS node's metadata. The names without a prefix are Istio's, so that Istio's own proxies
//! say the same; those with `TOMBOLO_` are ours. Values are strings unless said otherwise.

/// Pod or workload name.
pub const NAME: &str = "NAME";
/// Namespace of the workload.
pub const NAMESPACE: &str = "NAMESPACE";
/// Struct of labels.
pub const LABELS: &str = "LABELS";
/// Cluster id.
pub const CLUSTER_ID: &str = "CLUSTER_ID";
/// Network id.
pub const NETWORK: &str = "NETWORK";
/// Service account.
pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
/// Workload name as in the owner, for telemetry.
pub const WORKLOAD_NAME: &str = "WORKLOAD_NAME";
/// Version of the proxy, as an Istio release.
pub const ISTIO_VERSION: &str = "ISTIO_VERSION";
/// `REDIRECT`, `TPROXY` or `NONE`. `NONE`: nothing is captured, listeners bind what `TOMBOLO_*` says.
pub const INTERCEPTION_MODE: &str = "INTERCEPTION_MODE";
/// Comma separated addresses of the workload.
pub const INSTANCE_IPS: &str = "INSTANCE_IPS";

/// `IP:PORT` of the outbound listener that takes requests in proxy form or by Host header (sidecars without capture).
pub const TOMBOLO_HTTP_PROXY: &str = "TOMBOLO_HTTP_PROXY";
/// Struct from the workload's port number (as text) to `"BIND_IP:PORT,APP_IP:PORT"`: where the sidecar listens and
/// where the application does (sidecars without capture).
pub const TOMBOLO_INBOUND: &str = "TOMBOLO_INBOUND";
/// Address that a gateway binds; `0.0.0.0` when absent.
pub const TOMBOLO_BIND: &str = "TOMBOLO_BIND";
/// Number added to gateway ports below 1024, as text, where the process may not bind those; `0` when absent.
pub const TOMBOLO_LOW_PORT_OFFSET: &str = "TOMBOLO_LOW_PORT_OFFSET";
/// Struct from port number (as text) to the port number (as text) that is bound instead; wins over the offset.
pub const TOMBOLO_PORT_MAP: &str = "TOMBOLO_PORT_MAP";
/// `IP:PORT` for Envoy-style readiness and metrics that the control plane may tell others about.
pub const TOMBOLO_ADMIN: &str = "TOMBOLO_ADMIN";

/// Name of the static upstream that serves a proxy's own certificate (`default`), as in Istio: the private key never
/// comes from the control plane. Trust bundles (`ROOTCA`) come over ADS.
pub const SDS_UPSTREAM: &str = "sds-grpc";
/// Secret name of a proxy's own certificate.
pub const SECRET_DEFAULT: &str = "default";
/// Secret name of the trust bundles: a validation context with Envoy's SPIFFE validator, one bundle per trust domain.
pub const SECRET_ROOTS: &str = "ROOTCA";
