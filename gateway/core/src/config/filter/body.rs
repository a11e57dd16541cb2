//! Filters that change bodies, as configured. `crate::filter` decides when they work, the I/O layer does it.

use crate::config::StringMatcher;
use std::sync::Arc;

/// Codings of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

impl Coding {
    /// As in `content-encoding`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// How content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coder {
    /// gzip with a level from 0 to 9; `None`: the library's.
    Gzip {
        /// Level.
        level: Option<u8>,
    },
    /// Brotli with a quality from 0 to 11 and a window of 2 to the power of this many bytes.
    Brotli {
        /// Quality.
        quality: u8,
        /// Window.
        window: u8,
    },
    /// Zstandard with a level from 1 to 22, and a checksum at the end of each frame.
    Zstd {
        /// Level.
        level: u8,
        /// Checksum.
        checksum: bool,
    },
}

impl Coder {
    /// What it makes.
    #[must_use]
    pub const fn coding(self) -> Coding {
        match self {
            Self::Gzip { .. } => Coding::Gzip,
            Self::Brotli { .. } => Coding::Brotli,
            Self::Zstd { .. } => Coding::Zstd,
        }
    }
}

/// Compresses bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressor {
    /// How.
    pub coder: Coder,
    /// Of requests; `None`: not.
    pub request: Option<Compressible>,
    /// Of responses; `None`: not.
    pub response: Option<Compressible>,
    /// Responses with an `etag` are left alone.
    pub not_with_etag: bool,
    /// A strong `etag` becomes a weak one; otherwise it is removed.
    pub weaken_etag: bool,
    /// The upstream is not told what the client accepts, so that it does not compress itself.
    pub remove_accept_encoding: bool,
    /// Responses with these codes are left alone.
    pub not_with_status: Box<[u16]>,
    /// Taken when the client likes several codings equally.
    pub choose_first: bool,
}

/// Which messages are compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressible {
    /// Not those that are shorter.
    pub min_length: u64,
    /// Only these types, in lower case; empty: any.
    pub types: Box<[Box<str>]>,
    /// Or types that fulfil one of these.
    pub matchers: Box<[StringMatcher]>,
}

/// What a route says about a compressor.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressorOverride {
    /// See [`Compressor::remove_accept_encoding`].
    pub remove_accept_encoding: Option<bool>,
    /// Another way to compress.
    pub coder: Option<Coder>,
}

impl CompressorOverride {
    /// The settings with these in place of their own.
    #[must_use]
    pub fn over(&self, own: &Compressor) -> Arc<Compressor> {
        Arc::new(Compressor {
            coder: self.coder.unwrap_or(own.coder),
            remove_accept_encoding: self.remove_accept_encoding.unwrap_or(own.remove_accept_encoding),
            ..own.clone()
        })
    }
}

/// Decompresses bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decompressor {
    /// What.
    pub coding: Coding,
    /// More bytes than this for each byte that came are an attack.
    pub most_growth: u32,
    /// Of requests; `None`: not. `true`: also when `cache-control` says `no-transform`.
    pub request: Option<bool>,
    /// Of responses.
    pub response: Option<bool>,
    /// The upstream is told that this coding is accepted.
    pub advertise: bool,
}
