//! What travels by TCP and Unix sockets through a gateway: HTTP that breaks rules, WebSocket, the PROXY protocol,
//! connections that were on their way elsewhere.
#![allow(clippy::unwrap_used)]

mod capture;
mod malformed1;
mod malformed2;
mod places;
mod proxy_protocol;
mod sink;
mod websocket;
mod world;
