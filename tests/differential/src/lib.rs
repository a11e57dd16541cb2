//! Differential testing: a stock Envoy and our gateway stand side by side under the same xDS snapshot, get the same bytes from
//! the same clients and have the same scripted backends; every fact that a client, a backend or an access log can see is
//! compared. Owns the harness and the tables of cases; used by `tests/` of this crate only.

pub mod ads;
pub mod backend;
pub mod cases;
pub mod certs;
pub mod client;
pub mod compare;
pub mod fuzz;
pub mod http1;
pub mod http2;
pub mod http3;
pub mod place;
pub mod resource;
pub mod run;
pub mod schema;
pub mod script;
mod tap;
pub mod world;
