//! Makes the table of names, numbers and types of all messages that `src/json/words.rs` reads.
//!
//! A table that is read where it lies costs an idle process nothing; decoded descriptors would cost it tens of megabytes.
//! Words are 32 bits, little endian: a head with four counts, then the rows of messages (sorted by name), fields, enums and
//! values, then the bytes of all names.

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use std::{collections::HashMap, error::Error};

pub(crate) const LIST: u32 = 1;
pub(crate) const MAP: u32 = 2;
pub(crate) const PRESENCE: u32 = 4;
pub(crate) const SENSITIVE: u32 = 8;

#[derive(Default)]
struct Table {
    messages: Vec<[u32; 4]>,
    fields: Vec<[u32; 5]>,
    enums: Vec<[u32; 4]>,
    values: Vec<[u32; 3]>,
    text: Vec<u8>,
    known: HashMap<String, u32>,
}

/// The table of everything in a pool.
pub(crate) fn table(pool: &DescriptorPool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut messages: Vec<MessageDescriptor> = pool.all_messages().collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let mut enums: Vec<EnumDescriptor> = pool.all_enums().collect();
    enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let places: HashMap<String, u32> = number(messages.iter().map(MessageDescriptor::full_name))
        .chain(number(enums.iter().map(EnumDescriptor::full_name)))
        .collect();
    let mut table = Table::default();
    for message in &messages {
        table.message(message, &places)?;
    }
    for one in &enums {
        table.enumeration(one)?;
    }
    table.bytes()
}

fn number<'n>(names: impl Iterator<Item = &'n str>) -> impl Iterator<Item = (String, u32)> {
    names.map(str::to_owned).zip(0..)
}

impl Table {
    fn name(&mut self, name: &str) -> Result<(u32, u32), Box<dyn Error>> {
        let length = u32::try_from(name.len())?;
        if let Some(at) = self.known.get(name) {
            return Ok((*at, length));
        }
        let at = u32::try_from(self.text.len())?;
        self.text.extend_from_slice(name.as_bytes());
        self.known.insert(name.to_owned(), at);
        Ok((at, length))
    }

    fn message(&mut self, message: &MessageDescriptor, places: &HashMap<String, u32>) -> Result<(), Box<dyn Error>> {
        let (name, length) = self.name(message.full_name())?;
        let first = u32::try_from(self.fields.len())?;
        let choices: Vec<_> = message.oneofs().map(|choice| choice.full_name().to_owned()).collect();
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        for field in &fields {
            let (name, length) = self.name(field.name())?;
            let (kind, target) = kind(field, places)?;
            let choice = field.containing_oneof().and_then(|c| choices.iter().position(|name| name == c.full_name()));
            let choice = u32::try_from(choice.map_or(0, |at| at + 1))?;
            let facts = kind | flags(field) << 8 | choice << 16;
            self.fields.push([field.number(), name, length, facts, target]);
        }
        self.messages.push([name, length, first, u32::try_from(fields.len())?]);
        Ok(())
    }

    fn enumeration(&mut self, one: &EnumDescriptor) -> Result<(), Box<dyn Error>> {
        let (name, length) = self.name(one.full_name())?;
        let first = u32::try_from(self.values.len())?;
        for value in one.values() {
            let (name, length) = self.name(value.name())?;
            self.values.push([name, length, value.number().cast_unsigned()]);
        }
        let count = u32::try_from(self.values.len())? - first;
        self.enums.push([name, length, first, count]);
        Ok(())
    }

    fn bytes(self) -> Result<Vec<u8>, Box<dyn Error>> {
        let counts = [self.messages.len(), self.fields.len(), self.enums.len(), self.values.len()];
        let mut words = Vec::new();
        for count in counts {
            words.push(u32::try_from(count)?);
        }
        words.extend(self.messages.into_iter().flatten());
        words.extend(self.fields.into_iter().flatten());
        words.extend(self.enums.into_iter().flatten());
        words.extend(self.values.into_iter().flatten());
        let mut out: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        out.extend(self.text);
        Ok(out)
    }
}

fn flags(field: &FieldDescriptor) -> u32 {
    let mut flags = 0;
    if field.is_map() {
        flags |= MAP;
    } else if field.cardinality() == Cardinality::Repeated {
        flags |= LIST;
    }
    if field.supports_presence() {
        flags |= PRESENCE;
    }
    if is_sensitive(field) {
        flags |= SENSITIVE;
    }
    flags
}

/// Envoy marks fields that must not be shown.
fn is_sensitive(field: &FieldDescriptor) -> bool {
    let options = field.options();
    let mut extensions = options.extensions();
    extensions.any(|(e, value)| e.full_name() == "udpa.annotations.sensitive" && value.as_bool() == Some(true))
}

/// The type as protobuf numbers types, and the row of the message or enum that it names.
fn kind(field: &FieldDescriptor, places: &HashMap<String, u32>) -> Result<(u32, u32), Box<dyn Error>> {
    let place = |name: &str| places.get(name).copied().ok_or_else(|| format!("{name} is nowhere"));
    Ok(match field.kind() {
        Kind::Double => (1, 0),
        Kind::Float => (2, 0),
        Kind::Int64 => (3, 0),
        Kind::Uint64 => (4, 0),
        Kind::Int32 => (5, 0),
        Kind::Fixed64 => (6, 0),
        Kind::Fixed32 => (7, 0),
        Kind::Bool => (8, 0),
        Kind::String => (9, 0),
        Kind::Message(message) => (11, place(message.full_name())?),
        Kind::Bytes => (12, 0),
        Kind::Uint32 => (13, 0),
        Kind::Enum(one) => (14, place(one.full_name())?),
        Kind::Sfixed32 => (15, 0),
        Kind::Sfixed64 => (16, 0),
        Kind::Sint32 => (17, 0),
        Kind::Sint64 => (18, 0),
    })
}
