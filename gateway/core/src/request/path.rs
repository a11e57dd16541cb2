//! Normalisation of paths.
//!
//! One canonical path is made here and then used for matching, policy and forwarding alike. The query is never touched.

use crate::config::{EscapedSlashes, PathSettings};

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normalized {
    /// The path is as it should be.
    Same,
    /// This is the path to go on with.
    Changed(String),
    /// The client is asked to use this path instead.
    Redirect(String),
    /// No canonical form: 400.
    Refused,
}

/// Normalises a path with its query.
#[must_use]
pub fn normalize(path: &str, settings: PathSettings) -> Normalized {
    if path.contains('#') {
        return Normalized::Refused;
    }
    let (before, query) = match path.find('?') {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    let mut now: Option<String> = None;
    let mut redirect = false;
    if settings.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(before)
    {
        match settings.escaped_slashes {
            EscapedSlashes::Reject => return Normalized::Refused,
            EscapedSlashes::Redirect => redirect = true,
            EscapedSlashes::Unescape | EscapedSlashes::Keep => {}
        }
        now = Some(unescaped);
    }
    if settings.normalize {
        match canonical(now.as_deref().unwrap_or(before)) {
            Canonical::Same => {}
            Canonical::Changed(changed) => now = Some(changed),
            Canonical::Invalid => return Normalized::Refused,
        }
    }
    if settings.merge_slashes
        && let Some(merged) = merge_slashes(now.as_deref().unwrap_or(before))
    {
        now = Some(merged);
    }
    match now {
        None => Normalized::Same,
        Some(mut changed) => {
            changed.push_str(query);
            if redirect { Normalized::Redirect(changed) } else { Normalized::Changed(changed) }
        }
    }
}

/// `%2F` and `%5C` decoded; `None` when there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let decoded = match escape.get(..3) {
            Some("%2f" | "%2F") => Some('/'),
            Some("%5c" | "%5C") => Some('\\'),
            _ => None,
        };
        if let Some(decoded) = decoded {
            found = true;
            out.push(decoded);
            rest = escape.get(3..).unwrap_or_default();
        } else {
            out.push('%');
            rest = escape.get(1..).unwrap_or_default();
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Adjacent slashes become one; `None` when there are none. Envoy leaves a path of nothing but slashes at two.
fn merge_slashes(path: &str) -> Option<String> {
    if !path.contains("//") {
        return None;
    }
    let mut out = String::with_capacity(path.len());
    if path.starts_with('/') {
        out.push('/');
    }
    for (at, segment) in path.split('/').filter(|segment| !segment.is_empty()).enumerate() {
        if at > 0 {
            out.push('/');
        }
        out.push_str(segment);
    }
    if path.ends_with('/') {
        out.push('/');
    }
    (out != path).then_some(out)
}

enum Canonical {
    Same,
    Changed(String),
    Invalid,
}

/// True for bytes that stay as they are in a canonical path.
fn passes(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$&'()*+,-./:;=@[]_~".contains(&byte)
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 as browsers do it: dot segments resolved (also `%2e`), unreserved characters decoded, backslashes turned, what
/// must not stand in a path encoded; `%00` is invalid.
fn canonical(path: &str) -> Canonical {
    if is_canonical(path.as_bytes()) {
        return Canonical::Same;
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let dot = dot_length(bytes, at);
        if dot > 0 && out.last() == Some(&b'/') {
            match after_dots(bytes, at + dot) {
                Dots::Current(next) => at = next,
                Dots::Up(next) => {
                    up(&mut out);
                    at = next;
                }
                Dots::Name => {
                    out.push(b'.');
                    at += dot;
                }
            }
            continue;
        }
        match byte {
            b'\\' => out.push(b'/'),
            b'%' => match escaped(bytes, at) {
                Some(0) => return Canonical::Invalid,
                Some(decoded) => {
                    if unreserved(decoded) {
                        out.push(decoded);
                        tame_nested(&mut out, bytes.get(at + 3).copied());
                    } else {
                        out.extend_from_slice(bytes.get(at..at + 3).unwrap_or_default());
                    }
                    at += 3;
                    continue;
                }
                // A percent sign without two digits passes.
                None => out.push(b'%'),
            },
            byte if passes(byte) => out.push(byte),
            0 => return Canonical::Invalid,
            byte => out.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]),
        }
        at += 1;
    }
    match String::from_utf8(out) {
        Ok(text) if text == path => Canonical::Same,
        Ok(text) => Canonical::Changed(text),
        Err(_) => Canonical::Invalid,
    }
}

/// Decoding `%66` in `%2%66` would make `%2f`, which was not there when slashes were looked for. So a bare percent sign that
/// gets its two digits this way is escaped itself, as in Envoy's library for URLs. `next` is the next byte of the input.
fn tame_nested(out: &mut Vec<u8>, next: Option<u8>) {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bare = |back: usize| out.len().checked_sub(back).filter(|at| out.get(*at) == Some(&b'%'));
    let place = match (bare(3), bare(2)) {
        (Some(at), _) if hex(out.get(at + 1)) && hex(out.get(at + 2)) => at,
        (_, Some(at)) if hex(out.get(at + 1)) && hex(next.as_ref()) => at,
        _ => return,
    };
    out.splice(place + 1..place + 1, *b"25");
}

/// The quick look that nearly every path passes: only plain bytes, and no segment begins with a dot.
fn is_canonical(path: &[u8]) -> bool {
    path.iter().all(|byte| passes(*byte)) && !path.windows(2).any(|pair| pair == b"/.")
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

/// The byte of an escape at this place.
fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| char::from(*bytes.get(at + offset)?).to_digit(16);
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// How long the dot at this place is: 1, 3 when escaped, 0 when there is none.
fn dot_length(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'.') => 1,
        Some(b'%') if escaped(bytes, at) == Some(b'.') => 3,
        _ => 0,
    }
}

enum Dots {
    /// `.`; go on here.
    Current(usize),
    /// `..`; go on here.
    Up(usize),
    /// The beginning of a name.
    Name,
}

/// What the segment is whose first dot has just been read.
fn after_dots(bytes: &[u8], at: usize) -> Dots {
    let ends = |at: usize| match bytes.get(at) {
        None => Some(at),
        Some(b'/' | b'\\') => Some(at + 1),
        Some(_) => None,
    };
    if let Some(next) = ends(at) {
        return Dots::Current(next);
    }
    let second = dot_length(bytes, at);
    match ends(at + second) {
        Some(next) if second > 0 => Dots::Up(next),
        _ => Dots::Name,
    }
}

/// Takes the last segment off; the slash before it stays.
fn up(out: &mut Vec<u8>) {
    out.pop();
    while out.last().is_some_and(|byte| *byte != b'/') {
        out.pop();
    }
    if out.is_empty() {
        out.push(b'/');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NORM: PathSettings =
        PathSettings { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    fn check(settings: PathSettings, path: &str, expect: &str) {
        match normalize(path, settings) {
            Normalized::Same => assert_eq!(path, expect, "{path:?} was left alone"),
            Normalized::Changed(changed) => assert_eq!(changed, expect, "of {path:?}"),
            Normalized::Redirect(to) => assert_eq!(format!("-> {to}"), expect, "of {path:?}"),
            Normalized::Refused => assert_eq!(expect, "400", "{path:?} was refused"),
        }
    }

    #[test]
    fn nothing_is_done_unless_asked_for() {
        for path in ["/a/../b", "/a//b", "/a%2fb", "/%41", "/a\\b", "*", "/a%00b"] {
            check(PathSettings::default(), path, path);
        }
        check(PathSettings::default(), "/a#b", "400");
    }

    #[test]
    fn paths_become_canonical() {
        for (path, expect) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/a/b/..", "/a/"),
            ("/../a", "/a"),
            ("/a%2fb", "/a%2fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%5cb", "/a%5cb"),
            ("/a\\b", "/a/b"),
            ("/%2e%2e/a", "/a"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%00b", "400"),
            ("/a%zz", "/a%zz"),
            // Decoding must not make an escape that was not there.
            ("/%4%45", "/%254E"),
            ("/a%2%66b", "/a%252fb"),
            ("/%%34%31", "/%2541"),
            ("/%%341", "/%2541"),
            ("/%%34g", "/%4g"),
            ("/a;p=1/../b", "/b"),
            ("/a?x=/../y", "/a?x=/../y"),
            ("/a%20b", "/a%20b"),
            ("/%41", "/A"),
            ("/a/..%2fb", "/a/..%2fb"),
            ("/a/...", "/a/..."),
            ("/.a/..b", "/.a/..b"),
            ("/a/.", "/a/"),
        ] {
            check(NORM, path, expect);
        }
    }

    #[test]
    fn slashes_merge_and_unescape() {
        let merge = PathSettings { merge_slashes: true, ..NORM };
        for (path, expect) in [("/a//b", "/a/b"), ("//a", "/a"), ("/a?x=//y", "/a?x=//y"), ("/a//", "/a/")] {
            check(merge, path, expect);
        }
        check(PathSettings { escaped_slashes: EscapedSlashes::Reject, ..NORM }, "/a%2fb", "400");
        check(PathSettings { escaped_slashes: EscapedSlashes::Redirect, ..merge }, "/a%2Fb?c", "-> /a/b?c");
        check(PathSettings { escaped_slashes: EscapedSlashes::Unescape, ..merge }, "/a/..%2fb", "/b");
        check(PathSettings { escaped_slashes: EscapedSlashes::Unescape, ..merge }, "/a%5cb", "/a/b");
    }

    proptest! {
        #[test]
        fn a_canonical_path_stays_and_never_climbs(path in "/[a./%2eE\\\\]{0,20}") {
            let first = match normalize(&path, NORM) {
                Normalized::Same => path,
                Normalized::Changed(changed) => changed,
                Normalized::Redirect(_) | Normalized::Refused => return Ok(()),
            };
            prop_assert!(!first.split('/').any(|segment| segment == ".." || segment == "."), "{}", first);
            prop_assert!(first.starts_with('/'));
        }
    }
}
