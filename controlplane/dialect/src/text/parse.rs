//! Owns the parser: events to a tree, with anchors, merge keys, duplicate keys and bounds. Never resolves scalars.

use super::{Key, Node, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Tag};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// More nodes than any real document has; aliases that multiply stop here.
const MAX_NODES: usize = 500_000;
/// More text than any real document has, once aliases are expanded.
const MAX_TEXT: usize = 64 << 20;
/// Deeper than any real document; keeps recursion over a tree bounded.
const MAX_DEPTH: usize = 128;

/// A tree, and the keys that stand twice in one map: the first stays in the tree.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) root: Node,
    pub(crate) duplicates: Vec<Key>,
}

/// Why a text is not YAML.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) reason: String,
}

/// Reads one document. `lines_before` is added to every line number.
pub(crate) fn parse(text: &str, lines_before: u32) -> Result<Parsed, Fault> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            line: line_of(error.marker().line()) + lines_before,
            // Without the position in the part, because the place in the file is told beside it.
            reason: error.info(),
        })?;
        let line = line_of(span.start.line()) + lines_before;
        builder.take(event, line).map_err(|reason| Fault { line, reason: reason.to_owned() })?;
    }
    let root = builder.root.unwrap_or(Node { line: lines_before + 1, value: Value::Null });
    Ok(Parsed { root, duplicates: builder.duplicates })
}

fn line_of(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX / 2)
}

/// A finished node with what it costs to repeat it.
#[derive(Clone)]
struct Sized {
    node: Node,
    nodes: usize,
    text: usize,
    depth: usize,
}

impl Sized {
    fn leaf(line: u32, value: Value) -> Self {
        let text = if let Value::Scalar(text) = &value { text.len() } else { 0 };
        Self { node: Node { line, value }, nodes: 1, text, depth: 1 }
    }
}

/// A collection that is not finished.
struct Open {
    line: u32,
    anchor: usize,
    map: bool,
    children: Vec<Sized>,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: BTreeMap<usize, Sized>,
    duplicates: Vec<Key>,
    nodes: usize,
    text: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: u32) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let leaf = Sized::leaf(line, scalar(text, style, tag.as_deref()));
                self.keep_anchor(anchor, &leaf);
                self.push(leaf)
            }
            Event::SequenceStart(_, anchor, _) => self.open(line, anchor, false),
            Event::MappingStart(_, anchor, _) => self.open(line, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(target) => {
                    let target = target.clone();
                    self.push(target)
                }
                None => Err("an alias refers to an anchor that is not finished"),
            },
            _ => Ok(()),
        }
    }

    fn keep_anchor(&mut self, anchor: usize, node: &Sized) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn open(&mut self, line: u32, anchor: usize, map: bool) -> Result<(), &'static str> {
        if self.stack.len() >= MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        self.stack.push(Open { line, anchor, map, children: Vec::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        let Some(open) = self.stack.pop() else { return Err("a collection ends that never began") };
        let nodes = 1 + open.children.iter().map(|c| c.nodes).sum::<usize>();
        let text = open.children.iter().map(|c| c.text).sum();
        let depth = 1 + open.children.iter().map(|c| c.depth).max().unwrap_or(0);
        let children = open.children.into_iter().map(|c| c.node);
        let value = if open.map { self.map(children)? } else { Value::List(children.collect()) };
        let closed = Sized { node: Node { line: open.line, value }, nodes, text, depth };
        self.keep_anchor(open.anchor, &closed);
        // Its children were counted when they were pushed.
        self.nodes = self.nodes.saturating_sub(nodes - 1);
        self.text = self.text.saturating_sub(text);
        self.push(closed)
    }

    fn push(&mut self, child: Sized) -> Result<(), &'static str> {
        self.nodes += child.nodes;
        self.text += child.text;
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return Err("it is too large once its aliases are expanded");
        }
        if self.stack.len() + child.depth > MAX_DEPTH {
            return Err("it is nested too deeply");
        }
        match self.stack.last_mut() {
            Some(open) => open.children.push(child),
            None => self.root = Some(child.node),
        }
        Ok(())
    }

    fn map(&mut self, children: impl Iterator<Item = Node>) -> Result<Value, &'static str> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut names = BTreeSet::new();
        let mut merged = Vec::new();
        let mut children = children;
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            let name = match key.value {
                Value::Scalar(name) => name,
                Value::Null => "null".to_owned(),
                Value::List(_) | Value::Map(_) => return Err("a key must be a plain text"),
            };
            let key = Key { name, line: key.line };
            if key.name == "<<" && matches!(value.value, Value::List(_) | Value::Map(_)) {
                merged.push(value);
            } else if names.insert(key.name.clone()) {
                entries.push((key, value));
            } else {
                self.duplicates.push(key);
            }
        }
        for value in merged {
            merge(&mut entries, &mut names, value)?;
        }
        Ok(Value::Map(entries))
    }
}

/// A merge key: entries of the referred maps that are not written out here.
fn merge(entries: &mut Vec<(Key, Node)>, names: &mut BTreeSet<String>, value: Node) -> Result<(), &'static str> {
    match value.value {
        Value::Map(others) => {
            for (key, node) in others {
                if names.insert(key.name.clone()) {
                    entries.push((key, node));
                }
            }
            Ok(())
        }
        Value::List(maps) => maps.into_iter().try_for_each(|map| match map.value {
            Value::Map(_) => merge(entries, names, map),
            _ => Err("a merge key refers to something that is no map"),
        }),
        Value::Null | Value::Scalar(_) => Err("a merge key refers to something that is no map"),
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let tagged = tag.is_some_and(|tag| tag.core_suffix() != Some("null"));
    let null = matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
    if style == ScalarStyle::Plain && null && !tagged { Value::Null } else { Value::Scalar(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Node {
        parse(text, 0).unwrap().root
    }

    #[test]
    fn scalars_stay_as_written() {
        let tree = root("a: 1.10\nb: \"null\"\nc: null\nd: ~\ne:\nf: yes\n");
        assert_eq!(tree.get("a").and_then(Node::text), Some("1.10"));
        assert_eq!(tree.get("b").and_then(Node::text), Some("null"));
        assert!(tree.get("c").is_none() && tree.get("d").is_none() && tree.get("e").is_none());
        assert_eq!(tree.get("f").and_then(Node::text), Some("yes"));
    }

    #[test]
    fn lines_count_from_the_begin_of_the_file() {
        let parsed = parse("---\na:\n  b: 1\n", 10).unwrap();
        assert_eq!(parsed.root.get("a").unwrap().get("b").unwrap().line, 13);
        assert_eq!(parse("a: [1\nb: 2\n", 10).unwrap_err().line / 10, 1);
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        let tree = root("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nlist: [*b]\n");
        let used = tree.get("use").unwrap();
        assert_eq!(used.get("x").and_then(Node::text), Some("1"));
        assert_eq!(used.get("y").and_then(Node::text), Some("3"));
        assert!(matches!(&tree.get("list").unwrap().value, Value::List(l) if l[0].get("y").is_some()));
    }

    #[test]
    fn a_key_that_stands_twice_is_told() {
        let parsed = parse("a: 1\nb: 2\na: 3\n", 0).unwrap();
        assert_eq!(parsed.duplicates, [Key { name: "a".to_owned(), line: 3 }]);
        assert_eq!(parsed.root.get("a").and_then(Node::text), Some("1"));
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let before = i - 1;
            text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
        }
        assert!(parse(&text, 0).unwrap_err().reason.contains("aliases"));
        let mut deep = String::from("a0: &a0 [x]\n");
        for i in 1..400 {
            deep += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
        }
        assert!(parse(&deep, 0).unwrap_err().reason.contains("deep"));
        assert!(parse("a: &a [*a]\n", 0).is_err());
    }
}
