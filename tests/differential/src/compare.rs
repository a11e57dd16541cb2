//! Facts of two sides against each other, and the list of differences that are meant. Owns no opinion: a difference that is not
//! in the list is one.

use crate::client::Facts;
use anyhow::{Context, Result};
use regex::Regex;
use serde_json::Value;
use std::{cell::Cell, fmt};

/// How far apart two shares of a distribution may be.
const SHARE: f64 = 0.25;

/// One fact that differs.
#[derive(Debug, Clone)]
pub struct Difference {
    /// `scenario/case`.
    pub case: String,
    /// Which fact.
    pub fact: String,
    /// As Envoy has it.
    pub envoy: Value,
    /// As we have it.
    pub ours: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (envoy, ours) = match (&self.envoy, &self.ours) {
            (Value::Array(a), Value::Array(b)) => (only(a, b), only(b, a)),
            (a, b) => (a.to_string(), b.to_string()),
        };
        write!(f, "{} # {}\n    Envoy: {envoy}\n    ours:  {ours}", self.case, self.fact)
    }
}

/// The items of one list that another does not have.
fn only(items: &[Value], other: &[Value]) -> String {
    let only: Vec<&Value> = items.iter().filter(|item| !other.contains(item)).collect();
    if only.is_empty() { format!("{items:?}") } else { format!("only {}", serde_json::json!(only)) }
}

/// What differs between the two sides of a case.
#[must_use]
pub fn differences(case: &str, ignored: &[&str], envoy: &Facts, ours: &Facts) -> Vec<Difference> {
    let mut names: Vec<&String> = envoy.keys().chain(ours.keys()).collect();
    names.sort();
    names.dedup();
    let kept = names.into_iter().filter(|name| !ignored.iter().any(|ignored| name.starts_with(ignored)));
    kept.filter_map(|name| {
        let of = |facts: &Facts| facts.get(name).cloned().unwrap_or(Value::Null);
        let (envoy, ours) = (of(envoy), of(ours));
        let near = name.starts_with("share.")
            && (envoy.as_f64().unwrap_or_default() - ours.as_f64().unwrap_or_default()).abs() <= SHARE;
        // What is waited for in vain on both sides says nothing: the table is wrong.
        let in_vain = (name.starts_with("until ") || name.starts_with("listens ")) && envoy == Value::Bool(false);
        ((envoy != ours && !near) || in_vain).then(|| Difference {
            case: case.to_owned(),
            fact: name.clone(),
            envoy,
            ours,
        })
    })
    .collect()
}

/// One line of the list.
struct Meant {
    case: Regex,
    fact: Regex,
    line: String,
    used: Cell<bool>,
}

/// The differences that are meant.
pub struct List(Vec<Meant>);

impl List {
    /// Reads the list: `case # fact # why`, with `*` for anything in case and fact.
    ///
    /// # Errors
    /// When a line has another form; a difference without a reason is none that is meant.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        lines.map(Meant::parse).collect::<Result<_>>().map(Self)
    }

    /// Whether the difference is in the list.
    #[must_use]
    pub fn has(&self, difference: &Difference) -> bool {
        let found = self.0.iter().find(|m| m.case.is_match(&difference.case) && m.fact.is_match(&difference.fact));
        found.inspect(|meant| meant.used.set(true)).is_some()
    }

    /// Lines that matched nothing.
    pub fn idle(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|meant| !meant.used.get()).map(|meant| meant.line.as_str())
    }
}

impl Meant {
    fn parse(line: &str) -> Result<Self> {
        let mut parts = line.splitn(3, " # ");
        let mut part = || parts.next().map(str::trim).filter(|p| !p.is_empty());
        let whole = || part().zip(part()).zip(part());
        let mut whole = whole;
        let ((case, fact), _) = whole().with_context(|| format!("not `case # fact # why`: {line}"))?;
        Ok(Self { case: glob(case)?, fact: glob(fact)?, line: line.to_owned(), used: Cell::new(false) })
    }
}

fn glob(text: &str) -> Result<Regex> {
    Ok(Regex::new(&format!("^{}$", regex::escape(text).replace(r"\*", ".*")))?)
}
