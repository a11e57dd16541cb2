//! What a request asks of the stand-in by query parameters, and the memory behind `flaky`.
//!
//! Pure but for the bounded list of request ids. An unknown parameter is somebody else's and ignored; a known one with a
//! bad value is refused by name, because a test that silently does not delay is worse than one that fails.

use std::{collections::VecDeque, time::Duration};

/// Request ids that are remembered for `flaky`.
const REMEMBERED: usize = 256;
const LONGEST_DELAY: Duration = Duration::from_secs(600);
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// What to do besides echoing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Wait before the answer.
    pub(super) delay: Duration,
    /// Answer with this status.
    pub(super) status: Option<u16>,
    /// Answer with so many bytes instead of JSON.
    pub(super) size: Option<usize>,
    /// Answer 503 to the first so many attempts with the same `x-request-id`.
    pub(super) flaky: u32,
    /// URLs to call, in order.
    pub(super) calls: Vec<String>,
}

/// Splits a query string into decoded pairs.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Reads the wishes.
pub(super) fn wishes(pairs: &[(String, String)]) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    for (key, value) in pairs {
        let bad = |what: &str| format!("{key}={value}: {what}");
        match key.as_str() {
            "delay" => wishes.delay = duration(value).ok_or_else(|| bad("not a duration such as 300ms or 2s"))?,
            "status" => {
                let status = value.parse().ok().filter(|s| (200..=599).contains(s));
                wishes.status = Some(status.ok_or_else(|| bad("not a status between 200 and 599"))?);
            }
            "size" => {
                let size = value.parse().ok().filter(|s| *s <= LARGEST_BODY);
                wishes.size = Some(size.ok_or_else(|| bad("not a number of bytes up to 64 MiB"))?);
            }
            "flaky" => wishes.flaky = value.parse().map_err(|_| bad("not a number"))?,
            "call" => wishes.calls.push(value.clone()),
            _ => {}
        }
    }
    if wishes.calls.len() > 64 {
        return Err(format!("{} calls: at most 64 in one request", wishes.calls.len()));
    }
    Ok(wishes)
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "us" => 0.000_001,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= LONGEST_DELAY)
}

/// Percent and plus decoding; what is not an escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How often each of the latest request ids was seen. Retries of one request carry the same id.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    seen: VecDeque<(String, u32)>,
}

impl Attempts {
    /// Counts one more attempt of the id and says the how-manieth it is, from 1.
    pub(super) fn count(&mut self, id: &str) -> u32 {
        if let Some((_, count)) = self.seen.iter_mut().find(|(known, _)| known == id) {
            *count += 1;
            return *count;
        }
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back((id.to_owned(), 1));
        1
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: &str) -> bool {
        self.seen.iter().any(|(known, _)| known == id)
    }
}
