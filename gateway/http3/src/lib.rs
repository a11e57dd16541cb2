//! HTTP/3 on the wire, without I/O: frames, settings, QPACK without a dynamic table, and the rules for message heads.
//!
//! Owns what RFC 9114 and RFC 9204 say about bytes. Never reads or writes anything itself, and never repairs: what breaks a
//! rule is a [`Violation`] with the error code and reach that the RFC gives it. Nothing grows with what a peer merely
//! announces: a head is refused by its announced size, what is to be ignored is skipped as it comes. Used by the proxy's
//! QUIC codec.

mod code;
mod control;
mod frame;
mod head;
pub mod qpack;
mod settings;
pub mod varint;

pub use code::{Code, Scope, Violation};
pub use control::{Control, ControlReader};
pub use frame::{DATA, Event, GOAWAY, HEADERS, MessageReader, SETTINGS, Side, begin_frame, goaway};
pub use head::{RequestHead, ResponseHead, request, response, trailers};
pub use settings::Settings;

/// Unidirectional streams begin with one of these.
pub mod stream_kind {
    /// Settings and GOAWAY.
    pub const CONTROL: u64 = 0;
    /// A pushed response.
    pub const PUSH: u64 = 1;
    /// Instructions of the peer's QPACK encoder.
    pub const ENCODER: u64 = 2;
    /// Instructions of the peer's QPACK decoder.
    pub const DECODER: u64 = 3;
}
