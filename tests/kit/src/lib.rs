//! What tests of many crates have in common: ports that nobody else will take. Never part of a shipped binary, and never a
//! user of the crates that it helps to test.

mod ports;

pub use ports::free;
