//! Pools with connections to a listener that says nothing.

use super::{super::connect::Offer, *};
use crate::upstream::connect::Peer;
use prost::Message as _;
use std::{
    future::Future,
    net::TcpListener,
    pin::pin,
    task::{Context, Waker},
};
use tokio::task::LocalSet;
use tombolo_controlplane_api::xds::envoy::config::cluster::v3::Cluster;
use tombolo_gateway_core::{
    config::CircuitBreakers,
    wire::{self, Kind as Type, Resource as Decoded},
};

struct Nobody;

impl Watch for Nobody {
    fn opened(&self) {}
    fn closed(&self) {}
    fn failed(&self) {}
}

const IDLE: Duration = Duration::from_secs(60);

fn pool(version: Version, to: &TcpListener) -> Rc<Pool> {
    let message = Cluster { name: "c".into(), ..Default::default() };
    let Decoded::Cluster(cluster) = wire::decode(Type::Cluster, "c", &message.encode_to_vec()).unwrap() else {
        panic!()
    };
    let settings = Settings {
        version,
        idle: Some(IDLE),
        max_age: None,
        max_requests: 0,
        http2: cluster.http.http2.clone(),
        http3: cluster.http.http3.clone(),
        max_headers: 100,
        max_head: 1 << 14,
        proper_case: false,
        preserve_case: false,
    };
    let target = Target {
        peer: Peer::Tcp(to.local_addr().unwrap()),
        tls: None,
        offer: Offer::Configured,
        proxy: None,
        from: None,
        keepalive: None,
        timeout: Duration::from_secs(60),
    };
    Pool::new(settings, target, Breakers::new(&CircuitBreakers::default().default), Rc::new(Nobody))
}

/// A certificate is renewed, or settings change, while requests wait for connections.
#[tokio::test]
async fn who_waits_for_a_connection_gets_it_from_a_pool_that_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let talk = async {
        for version in [Version::Http1, Version::Http2] {
            let pool = pool(version, &listener);
            {
                let mut waiting = pin!(pool.lease());
                let mut cx = Context::from_waker(Waker::noop());
                assert!(waiting.as_mut().poll(&mut cx).is_pending());
                pool.close();
                let lease = waiting.await.unwrap();
                assert!(!lease.reused);
            }
            assert!(pool.idle.borrow().is_empty() && pool.shared.borrow().is_empty(), "nothing is kept for later");
            while pool.open.get() > 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    LocalSet::new().run_until(talk).await;
}

#[tokio::test]
async fn a_connection_of_streams_that_is_idle_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let talk = async {
        let pool = pool(Version::Http2, &listener);
        let lease = pool.lease().await.unwrap();
        let later = || Instant::now() + IDLE;
        pool.sweep(later());
        assert_eq!(pool.shared.borrow().len(), 1, "it is in use");
        drop(lease);
        pool.sweep(Instant::now());
        assert_eq!(pool.shared.borrow().len(), 1, "it was just in use");
        pool.sweep(later());
        assert!(pool.shared.borrow().is_empty());
        while pool.open.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    LocalSet::new().run_until(talk).await;
}
