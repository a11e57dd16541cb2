//! From messages to JSON, with the names of fields as in the protobuf files.
//!
//! Owns no bytes of its own: every part is a piece of the message that it belongs to, read when somebody asks for it.

use super::{
    JsonError, Secrets,
    base64::base64,
    encode::{FIXED32, FIXED64, LENGTH, VARINT},
    node::Node,
    unknown,
    words::{Enum, Field, Kind, Message, Scalar},
};
use prost::bytes::Bytes;
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap};

const REDACTED: &str = "[redacted]";
const INVALID: &str = "[not a valid message]";
/// Messages nested deeper than this are not written.
const DEEPEST: usize = 100;

/// A message as JSON, with the names of fields as in the protobuf files. Its parts are read when they are asked for: what holds the
/// result holds the bytes and no tree. A part that is no such message says so in its place.
///
/// # Errors
/// When the type is not known or the bytes are no message at all.
pub fn write(type_url: &str, bytes: Bytes, secrets: Secrets) -> Result<Node, JsonError> {
    let message = Message::find(type_url).ok_or_else(|| unknown(type_url))?;
    Writer { secrets, depth: 0 }.message(message, &bytes).ok_or_else(|| JsonError::new("", "not a valid message"))
}

/// A value as it lies on the wire.
#[derive(Debug, Clone)]
enum Raw {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(Bytes),
}

/// All values of a message, by the numbers of their fields.
type Raws = BTreeMap<u32, Vec<Raw>>;

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

fn raws(whole: &Bytes) -> Option<Raws> {
    let mut out = Raws::new();
    let mut rest: &[u8] = whole;
    while !rest.is_empty() {
        let tag = u32::try_from(varint(&mut rest)?).ok()?;
        let raw = match tag & 7 {
            VARINT => Raw::Varint(varint(&mut rest)?),
            FIXED64 => Raw::Eight(taken(&mut rest, 8)?.try_into().ok()?),
            FIXED32 => Raw::Four(taken(&mut rest, 4)?.try_into().ok()?),
            LENGTH => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                Raw::Bytes(whole.slice_ref(taken(&mut rest, length)?))
            }
            _ => return None,
        };
        out.entry(tag >> 3).or_default().push(raw);
    }
    Some(out)
}

/// `None` everywhere: not valid.
#[derive(Clone, Copy)]
struct Writer {
    secrets: Secrets,
    depth: usize,
}

impl Writer {
    fn message(self, message: Message, bytes: &Bytes) -> Option<Node> {
        let inside = self.inside()?;
        let raws = raws(bytes)?;
        if message.name().starts_with("google.protobuf.")
            && let Some(known) = inside.well_known(message, &raws)
        {
            return known;
        }
        Some(Node::object(raws.into_iter().filter_map(move |(number, values)| {
            let field = message.numbered(number)?;
            let hidden = inside.secrets == Secrets::Redacted && field.is_sensitive();
            let value = if hidden { inside.hide(field, values) } else { inside.field(field, values) };
            Some((Cow::Borrowed(field.name), shown(value)?))
        })))
    }

    fn inside(self) -> Option<Self> {
        (self.depth <= DEEPEST).then_some(Self { depth: self.depth + 1, ..self })
    }

    /// The value of a field; nothing within when it is the default that was not set.
    fn field(self, field: Field, values: Vec<Raw>) -> Option<Option<Node>> {
        if field.is_map() {
            return self.map(field, &values).map(Some);
        }
        if field.is_list() {
            let all = unpacked(field.kind, values)?;
            let items = all.into_iter().map(move |raw| self.single(field.kind, raw).unwrap_or_else(invalid));
            return Some(Some(Node::list(items)));
        }
        let Some(last) = values.last() else { return Some(None) };
        if !field.has_presence() && is_default(last) {
            return Some(None);
        }
        self.singular(field.kind, values).map(Some)
    }

    /// A message that comes in pieces is the sum of them; of anything else the last one counts.
    fn singular(self, kind: Kind, mut values: Vec<Raw>) -> Option<Node> {
        match kind {
            Kind::Message(inner) if values.len() > 1 => {
                let pieces: Vec<Bytes> = values.into_iter().map(bytes).collect::<Option<_>>()?;
                self.message(inner, &pieces.concat().into())
            }
            kind => self.single(kind, values.pop()?),
        }
    }

    fn map(self, field: Field, values: &[Raw]) -> Option<Node> {
        let Kind::Message(entry) = field.kind else { return None };
        let (keys, kind) = entry.numbered(1).zip(entry.numbered(2))?;
        let mut sorted = BTreeMap::new();
        for raw in values {
            let mut parts = raws(&bytes(raw.clone())?)?;
            let mut part = |number: u32, kind| {
                parts.remove(&number).and_then(|mut raws| raws.pop()).unwrap_or_else(|| default(kind))
            };
            let key = match self.single(keys.kind, part(1, keys.kind))? {
                Node::Leaf(Value::String(key)) => key,
                Node::Leaf(other) => other.to_string(),
                Node::Object(_) | Node::List(_) => return None,
            };
            sorted.insert(key, part(2, kind.kind));
        }
        Some(Node::object(
            sorted
                .into_iter()
                .map(move |(key, raw)| (Cow::Owned(key), self.single(kind.kind, raw).unwrap_or_else(invalid))),
        ))
    }

    fn single(self, kind: Kind, raw: Raw) -> Option<Node> {
        match kind {
            Kind::Message(inner) => self.message(inner, &bytes(raw)?),
            Kind::Enum(kind) => enumeration(kind, &raw).map(Node::Leaf),
            Kind::Scalar(kind) => scalar(kind, raw).map(Node::Leaf),
        }
    }

    /// Texts become a word, bytes the same in their notation, messages keep their shape, everything else goes.
    fn hide(self, field: Field, values: Vec<Raw>) -> Option<Option<Node>> {
        if field.is_map() {
            return Some(Some(Node::Leaf(json!(REDACTED))));
        }
        if field.is_list() {
            let items = values.into_iter().map(move |raw| self.hide_one(field.kind, raw).unwrap_or_else(invalid));
            return Some(Some(Node::list(items)));
        }
        let Some(last) = values.into_iter().last() else { return Some(None) };
        if !field.has_presence() && is_default(&last) {
            return Some(None);
        }
        self.hide_one(field.kind, last).map(Some)
    }

    fn hide_one(self, kind: Kind, raw: Raw) -> Option<Node> {
        match kind {
            Kind::Message(inner) => {
                let inside = self.inside()?;
                let raws = raws(&bytes(raw)?)?;
                Some(Node::object(raws.into_iter().filter_map(move |(number, values)| {
                    let field = inner.numbered(number)?;
                    Some((Cow::Borrowed(field.name), shown(inside.hide(field, values))?))
                })))
            }
            Kind::Scalar(Scalar::Bytes) => Some(Node::Leaf(Value::String(base64(REDACTED.as_bytes())))),
            _ => Some(Node::Leaf(json!(REDACTED))),
        }
    }

    /// Nothing: it has no form of its own.
    fn well_known(self, message: Message, raws: &Raws) -> Option<Option<Node>> {
        let name = message.name().strip_prefix("google.protobuf.")?;
        let last = |number: u32| raws.get(&number).and_then(|raws| raws.last().cloned());
        let whole = |number: u32| if let Some(Raw::Varint(value)) = last(number) { value.cast_signed() } else { 0 };
        #[allow(clippy::cast_possible_truncation)] // as on the wire
        let nanos = || whole(2) as i32;
        let of = |number: u32| raws.get(&number).map(Vec::as_slice).unwrap_or_default();
        let leaf = |text: String| Some(Node::Leaf(Value::String(text)));
        Some(match name {
            "Any" => self.any(last(1), last(2)),
            "Duration" => leaf(duration(whole(1), nanos())),
            "Timestamp" => leaf(timestamp(whole(1), nanos())),
            "Struct" => self.map(message.numbered(1)?, of(1)),
            "ListValue" => {
                let (kind, all) = (message.numbered(1)?.kind, of(1).to_vec());
                Some(Node::list(all.into_iter().map(move |raw| self.single(kind, raw).unwrap_or_else(invalid))))
            }
            "Value" => match raws.keys().find_map(|number| message.numbered(*number)) {
                Some(field) if field.name != "null_value" => self.single(field.kind, last(field.number)?),
                _ => Some(Node::Leaf(Value::Null)),
            },
            "Empty" => Some(Node::object(std::iter::empty())),
            name if name.ends_with("Value") => {
                let kind = message.field("value")?.kind;
                self.single(kind, last(1).unwrap_or_else(|| default(kind)))
            }
            _ => return None,
        })
    }

    /// What is not known is shown as its bytes.
    fn any(self, url: Option<Raw>, value: Option<Raw>) -> Option<Node> {
        let url = url.map_or_else(|| Some(String::new()), text)?;
        let value = value.map_or_else(|| Some(Bytes::new()), bytes)?;
        let inner = Message::find(&url).and_then(|inner| self.message(inner, &value));
        let own_form = has_own_form(&url);
        let head = std::iter::once((Cow::Borrowed("@type"), Node::Leaf(Value::String(url))));
        Some(match inner {
            Some(Node::Object(members)) if !own_form => Node::object(head.chain(members)),
            Some(other) => Node::object(head.chain([(Cow::Borrowed("value"), other)])),
            None => Node::object(head.chain([(Cow::Borrowed("value"), Node::Leaf(Value::String(base64(&value))))])),
        })
    }
}

fn invalid() -> Node {
    Node::Leaf(json!(INVALID))
}

/// What stands in the place of a field.
fn shown(value: Option<Option<Node>>) -> Option<Node> {
    value.unwrap_or_else(|| Some(invalid()))
}

/// Types whose JSON is no object of their fields stand under a name of their own.
fn has_own_form(url: &str) -> bool {
    url.rsplit_once('/').map_or(url, |(_, name)| name).starts_with("google.protobuf.")
}

fn bytes(raw: Raw) -> Option<Bytes> {
    if let Raw::Bytes(bytes) = raw { Some(bytes) } else { None }
}

fn text(raw: Raw) -> Option<String> {
    String::from_utf8(bytes(raw)?.into()).ok()
}

/// What is meant where nothing was sent.
fn default(kind: Kind) -> Raw {
    match kind {
        Kind::Message(_) | Kind::Scalar(Scalar::Text | Scalar::Bytes) => Raw::Bytes(Bytes::new()),
        Kind::Scalar(Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64) => Raw::Eight([0; 8]),
        Kind::Scalar(Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32) => Raw::Four([0; 4]),
        Kind::Enum(_) | Kind::Scalar(_) => Raw::Varint(0),
    }
}

fn is_default(raw: &Raw) -> bool {
    match raw {
        Raw::Varint(value) => *value == 0,
        Raw::Eight(bytes) => *bytes == [0; 8],
        Raw::Four(bytes) => *bytes == [0; 4],
        Raw::Bytes(bytes) => bytes.is_empty(),
    }
}

/// The items of a list: numbers may come many in one piece.
fn unpacked(kind: Kind, values: Vec<Raw>) -> Option<Vec<Raw>> {
    let one = default(kind);
    if matches!(one, Raw::Bytes(_)) {
        return Some(values);
    }
    let mut out = Vec::with_capacity(values.len());
    for raw in values {
        match raw {
            Raw::Bytes(packed) => {
                let mut rest: &[u8] = &packed;
                while !rest.is_empty() {
                    let item = match one {
                        Raw::Eight(_) => taken(&mut rest, 8).and_then(|b| b.try_into().ok()).map(Raw::Eight),
                        Raw::Four(_) => taken(&mut rest, 4).and_then(|b| b.try_into().ok()).map(Raw::Four),
                        _ => varint(&mut rest).map(Raw::Varint),
                    };
                    out.push(item?);
                }
            }
            raw => out.push(raw),
        }
    }
    Some(out)
}

#[allow(clippy::cast_possible_truncation)] // as on the wire
fn scalar(kind: Scalar, raw: Raw) -> Option<Value> {
    Some(match (kind, raw) {
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
        (Scalar::Bytes, raw) => Value::String(base64(&bytes(raw)?)),
        _ => return None,
    })
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn enumeration(kind: Enum, raw: &Raw) -> Option<Value> {
    let Raw::Varint(value) = raw else { return None };
    #[allow(clippy::cast_possible_truncation)] // as on the wire
    let value = *value as i32;
    Some(kind.word(value).map_or_else(|| json!(value), |word| json!(word)))
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
