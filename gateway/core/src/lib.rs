//! Under construction.

pub mod failure;
