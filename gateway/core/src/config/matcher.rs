//! Matchers of strings, headers, query parameters and fractions: what they are. How they match is in `route`.
//!
//! Used by `wire` (makes them), `route`, `filter`, `attempt`, TLS verification and access log filters.

use regex_automata::{Anchored, Input, meta};
use std::{fmt, sync::Arc};

/// A regular expression over bytes, compiled with a bound on its size.
#[derive(Clone)]
pub struct Regex {
    /// As written.
    pub pattern: Arc<str>,
    /// Matches the pattern anywhere.
    search: Arc<meta::Regex>,
    /// Matches the pattern against the whole text. Apart from `search`, because leftmost-first search may stop at a
    /// shorter match than the whole text.
    whole: Arc<meta::Regex>,
}

impl Regex {
    /// Compiles. Patterns whose automaton would exceed one megabyte are refused.
    ///
    /// # Errors
    /// The reason, in lower case.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        // Unicode stays on, as in RE2: "." is a character. UTF-8 is not demanded of the text, since headers need not be.
        let build = |text: &str| {
            meta::Builder::new()
                .configure(
                    meta::Config::new()
                        .nfa_size_limit(Some(1 << 20))
                        .utf8_empty(false)
                        .hybrid_cache_capacity(256 * 1024),
                )
                .syntax(regex_automata::util::syntax::Config::new().utf8(false))
                .build(text)
                .map_err(|error| match error.syntax_error() {
                    Some(syntax) => format!("not a regular expression: {syntax}"),
                    None => "the regular expression is too large".to_owned(),
                })
        };
        let search = Arc::new(build(pattern)?);
        let whole = Arc::new(build(&format!(r"\A(?:{pattern})\z"))?);
        Ok(Self { pattern: Arc::from(pattern), search, whole })
    }

    /// True when the whole text matches.
    #[must_use]
    pub fn matches_whole(&self, text: &[u8]) -> bool {
        self.whole.is_match(Input::new(text).anchored(Anchored::Yes))
    }

    /// The automaton that finds the pattern anywhere.
    #[must_use]
    pub fn search(&self) -> &meta::Regex {
        &self.search
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.pattern)
    }
}

/// Replaces every match of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct RegexRewrite {
    /// What is replaced.
    pub pattern: Regex,
    /// What it is replaced by; `\0` is the match, `\1` … `\9` its groups, `\\` a backslash.
    pub substitution: Arc<str>,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum StringMatch {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Has inside.
    Contains(Box<str>),
    /// Matches as a whole.
    Regex(Regex),
}

/// What a text must be, with or without regard to ASCII case.
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatcher {
    /// The condition. Lower case when `ignore_case`.
    pub kind: StringMatch,
    /// Compare without regard to ASCII case. Never set for a regular expression.
    pub ignore_case: bool,
}

/// What a header must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Any value: present (`true`) or absent (`false`).
    Present(bool),
    /// A value fulfils it.
    Text(StringMatcher),
    /// A decimal integer in `[start, end)`.
    Range(i64, i64),
}

impl Eq for StringMatcher {}

/// One condition on the request's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatcher {
    /// A header's name, or `:method`, `:path`, `:authority`, `:scheme` (for retries also `:status`).
    pub name: crate::head::Name,
    /// What it must be.
    pub kind: HeaderMatch,
    /// The opposite of `kind` is asked.
    pub invert: bool,
    /// A missing header counts as an empty one; otherwise a missing header fulfils no condition, not even an inverted one
    /// (except [`HeaderMatch::Present`]).
    pub missing_is_empty: bool,
}

/// What a query parameter must be.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryMatch {
    /// There (`true`) or not there (`false`), with any value.
    Present(bool),
    /// Its first value, not decoded, fulfils it.
    Text(StringMatcher),
}

/// One condition on the query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatcher {
    /// The parameter's name, not decoded.
    pub name: Box<str>,
    /// What it must be.
    pub kind: QueryMatch,
}

/// A share of all requests, with the runtime key that may override it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fraction {
    /// How many …
    pub numerator: u32,
    /// … of: 100, 10 000 or 1 000 000.
    pub denominator: u32,
    /// Runtime key; empty when there is none. [`Runtime`](crate::runtime::Runtime) looks it up.
    pub runtime_key: Arc<str>,
}

impl Fraction {
    /// Every request.
    #[must_use]
    pub fn always() -> Self {
        Self { numerator: 100, denominator: 100, runtime_key: Arc::from("") }
    }

    /// Whether a uniformly random number falls into the share.
    #[must_use]
    pub fn hit(&self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}
