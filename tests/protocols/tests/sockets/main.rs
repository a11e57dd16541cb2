//! What travels by TCP and Unix sockets through a gateway: HTTP that breaks rules, WebSocket, the PROXY protocol,
//! connections that were on their way elsewhere.
#![allow(clippy::unwrap_used)]

mod capture;
mod malformed1;
mod malformed2;
mod places;
mod proxy_protocol;
mod sink;
mod tickets;
mod websocket;

use tombolo_controlplane_api::xds::google::protobuf::Any;
use tombolo_tests_kit::ads::Ads;
use tombolo_tests_protocols::{gateway::Gateway, world};

/// The program under test.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tombolo-protocols-gateway");

/// A gateway with one worker for these resources.
async fn serve(resources: Vec<Any>) -> (Gateway, Ads) {
    world::serve(GATEWAY, 1, resources).await.unwrap()
}
