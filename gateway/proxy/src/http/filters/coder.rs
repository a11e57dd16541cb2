//! Compression and decompression, piece by piece.
//!
//! Every piece that comes is flushed, so that a stream of small messages is not held back. What comes out of one slice of input is
//! bounded in size, and so is the growth of a body as a whole.

use super::Malformed;
use bytes::BytesMut;
use flate2::write::{GzDecoder, GzEncoder};
use std::io::{self, Write};
use tombolo_gateway_core::config::{Coder, Coding};

/// Input is decompressed in slices of so many bytes.
pub(super) const SLICE: usize = 4096;
/// More than this never comes out of one slice.
const MOST_AT_ONCE: usize = 16 << 20;
/// Growth is not looked at before so many bytes came out: small bodies are no attack.
const ALWAYS: u64 = 256 << 10;

/// Takes what a library writes.
#[derive(Default)]
pub(super) struct Pipe {
    out: BytesMut,
    most: usize,
}

impl Pipe {
    fn new() -> Self {
        Self { out: BytesMut::new(), most: MOST_AT_ONCE }
    }

    fn take(&mut self, out: &mut BytesMut) {
        if out.is_empty() {
            *out = self.out.split();
        } else {
            out.extend_from_slice(&self.out.split());
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.most {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses.
pub(super) enum Encoder {
    Gzip(GzEncoder<Pipe>),
    Brotli(Box<brotli::CompressorWriter<Pipe>>),
    Zstd(Option<zstd::stream::write::Encoder<'static, Pipe>>),
}

impl Encoder {
    pub(super) fn new(coder: Coder) -> Self {
        match coder {
            Coder::Gzip { level } => {
                let level = level.map_or_else(flate2::Compression::default, |l| flate2::Compression::new(u32::from(l)));
                Self::Gzip(GzEncoder::new(Pipe::new(), level))
            }
            Coder::Brotli { quality, window } => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Pipe::new(),
                SLICE,
                u32::from(quality),
                u32::from(window),
            ))),
            Coder::Zstd { level, checksum } => {
                let made = zstd::stream::write::Encoder::new(Pipe::new(), i32::from(level)).and_then(|mut encoder| {
                    encoder.include_checksum(checksum)?;
                    Ok(encoder)
                });
                Self::Zstd(made.ok())
            }
        }
    }

    /// Compresses all of the input, and flushes.
    pub(super) fn run(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        let wrong = |_| Malformed;
        match self {
            Self::Gzip(encoder) => {
                encoder.write_all(input).and_then(|()| encoder.flush()).map_err(wrong)?;
                encoder.get_mut().take(out);
            }
            Self::Brotli(encoder) => {
                encoder.write_all(input).and_then(|()| encoder.flush()).map_err(wrong)?;
                encoder.get_mut().take(out);
            }
            Self::Zstd(encoder) => {
                let encoder = encoder.as_mut().ok_or(Malformed)?;
                encoder.write_all(input).and_then(|()| encoder.flush()).map_err(wrong)?;
                encoder.get_mut().take(out);
            }
        }
        Ok(())
    }

    /// Ends what is compressed.
    pub(super) fn finish(&mut self, out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::Gzip(encoder) => {
                encoder.try_finish().map_err(|_| Malformed)?;
                encoder.get_mut().take(out);
            }
            Self::Brotli(encoder) => {
                let empty = brotli::CompressorWriter::new(Pipe::new(), 1, 0, 10);
                std::mem::replace(&mut **encoder, empty).into_inner().take(out);
            }
            Self::Zstd(encoder) => {
                let encoder = encoder.take().ok_or(Malformed)?;
                encoder.finish().map_err(|_| Malformed)?.take(out);
            }
        }
        Ok(())
    }
}

/// Decompresses.
pub(super) struct Decoder {
    kind: Kind,
    most_growth: u64,
    taken: u64,
    given: u64,
}

enum Kind {
    Gzip(Box<GzDecoder<Pipe>>),
    Brotli(Box<brotli::DecompressorWriter<Pipe>>),
    Zstd(Option<Box<zstd::stream::write::Decoder<'static, Pipe>>>),
}

impl Decoder {
    pub(super) fn new(coding: Coding, most_growth: u32) -> Self {
        let kind = match coding {
            Coding::Gzip => Kind::Gzip(Box::new(GzDecoder::new(Pipe::new()))),
            Coding::Brotli => Kind::Brotli(Box::new(brotli::DecompressorWriter::new(Pipe::new(), SLICE))),
            Coding::Zstd => Kind::Zstd(zstd::stream::write::Decoder::new(Pipe::new()).ok().map(Box::new)),
        };
        Self { kind, most_growth: u64::from(most_growth), taken: 0, given: 0 }
    }

    /// Decompresses a slice.
    pub(super) fn run(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        let wrong = |_| Malformed;
        match &mut self.kind {
            Kind::Gzip(decoder) => {
                decoder.write_all(input).and_then(|()| decoder.flush()).map_err(wrong)?;
                decoder.get_mut().take(out);
            }
            Kind::Brotli(decoder) => {
                decoder.write_all(input).and_then(|()| decoder.flush()).map_err(wrong)?;
                decoder.get_mut().take(out);
            }
            Kind::Zstd(decoder) => {
                let decoder = decoder.as_mut().ok_or(Malformed)?;
                decoder.write_all(input).and_then(|()| decoder.flush()).map_err(wrong)?;
                decoder.get_mut().take(out);
            }
        }
        self.taken += input.len() as u64;
        self.given += out.len() as u64;
        if self.given > ALWAYS && self.given > self.taken.saturating_mul(self.most_growth) {
            return Err(Malformed);
        }
        Ok(())
    }

    /// There is no more: what is not complete is malformed.
    pub(super) fn finish(&mut self, out: &mut BytesMut) -> Result<(), Malformed> {
        match &mut self.kind {
            Kind::Gzip(decoder) => {
                decoder.try_finish().map_err(|_| Malformed)?;
                decoder.get_mut().take(out);
            }
            Kind::Brotli(decoder) => {
                decoder.close().map_err(|_| Malformed)?;
                decoder.get_mut().take(out);
            }
            Kind::Zstd(decoder) => {
                let decoder = decoder.as_mut().ok_or(Malformed)?;
                decoder.flush().map_err(|_| Malformed)?;
                decoder.get_mut().take(out);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODERS: [Coder; 3] = [
        Coder::Gzip { level: Some(6) },
        Coder::Brotli { quality: 4, window: 18 },
        Coder::Zstd { level: 3, checksum: true },
    ];

    fn encoded(coder: Coder, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coder);
        let mut all = Vec::new();
        for piece in pieces {
            let mut out = BytesMut::new();
            encoder.run(piece, &mut out).unwrap();
            assert!(!out.is_empty(), "{coder:?} holds a piece back");
            all.extend_from_slice(&out);
        }
        let mut out = BytesMut::new();
        encoder.finish(&mut out).unwrap();
        all.extend_from_slice(&out);
        all
    }

    fn decoded(coding: Coding, most: u32, input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut decoder = Decoder::new(coding, most);
        let mut all = Vec::new();
        for slice in input.chunks(7) {
            let mut out = BytesMut::new();
            decoder.run(slice, &mut out)?;
            all.extend_from_slice(&out);
        }
        let mut out = BytesMut::new();
        decoder.finish(&mut out)?;
        all.extend_from_slice(&out);
        Ok(all)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let long = "all work and no play ".repeat(2000);
        for coder in CODERS {
            let made = encoded(coder, &[b"hello", long.as_bytes(), b"end"]);
            assert!(made.len() < long.len() / 10, "{coder:?}: {}", made.len());
            let back = decoded(coder.coding(), 10_000, &made).unwrap();
            assert_eq!(back.len(), long.len() + 8, "{coder:?}");
            assert!(back.starts_with(b"helloall work") && back.ends_with(b"play end"), "{coder:?}");
        }
    }

    #[test]
    fn what_grows_too_much_is_refused() {
        let zeros = vec![0; 1 << 20];
        for coder in CODERS {
            let bomb = encoded(coder, &[&zeros]);
            assert_eq!(decoded(coder.coding(), 100, &bomb), Err(Malformed), "{coder:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for coder in CODERS {
            assert_eq!(
                decoded(coder.coding(), 100, b"this is no compressed data at all, is it?"),
                Err(Malformed),
                "{coder:?}"
            );
        }
        let whole = encoded(CODERS[0], &[b"hello"]);
        assert_eq!(decoded(Coding::Gzip, 100, &whole[..whole.len() - 4]), Err(Malformed), "cut short");
    }
}
