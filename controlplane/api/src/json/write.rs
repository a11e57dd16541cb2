//! From messages to JSON, with the names of fields as in the protobuf files.

use super::{
    JsonError, Secrets,
    base64::base64,
    encode::{FIXED32, FIXED64, LENGTH, VARINT},
    unknown,
    words::{Enum, Field, Kind, Message, Scalar},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const REDACTED: &str = "[redacted]";
/// Messages nested deeper than this are not written.
const DEEPEST: usize = 100;

type Written<T> = Result<T, JsonError>;

/// A message as JSON, with the names of fields as in the protobuf files.
///
/// # Errors
/// When the type is not known or the bytes are no such message.
pub fn write(type_url: &str, bytes: &[u8], secrets: Secrets) -> Written<Value> {
    let message = Message::find(type_url).ok_or_else(|| unknown(type_url))?;
    Writer { secrets, depth: 0 }.message(message, bytes)
}

/// A value as it lies on the wire.
#[derive(Debug, Clone, Copy)]
enum Raw<'b> {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(&'b [u8]),
}

/// All values of a message, by the numbers of their fields.
type Raws<'b> = BTreeMap<u32, Vec<Raw<'b>>>;

fn invalid() -> JsonError {
    JsonError::new("", "not a valid message")
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn taken<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(taken)
}

fn raws(mut rest: &[u8]) -> Option<Raws<'_>> {
    let mut out = Raws::new();
    while !rest.is_empty() {
        let tag = u32::try_from(varint(&mut rest)?).ok()?;
        let raw = match tag & 7 {
            VARINT => Raw::Varint(varint(&mut rest)?),
            FIXED64 => Raw::Eight(taken(&mut rest, 8)?.try_into().ok()?),
            FIXED32 => Raw::Four(taken(&mut rest, 4)?.try_into().ok()?),
            LENGTH => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Raw::Bytes(taken(&mut rest, length)?)
            }
            _ => return None,
        };
        out.entry(tag >> 3).or_default().push(raw);
    }
    Some(out)
}

#[derive(Clone, Copy)]
struct Writer {
    secrets: Secrets,
    depth: usize,
}

impl Writer {
    fn message(self, message: Message, bytes: &[u8]) -> Written<Value> {
        if self.depth > DEEPEST {
            return Err(JsonError::new("", "nested too deep"));
        }
        let inside = Self { depth: self.depth + 1, ..self };
        let raws = raws(bytes).ok_or_else(invalid)?;
        if let Some(known) = inside.well_known(message, &raws) {
            return known;
        }
        let mut out = Map::new();
        for (number, values) in &raws {
            let Some(field) = message.numbered(*number) else { continue };
            let hidden = self.secrets == Secrets::Redacted && field.is_sensitive();
            let value = if hidden { inside.hide(field, values)? } else { inside.field(field, values)? };
            out.extend(value.map(|value| (field.name.to_owned(), value)));
        }
        Ok(Value::Object(out))
    }

    /// The value of a field; nothing when it is the default that was not set.
    fn field(self, field: Field, values: &[Raw<'_>]) -> Written<Option<Value>> {
        if field.is_map() {
            return self.map(field, values).map(Some);
        }
        if field.is_list() {
            let all = unpacked(field.kind, values)?;
            return all.into_iter().map(|raw| self.single(field.kind, raw)).collect::<Written<_>>().map(Some);
        }
        let Some(raw) = values.last() else { return Ok(None) };
        if !field.has_presence() && is_default(*raw) {
            return Ok(None);
        }
        self.singular(field.kind, values, *raw).map(Some)
    }

    /// A message that comes in pieces is the sum of them; of anything else the last one counts.
    fn singular(self, kind: Kind, values: &[Raw<'_>], last: Raw<'_>) -> Written<Value> {
        match kind {
            Kind::Message(inner) if values.len() > 1 => {
                let pieces: Vec<&[u8]> = values.iter().map(|raw| bytes(*raw)).collect::<Written<_>>()?;
                self.message(inner, &pieces.concat())
            }
            kind => self.single(kind, last),
        }
    }

    fn map(self, field: Field, values: &[Raw<'_>]) -> Written<Value> {
        let Kind::Message(entry) = field.kind else { return Err(invalid()) };
        let (keys, kind) = entry.numbered(1).zip(entry.numbered(2)).ok_or_else(invalid)?;
        let mut sorted = BTreeMap::new();
        for raw in values {
            let parts = raws(bytes(*raw)?).ok_or_else(invalid)?;
            let part = |number: u32| parts.get(&number).and_then(|raws| raws.last().copied());
            let key = match self.single(keys.kind, part(1).unwrap_or_else(|| default(keys.kind)))? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            sorted.insert(key, self.single(kind.kind, part(2).unwrap_or_else(|| default(kind.kind)))?);
        }
        Ok(Value::Object(sorted.into_iter().collect()))
    }

    fn single(self, kind: Kind, raw: Raw<'_>) -> Written<Value> {
        match kind {
            Kind::Message(inner) => self.message(inner, bytes(raw)?),
            Kind::Enum(kind) => enumeration(kind, raw),
            Kind::Scalar(kind) => scalar(kind, raw),
        }
    }

    /// Texts become a word, bytes the same in their notation, messages keep their shape, everything else goes.
    fn hide(self, field: Field, values: &[Raw<'_>]) -> Written<Option<Value>> {
        if field.is_map() {
            return Ok(Some(json!(REDACTED)));
        }
        if field.is_list() {
            return values.iter().map(|raw| self.hide_one(field.kind, *raw)).collect::<Written<_>>().map(Some);
        }
        let Some(raw) = values.last() else { return Ok(None) };
        if !field.has_presence() && is_default(*raw) {
            return Ok(None);
        }
        self.hide_one(field.kind, *raw).map(Some)
    }

    fn hide_one(self, kind: Kind, raw: Raw<'_>) -> Written<Value> {
        match kind {
            Kind::Message(inner) => {
                if self.depth > DEEPEST {
                    return Err(JsonError::new("", "nested too deep"));
                }
                let inside = Self { depth: self.depth + 1, ..self };
                let mut out = Map::new();
                for (number, values) in &raws(bytes(raw)?).ok_or_else(invalid)? {
                    let Some(field) = inner.numbered(*number) else { continue };
                    out.extend(inside.hide(field, values)?.map(|value| (field.name.to_owned(), value)));
                }
                Ok(Value::Object(out))
            }
            Kind::Scalar(Scalar::Bytes) => Ok(Value::String(base64(REDACTED.as_bytes()))),
            _ => Ok(json!(REDACTED)),
        }
    }

    fn well_known(self, message: Message, raws: &Raws<'_>) -> Option<Written<Value>> {
        let name = message.name().strip_prefix("google.protobuf.")?;
        let last = |number: u32| raws.get(&number).and_then(|raws| raws.last().copied());
        let whole = |number: u32| if let Some(Raw::Varint(value)) = last(number) { value.cast_signed() } else { 0 };
        #[allow(clippy::cast_possible_truncation)] // as on the wire
        let nanos = || whole(2) as i32;
        let none = Vec::new();
        let of = |number: u32| raws.get(&number).unwrap_or(&none);
        Some(match name {
            "Any" => self.any(last(1), last(2)),
            "Duration" => Ok(Value::String(duration(whole(1), nanos()))),
            "Timestamp" => Ok(Value::String(timestamp(whole(1), nanos()))),
            "Struct" => self.map(message.numbered(1)?, of(1)),
            "ListValue" => {
                let kind = message.numbered(1)?.kind;
                of(1).iter().map(|raw| self.single(kind, *raw)).collect()
            }
            "Value" => match raws.keys().find_map(|number| message.numbered(*number)) {
                Some(field) if field.name == "null_value" => Ok(Value::Null),
                Some(field) => self.single(field.kind, last(field.number)?),
                None => Ok(Value::Null),
            },
            "Empty" => Ok(json!({})),
            name if name.ends_with("Value") => {
                let kind = message.field("value")?.kind;
                self.single(kind, last(1).unwrap_or_else(|| default(kind)))
            }
            _ => return None,
        })
    }

    /// What is not known is shown as its bytes.
    fn any(self, url: Option<Raw<'_>>, value: Option<Raw<'_>>) -> Written<Value> {
        let url = url.map(text).transpose()?.unwrap_or_default();
        let bytes = value.map(bytes).transpose()?.unwrap_or_default();
        let mut out = Map::from_iter([("@type".to_owned(), json!(url))]);
        let inner = Message::find(url).and_then(|inner| self.message(inner, bytes).ok());
        match inner {
            Some(Value::Object(members)) if !has_own_form(url) => out.extend(members),
            Some(other) => drop(out.insert("value".to_owned(), other)),
            None => drop(out.insert("value".to_owned(), Value::String(base64(bytes)))),
        }
        Ok(Value::Object(out))
    }
}

/// Types whose JSON is no object of their fields stand under a name of their own.
fn has_own_form(url: &str) -> bool {
    url.rsplit_once('/').map_or(url, |(_, name)| name).starts_with("google.protobuf.")
}

fn bytes(raw: Raw<'_>) -> Written<&[u8]> {
    if let Raw::Bytes(bytes) = raw { Ok(bytes) } else { Err(invalid()) }
}

fn text(raw: Raw<'_>) -> Written<&str> {
    std::str::from_utf8(bytes(raw)?).map_err(|_| invalid())
}

/// What is meant where nothing was sent.
fn default(kind: Kind) -> Raw<'static> {
    match kind {
        Kind::Message(_) | Kind::Scalar(Scalar::Text | Scalar::Bytes) => Raw::Bytes(&[]),
        Kind::Scalar(Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64) => Raw::Eight([0; 8]),
        Kind::Scalar(Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32) => Raw::Four([0; 4]),
        Kind::Enum(_) | Kind::Scalar(_) => Raw::Varint(0),
    }
}

fn is_default(raw: Raw<'_>) -> bool {
    match raw {
        Raw::Varint(value) => value == 0,
        Raw::Eight(bytes) => bytes == [0; 8],
        Raw::Four(bytes) => bytes == [0; 4],
        Raw::Bytes(bytes) => bytes.is_empty(),
    }
}

/// The items of a list: numbers may come many in one piece.
fn unpacked<'b>(kind: Kind, values: &[Raw<'b>]) -> Written<Vec<Raw<'b>>> {
    let mut out = Vec::with_capacity(values.len());
    for raw in values {
        match (default(kind), raw) {
            (Raw::Bytes(_), raw) => out.push(*raw),
            (one, Raw::Bytes(packed)) => {
                let mut rest = *packed;
                while !rest.is_empty() {
                    let item = match one {
                        Raw::Eight(_) => taken(&mut rest, 8).and_then(|b| b.try_into().ok()).map(Raw::Eight),
                        Raw::Four(_) => taken(&mut rest, 4).and_then(|b| b.try_into().ok()).map(Raw::Four),
                        _ => varint(&mut rest).map(Raw::Varint),
                    };
                    out.push(item.ok_or_else(invalid)?);
                }
            }
            (_, raw) => out.push(*raw),
        }
    }
    Ok(out)
}

#[allow(clippy::cast_possible_truncation)] // as on the wire
fn scalar(kind: Scalar, raw: Raw<'_>) -> Written<Value> {
    Ok(match (kind, raw) {
        (Scalar::Bool, Raw::Varint(value)) => json!(value != 0),
        (Scalar::Int32, Raw::Varint(value)) => json!(value as i32),
        (Scalar::Uint32, Raw::Varint(value)) => json!(value as u32),
        (Scalar::Int64, Raw::Varint(value)) => json!(value.cast_signed().to_string()),
        (Scalar::Uint64, Raw::Varint(value)) => json!(value.to_string()),
        (Scalar::Sint32, Raw::Varint(value)) => json!(unzigzag(value) as i32),
        (Scalar::Sint64, Raw::Varint(value)) => json!(unzigzag(value).to_string()),
        (Scalar::Fixed32, Raw::Four(value)) => json!(u32::from_le_bytes(value)),
        (Scalar::Sfixed32, Raw::Four(value)) => json!(i32::from_le_bytes(value)),
        (Scalar::Fixed64, Raw::Eight(value)) => json!(u64::from_le_bytes(value).to_string()),
        (Scalar::Sfixed64, Raw::Eight(value)) => json!(i64::from_le_bytes(value).to_string()),
        (Scalar::Float, Raw::Four(value)) => number(f64::from(f32::from_le_bytes(value))),
        (Scalar::Double, Raw::Eight(value)) => number(f64::from_le_bytes(value)),
        (Scalar::Text, raw) => json!(text(raw)?),
        (Scalar::Bytes, raw) => Value::String(base64(bytes(raw)?)),
        _ => return Err(invalid()),
    })
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn enumeration(kind: Enum, raw: Raw<'_>) -> Written<Value> {
    let Raw::Varint(value) = raw else { return Err(invalid()) };
    #[allow(clippy::cast_possible_truncation)] // as on the wire
    let value = value as i32;
    Ok(kind.word(value).map_or_else(|| json!(value), |word| json!(word)))
}

fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
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
