//! HTTP/2 peers that make work, on either side of a gateway. Each flood ends by itself or is ended, costs bounded memory,
//! and an honest client beside it is answered all the time. `TOMBOLO_FLOOD=50 cargo test -p tombolo-tests-protocols --test
//! floods -- --nocapture` makes the floods larger and says what they cost.
#![allow(clippy::unwrap_used)]

mod evil;
mod frames;

/// The program under test.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tombolo-protocols-gateway");
