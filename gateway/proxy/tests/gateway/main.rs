//! The gateway as a process, between real clients, real servers and a control plane of the test's own.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::type_complexity)]

mod build;
mod client;
mod dns;
mod docs;
mod issuing;
mod moody;
mod origin;
mod process;
mod spelling;

mod breakers;
mod clocks;
mod dynamic;
mod filters;
mod handed;
mod http;
mod limits;
mod quic;
mod series;
mod tcp;
mod tls;
mod upstream;
mod xds;
