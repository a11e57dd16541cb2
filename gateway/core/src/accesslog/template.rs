//! Owns text with operators: splitting it once, and filling it in.

use super::operator::{Found, GrpcForm, Operator, Part};
use super::record::Record;
use super::sink::{Escape, Sink};
use std::fmt::Write;

/// Text with operators.
#[derive(Debug, Clone)]
pub(super) struct Template {
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
    pub(super) fn parse(text: &str) -> Result<Self, String> {
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
                        Found::Nothing => sink.push(missing.as_bytes()),
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
