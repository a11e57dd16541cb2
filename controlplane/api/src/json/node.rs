//! JSON that is made while somebody reads it.
//!
//! Owns its form as text. Holds the way to the place where the reader is, never the whole: a dump of ten thousand resources costs no
//! more memory than the largest piece of one of them. Used by what writes messages, and by admin pages for what is around them.

use serde_json::Value;
use std::{borrow::Cow, fmt, iter::Peekable};

/// Members of an object, in the order in which they are written.
pub type Members = Box<dyn Iterator<Item = (Cow<'static, str>, Node)> + Send>;
/// Items of a list.
pub type Items = Box<dyn Iterator<Item = Node> + Send>;

/// A value whose parts are made when they are asked for.
pub enum Node {
    /// What is there already: a text, a number, a truth value, or something small.
    Leaf(Value),
    /// An object.
    Object(Members),
    /// A list.
    List(Items),
}

impl Node {
    /// An object of these members.
    pub fn object(members: impl Iterator<Item = (Cow<'static, str>, Self)> + Send + 'static) -> Self {
        Self::Object(Box::new(members))
    }

    /// A list of these items.
    pub fn list(items: impl Iterator<Item = Self> + Send + 'static) -> Self {
        Self::List(Box::new(items))
    }

    /// The member of a name; none of what is no object.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Self> {
        match self {
            Self::Object(mut members) => members.find(|(told, _)| told == name).map(|(_, member)| member),
            Self::Leaf(value @ Value::Object(_)) => Self::from(value).member(name),
            Self::Leaf(_) | Self::List(_) => None,
        }
    }

    /// The items of a list; of anything else itself.
    #[must_use]
    pub fn items(self) -> Items {
        match self {
            Self::List(items) => items,
            other => Box::new(std::iter::once(other)),
        }
    }

    /// The whole as a tree: for what is known to be small.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::Object(members) => {
                Value::Object(members.map(|(name, member)| (name.into_owned(), member.into_value())).collect())
            }
            Self::List(items) => Value::Array(items.map(Self::into_value).collect()),
        }
    }

    /// As text, piece by piece, readable.
    #[must_use]
    pub fn into_text(self) -> Text {
        Text { next: Some(self), open: Vec::new(), ended: false }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::object(members.into_iter().map(|(name, member)| (Cow::Owned(name), member.into())))
            }
            Value::Array(items) => Self::list(items.into_iter().map(Self::from)),
            leaf => Self::Leaf(leaf),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(value) => value.fmt(f),
            Self::Object(_) => f.write_str("{..}"),
            Self::List(_) => f.write_str("[..]"),
        }
    }
}

/// About so many bytes are made at once.
const PIECE: usize = 16 * 1024;

/// The text of a [`Node`]. Each item is a piece of it.
pub struct Text {
    /// Written next, before anything else of what is open.
    next: Option<Node>,
    open: Vec<Open>,
    ended: bool,
}

enum Open {
    Object(Peekable<Members>),
    List(Peekable<Items>),
}

impl Iterator for Text {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut out = String::with_capacity(PIECE + PIECE / 4);
        while out.len() < PIECE && self.step(&mut out) {}
        (!out.is_empty()).then_some(out)
    }
}

impl Text {
    /// Writes one thing more. False at the end.
    fn step(&mut self, out: &mut String) -> bool {
        if let Some(node) = self.next.take() {
            self.begin(node, out);
            return true;
        }
        let Some(innermost) = self.open.last_mut() else {
            if !std::mem::replace(&mut self.ended, true) {
                out.push('\n');
            }
            return false;
        };
        let (name, node) = match innermost {
            Open::Object(members) => members.next().map(|(name, node)| (Some(name), node)).unzip(),
            Open::List(items) => (None, items.next()),
        };
        let Some(node) = node else {
            self.end(out);
            return true;
        };
        line(out, self.open.len());
        if let Some(name) = name.flatten() {
            text(out, &name);
            out.push_str(": ");
        }
        self.next = Some(node);
        true
    }

    fn begin(&mut self, node: Node, out: &mut String) {
        match node {
            Node::Leaf(value @ (Value::Object(_) | Value::Array(_))) => self.begin(value.into(), out),
            Node::Leaf(Value::String(value)) => {
                text(out, &value);
                self.comma(out);
            }
            Node::Leaf(value) => {
                out.push_str(&value.to_string());
                self.comma(out);
            }
            Node::Object(members) => {
                let mut members = members.peekable();
                if members.peek().is_none() {
                    out.push_str("{}");
                    return self.comma(out);
                }
                out.push('{');
                self.open.push(Open::Object(members));
            }
            Node::List(items) => {
                let mut items = items.peekable();
                if items.peek().is_none() {
                    out.push_str("[]");
                    return self.comma(out);
                }
                out.push('[');
                self.open.push(Open::List(items));
            }
        }
    }

    fn end(&mut self, out: &mut String) {
        let closing = match self.open.pop() {
            Some(Open::Object(_)) => '}',
            Some(Open::List(_)) => ']',
            None => return,
        };
        line(out, self.open.len());
        out.push(closing);
        self.comma(out);
    }

    /// After a value, when more follows beside it.
    fn comma(&mut self, out: &mut String) {
        let more = match self.open.last_mut() {
            Some(Open::Object(members)) => members.peek().is_some(),
            Some(Open::List(items)) => items.peek().is_some(),
            None => false,
        };
        if more {
            out.push(',');
        }
    }
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth * 2));
}

fn text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}
