//! The data plane without I/O.
//!
//! Owns: reading xDS messages (`wire`), the immutable configuration (`config`), putting complete configurations together
//! (`assemble`), judging requests (`request`, `decide`, `route`, `filter`), choosing endpoints (`balance`, `outlier`,
//! `breaker`), trying and retrying (`attempt`), and what failed (`failure`). Never: a socket, a clock, a thread, `async`; time and
//! random numbers are arguments. Used by `gateway/proxy`.
//!
//! A request's way: the codec fills a [`head::Head`]; [`request::admit`] cleans it and says who asks;
//! [`decide::decide`] answers with a [`decision::Decision`]; [`forward`] changes the headers on the way up and down.

pub mod accesslog;
pub mod assemble;
pub mod attempt;
pub mod balance;
pub mod breaker;
pub mod chain;
pub mod config;
pub mod decide;
pub mod decision;
pub mod failure;
pub mod filter;
pub mod format;
pub mod forward;
pub mod hash;
pub mod head;
pub mod header;
pub mod health;
pub mod names;
pub mod outlier;
pub mod request;
pub mod route;
pub mod runtime;
pub mod time;
pub mod wire;

#[cfg(test)]
mod testing;
