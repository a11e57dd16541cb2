//! What is told about traffic: metrics and access logs.
//!
//! Never fails a request and never waits for whoever reads.

pub(crate) mod ends;
pub(crate) mod labels;
pub(crate) mod metadata;
pub(crate) mod numbers;
pub(crate) mod proc;
pub(crate) mod series;
pub(crate) mod sink;
