//! The filter that writes values of headers and cookies into the request's metadata, as configured.

use super::HeaderMutationFilter;
use crate::{config::RegexRewrite, head::Name};
use std::sync::Arc;

/// Writes what heads say into the request's metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderToMetadata {
    /// For requests, in order.
    pub request: Box<[MetadataRule]>,
    /// For responses, in order.
    pub response: Box<[MetadataRule]>,
    /// Headers of requests that go once they were read.
    pub removal: Option<Arc<HeaderMutationFilter>>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataRule {
    /// What is read.
    pub source: MetadataSource,
    /// Written where there is something.
    pub present: Option<MetadataTarget>,
    /// Written where there is nothing.
    pub missing: Option<MetadataTarget>,
    /// The header goes; those after this do not find it.
    pub remove: bool,
}

/// What is read.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataSource {
    /// A header; `None`: there cannot be such a one.
    Header(Option<Name>),
    /// A cookie.
    Cookie(Box<str>),
}

/// What is written.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataTarget {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key in it.
    pub key: Arc<str>,
    /// Instead of what was read; empty: what was read.
    pub value: Box<str>,
    /// What becomes of what was read.
    pub rewrite: Option<RegexRewrite>,
    /// As what.
    pub kind: MetadataKind,
    /// It is written in base64.
    pub base64: bool,
}

/// As what a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataKind {
    /// A text.
    Text,
    /// A number; what is none is not written.
    Number,
    /// An encoded `google.protobuf.Value`.
    Encoded,
}
