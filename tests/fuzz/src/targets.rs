//! The targets, by what they read.

pub mod codecs;
pub mod configuration;
pub mod connection;
pub mod requests;
pub mod routing;
pub mod servers;

/// Three pieces of an input.
fn thirds(input: &[u8]) -> [&[u8]; 3] {
    let (first, second) = input.split_at(input.len() / 3);
    let (second, third) = second.split_at(second.len() / 2);
    [first, second, third]
}

/// Seeds that are written out.
fn seeds(list: &[&[u8]]) -> Vec<Vec<u8>> {
    list.iter().map(|seed| seed.to_vec()).collect()
}
