//! The peer's unidirectional streams, of which three must stay open as long as the connection does.

use super::code;
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use tombolo_gateway_http3::{
    Code, Control, ControlReader, Side, Violation,
    qpack::{DecoderStream, EncoderStream},
    stream_kind, varint,
};

/// Taken from such a stream at once.
const PIECE: usize = 16 * 1024;

/// Which of them the peer has opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    control: Cell<bool>,
    encoder: Cell<bool>,
    decoder: Cell<bool>,
}

/// What the bytes of a stream are for.
enum Reader {
    Control(Box<ControlReader>),
    Encoder(EncoderStream),
    Decoder(DecoderStream),
}

/// Reads one stream until it ends, which for most is the end of the connection. `said` hears what the peer says.
pub(super) async fn read(
    connection: quinn::Connection,
    mut stream: quinn::RecvStream,
    peer: Side,
    opened: &Opened,
    said: impl Fn(Control),
) {
    let mut ahead = BytesMut::new();
    let kind = loop {
        if let Some((kind, length)) = varint::decode(&ahead) {
            let _ = ahead.split_to(length);
            break kind;
        }
        match stream.read_chunk(PIECE, true).await {
            Ok(Some(chunk)) => ahead.extend_from_slice(&chunk.bytes),
            // A stream that ends before it said what it is for is no mistake.
            _ => return,
        }
    };
    let close = |violation: Violation| connection.close(code(violation.code), violation.reason.as_bytes());
    let mut reader = match reader(kind, peer, opened) {
        Ok(Some(reader)) => reader,
        Ok(None) => {
            let _ = stream.stop(code(Code::STREAM_CREATION_ERROR));
            return;
        }
        Err(violation) => return close(violation),
    };
    let mut input = ahead.freeze();
    loop {
        if let Err(violation) = understand(&mut reader, &mut input, &said) {
            return close(violation);
        }
        match stream.read_chunk(PIECE, true).await {
            Ok(Some(chunk)) => input = chunk.bytes,
            Err(quinn::ReadError::ConnectionLost(_)) => return,
            Ok(None) | Err(_) => {
                return close(Violation::connection(Code::CLOSED_CRITICAL_STREAM, "a critical stream was closed"));
            }
        }
    }
}

fn reader(kind: u64, peer: Side, opened: &Opened) -> Result<Option<Reader>, Violation> {
    let once = |place: &Cell<bool>| {
        if place.replace(true) {
            return Err(Violation::connection(Code::STREAM_CREATION_ERROR, "a critical stream is there twice"));
        }
        Ok(())
    };
    match kind {
        stream_kind::CONTROL => {
            once(&opened.control)?;
            Ok(Some(Reader::Control(Box::new(ControlReader::new(peer)))))
        }
        stream_kind::ENCODER => {
            once(&opened.encoder)?;
            Ok(Some(Reader::Encoder(EncoderStream::default())))
        }
        stream_kind::DECODER => {
            once(&opened.decoder)?;
            Ok(Some(Reader::Decoder(DecoderStream::default())))
        }
        stream_kind::PUSH if peer == Side::Request => {
            Err(Violation::connection(Code::STREAM_CREATION_ERROR, "a client pushes"))
        }
        stream_kind::PUSH => Err(Violation::connection(Code::ID_ERROR, "a push that was not allowed")),
        _ => Ok(None),
    }
}

fn understand(reader: &mut Reader, input: &mut Bytes, said: &impl Fn(Control)) -> Result<(), Violation> {
    match reader {
        Reader::Control(reader) => {
            while let Some(control) = reader.read(input)? {
                said(control);
            }
            Ok(())
        }
        Reader::Encoder(reader) => reader.read(input),
        Reader::Decoder(reader) => reader.read(input),
    }
}
