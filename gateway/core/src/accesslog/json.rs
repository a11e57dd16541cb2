//! Owns lines that are JSON objects: their shape is compiled once, names and punctuation included.
//!
//! A member that is one operator keeps its type: numbers stay numbers, what is not known is `null`.

use super::operator::Found;
use super::record::Record;
use super::sink::{Escape, Sink};
use super::template::Template;
use crate::config::Value;
use std::io::Write;

/// An object with operators in its texts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Json {
    root: Node,
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// Already JSON.
    Fixed(Box<str>),
    Text(Template),
    List(Box<[Node]>),
    /// Each name is already a JSON string with its colon.
    Object(Box<[(Box<str>, Node)]>),
}

impl Json {
    pub(super) fn parse(object: &Value, omit_empty: bool) -> Result<Self, String> {
        Ok(Self { root: Node::parse(object)?, omit_empty })
    }

    pub(super) fn reads_metadata(&self) -> bool {
        self.root.reads_metadata()
    }

    pub(super) fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.root.render(record, self.omit_empty, out);
        out.push(b'\n');
    }
}

impl Node {
    fn parse(value: &Value) -> Result<Self, String> {
        Ok(match value {
            Value::Null => Node::Fixed("null".into()),
            Value::Bool(value) => Node::Fixed(value.to_string().into()),
            Value::Number(value) => Node::Fixed(value.to_string().into()),
            Value::Text(text) if text.contains('%') => Node::Text(Template::parse(text)?),
            Value::Text(text) => Node::Fixed(quoted(text).into()),
            Value::List(items) => Node::List(items.iter().map(Node::parse).collect::<Result<_, _>>()?),
            Value::Map(members) => {
                let member = |(name, value): (&std::sync::Arc<str>, &Value)| {
                    Ok((format!("{}:", quoted(name)).into(), Node::parse(value)?))
                };
                Node::Object(members.iter().map(member).collect::<Result<_, String>>()?)
            }
        })
    }

    fn render(&self, record: &Record<'_>, omit_empty: bool, out: &mut Vec<u8>) {
        match self {
            Node::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Node::Text(template) => render_text(template, record, omit_empty, out),
            Node::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    out.extend_from_slice(if index > 0 { b"," } else { b"" });
                    item.render(record, omit_empty, out);
                }
                out.push(b']');
            }
            Node::Object(members) => {
                out.push(b'{');
                let mut first = true;
                for (name, value) in members {
                    if omit_empty && value.is_empty(record) {
                        continue;
                    }
                    out.extend_from_slice(if first { b"" } else { b"," });
                    first = false;
                    out.extend_from_slice(name.as_bytes());
                    value.render(record, omit_empty, out);
                }
                out.push(b'}');
            }
        }
    }

    fn reads_metadata(&self) -> bool {
        match self {
            Node::Fixed(_) => false,
            Node::Text(template) => template.reads_metadata(),
            Node::List(items) => items.iter().any(Node::reads_metadata),
            Node::Object(members) => members.iter().any(|(_, value)| value.reads_metadata()),
        }
    }

    fn is_empty(&self, record: &Record<'_>) -> bool {
        match self {
            Node::Text(template) => {
                template.single().is_some_and(|(operator, _)| matches!(operator.find(record), Found::Nothing))
            }
            Node::Fixed(text) => &**text == "null",
            Node::List(_) | Node::Object(_) => false,
        }
    }
}

fn render_text(template: &Template, record: &Record<'_>, omit_empty: bool, out: &mut Vec<u8>) {
    let Some((operator, bound)) = template.single() else {
        out.push(b'"');
        template.render(record, if omit_empty { "" } else { "-" }, Escape::Json, out);
        return out.push(b'"');
    };
    match operator.find(record) {
        Found::Nothing => out.extend_from_slice(b"null"),
        // Writing to memory cannot fail.
        Found::Number(number) => write!(out, "{number}").unwrap_or_default(),
        Found::Address(address, super::operator::Part::Port) => write!(out, "{}", address.port()).unwrap_or_default(),
        Found::Value(value) => super::template::value_as_json(value, out),
        found => {
            out.push(b'"');
            found.write(&mut Sink { out, escape: Escape::Json, left: bound });
            out.push(b'"');
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = vec![b'"'];
    Sink { out: &mut out, escape: Escape::Json, left: usize::MAX }.push(text.as_bytes());
    out.push(b'"');
    String::from_utf8_lossy(&out).into_owned()
}
