//! From JSON (or what looks like it) to messages.
//!
//! Any format that serde reads will do. What is read is written at once: there is no tree of the whole.

use super::{
    JsonError,
    encode::{self, Open},
    scalar::{self, Fits, Told, unexpected},
    unknown,
    words::{Field, Kind, Message},
};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// Messages nested deeper than this are refused.
const DEEPEST: usize = 100;

/// What is special about the outermost message.
pub struct Parts<'p> {
    /// Its fields that may be there; empty: all.
    pub only: &'p [&'p str],
    /// Lists of messages whose items are handed over one by one and are not part of what is returned, by their paths.
    pub each: &'p [&'p str],
    /// Gets the items: the number of the list among `each`, and the item's bytes.
    pub taken: &'p mut dyn FnMut(usize, Vec<u8>),
}

/// The bytes of a message from JSON.
///
/// # Errors
/// The first thing that does not fit, and where.
pub fn read(type_url: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    read_parts(type_url, value, Parts { only: &[], each: &[], taken: &mut |_, _| {} })
}

/// The same from any format, with the items of some lists handed over as they are read.
///
/// # Errors
/// As [`read`], or what the format says.
pub fn read_parts<'de, D: Deserializer<'de>>(type_url: &str, from: D, parts: Parts<'_>) -> Result<Vec<u8>, JsonError> {
    let message = Message::find(type_url).ok_or_else(|| unknown(type_url))?;
    let context = Context {
        path: RefCell::default(),
        failed: RefCell::default(),
        depth: Cell::new(0),
        only: parts.only,
        each: parts.each,
        taken: RefCell::new(parts.taken),
    };
    let mut out = Vec::new();
    let body = Body { context: &context, message, out: &mut out };
    let read = body
        .deserialize(from)
        .and_then(|wrote| if wrote { Ok(()) } else { Err(context.fail(Told::Null.unexpected("an object"))) });
    match read {
        Ok(()) => Ok(out),
        Err(error) => Err(context.failed.take().unwrap_or_else(|| JsonError::new("", error.to_string()))),
    }
}

enum Step {
    Field(&'static str),
    Nth(usize),
    Key(String),
}

/// Where reading is, and what went wrong there.
struct Context<'p> {
    path: RefCell<Vec<Step>>,
    failed: RefCell<Option<JsonError>>,
    depth: Cell<usize>,
    only: &'p [&'p str],
    each: &'p [&'p str],
    taken: RefCell<&'p mut dyn FnMut(usize, Vec<u8>)>,
}

impl Context<'_> {
    fn place(&self) -> String {
        let mut out = String::new();
        for step in &*self.path.borrow() {
            match step {
                Step::Field(name) if out.is_empty() => out.push_str(name),
                Step::Field(name) => out.extend([".", name]),
                Step::Nth(nth) => out.push_str(&format!("[{nth}]")),
                Step::Key(key) => out.extend(["[", key, "]"]),
            }
        }
        out
    }

    /// Remembers the first thing that went wrong: errors of formats know nothing of places.
    fn fail<E: Error>(&self, reason: impl Into<String>) -> E {
        let reason = reason.into();
        let error = E::custom(&reason);
        self.failed.borrow_mut().get_or_insert_with(|| JsonError { at: self.place(), reason });
        error
    }

    fn fits<T, E: Error>(&self, fits: Fits<T>) -> Result<T, E> {
        fits.map_err(|reason| self.fail(reason))
    }

    fn at<T, E>(&self, step: Step, then: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let done = then()?;
        self.path.borrow_mut().pop();
        Ok(done)
    }

    fn deeper<T, E: Error>(&self, then: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let depth = self.depth.get();
        if depth >= DEEPEST {
            return Err(self.fail("nested too deep"));
        }
        self.depth.set(depth + 1);
        let done = then()?;
        self.depth.set(depth);
        Ok(done)
    }

    /// Which of the lists that are handed over this is.
    fn part(&self) -> Option<usize> {
        if self.each.is_empty() || self.depth.get() > 1 {
            return None;
        }
        let place = self.place();
        self.each.iter().position(|path| *path == place)
    }
}

/// Visits of all values without parts go to `told`.
macro_rules! told {
    () => {
        fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
            self.told(Told::Bool(value))
        }
        fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
            self.told(Told::Whole(value.into()))
        }
        fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
            self.told(Told::Whole(value.into()))
        }
        fn visit_i128<E: Error>(self, value: i128) -> Result<bool, E> {
            self.told(Told::Whole(value))
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
            self.told(Told::Float(value))
        }
        fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
            self.told(Told::Text(value))
        }
        fn visit_unit<E: Error>(self) -> Result<bool, E> {
            self.told(Told::Null)
        }
        fn visit_none<E: Error>(self) -> Result<bool, E> {
            self.told(Told::Null)
        }
        fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<bool, D::Error> {
            value.deserialize_any(self)
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value")
        }
    };
}

/// What is inside a message. All visits say whether there was anything (`null` is nothing).
struct Body<'c, 'p> {
    context: &'c Context<'p>,
    message: Message,
    out: &'c mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Body<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

/// Numbers of the fields of `google.protobuf.Value`.
const VALUE_STRUCT: u32 = 5;
const VALUE_LIST: u32 = 6;

impl Body<'_, '_> {
    fn told<E: Error>(self, told: Told<'_>) -> Result<bool, E> {
        let Self { context, message, out } = self;
        let name = message.name();
        match (name, told) {
            ("google.protobuf.Value", told) => {
                let (number, kind) = match told {
                    Told::Null => {
                        out.extend([8, 0]);
                        return Ok(true);
                    }
                    Told::Whole(_) | Told::Float(_) => (2, super::words::Scalar::Double),
                    Told::Text(_) => (3, super::words::Scalar::Text),
                    Told::Bool(_) => (4, super::words::Scalar::Bool),
                };
                context.fits(scalar::put(out, number, kind, told, true))?;
            }
            (_, Told::Null) => return Ok(false),
            ("google.protobuf.Duration", told) => {
                let text = context.fits(told.text())?;
                let (seconds, nanos) =
                    scalar::duration(text).ok_or_else(|| context.fail("not a duration such as \"1.5s\""))?;
                let whole = |number: i128| Told::Whole(number);
                context.fits(scalar::put(out, 1, super::words::Scalar::Int64, whole(seconds.into()), false))?;
                context.fits(scalar::put(out, 2, super::words::Scalar::Int32, whole(nanos.into()), false))?;
            }
            ("google.protobuf.Timestamp", _) => return Err(context.fail("points in time are not read")),
            (name, told) => {
                let wrapped = message.field("value").filter(|_| is_wrapper(name)).map(|field| field.kind);
                let Some(Kind::Scalar(kind)) = wrapped else {
                    return Err(context.fail(told.unexpected("an object")));
                };
                context.fits(scalar::put(out, 1, kind, told, false))?;
            }
        }
        Ok(true)
    }

    /// The items of `google.protobuf.ListValue` or the members of `google.protobuf.Struct`, within another message or alone.
    fn inner<E: Error>(
        self,
        number: Option<u32>,
        then: impl FnOnce(Slot<'_, '_>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let Self { context, message, out } = self;
        let (open, holder) = match number {
            None => (None, Some(message)),
            Some(number) => {
                let kind = message.numbered(number).map(|field| field.kind);
                let holder = if let Some(Kind::Message(holder)) = kind { Some(holder) } else { None };
                (Some(Open::begin(out, number)), holder)
            }
        };
        let field = holder.and_then(|holder| holder.numbered(1)).ok_or_else(|| context.fail("not known"))?;
        context.deeper(|| then(Slot { context, field, out: &mut *out }))?;
        if let Some(open) = open {
            open.end(out);
        }
        Ok(true)
    }
}

fn is_wrapper(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|name| name.ends_with("Value") && name.len() > "Value".len())
        && name != "google.protobuf.ListValue"
}

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = bool;

    told!();

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<bool, A::Error> {
        match self.message.name() {
            "google.protobuf.Value" => self.inner(Some(VALUE_LIST), |slot| slot.visit_seq(items)),
            "google.protobuf.ListValue" => self.inner(None, |slot| slot.visit_seq(items)),
            _ => Err(self.context.fail(unexpected("a list", "an object"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<bool, A::Error> {
        match self.message.name() {
            "google.protobuf.Value" => self.inner(Some(VALUE_STRUCT), |slot| slot.visit_map(members)),
            "google.protobuf.Struct" => self.inner(None, |slot| slot.visit_map(members)),
            "google.protobuf.Any" => self.any(members),
            name if name == "google.protobuf.Duration" || name == "google.protobuf.Timestamp" || is_wrapper(name) => {
                Err(self.context.fail(unexpected("an object", "a single value")))
            }
            _ => self.fields(members).map(|()| true),
        }
    }
}

impl<'c, 'p> Body<'c, 'p> {
    fn fields<'de, A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { context, message, out } = self;
        let (mut seen, mut chosen): (Vec<u32>, Vec<(u32, &str)>) = (Vec::new(), Vec::new());
        while let Some(field) = members.next_key_seed(Key { context, message })? {
            context.at(Step::Field(field.name), || {
                let wrote = members.next_value_seed(Slot { context, field, out: &mut *out })?;
                if !wrote {
                    return Ok(());
                }
                if let Some((_, other)) = chosen.iter().find(|(choice, _)| *choice == field.choice) {
                    return Err(context.fail(format!("beside {other}, of which there may be one")));
                }
                if seen.contains(&field.number) {
                    return Err(context.fail("is there twice"));
                }
                seen.push(field.number);
                if field.choice != 0 {
                    chosen.push((field.choice, field.name));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A message of any type, which `@type` says. Where that comes first, as is usual, the rest is read as it comes.
    fn any<'de, A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let Self { context, out, .. } = self;
        let mut rest = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value: Value = members.next_value()?;
            let Some(url) = value.as_str().filter(|_| key == "@type" && rest.is_empty()) else {
                rest.insert(key, value);
                continue;
            };
            let inner = type_of(context, url)?;
            if is_special(inner) {
                rest.insert(key, value);
                continue;
            }
            encode::bytes(out, 1, url.as_bytes());
            let open = Open::begin(out, 2);
            context.deeper(|| Body { context, message: inner, out: &mut *out }.fields(members))?;
            open.end(out);
            return Ok(true);
        }
        Self::any_of(context, rest, out).map_err(A::Error::custom)
    }

    fn any_of(context: &'c Context<'p>, mut rest: Map<String, Value>, out: &mut Vec<u8>) -> serde_json::Result<bool> {
        let url = rest.remove("@type").and_then(|url| url.as_str().map(str::to_owned));
        let url = url.ok_or_else(|| context.fail::<serde_json::Error>("has no @type"))?;
        let inner = type_of(context, &url)?;
        let value = if is_special(inner) { rest.remove("value") } else { None };
        encode::bytes(out, 1, url.as_bytes());
        let open = Open::begin(out, 2);
        let body = Body { context, message: inner, out: &mut *out };
        let wrote = context.deeper(|| body.deserialize(value.unwrap_or(Value::Object(rest))))?;
        if wrote {
            open.end(out)
        } else {
            open.undo(out)
        }
        Ok(true)
    }
}

fn type_of<E: Error>(context: &Context<'_>, url: &str) -> Result<Message, E> {
    Message::find(url).ok_or_else(|| context.fail(unknown(url).reason))
}

fn is_special(message: Message) -> bool {
    message.name().starts_with("google.protobuf.")
}

/// The name of a field.
struct Key<'c, 'p> {
    context: &'c Context<'p>,
    message: Message,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Field, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Field;

    fn visit_str<E: Error>(self, name: &str) -> Result<Field, E> {
        let Self { context, message } = self;
        let refuse = |reason: String| {
            let error = context.fail(&reason);
            if let Some(told) = &mut *context.failed.borrow_mut() {
                told.at = if told.at.is_empty() { name.to_owned() } else { format!("{}.{name}", told.at) };
            }
            error
        };
        let outermost = context.path.borrow().is_empty();
        if outermost && !context.only.is_empty() && !context.only.contains(&name) {
            return Err(refuse("not supported in a file".to_owned()));
        }
        message.field(name).ok_or_else(|| refuse(format!("{} has no such field", message.name())))
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a field of {}", self.message.name())
    }
}

/// A field, however many values it has.
struct Slot<'c, 'p> {
    context: &'c Context<'p>,
    field: Field,
    out: &'c mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Slot<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        let Self { context, field, out } = self;
        if field.is_list() || field.is_map() {
            return from.deserialize_any(Self { context, field, out });
        }
        let (kind, number, defaults) = (field.kind, field.number, field.has_presence());
        One { context, kind, number, defaults, out }.deserialize(from)
    }
}

impl Slot<'_, '_> {
    fn told<E: Error>(self, told: Told<'_>) -> Result<bool, E> {
        match told {
            Told::Null => Ok(false),
            told => Err(self.context.fail(told.unexpected(if self.field.is_map() { "an object" } else { "a list" }))),
        }
    }

    /// Items that are handed over.
    fn hand_over<'de, A: SeqAccess<'de>>(self, mut items: A, message: Message, part: usize) -> Result<bool, A::Error> {
        let context = self.context;
        for nth in 0.. {
            let mut out = Vec::new();
            let body = Body { context, message, out: &mut out };
            let wrote = context.at(Step::Nth(nth), || {
                context.deeper(|| match items.next_element_seed(body)? {
                    Some(false) => Err(context.fail(Told::Null.unexpected("an object"))),
                    other => Ok(other),
                })
            })?;
            if wrote.is_none() {
                break;
            }
            (context.taken.borrow_mut())(part, out);
        }
        Ok(true)
    }
}

impl<'de> Visitor<'de> for Slot<'_, '_> {
    type Value = bool;

    told!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        if !self.field.is_list() {
            return Err(self.context.fail(unexpected("a list", "an object")));
        }
        if let (Kind::Message(message), Some(part)) = (self.field.kind, self.context.part()) {
            return self.hand_over(items, message, part);
        }
        let Self { context, field, out } = self;
        for nth in 0.. {
            let one = One { context, kind: field.kind, number: field.number, defaults: true, out: &mut *out };
            let found = context.at(Step::Nth(nth), || match items.next_element_seed(one)? {
                Some(false) => Err(context.fail(Told::Null.unexpected("a value"))),
                other => Ok(other.is_some()),
            })?;
            if !found {
                return Ok(nth > 0);
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let Self { context, field, out } = self;
        let (true, Kind::Message(entry)) = (field.is_map(), field.kind) else {
            return Err(context.fail(unexpected("an object", "a list")));
        };
        let (Some(keys), Some(values)) = (entry.numbered(1), entry.numbered(2)) else {
            return Err(context.fail("not a map"));
        };
        let mut any = false;
        while let Some(key) = members.next_key::<String>()? {
            let open = Open::begin(out, field.number);
            context.at(Step::Key(key.clone()), || {
                put_key(out, keys, &key).map_err(|()| context.fail::<A::Error>("not a key of this map"))?;
                let one = One { context, kind: values.kind, number: 2, defaults: true, out: &mut *out };
                if members.next_value_seed(one)? {
                    return Ok(());
                }
                Err(context.fail(Told::Null.unexpected("a value")))
            })?;
            open.end(out);
            any = true;
        }
        Ok(any)
    }
}

fn put_key(out: &mut Vec<u8>, field: Field, key: &str) -> Result<(), ()> {
    let Kind::Scalar(kind) = field.kind else { return Err(()) };
    let told = match (kind, key.parse()) {
        (super::words::Scalar::Bool, Ok(truth)) => Told::Bool(truth),
        _ => Told::Text(key),
    };
    scalar::put(out, 1, kind, told, true).map_err(drop)
}

/// One value of a field.
struct One<'c, 'p> {
    context: &'c Context<'p>,
    kind: Kind,
    number: u32,
    /// A value that is the default of its type is written too.
    defaults: bool,
    out: &'c mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        let Kind::Message(message) = self.kind else { return from.deserialize_any(self) };
        let Self { context, number, out, .. } = self;
        let open = Open::begin(out, number);
        let wrote = context.deeper(|| Body { context, message, out: &mut *out }.deserialize(from))?;
        if wrote {
            open.end(out)
        } else {
            open.undo(out)
        }
        Ok(wrote)
    }
}

impl One<'_, '_> {
    fn told<E: Error>(self, told: Told<'_>) -> Result<bool, E> {
        let fits = match (told, self.kind) {
            (Told::Null, _) => return Ok(false),
            (told, Kind::Scalar(kind)) => scalar::put(self.out, self.number, kind, told, self.defaults),
            (told, Kind::Enum(kind)) => scalar::put_enum(self.out, self.number, kind, told, self.defaults),
            (told, Kind::Message(_)) => Err(told.unexpected("an object")),
        };
        self.context.fits(fits).map(|()| true)
    }
}

impl<'de> Visitor<'de> for One<'_, '_> {
    type Value = bool;

    told!();

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        Err(self.context.fail(unexpected("a list", "a single value")))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<bool, A::Error> {
        Err(self.context.fail(unexpected("an object", "a single value")))
    }
}
