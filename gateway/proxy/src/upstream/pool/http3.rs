//! Opening a pool's connections over QUIC.

use super::{Books, Conn, Pool, Sender, failed};
use crate::{
    codec::Http3Sender,
    quic,
    upstream::connect::{Peer, Target},
};
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Instant};
use tombolo_gateway_core::{
    breaker::Permit,
    failure::{Failure, Kind},
};

/// Opens one connection for a pool and enters it into the pool's books.
pub(super) async fn open(pool: Rc<Pool>, permit: Permit) {
    let outcome = connect_quic(&pool).await;
    pool.connecting.set(pool.connecting.get().saturating_sub(1));
    let connection = match outcome {
        Ok(connection) => connection,
        Err(failure) => {
            drop(permit);
            return failed(&pool, &failure);
        }
    };
    pool.open.set(pool.open.get() + 1);
    pool.watch.opened();
    let conn = Rc::new(Conn {
        local: connection.local_ip().map(|ip| SocketAddr::new(ip, 0)),
        remote: Some(connection.remote_address()),
        end: None,
        tls_version: "TLSv1.3",
        tls_cipher: "",
        served: Cell::new(0),
        streams: Cell::new(0),
        retired: Cell::new(false),
        opened: Instant::now(),
        quiet_since: Cell::new(Instant::now()),
    });
    let books =
        Books { pool: Rc::downgrade(&pool), watch: pool.watch.clone(), conn: conn.clone(), permit: Some(permit) };
    let (sender, driver) = Http3Sender::begin(connection, pool.settings.max_head);
    pool.hand_fresh(&conn, Sender::Http3(sender));
    pool.hand_over();
    pool.connect_if_needed();
    drop(pool);
    driver.await;
    drop(books);
}

async fn connect_quic(pool: &Pool) -> Result<quinn::Connection, Failure> {
    let (Target { peer: Peer::Tcp(to), tls: Some((context, name)), from, timeout, .. }, settings) =
        (&pool.target, &pool.settings)
    else {
        return Err(Failure::new(Kind::ConnectFailure).with_reason("QUIC needs an address and TLS"));
    };
    quic::upstream::open(*to, *from, context, name, &settings.http3, *timeout).await
}
