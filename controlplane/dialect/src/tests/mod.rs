//! Tests of whole readings. Small grammars are tested beside their code.

mod folders;
mod golden;
mod samples;
