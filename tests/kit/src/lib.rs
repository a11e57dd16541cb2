//! What tests of many crates have in common: ports that nobody else will take, and a control plane that says what a test
//! puts into it. Never part of a shipped binary, and never a user of the crates that it helps to test, but for the
//! vocabulary of the wire and the publisher's half of the protocol.

pub mod ads;
mod ports;

pub use ports::free;
