//! The gateway as a process, between real clients, real servers and a control plane of the test's own.
#![allow(missing_docs, clippy::unwrap_used)]

mod ads;
mod build;
mod origin;
mod process;
mod client;

mod http;
mod tcp;
mod tls;
mod xds;
