//! HTTP/3 through a gateway: with clients made of other libraries, well behaved and not.
#![allow(clippy::unwrap_used)]

mod aioquic;
mod client;
mod early;
mod serving;

use tombolo_controlplane_api::xds::google::protobuf::Any;
use tombolo_tests_kit::{ads::Ads, free};
use tombolo_tests_protocols::{
    certificates::{Authority, Leaf},
    gateway::Gateway,
    origin::Origin,
    resources, world,
};

/// The program under test.
const GATEWAY: &str = env!("CARGO_BIN_EXE_tombolo-protocols-gateway");

/// A gateway that serves HTTP/3 before an origin.
struct World {
    gateway: Gateway,
    at: std::net::SocketAddr,
    authority: Authority,
    _ads: Ads,
    _origin: Origin,
}

impl World {
    async fn start(workers: usize) -> Self {
        Self::with(workers, |at, own, _| {
            resources::http3_listener("h3", at, resources::server_tls(own, None), resources::manager("origin"))
        })
        .await
    }

    async fn with(workers: usize, listener: impl Fn(std::net::SocketAddr, &Leaf, &Authority) -> Any) -> Self {
        let authority = Authority::new().unwrap();
        let own = authority.sign(&["localhost", "127.0.0.1"]).unwrap();
        let origin = Origin::start().await.unwrap();
        let at = free();
        let cluster = resources::http2_cluster("origin", origin.address);
        let resources = vec![cluster, listener(at, &own, &authority)];
        let (gateway, _ads) = world::serve(GATEWAY, workers, resources).await.unwrap();
        Self { gateway, at, authority, _ads, _origin: origin }
    }
}
