//! The tables of cases, by subject.

mod http;
mod http2;
mod policy;
mod tcp;
mod tls;

use crate::script::Scenario;

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [http::all(), http2::all(), policy::all(), tcp::all(), tls::all()].concat()
}
