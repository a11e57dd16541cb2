//! Owns the way of an object that arrives as JSON (from an API server) into the same tree. Never fails.

use super::{Key, Node, Value};

/// The tree of a JSON value. Lines are 0: there is no text to point at.
pub(crate) fn from_json(json: &serde_json::Value) -> Node {
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Scalar(truth.to_string()),
        serde_json::Value::Number(number) => Value::Scalar(number.to_string()),
        serde_json::Value::String(text) => Value::Scalar(text.clone()),
        serde_json::Value::Array(list) => Value::List(list.iter().map(from_json).collect()),
        serde_json::Value::Object(map) => {
            let entry = |(name, value): (&String, _)| (Key { name: name.clone(), line: 0 }, from_json(value));
            Value::Map(map.iter().map(entry).collect())
        }
    };
    Node { line: 0, value }
}
