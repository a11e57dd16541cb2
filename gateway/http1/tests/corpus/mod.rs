//! The corpus of requests as a table: `requests.txt` read. Other tests may include this file by its path.

/// What is read, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A request with so many bytes of body.
    Request(String, usize),
    /// A head that is refused with this status.
    Refused(u16),
    /// A body that is refused after its head was read.
    Body(String),
    /// More is awaited: of a head, or of the body of this method.
    Partial(Option<String>),
}

/// One case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    /// What becomes of it.
    pub(crate) outcomes: Vec<Outcome>,
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    include_str!("requests.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(case).collect()
}

fn case(line: &str) -> Case {
    let mut parts = line.splitn(3, " | ");
    let mut next = || parts.next().unwrap_or_else(|| panic!("{line:?} has three parts"));
    let name = next().to_owned();
    let outcomes = next().split(", ").map(outcome).collect();
    Case { name, outcomes, bytes: unescape(next()) }
}

fn outcome(text: &str) -> Outcome {
    match text.split_once(' ') {
        Some(("body", method)) => Outcome::Body(method.to_owned()),
        Some(("partial", method)) => Outcome::Partial(Some(method.to_owned())),
        Some((method, length)) => Outcome::Request(method.to_owned(), length.parse().expect("a length")),
        None if text == "partial" => Outcome::Partial(None),
        None => Outcome::Refused(text.parse().expect("a status")),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match first {
            '{' => {
                let (inside, after) = rest[1..].split_once('}').expect("a closing brace");
                let (what, times) = inside.rsplit_once('*').expect("a number of times");
                out.extend(unescape(what).repeat(times.parse().expect("a number")));
                rest = after;
            }
            '\\' => {
                let (byte, length) = match rest.as_bytes()[1] {
                    b'r' => (b'\r', 2),
                    b'n' => (b'\n', 2),
                    b't' => (b'\t', 2),
                    b'x' => (u8::from_str_radix(&rest[2..4], 16).expect("two digits"), 4),
                    other => (other, 2),
                };
                out.push(byte);
                rest = &rest[length..];
            }
            other => {
                out.push(u8::try_from(other).expect("ASCII"));
                rest = &rest[1..];
            }
        }
    }
    out
}
