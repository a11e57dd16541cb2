//! The tables of cases, by subject.

mod drain;
mod health;
mod http;
mod http2;
mod http3;
mod lives;
mod mutations;
mod placement;
mod policy;
mod redirects;
mod retries;
mod tcp;
mod tls;
mod told;
mod warming;

use crate::script::Scenario;

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    // The longest ones first: nothing waits for them at the end.
    [
        drain::all(),
        warming::all(),
        health::all(),
        http::all(),
        http2::all(),
        http3::all(),
        lives::all(),
        mutations::all(),
        placement::all(),
        policy::all(),
        redirects::all(),
        retries::all(),
        tcp::all(),
        tls::all(),
        told::all(),
    ]
    .concat()
}
