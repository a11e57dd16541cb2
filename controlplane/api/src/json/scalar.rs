//! Values without parts: from what JSON has to what a field wants.

use super::{
    base64::unbase64,
    encode::{self, FIXED32, FIXED64, VARINT},
    words::{Enum, Scalar},
};

/// A value of JSON without parts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told<'v> {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(&'v str),
}

/// Why a value does not fit, in lower case.
pub(super) type Fits<T> = Result<T, String>;

pub(super) fn unexpected(what: &str, wanted: &str) -> String {
    format!("{what} where {wanted} is expected")
}

impl Told<'_> {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Whole(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
        }
    }

    pub(super) fn unexpected(self, wanted: &str) -> String {
        unexpected(self.what(), wanted)
    }

    fn bool(self) -> Fits<bool> {
        if let Self::Bool(value) = self { Ok(value) } else { Err(self.unexpected("true or false")) }
    }

    fn whole<T: TryFrom<i128>>(self) -> Fits<T> {
        let number: Option<i128> = match self {
            Self::Whole(number) => Some(number),
            // 1.0 and 1e3 are whole numbers in JSON.
            #[allow(clippy::cast_possible_truncation)]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i128),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| self.unexpected("a whole number that fits"))
    }

    fn float(self) -> Fits<f64> {
        match self {
            #[allow(clippy::cast_precision_loss)] // as JSON's numbers are
            Self::Whole(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
        .ok_or_else(|| self.unexpected("a number"))
    }
}

impl<'v> Told<'v> {
    pub(super) fn text(self) -> Fits<&'v str> {
        if let Self::Text(text) = self { Ok(text) } else { Err(self.unexpected("text")) }
    }
}

/// Writes a value of a field. `defaults`: also one that is the default of its type.
pub(super) fn put(out: &mut Vec<u8>, number: u32, kind: Scalar, told: Told<'_>, defaults: bool) -> Fits<()> {
    let mut varint = |value: u64| {
        if defaults || value != 0 {
            encode::tag(out, number, VARINT);
            encode::varint(out, value);
        }
    };
    match kind {
        Scalar::Bool => varint(told.bool()?.into()),
        Scalar::Int32 => varint(i64::from(told.whole::<i32>()?).cast_unsigned()),
        Scalar::Int64 => varint(told.whole::<i64>()?.cast_unsigned()),
        Scalar::Uint32 => varint(told.whole::<u32>()?.into()),
        Scalar::Uint64 => varint(told.whole()?),
        Scalar::Sint32 => varint(zigzag(told.whole::<i32>()?.into())),
        Scalar::Sint64 => varint(zigzag(told.whole()?)),
        Scalar::Fixed32 => four(out, number, told.whole::<u32>()?, defaults),
        Scalar::Sfixed32 => four(out, number, told.whole::<i32>()?.cast_unsigned(), defaults),
        #[allow(clippy::cast_possible_truncation)] // as protobuf's mapping does
        Scalar::Float => four(out, number, (told.float()? as f32).to_bits(), defaults),
        Scalar::Fixed64 => eight(out, number, told.whole()?, defaults),
        Scalar::Sfixed64 => eight(out, number, told.whole::<i64>()?.cast_unsigned(), defaults),
        Scalar::Double => eight(out, number, told.float()?.to_bits(), defaults),
        Scalar::Text => some_bytes(out, number, told.text()?.as_bytes(), defaults),
        Scalar::Bytes => {
            let bytes = unbase64(told.text()?).ok_or("not base 64")?;
            some_bytes(out, number, &bytes, defaults);
        }
    }
    Ok(())
}

/// The same for an enum, by name or by number.
pub(super) fn put_enum(out: &mut Vec<u8>, number: u32, kind: Enum, told: Told<'_>, defaults: bool) -> Fits<()> {
    let value = match told {
        Told::Text(name) => kind.number(name).ok_or_else(|| format!("{name:?} is not one of {}", kind.name()))?,
        other => other.whole()?,
    };
    if defaults || value != 0 {
        encode::tag(out, number, VARINT);
        encode::varint(out, i64::from(value).cast_unsigned());
    }
    Ok(())
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn four(out: &mut Vec<u8>, number: u32, value: u32, defaults: bool) {
    if defaults || value != 0 {
        encode::tag(out, number, FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn eight(out: &mut Vec<u8>, number: u32, value: u64, defaults: bool) {
    if defaults || value != 0 {
        encode::tag(out, number, FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn some_bytes(out: &mut Vec<u8>, number: u32, value: &[u8], defaults: bool) {
    if defaults || !value.is_empty() {
        encode::bytes(out, number, value);
    }
}

/// `1.5s` as seconds and nanoseconds.
pub(super) fn duration(text: &str) -> Option<(i64, i32)> {
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
}
