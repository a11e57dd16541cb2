//! Connecting to an endpoint that has several addresses: a head start for the first, the next one whenever that takes too
//! long or fails (happy eyeballs).
//!
//! Owns no connection but the one that it returns.

use crate::net::socket::{self, Keepalive};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, time::sleep};

/// The head start, as Envoy gives it.
const HEAD_START: Duration = Duration::from_millis(300);

/// Connects to the first of these that answers.
///
/// # Errors
/// The last failure, when all fail.
pub(crate) async fn connect(
    addresses: &[SocketAddr],
    from: Option<IpAddr>,
    keepalive: Option<Keepalive>,
) -> io::Result<TcpStream> {
    let mut left = in_turn(addresses).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        match left.next() {
            Some(next) => trying.push(socket::connect(next, from, keepalive)),
            None if trying.is_empty() => return Err(last),
            None => {}
        }
        let more = left.len() > 0;
        tokio::select! {
            Some(outcome) = trying.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

/// Families in turn, that of the first address first, so that one broken family costs one head start.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (a, b): (Vec<SocketAddr>, Vec<SocketAddr>) = addresses.iter().partition(|a| a.is_ipv4() == first_is_v4);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut all = Vec::with_capacity(addresses.len());
    while a.len() + b.len() > 0 {
        all.extend(a.next());
        all.extend(b.next());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn families_take_turns() {
        let list: Vec<SocketAddr> =
            ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1"].iter().map(|a| a.parse().unwrap()).collect();
        let want: Vec<SocketAddr> =
            ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(in_turn(&list), want);
    }

    #[tokio::test]
    async fn a_closed_address_is_passed_over() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tombolo_tests_kit::free();
        let list = [closed, open.local_addr().unwrap()];
        assert_eq!(connect(&list, None, None).await.unwrap().peer_addr().unwrap(), list[1]);
        assert!(connect(&[closed, closed], None, None).await.is_err());
    }
}
