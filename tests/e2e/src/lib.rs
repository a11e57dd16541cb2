//! Support for tests with real processes: a running `tombolo up`, and real peers such as Envoy, installed on first use. Owns no
//! test itself; used by `tests/` of this crate only.

pub mod envoy;
pub mod envoy_proxy;
pub mod federation;
pub mod http;
