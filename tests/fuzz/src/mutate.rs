//! A small mutator: enough to shake a parser for a moment where no fuzzer is installed.
//!
//! Everything follows from one number, so that a finding can be had again.

use crate::Target;
use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Inputs never grow beyond this.
const LONGEST: usize = 64 * 1024;
/// New inputs are kept to build upon, up to so many.
const POOL: usize = 256;
/// Bytes and numbers at which parsers break.
const SHARP: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"%",
    b"/",
    b"..",
    b"#",
    b"?",
    b"\"",
    b"{",
    b"[",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"18446744073709551616",
    b"-1",
    b"0x",
    b"%00",
    b"%2f",
    b"\xf0\x9f\x92\xa9",
];

/// An input that broke a law.
#[derive(Debug)]
pub struct Finding {
    /// Which target.
    pub target: &'static str,
    /// The input, escaped as a Rust byte string.
    pub input: String,
    /// What the panic said.
    pub words: String,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*: good enough to choose places and bytes.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { usize::try_from(self.next() >> 33).unwrap_or(0) % bound }
    }
}

/// So many inputs are fed at least, however long that takes.
const LEAST: u64 = 100;

/// Feeds a target its seeds and then mutants of them for so long; says how many inputs that were.
///
/// # Errors
/// The first input that broke a law.
pub fn run(target: &Target, seed: u64, length: Duration) -> Result<u64, Finding> {
    let mut pool = (target.seeds)();
    for input in &pool {
        feed(target, input)?;
    }
    let mut random = Random(seed | 1);
    let until = Instant::now() + length;
    let mut count = pool.len() as u64;
    // On a machine that stands still meanwhile, a moment would be no test.
    while Instant::now() < until || count <= LEAST {
        for _ in 0..64 {
            let input = mutant(&pool, &mut random);
            feed(target, &input)?;
            count += 1;
            if random.below(8) == 0 {
                keep(&mut pool, input, &mut random);
            }
        }
    }
    Ok(count)
}

fn keep(pool: &mut Vec<Vec<u8>>, input: Vec<u8>, random: &mut Random) {
    if pool.len() < POOL {
        pool.push(input);
    } else {
        let at = random.below(POOL);
        pool[at] = input;
    }
}

fn mutant(pool: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = pool.get(random.below(pool.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        mutate(&mut input, pool, random);
    }
    input.truncate(LONGEST);
    input
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = at + random.below(input.len() - at + 1);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        4 => {
            let other = pool.get(random.below(pool.len())).map_or(&[][..], |other| other);
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1);
            input.splice(at..end, other[from..to].iter().copied());
        }
        5 => input.truncate(at),
        _ => {
            let sharp = SHARP[random.below(SHARP.len())];
            input.splice(at..at.max(end.min(at + sharp.len())), sharp.iter().copied());
        }
    }
}

fn feed(target: &Target, input: &[u8]) -> Result<(), Finding> {
    catch_unwind(AssertUnwindSafe(|| (target.feed)(input))).map_err(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        let input = input.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{}", byte.escape_ascii());
            text
        });
        Finding { target: target.name, input, words }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(input: &[u8]) {
        assert!(!input.starts_with(b"ab\0"), "found");
    }

    #[test]
    fn a_law_that_can_be_broken_is_broken_and_told() {
        let target = Target { name: "breaks", feed: breaks, seeds: || vec![b"abc".to_vec()] };
        let finding = run(&target, 7, Duration::from_secs(20)).unwrap_err();
        assert_eq!((finding.target, finding.words.as_str()), ("breaks", "found"));
        assert!(finding.input.starts_with(r"ab\x00"), "{}", finding.input);
    }
}
