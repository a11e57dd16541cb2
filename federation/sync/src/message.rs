//! Requests and responses of both protocols, without an encoding. Used by both halves and by whoever owns a stream.

use crate::Resource;
use std::{collections::BTreeMap, sync::Arc};

/// What a reader says in the delta protocol: subscription, acknowledgement or refusal, or all at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeltaRequest {
    /// The type that is talked about.
    pub type_url: Arc<str>,
    /// Nonce of the response that is answered; empty when none is.
    pub nonce: String,
    /// Present: the answered response was refused, and why.
    pub error: Option<String>,
    /// The resources of the answered response that were refused, with reasons, where the encoding can say so.
    /// Empty with an error present means that the text of the error is all there is.
    pub refused: BTreeMap<String, String>,
    /// Names that are asked for from now on; `*` for all.
    pub subscribe: Vec<String>,
    /// Names that are no longer asked for.
    pub unsubscribe: Vec<String>,
    /// Versions that the reader already holds, by name. Only looked at in the first request of a type in a stream.
    pub initial_versions: BTreeMap<String, String>,
}

/// What an owner says in the delta protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeltaResponse {
    /// The type that is talked about.
    pub type_url: Arc<str>,
    /// To be repeated in the answer.
    pub nonce: String,
    /// New and changed resources.
    pub resources: Vec<Arc<Resource>>,
    /// Names that do not exist, or not any more.
    pub removed: Vec<Arc<str>>,
    /// Revision of the snapshot, as text. Informational.
    pub system_version: String,
    /// True when the reader, having taken this, holds everything of the type that it asked for.
    pub complete: bool,
}

/// What a reader says in the state-of-the-world protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SotwRequest {
    /// The type that is talked about.
    pub type_url: Arc<str>,
    /// The version that was last accepted; empty when none was.
    pub version: String,
    /// Nonce of the response that is answered; empty in the first request.
    pub nonce: String,
    /// Every name that is asked for; empty or `*` for all, see [`crate::Rule::wildcard`].
    pub names: Vec<String>,
    /// Present: the answered response was refused, and why.
    pub error: Option<String>,
}

/// What an owner says in the state-of-the-world protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SotwResponse {
    /// The type that is talked about.
    pub type_url: Arc<str>,
    /// Hash of what is sent.
    pub version: String,
    /// To be repeated in the answer.
    pub nonce: String,
    /// Everything (see [`crate::Rule::full_state`]), or what changed.
    pub resources: Vec<Arc<Resource>>,
}

/// What a response changed for a reader. The reader must answer it: with nothing refused, or with the names of the
/// resources that it could not use and the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "an update that is not answered stops the stream of its type"]
pub struct Update {
    /// The type that is talked about.
    pub type_url: Arc<str>,
    /// Which response this was.
    pub nonce: String,
    /// The version of the whole response, in the state-of-the-world protocol.
    pub version: String,
    /// New resources, and those whose content is another than the one that was last accepted.
    pub changed: Vec<Arc<Resource>>,
    /// To be dropped.
    pub removed: Vec<Arc<str>>,
    /// Names that the owner says it does not have, of a type whose resources a reader keeps until it unsubscribes.
    pub missing: Vec<Arc<str>>,
    /// See [`DeltaResponse::complete`]. Always true in the state-of-the-world protocol.
    pub complete: bool,
}
