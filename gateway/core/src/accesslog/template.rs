//! Owns text with operators: splitting it once, and filling it in.

use super::operator::{Found, GrpcForm, Operator, Part};
use super::record::Record;
use super::sink::{Escape, Sink};
use crate::config::Value;
use std::{fmt::Write, net::IpAddr};

/// Text with operators.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// As written: two templates are the same when their texts are.
    text: Box<str>,
    pieces: Box<[Piece]>,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    Operator(Operator, usize),
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (operator, bound, after) = operator(rest)?;
            if !plain.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Operator(operator, bound));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Literal(plain.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The operator and its bound, when there is nothing else.
    pub(super) fn single(&self) -> Option<(&Operator, usize)> {
        match &*self.pieces {
            [Piece::Operator(operator, bound)] => Some((operator, *bound)),
            _ => None,
        }
    }

    /// As written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The text, when there are no operators.
    pub(crate) fn fixed(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether metadata of clusters or endpoints is read.
    pub(super) fn reads_metadata(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Operator(operator, _) if operator.reads_metadata()))
    }

    /// Fills it in as the value of a header: what is not known is nothing, and nothing is escaped.
    pub(crate) fn render_value(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.render(record, "", Escape::Raw, out);
    }

    /// Fills it in, with `missing` for what is not known.
    pub(super) fn render(&self, record: &Record<'_>, missing: &str, escape: Escape, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                // A literal is what the operator of the gateway wrote, line ends included; in JSON it is inside a string.
                Piece::Literal(text) => match escape {
                    Escape::Text | Escape::Raw => out.extend_from_slice(text.as_bytes()),
                    Escape::Json => Sink { out, escape, left: usize::MAX }.push(text.as_bytes()),
                },
                Piece::Operator(operator, bound) => {
                    let mut sink = Sink { out, escape, left: *bound };
                    match operator.find(record) {
                        // As in Envoy, what is null is as if it were not there.
                        Found::Nothing | Found::Value(Value::Null) => sink.push(missing.as_bytes()),
                        found => found.write(&mut sink),
                    }
                }
            }
        }
    }
}

impl Found<'_> {
    pub(super) fn write(&self, sink: &mut Sink<'_>) {
        // Writing to memory cannot fail.
        let _ = match self {
            Found::Nothing => Ok(()),
            Found::Bytes(bytes) => {
                sink.push(bytes);
                Ok(())
            }
            Found::Number(number) => write!(sink, "{number}"),
            Found::Address(address, Part::Whole) => write!(sink, "{address}"),
            Found::Address(address, Part::Ip) => write!(sink, "{}", address.ip()),
            Found::Address(address, Part::Port) => write!(sink, "{}", address.port()),
            Found::Address(address, Part::Network(bits)) => network(address.ip(), *bits, sink),
            Found::Owned(text) => sink.write_str(text),
            Found::Value(value) => write_value(value, sink),
            Found::Flags(flags, long) => write_flags(*flags, *long, sink),
            Found::List(items) => items.iter().enumerate().try_for_each(|(index, item)| {
                sink.write_str(if index > 0 { "," } else { "" })?;
                sink.write_str(item)
            }),
            Found::Time(format, micros) => format.render(*micros, sink),
            Found::GrpcStatus(code, form) => write_grpc(*code, *form, sink),
        };
    }
}

/// The address with all but the first bits cleared, in CIDR notation.
fn network(ip: IpAddr, bits: u8, sink: &mut Sink<'_>) -> std::fmt::Result {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            write!(sink, "{}/{bits}", std::net::Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            write!(sink, "{}/{bits}", std::net::Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

/// Text as it is; anything else as JSON.
fn write_value(value: &Value, sink: &mut Sink<'_>) -> std::fmt::Result {
    match value.as_str() {
        Some(text) => sink.write_str(text),
        None => {
            let mut out = Vec::new();
            value_as_json(value, &mut out);
            sink.push(&out);
            Ok(())
        }
    }
}

/// Appends a value as JSON.
pub(super) fn value_as_json(value: &Value, out: &mut Vec<u8>) {
    let quoted = |text: &str, out: &mut Vec<u8>| {
        out.push(b'"');
        Sink { out, escape: Escape::Json, left: usize::MAX }.push(text.as_bytes());
        out.push(b'"');
    };
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Text(text) => quoted(text, out),
        Value::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                value_as_json(item, out);
            }
            out.push(b']');
        }
        Value::Map(members) => {
            out.push(b'{');
            for (index, (name, item)) in members.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                quoted(name, out);
                out.push(b':');
                value_as_json(item, out);
            }
            out.push(b'}');
        }
    }
}

fn write_flags(flags: crate::failure::Flags, long: bool, sink: &mut Sink<'_>) -> std::fmt::Result {
    if flags.is_empty() {
        return sink.write_str("-");
    }
    flags.iter().enumerate().try_for_each(|(index, flag)| {
        sink.write_str(if index > 0 { "," } else { "" })?;
        sink.write_str(if long { flag.long() } else { flag.short() })
    })
}

/// gRPC codes in both spellings, by number.
const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn write_grpc(code: u32, form: GrpcForm, sink: &mut Sink<'_>) -> std::fmt::Result {
    match (GRPC.get(code as usize), form) {
        (Some((camel, _)), GrpcForm::Camel) => sink.write_str(camel),
        (Some((_, snake)), GrpcForm::Snake) => sink.write_str(snake),
        _ => write!(sink, "{code}"),
    }
}

/// `NAME`, `NAME(ARGUMENT)`, either with `:LENGTH`, up to the closing percent sign.
fn operator(text: &str) -> Result<(Operator, usize, &str), String> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (found, after) = inside.split_once(')').ok_or_else(|| format!("%{name}( is not closed"))?;
        argument = Some(found);
        rest = after;
    }
    let mut bound = usize::MAX;
    if let Some(after) = rest.strip_prefix(':') {
        let digits = after.find('%').map_or(after, |end| &after[..end]);
        bound = digits.parse().map_err(|_| format!("%{name}%: {digits:?} is not a length"))?;
        rest = &after[digits.len()..];
    }
    let after = rest.strip_prefix('%').ok_or_else(|| format!("%{name} is not closed"))?;
    Ok((Operator::parse(name, argument)?, bound, after))
}
