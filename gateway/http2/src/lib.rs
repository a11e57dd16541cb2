//! HTTP/2 on the wire, without I/O: frames, HPACK, the state of a connection and its streams. Used by `gateway/proxy`.
//!
//! Owns RFC 9113, RFC 7541 and RFC 8441 for both roles, the bounds that keep a hostile peer cheap, and the refusal of
//! everything that is not allowed. Never owns a socket, a clock or a task: bytes and the time come in as arguments, and what
//! is to be written lies in [`Output`].
//!
//! A user reads bytes into a buffer, calls [`Connection::receive`], takes every [`Event`], answers with the `send_` methods,
//! calls [`Connection::pump`] and writes what [`Connection::output`] holds. Priorities are read and ignored.

mod code;
mod connection;
mod event;
mod field;
mod frame;
mod guard;
mod head;
mod hpack;
mod output;
mod settings;
mod stream;

pub use code::{Code, ConnectionError};
pub use connection::Connection;
pub use event::{Cause, Event, Gone, Unopened};
pub use frame::PREFACE;
pub use head::{HeadLimits, RequestHead, RequestLine, ResponseHead};
pub use output::Output;
pub use settings::{PeerSettings, Settings};
pub use stream::Stream;
