//! Owns the way from a tree to typed values: cursors that know their path and line, complain for themselves, and notice
//! fields that nobody asked for. Never knows a field name.
//!
//! Reading never stops at the first fault: a reader gets `None` for a value that cannot be used, goes on, and the object
//! is refused at the end because something was an error. So one look at the complaints shows all of them.

use crate::{
    code, grammar,
    reading::Context,
    text::{Node, Value},
};
use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    net::IpAddr,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};
use tombolo_federation_model::{Diagnostic, Host, Labels, Namespace, ObjectRef, Severity};

/// Where the complaints about one object go, and what its readers need to know besides its text.
pub(crate) struct Sink<'c> {
    pub(crate) ctx: &'c Context,
    pub(crate) object: ObjectRef,
    pub(crate) file: &'c str,
    found: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
}

impl<'c> Sink<'c> {
    pub(crate) fn new(ctx: &'c Context, object: ObjectRef, file: &'c str) -> Self {
        Self { ctx, object, file, found: RefCell::default(), errors: Cell::new(0) }
    }

    pub(crate) fn report(&self, severity: Severity, code: &str, field: &str, line: u32, message: String) {
        if severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        self.found.borrow_mut().push(Diagnostic {
            severity,
            code: code.to_owned(),
            object: self.object.clone(),
            field: field.to_owned(),
            message,
            place: place(self.file, line),
        });
    }

    pub(crate) fn refused(&self) -> bool {
        self.errors.get() > 0
    }

    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }
}

/// `FILE:LINE`, or the file alone when there is no line.
pub(crate) fn place(file: &str, line: u32) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}

/// A value with its path.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
    pub(crate) sink: &'a Sink<'a>,
}

impl<'a> At<'a> {
    pub(crate) fn new(node: &'a Node, path: &str, sink: &'a Sink<'a>) -> Self {
        Self { node, path: path.to_owned(), sink }
    }

    pub(crate) fn error(&self, code: &str, message: impl Into<String>) {
        self.sink.report(Severity::Error, code, &self.path, self.node.line, message.into());
    }

    pub(crate) fn warn(&self, code: &str, message: impl Into<String>) {
        self.sink.report(Severity::Warning, code, &self.path, self.node.line, message.into());
    }

    /// Complains that the value is not what was expected.
    pub(crate) fn expected(&self, what: &str) {
        self.error(code::BAD_VALUE, format!("expected {what}, found {}", self.node.what()));
    }

    pub(crate) fn str(&self) -> Option<&'a str> {
        let text = self.node.text();
        if text.is_none() {
            self.expected("a text");
        }
        text
    }

    pub(crate) fn string(&self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    /// The spellings of YAML 1.1, which `kubectl` reads too.
    pub(crate) fn bool(&self) -> Option<bool> {
        let truth = self.node.text().and_then(grammar::truth);
        if truth.is_none() {
            self.expected("true or false");
        }
        truth
    }

    /// A whole number, also as text.
    pub(crate) fn int<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>) -> Option<T> {
        let number = self.node.text().and_then(grammar::integer).filter(|n| range.contains(n));
        let number = number.and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            self.expected(&format!("a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.int(1..=65_535)
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        self.int(0..=i64::from(u32::MAX))
    }

    pub(crate) fn float(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = self.node.text().and_then(|t| f64::from_str(t.trim()).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            self.expected(&format!("a number from {} to {}", range.start(), range.end()));
        }
        number
    }

    pub(crate) fn duration(&self) -> Option<Duration> {
        self.parse(grammar::duration)
    }

    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let address = self.node.text().and_then(|text| text.parse().ok());
        if address.is_none() {
            self.expected("an IP address");
        }
        address
    }

    /// A duration that must not be zero.
    pub(crate) fn positive_duration(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() {
            self.error(code::BAD_VALUE, "it must be at least 1ms");
            return None;
        }
        Some(duration)
    }

    /// A scalar through a parser whose error says what is wrong.
    pub(crate) fn parse<T, E: Display>(&self, parser: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parser(self.str()?) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.error(code::BAD_VALUE, reason.to_string());
                None
            }
        }
    }

    /// A text that was made of this value, through a parser.
    pub(crate) fn at_text<T>(&self, text: &str, parser: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parser(text).map_err(|reason| self.error(code::BAD_VALUE, reason)).ok()
    }

    pub(crate) fn host(&self) -> Option<Host> {
        self.parse(Host::parse)
    }

    pub(crate) fn namespace(&self) -> Option<Namespace> {
        self.parse(Namespace::parse)
    }

    /// One of a closed list of words.
    pub(crate) fn choose<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = self.node.text().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect();
            self.expected(&format!("one of {}", known.join(", ")));
        }
        found.map(|(_, value)| value.clone())
    }

    /// The elements; nulls in a list are refused, because no list of these APIs has them.
    pub(crate) fn list(&self) -> Vec<At<'a>> {
        let Value::List(list) = &self.node.value else {
            self.expected("a list");
            return Vec::new();
        };
        list.iter().enumerate().map(|(i, node)| At::new(node, &format!("{}[{i}]", self.path), self.sink)).collect()
    }

    /// The entries of a map whose keys are the user's. Null values are left out.
    pub(crate) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let Value::Map(entries) = &self.node.value else {
            if self.node.value != Value::Null {
                self.expected("a map");
            }
            return Vec::new();
        };
        let entry = |(key, node): &'a (crate::text::Key, Node)| {
            (key.name.as_str(), At::new(node, &join(&self.path, &key.name), self.sink))
        };
        entries.iter().map(entry).collect()
    }

    pub(crate) fn strings(&self) -> Vec<String> {
        self.list().iter().filter_map(At::string).collect()
    }

    pub(crate) fn string_map(&self) -> Labels {
        let text = |(key, at): (&str, At<'_>)| match at.node.value {
            Value::Null => Some((key.to_owned(), String::new())),
            _ => at.string().map(|text| (key.to_owned(), text)),
        };
        self.entries().into_iter().filter_map(text).collect()
    }

    /// The fields of a message. Null is the empty message.
    pub(crate) fn fields(&self) -> Fields<'a> {
        if !matches!(self.node.value, Value::Map(_) | Value::Null) {
            self.expected("a map");
        }
        Fields { at: self.clone(), asked: RefCell::default() }
    }

    /// The fields of a message of which these are known.
    pub(crate) fn fields_of(&self, known: &[&'static str]) -> Fields<'a> {
        let fields = self.fields();
        fields.skip(known);
        fields
    }
}

fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match (path.is_empty(), plain) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (false, false) => format!("{path}[{name:?}]"),
    }
}

/// A message whose field names are the API's. When it is dropped, what nobody asked for is complained about.
pub(crate) struct Fields<'a> {
    pub(crate) at: At<'a>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    /// A field, unless it is absent or null.
    pub(crate) fn at(&self, name: &'static str) -> Option<At<'a>> {
        self.asked.borrow_mut().push(name);
        let node = self.at.node.get(name)?;
        Some(At::new(node, &join(&self.at.path, name), self.at.sink))
    }

    /// Whether a field is there and not null.
    pub(crate) fn present(&self, name: &'static str) -> bool {
        self.at(name).is_some()
    }

    /// A field that must be there.
    pub(crate) fn need(&self, name: &'static str) -> Option<At<'a>> {
        let found = self.at(name);
        if found.is_none() {
            let path = join(&self.at.path, name);
            let message = "it is required".to_owned();
            self.at.sink.report(Severity::Error, code::REQUIRED, &path, self.at.node.line, message);
        }
        found
    }

    pub(crate) fn string(&self, name: &'static str) -> Option<String> {
        self.at(name)?.string()
    }

    pub(crate) fn bool(&self, name: &'static str) -> Option<bool> {
        self.at(name)?.bool()
    }

    pub(crate) fn u32(&self, name: &'static str) -> Option<u32> {
        self.at(name)?.u32()
    }

    pub(crate) fn port(&self, name: &'static str) -> Option<u16> {
        self.at(name)?.port()
    }

    pub(crate) fn duration(&self, name: &'static str) -> Option<Duration> {
        self.at(name)?.duration()
    }

    pub(crate) fn namespace(&self, name: &'static str) -> Option<Namespace> {
        self.at(name)?.namespace()
    }

    pub(crate) fn list(&self, name: &'static str) -> Vec<At<'a>> {
        self.at(name).map(|at| at.list()).unwrap_or_default()
    }

    pub(crate) fn strings(&self, name: &'static str) -> Vec<String> {
        self.at(name).map(|at| at.strings()).unwrap_or_default()
    }

    pub(crate) fn labels(&self, name: &'static str) -> Labels {
        self.at(name).map(|at| at.string_map()).unwrap_or_default()
    }

    pub(crate) fn fields(&self, name: &'static str) -> Option<Fields<'a>> {
        Some(self.at(name)?.fields())
    }

    /// Fields that are known and need no action.
    pub(crate) fn skip(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Fields that are known, accepted, and do nothing yet: their author should know.
    pub(crate) fn not_in_force(&self, names: &[&'static str]) {
        for name in names {
            if let Some(at) = self.at(name) {
                at.warn(code::NOT_IN_FORCE, "it is read, but not in force yet");
            }
        }
    }

    /// Fields that would protect something: ignoring them would weaken what their author relies on.
    pub(crate) fn not_enforced(&self, names: &[&'static str]) {
        for at in names.iter().filter_map(|name| self.at(name)) {
            at.error(
                code::NOT_ENFORCED,
                "it is not enforced yet, so the object is refused; remove the field to go without it",
            );
        }
    }

    /// All of the message is known elsewhere, or is nobody's business.
    pub(crate) fn skip_rest(&self) {
        let Value::Map(_) = self.at.node.value else { return };
        self.asked.borrow_mut().push(ANY);
    }
}

/// Stands for every field name; no API has it.
const ANY: &str = "*";

impl Drop for Fields<'_> {
    /// After an error a reader may have left early, so unread fields mean nothing then.
    fn drop(&mut self) {
        let Value::Map(entries) = &self.at.node.value else { return };
        let asked = self.asked.borrow();
        if self.at.sink.refused() || asked.contains(&ANY) {
            return;
        }
        for (key, _) in entries.iter().filter(|(key, _)| !asked.contains(&key.name.as_str())) {
            let hint = match grammar::nearest(&key.name, &asked) {
                Some(known) => format!("; did you mean {known:?}?"),
                None => "; remove it, or check its spelling and indentation".to_owned(),
            };
            let message = format!("there is no such field, so it does nothing{hint}");
            let path = join(&self.at.path, &key.name);
            self.at.sink.report(Severity::Warning, code::UNKNOWN_FIELD, &path, key.line, message);
        }
    }
}
