//! The tables of cases, by subject.

mod http;
mod tcp;
mod tls;

use crate::script::Scenario;

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [http::all(), tcp::all(), tls::all()].concat()
}
