//! What tests of many crates have in common: ports that nobody else will take, a control plane that says what a test
//! puts into it, clients that take any certificate, and programs of others as peers. Never part of a shipped binary, and never a user of the crates that it helps to test, but for the
//! vocabulary of the wire and the publisher's half of the protocol.

pub mod ads;
pub mod peers;
mod ports;
mod tls;

pub use ports::free;
pub use tls::trusting;
