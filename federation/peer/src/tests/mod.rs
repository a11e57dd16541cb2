//! Tests of this crate: what is trusted, and what two sites exchange over real sockets.

mod certificates;
mod relay;
mod sites;
mod streams;
mod trust;
