//! One side is to take for a request what the other takes for something else: upgrades that fail, answers that come too
//! early, bodies that nobody reads, fields that name other fields. Every test here sends a second request where none may be
//! found, and looks for it behind the gateway.
#![allow(clippy::unwrap_used)]

mod expect;
mod fields;
mod halves;
mod replies;
mod small;
mod upgrades;

use tombolo_controlplane_api::xds::google::protobuf::Any;
use tombolo_tests_kit::ads::Ads;
use tombolo_tests_protocols::{gateway::Gateway, world};

/// The program under test.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tombolo-protocols-gateway");
/// A request that nobody sent, where it is found.
const POISON: &[u8] = b"GET /poison HTTP/1.1\r\nhost: poison\r\n\r\n";

/// A gateway with one worker for these resources.
async fn serve(resources: Vec<Any>) -> (Gateway, Ads) {
    world::serve(GATEWAY, 1, resources).await.unwrap()
}
