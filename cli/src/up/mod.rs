//! `tombolo up`: a whole federation on this machine.
//!
//! `plan` says where everything listens, `state` owns the folder, `site` plays kubelet and load balancer, `process` runs
//! children, `run` is the loop that ties them together. Never routes or configures anything itself: that is done by the
//! control planes and gateways it starts.

pub(crate) mod converge;
pub(crate) mod folder;
mod launch;
mod manifests;
mod partner;
mod plan;
mod pods;
mod process;
pub(crate) mod published;
mod run;
mod samples;
mod site;
mod state;
mod summary;
mod token;

pub(crate) use run::main;
