//! Names, numbers and types of all messages, read where they lie in the program.
//!
//! Owns the layout of the table that the build makes (`build/words.rs`). Never allocates and never decodes: a process that reads
//! no JSON does not even load the table's pages.

static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/words.bin"));

const HEAD: usize = 4;
const MESSAGE: usize = 4;
const FIELD: usize = 5;
const ENUM: usize = 4;
const VALUE: usize = 3;

const LIST: u32 = 1;
const MAP: u32 = 2;
const PRESENCE: u32 = 4;
const SENSITIVE: u32 = 8;

fn word(at: usize) -> usize {
    let bytes = TABLE.get(at * 4..at * 4 + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_le_bytes) as usize
}

/// Where the rows of each kind begin, and the names.
fn rows(kind: usize) -> usize {
    let sizes = [MESSAGE, FIELD, ENUM, VALUE];
    HEAD + sizes.iter().take(kind).enumerate().map(|(at, size)| word(at) * size).sum::<usize>()
}

fn text(at: usize) -> &'static str {
    let from = rows(4) * 4 + word(at);
    TABLE.get(from..from + word(at + 1)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message(usize);

/// A field of a message type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Of which of the message's choices it is one, counted from one; zero: of none.
    pub(super) choice: u32,
    flags: u32,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message(Message),
    Enum(Enum),
    Scalar(Scalar),
}

/// Types without parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    Text,
    Bytes,
    Uint32,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// An enum type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Enum(usize);

impl Message {
    /// By its full name, with or without the host part of a type URL.
    pub(super) fn find(name: &str) -> Option<Self> {
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let (mut low, mut high) = (0, word(0));
        while low < high {
            let middle = usize::midpoint(low, high);
            match Self::at(middle).name().cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(Self::at(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn at(row: usize) -> Self {
        Self(rows(0) + row * MESSAGE)
    }

    pub(super) fn name(self) -> &'static str {
        text(self.0)
    }

    fn fields(self) -> impl Iterator<Item = usize> {
        let (first, count) = (word(self.0 + 2), word(self.0 + 3));
        let begin = rows(1);
        (first..first + count).map(move |row| begin + row * FIELD)
    }

    /// By the name in the protobuf file or its JSON spelling.
    pub(super) fn field(self, name: &str) -> Option<Field> {
        self.fields().find(|row| names(text(row + 1), name)).map(Field::at)
    }

    pub(super) fn numbered(self, number: u32) -> Option<Field> {
        self.fields().find(|row| word(*row) == number as usize).map(Field::at)
    }
}

/// `max_requests` is called `maxRequests` too.
fn names(name: &str, told: &str) -> bool {
    if name == told {
        return true;
    }
    let mut left = told.bytes();
    let mut raised = false;
    for byte in name.bytes() {
        if byte == b'_' {
            raised = true;
            continue;
        }
        let wanted = if std::mem::take(&mut raised) { byte.to_ascii_uppercase() } else { byte };
        if left.next() != Some(wanted) {
            return false;
        }
    }
    left.next().is_none()
}

impl Field {
    fn at(row: usize) -> Self {
        let facts = u32::try_from(word(row + 3)).unwrap_or_default();
        let target = word(row + 4);
        let scalar = |kind| Kind::Scalar(kind);
        let kind = match facts & 0xff {
            1 => scalar(Scalar::Double),
            2 => scalar(Scalar::Float),
            3 => scalar(Scalar::Int64),
            4 => scalar(Scalar::Uint64),
            5 => scalar(Scalar::Int32),
            6 => scalar(Scalar::Fixed64),
            7 => scalar(Scalar::Fixed32),
            8 => scalar(Scalar::Bool),
            11 => Kind::Message(Message::at(target)),
            12 => scalar(Scalar::Bytes),
            13 => scalar(Scalar::Uint32),
            14 => Kind::Enum(Enum(rows(2) + target * ENUM)),
            15 => scalar(Scalar::Sfixed32),
            16 => scalar(Scalar::Sfixed64),
            17 => scalar(Scalar::Sint32),
            18 => scalar(Scalar::Sint64),
            _ => scalar(Scalar::Text),
        };
        let number = u32::try_from(word(row)).unwrap_or_default();
        Self { number, name: text(row + 1), kind, choice: facts >> 16, flags: facts >> 8 & 0xff }
    }

    pub(super) fn is_list(self) -> bool {
        self.flags & LIST != 0
    }

    pub(super) fn is_map(self) -> bool {
        self.flags & MAP != 0
    }

    /// Whether a default value that was set differs from one that was not.
    pub(super) fn has_presence(self) -> bool {
        self.flags & PRESENCE != 0
    }

    /// It must not be shown.
    pub(super) fn is_sensitive(self) -> bool {
        self.flags & SENSITIVE != 0
    }
}

impl Enum {
    pub(super) fn name(self) -> &'static str {
        text(self.0)
    }

    fn values(self) -> impl Iterator<Item = usize> {
        let (first, count) = (word(self.0 + 2), word(self.0 + 3));
        let begin = rows(3);
        (first..first + count).map(move |row| begin + row * VALUE)
    }

    pub(super) fn number(self, name: &str) -> Option<i32> {
        self.values().find(|row| text(*row) == name).map(number)
    }

    pub(super) fn word(self, wanted: i32) -> Option<&'static str> {
        self.values().find(|row| number(*row) == wanted).map(text)
    }
}

fn number(row: usize) -> i32 {
    u32::try_from(word(row + 2)).unwrap_or_default().cast_signed()
}
