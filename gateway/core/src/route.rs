//! Choosing a route.

pub mod hosts;
