//! The `tombolo` command: runs a federation on this machine, looks into running ones, checks manifests.
//!
//! Owns processes, files and tables for people. Decides nothing about routing or configuration: that is in the crates
//! that it calls. One binary also plays the control plane, the gateway and the stand-in workload, so that a demo needs
//! nothing but itself.

mod args;
mod check;
mod dispatch;
mod http;
mod inspect;
mod up;
pub mod workload;

pub use dispatch::main;
