//! Whether servers take plaintext.

use super::{Meta, Selector};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Mutual TLS on the server side (a PeerAuthentication).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAuthentication {
    /// Identity of the object.
    pub meta: Meta,
    /// Workloads of the object's namespace; `None` means the whole namespace, or the mesh in the root namespace.
    pub selector: Option<Selector>,
    /// `None` inherits.
    pub mode: Option<MutualTls>,
    /// By workload port (not service port); only with a selector.
    pub ports: BTreeMap<u16, Option<MutualTls>>,
}

/// What a server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutualTls {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
