//! Support for tests with real processes: a running `tombolo up`, and a real Envoy under it. Owns no test itself; used by `tests/` of this crate only.

pub mod envoy_proxy;
pub mod federation;
pub mod http;
