//! From messages to JSON.

use super::{Dictionary, Secrets};
use prost_reflect::{
    Cardinality, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value as Proto,
};
use serde_json::{Map, Value, json};

const REDACTED: &str = "[redacted]";

pub(super) fn message(words: &Dictionary, message: &DynamicMessage, secrets: Secrets) -> Value {
    if let Some(known) = well_known(words, message, secrets) {
        return known;
    }
    let mut out = Map::new();
    for (field, value) in message.fields() {
        let hidden = secrets == Secrets::Redacted && sensitive(&field);
        out.insert(
            field.name().to_owned(),
            if hidden { hide(&field, value) } else { one(words, &field, value, secrets) },
        );
    }
    Value::Object(out)
}

/// Fields that Envoy marks as ones that must not be shown.
const SENSITIVE: &str = include_str!(concat!(env!("OUT_DIR"), "/sensitive.txt"));

fn sensitive(field: &FieldDescriptor) -> bool {
    SENSITIVE.lines().any(|line| line == field.full_name())
}

/// Texts become a word, bytes the same in their notation, messages keep their shape, everything else goes.
fn hide(field: &FieldDescriptor, value: &Proto) -> Value {
    match (field.kind(), value) {
        (_, Proto::List(items)) => items.iter().map(|item| hide_one(item)).collect(),
        (_, value) => hide_one(value),
    }
}

fn hide_one(value: &Proto) -> Value {
    match value {
        Proto::Message(inner) => {
            Value::Object(inner.fields().map(|(field, value)| (field.name().to_owned(), hide(&field, value))).collect())
        }
        Proto::Bytes(_) => Value::String(base64(REDACTED.as_bytes())),
        _ => Value::String(REDACTED.to_owned()),
    }
}

fn one(words: &Dictionary, field: &FieldDescriptor, value: &Proto, secrets: Secrets) -> Value {
    match value {
        Proto::List(items) => items.iter().map(|item| single(words, &field.kind(), item, secrets)).collect(),
        Proto::Map(entries) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            let mut sorted: Vec<_> =
                entries.iter().map(|(key, value)| (key_text(key), single(words, &kind, value, secrets))).collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(sorted.into_iter().collect())
        }
        value => {
            debug_assert!(field.cardinality() != Cardinality::Repeated, "repeated fields are lists or maps");
            single(words, &field.kind(), value, secrets)
        }
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn single(words: &Dictionary, kind: &Kind, value: &Proto, secrets: Secrets) -> Value {
    match value {
        Proto::Bool(value) => json!(value),
        Proto::I32(value) => json!(value),
        Proto::U32(value) => json!(value),
        Proto::I64(value) => json!(value.to_string()),
        Proto::U64(value) => json!(value.to_string()),
        Proto::F32(value) => number(f64::from(*value)),
        Proto::F64(value) => number(*value),
        Proto::String(value) => json!(value),
        Proto::Bytes(value) => Value::String(base64(value)),
        Proto::EnumNumber(number) => match kind {
            Kind::Enum(kind) => enumeration(kind, *number),
            _ => json!(number),
        },
        Proto::Message(inner) => message(words, inner, secrets),
        Proto::List(_) | Proto::Map(_) => Value::Null,
    }
}

fn enumeration(kind: &EnumDescriptor, number: i32) -> Value {
    kind.get_value(number).map_or_else(|| json!(number), |value| json!(value.name()))
}

fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

fn well_known(words: &Dictionary, message: &DynamicMessage, secrets: Secrets) -> Option<Value> {
    let field = |name: &str| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    let number = |name: &str| field(name).and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = || field("nanos").and_then(|value| value.as_i32()).unwrap_or_default();
    Some(match message.descriptor().full_name() {
        "google.protobuf.Any" => any(words, message, secrets),
        "google.protobuf.Duration" => Value::String(duration(number("seconds"), nanos())),
        "google.protobuf.Timestamp" => Value::String(timestamp(number("seconds"), nanos())),
        "google.protobuf.Struct" => {
            let descriptor = message.descriptor().get_field_by_name("fields")?;
            one(words, &descriptor, &field("fields")?, secrets)
        }
        "google.protobuf.ListValue" => {
            let descriptor = message.descriptor().get_field_by_name("values")?;
            one(words, &descriptor, &field("values")?, secrets)
        }
        "google.protobuf.Value" => match message.fields().next() {
            Some((kind, _)) if kind.name() == "null_value" => Value::Null,
            Some((kind, value)) => single(words, &kind.kind(), value, secrets),
            None => Value::Null,
        },
        "google.protobuf.BoolValue"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.Int64Value"
        | "google.protobuf.FloatValue"
        | "google.protobuf.DoubleValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => {
            let descriptor = message.descriptor().get_field_by_name("value")?;
            single(words, &descriptor.kind(), &field("value")?, secrets)
        }
        "google.protobuf.Empty" => json!({}),
        _ => return None,
    })
}

/// What is not known is shown as its bytes.
fn any(words: &Dictionary, message: &DynamicMessage, secrets: Secrets) -> Value {
    let text = |name: &str| message.get_field_by_name(name).map(std::borrow::Cow::into_owned);
    let url = text("type_url").and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let bytes = text("value").and_then(|value| value.as_bytes().cloned()).unwrap_or_default();
    let mut out = Map::from_iter([("@type".to_owned(), json!(url))]);
    match words.write(&url, &bytes, secrets) {
        Ok(Value::Object(members)) => out.extend(members),
        Ok(other) => drop(out.insert("value".to_owned(), other)),
        Err(_) => drop(out.insert("value".to_owned(), Value::String(base64(&bytes)))),
    }
    Value::Object(out)
}

fn duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs()))
}

/// Digits after the point: none, three, six or nine.
pub(super) fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1000 == 0 => format!(".{:06}", n / 1000),
        n => format!(".{n:09}"),
    }
}

/// RFC 3339 in UTC.
#[must_use]
pub fn timestamp(seconds: i64, nanos: i32) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date of a day number, by eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{}Z",
        fraction(u32::try_from(nanos).unwrap_or_default())
    )
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = ALPHABET.get((word >> (18 - 6 * at)) as usize & 63).copied().unwrap_or(b'=');
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// The bytes of a text in base 64, either alphabet, padded or not.
pub(super) fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let byte = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        word = word << 6 | u32::try_from(ALPHABET.iter().position(|letter| *letter == byte)?).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits & 0xff) as u8);
        }
    }
    Some(out)
}
