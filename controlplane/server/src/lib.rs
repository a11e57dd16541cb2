//! The control plane daemon: sources, the world thread, streams to proxies and peers, the certificate authority, status.
//!
//! Owns every socket, file, thread and clock of the control plane. Decides nothing about configuration: what objects mean is
//! read by the dialect crate, and what proxies are told is computed by the core crate.

pub mod ca;
pub mod config;
pub mod metrics;
