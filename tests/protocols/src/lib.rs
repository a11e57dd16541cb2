//! What tests of protocols have in common: a control plane that says one thing, a gateway process, servers behind it, and
//! programs of others as clients.

pub mod certificates;
pub mod files;
pub mod flood;
pub mod gateway;
pub mod origin;
pub mod peers;
pub mod recorder;
pub mod resources;
pub mod scripted;
pub mod wire1;
pub mod wire2;
pub mod world;
