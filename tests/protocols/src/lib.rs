//! What tests of protocols have in common: a gateway process, what it is told, servers behind it, and bytes as clients send
//! them.

pub mod certificates;
pub mod files;
pub mod flood;
pub mod gateway;
pub mod origin;
pub mod recorder;
pub mod resources;
pub mod scripted;
pub mod wire1;
pub mod wire2;
pub mod world;
