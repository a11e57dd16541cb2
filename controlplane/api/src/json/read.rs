//! From JSON to messages.

use super::{Dictionary, JsonError, write::unbase64};
use prost::{Message as _, bytes::Bytes};
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Messages nested deeper than this are refused.
const DEEPEST: usize = 100;

type Read<T> = Result<T, JsonError>;

pub(super) fn message(
    words: &Dictionary,
    kind: &MessageDescriptor,
    value: &Value,
    at: &str,
    depth: usize,
) -> Read<DynamicMessage> {
    if depth > DEEPEST {
        return Err(JsonError::new(at, "nested too deep"));
    }
    if let Some(known) = well_known(words, kind, value, at, depth) {
        return known;
    }
    let Value::Object(members) = value else { return Err(unexpected(at, "an object", value)) };
    fields(words, kind, members, at, depth)
}

fn fields(
    words: &Dictionary,
    kind: &MessageDescriptor,
    members: &Map<String, Value>,
    at: &str,
    depth: usize,
) -> Read<DynamicMessage> {
    let mut out = DynamicMessage::new(kind.clone());
    let mut chosen: HashMap<String, String> = HashMap::new();
    for (name, value) in members {
        let place = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let field = kind
            .get_field_by_name(name)
            .or_else(|| kind.get_field_by_json_name(name))
            .ok_or_else(|| JsonError::new(&place, format!("{} has no such field", kind.full_name())))?;
        let is_value = matches!(&field.kind(), Kind::Message(inner) if inner.full_name() == "google.protobuf.Value");
        if value.is_null() && !is_value {
            continue;
        }
        if let Some(choice) = field.containing_oneof()
            && let Some(other) = chosen.insert(choice.full_name().to_owned(), name.clone())
        {
            return Err(JsonError::new(&place, format!("beside {other}, of which there may be one")));
        }
        if out.has_field(&field) {
            return Err(JsonError::new(&place, "is there twice"));
        }
        out.set_field(&field, any_number(words, &field, value, &place, depth)?);
    }
    Ok(out)
}

fn any_number(words: &Dictionary, field: &FieldDescriptor, value: &Value, at: &str, depth: usize) -> Read<Proto> {
    if field.is_map() {
        let Value::Object(members) = value else { return Err(unexpected(at, "an object", value)) };
        let Kind::Message(entry) = field.kind() else { return Err(JsonError::new(at, "not a map")) };
        let (keys, values) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let read = |(key, value): (&String, &Value)| {
            let place = format!("{at}[{key}]");
            Ok((map_key(&keys, key, &place)?, single(words, &values, value, &place, depth)?))
        };
        return Ok(Proto::Map(members.iter().map(read).collect::<Read<_>>()?));
    }
    if field.is_list() {
        let Value::Array(items) = value else { return Err(unexpected(at, "a list", value)) };
        let kind = field.kind();
        let read = |(nth, item): (usize, &Value)| single(words, &kind, item, &format!("{at}[{nth}]"), depth);
        return Ok(Proto::List(items.iter().enumerate().map(read).collect::<Read<_>>()?));
    }
    single(words, &field.kind(), value, at, depth)
}

fn map_key(kind: &Kind, key: &str, at: &str) -> Read<MapKey> {
    let wrong = || JsonError::new(at, "not a key of this map");
    Ok(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => MapKey::Bool(key.parse().map_err(|_| wrong())?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().map_err(|_| wrong())?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().map_err(|_| wrong())?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().map_err(|_| wrong())?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    })
}

fn single(words: &Dictionary, kind: &Kind, value: &Value, at: &str, depth: usize) -> Read<Proto> {
    Ok(match kind {
        Kind::Message(inner) => Proto::Message(message(words, inner, value, at, depth + 1)?),
        Kind::Enum(kind) => Proto::EnumNumber(enumeration(kind, value, at)?),
        Kind::Bool => match value {
            Value::Bool(value) => Proto::Bool(*value),
            other => return Err(unexpected(at, "true or false", other)),
        },
        Kind::String => Proto::String(text(value, at)?.to_owned()),
        Kind::Bytes => {
            let bytes = unbase64(text(value, at)?).ok_or_else(|| JsonError::new(at, "not base 64"))?;
            Proto::Bytes(Bytes::from(bytes))
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Proto::I32(whole(value, at)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Proto::I64(whole(value, at)?),
        Kind::Uint32 | Kind::Fixed32 => Proto::U32(whole(value, at)?),
        Kind::Uint64 | Kind::Fixed64 => Proto::U64(whole(value, at)?),
        #[allow(clippy::cast_possible_truncation)] // as protobuf's mapping does
        Kind::Float => Proto::F32(float(value, at)? as f32),
        Kind::Double => Proto::F64(float(value, at)?),
    })
}

fn unexpected(at: &str, wanted: &str, value: &Value) -> JsonError {
    let what = match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    JsonError::new(at, format!("{what} where {wanted} is expected"))
}

fn text<'v>(value: &'v Value, at: &str) -> Read<&'v str> {
    value.as_str().ok_or_else(|| unexpected(at, "text", value))
}

fn whole<T: TryFrom<i128>>(value: &Value, at: &str) -> Read<T> {
    let number: Option<i128> = match value {
        Value::Number(number) => {
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(|| {
                // 1.0 and 1e3 are whole numbers in JSON.
                #[allow(clippy::cast_possible_truncation)]
                number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i128)
            })
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| unexpected(at, "a whole number that fits", value))
}

fn float(value: &Value, at: &str) -> Read<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| unexpected(at, "a number", value))
}

fn enumeration(kind: &EnumDescriptor, value: &Value, at: &str) -> Read<i32> {
    match value {
        Value::String(name) => kind
            .get_value_by_name(name)
            .map(|value| value.number())
            .ok_or_else(|| JsonError::new(at, format!("{name:?} is not one of {}", kind.full_name()))),
        other => whole(other, at),
    }
}

fn well_known(
    words: &Dictionary,
    kind: &MessageDescriptor,
    value: &Value,
    at: &str,
    depth: usize,
) -> Option<Read<DynamicMessage>> {
    let wrap = |name: &str, inner: Read<Proto>| {
        inner.map(|inner| {
            let mut out = DynamicMessage::new(kind.clone());
            out.set_field_by_name(name, inner);
            out
        })
    };
    let field = |name: &str| kind.get_field_by_name(name);
    Some(match kind.full_name() {
        "google.protobuf.Any" => any(words, kind, value, at, depth),
        "google.protobuf.Duration" => duration(kind, value, at),
        "google.protobuf.Struct" => wrap("fields", any_number(words, &field("fields")?, value, at, depth)),
        "google.protobuf.ListValue" => wrap("values", any_number(words, &field("values")?, value, at, depth)),
        "google.protobuf.Value" => match value {
            Value::Null => wrap("null_value", Ok(Proto::EnumNumber(0))),
            Value::Bool(truth) => wrap("bool_value", Ok(Proto::Bool(*truth))),
            Value::Number(number) => wrap("number_value", Ok(Proto::F64(number.as_f64().unwrap_or_default()))),
            Value::String(text) => wrap("string_value", Ok(Proto::String(text.clone()))),
            Value::Array(_) => wrap("list_value", single(words, &field("list_value")?.kind(), value, at, depth)),
            Value::Object(_) => wrap("struct_value", single(words, &field("struct_value")?.kind(), value, at, depth)),
        },
        "google.protobuf.BoolValue"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.Int64Value"
        | "google.protobuf.FloatValue"
        | "google.protobuf.DoubleValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => wrap("value", single(words, &field("value")?.kind(), value, at, depth)),
        "google.protobuf.Timestamp" => Err(JsonError::new(at, "points in time are not read")),
        _ => return None,
    })
}

fn any(words: &Dictionary, kind: &MessageDescriptor, value: &Value, at: &str, depth: usize) -> Read<DynamicMessage> {
    let Value::Object(members) = value else { return Err(unexpected(at, "an object", value)) };
    let url = members.get("@type").and_then(Value::as_str).ok_or_else(|| JsonError::new(at, "has no @type"))?;
    let inner = words.message(url).ok_or_else(|| JsonError::new(at, format!("{url} is not known")))?;
    let mut rest = members.clone();
    rest.remove("@type");
    let special = inner.full_name().starts_with("google.protobuf.");
    let inner = match (special, rest.get("value")) {
        (true, Some(value)) => message(words, &inner, value, at, depth + 1)?,
        _ => message(words, &inner, &Value::Object(rest), at, depth + 1)?,
    };
    let mut out = DynamicMessage::new(kind.clone());
    out.set_field_by_name("type_url", Proto::String(url.to_owned()));
    out.set_field_by_name("value", Proto::Bytes(Bytes::from(inner.encode_to_vec())));
    Ok(out)
}

/// `1.5s`.
fn duration(kind: &MessageDescriptor, value: &Value, at: &str) -> Read<DynamicMessage> {
    let parse = |text: &str| {
        let number = text.strip_suffix('s')?;
        let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if seconds.is_empty() || fraction.len() > 9 || !digits(seconds) || !digits(fraction) {
            return None;
        }
        let seconds: i64 = seconds.parse().ok()?;
        let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
        Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
    };
    let (seconds, nanos) =
        parse(text(value, at)?).ok_or_else(|| JsonError::new(at, "not a duration such as \"1.5s\""))?;
    let mut out = DynamicMessage::new(kind.clone());
    out.set_field_by_name("seconds", Proto::I64(seconds));
    out.set_field_by_name("nanos", Proto::I32(nanos));
    Ok(out)
}
