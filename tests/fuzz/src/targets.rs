//! The targets, by what they read.

pub mod codecs;
pub mod configuration;
pub mod connection;
pub mod routing;
pub mod servers;
