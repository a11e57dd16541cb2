//! What changes in the headers of a request and of its response on the way.
//!
//! Owns the router's part: route-level header changes, rewrites, `x-envoy-*`, retries as the request asks for them, and what the
//! connection manager does to a response. Never decides where to. Used by the I/O layer around each exchange.

mod follow;
mod local;
mod prepare;
mod response;
mod retry;

#[cfg(test)]
mod tests;

pub use follow::{Asked, Trail, follow};
pub use local::{Answer, in_grpc, percent_encoded, rewrite};
pub use prepare::{Context, prepare, request_trailers, stamp_attempt};
pub use response::{finish_response, upstream_response};
pub use retry::parse_retry_on;
pub(crate) use retry::{policy as retry_policy, told_hedging};
