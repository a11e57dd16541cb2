//! Moving bytes between two streams until both directions have ended.
//!
//! Owns no buffer while nothing moves: reads go into one scratch buffer of the thread, and only what the other side did
//! not take at once is kept. Reading stops while something is kept, which is the bound. Between two plaintext sockets a
//! direction that fills whole buffers goes on through a pipe, until it runs dry: small talk is cheaper without.

use super::splice::{Moved, Spliced};
use socket2::SockRef;
use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const SCRATCH: usize = 64 * 1024;
/// A pipe that moved less than this at once is not worth its calls.
const SMALL: usize = 8 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was moved so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// From the client to the upstream.
    pub(crate) to_upstream: u64,
    /// From the upstream to the client.
    pub(crate) to_client: u64,
    /// A side broke off instead of ending.
    pub(crate) broken: Option<Side>,
}

/// One of the two ends of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
}

/// Which end of a direction broke off.
enum Broke {
    Reader,
    Writer,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet taken by the other side.
    kept: Vec<u8>,
    at: usize,
    /// The reader ended.
    ended: bool,
    /// The writer was told.
    shut: bool,
    unflushed: bool,
    /// A read filled the whole buffer: more is coming than buffers should carry.
    bulk: bool,
    spliced: Spliced,
}

/// Finds the socket beneath a stream.
type Find<S> = fn(&S) -> Option<&TcpStream>;

/// How the sockets beneath both streams are found; `None` where there is TLS, or bytes were taken before.
pub(crate) struct Sockets<A, B> {
    /// Of the client's stream.
    pub(crate) client: Find<A>,
    /// Of the upstream's.
    pub(crate) upstream: Find<B>,
}

/// Moves bytes until both directions have ended or one breaks. `moved` is called whenever something moves.
pub(crate) async fn run<A, B>(client: A, upstream: B, ends: &Cell<Ends>, moved: impl Fn())
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    run_between(client, upstream, ends, moved, Sockets { client: |_| None, upstream: |_| None }).await;
}

/// The same, through pipes where both streams are bare sockets.
pub(crate) async fn run_between<A, B>(
    mut client: A,
    mut upstream: B,
    ends: &Cell<Ends>,
    moved: impl Fn(),
    sockets: Sockets<A, B>,
) where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Way::default(), Way::default());
    let count_up = |n: usize| ends.set(Ends { to_upstream: ends.get().to_upstream + n as u64, ..ends.get() });
    let count_down = |n: usize| ends.set(Ends { to_client: ends.get().to_client + n as u64, ..ends.get() });
    std::future::poll_fn(|cx| {
        let first =
            step(&mut up, &mut client, &mut upstream, cx, (&count_up, &moved), (sockets.client, sockets.upstream));
        let second =
            step(&mut down, &mut upstream, &mut client, cx, (&count_down, &moved), (sockets.upstream, sockets.client));
        let broken = match (first, second) {
            (Poll::Ready(Err(Broke::Reader)), _) | (_, Poll::Ready(Err(Broke::Writer))) => Side::Client,
            (Poll::Ready(Err(Broke::Writer)), _) | (_, Poll::Ready(Err(Broke::Reader))) => Side::Upstream,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => return Poll::Pending,
        };
        ends.set(Ends { broken: Some(broken), ..ends.get() });
        Poll::Ready(())
    })
    .await;
    // Whoever is left hears that it was no end: a message that is cut must not look whole.
    let left = match ends.get().broken {
        Some(Side::Client) => (sockets.upstream)(&upstream),
        Some(Side::Upstream) => (sockets.client)(&client),
        None => None,
    };
    if let Some(socket) = left {
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

/// Moves what can be moved in one direction; ready when it has ended.
fn step<R, W>(
    way: &mut Way,
    from: &mut R,
    to: &mut W,
    cx: &mut Context<'_>,
    (count, moved): (&impl Fn(usize), &impl Fn()),
    sockets: (Find<R>, Find<W>),
) -> Poll<Result<(), Broke>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let writer = |_: io::Error| Broke::Writer;
    loop {
        if way.bulk
            && way.kept.is_empty()
            && !way.ended
            && let Some((from, to)) = sockets.0(from).zip(sockets.1(to))
        {
            pump(way, from, to, cx, (count, moved))?;
            if way.spliced.holds() || (way.bulk && !way.ended) {
                return Poll::Pending;
            }
        }
        while way.at < way.kept.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &way.kept[way.at..])).map_err(writer)?;
            if n == 0 {
                return Poll::Ready(Err(Broke::Writer));
            }
            way.at += n;
            way.unflushed = true;
            moved();
        }
        if !way.kept.is_empty() {
            way.kept = Vec::new();
            way.at = 0;
        }
        if way.ended {
            if !way.shut {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(writer)?;
                way.shut = true;
            }
            return Poll::Ready(Ok(()));
        }
        match read(way, from, to, cx)? {
            Poll::Ready(n) => {
                count(n);
                moved();
            }
            Poll::Pending => {
                if way.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(writer)?;
                    way.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }
}

/// Goes on through a pipe as long as it can. Afterwards the way has ended, is no bulk any more, or waits for a socket.
fn pump(
    way: &mut Way,
    from: &TcpStream,
    to: &TcpStream,
    cx: &mut Context<'_>,
    (count, moved): (&impl Fn(usize), &impl Fn()),
) -> Result<(), Broke> {
    loop {
        match way.spliced.poll_move(from, to, cx) {
            Poll::Ready(Ok(Moved::Bytes(n))) => {
                count(n);
                moved();
                if n < SMALL && !way.spliced.holds() {
                    way.spliced.release();
                    way.bulk = false;
                    return Ok(());
                }
            }
            Poll::Ready(Ok(Moved::End)) => {
                way.ended = true;
                return Ok(());
            }
            Poll::Ready(Ok(Moved::Unable)) => {
                way.bulk = false;
                return Ok(());
            }
            Poll::Ready(Err(_)) if way.spliced.holds() => return Err(Broke::Writer),
            Poll::Ready(Err(_)) => return Err(Broke::Reader),
            Poll::Pending => return Ok(()),
        }
    }
}

/// Reads once into the thread's buffer and passes on what the other side takes at once.
fn read<R, W>(way: &mut Way, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Result<Poll<usize>, Broke>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(SCRATCH, 0);
        }
        let mut space = ReadBuf::new(buffer);
        match Pin::new(from).poll_read(cx, &mut space) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(outcome) => outcome.map_err(|_| Broke::Reader)?,
        }
        let data = space.filled();
        way.bulk = data.len() == SCRATCH;
        if data.is_empty() {
            way.ended = true;
            return Ok(Poll::Ready(0));
        }
        let taken = match Pin::new(to).poll_write(cx, data) {
            Poll::Ready(outcome) => outcome.map_err(|_| Broke::Writer)?,
            Poll::Pending => 0,
        };
        way.unflushed |= taken > 0;
        if let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            way.kept = rest.to_vec();
        }
        Ok(Poll::Ready(data.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn each_half_ends_on_its_own() {
        let (mut client, near) = duplex(7);
        let (far, mut server) = duplex(5);
        let ends = Cell::new(Ends::default());
        let relay = run(near, far, &ends, || ());
        let talk = async {
            let request = async {
                client.write_all(b"a request longer than a buffer").await.unwrap();
                client.shutdown().await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let serve = async {
                let mut asked = String::new();
                server.read_to_string(&mut asked).await.unwrap();
                server.write_all(b"an answer after the end").await.unwrap();
                server.shutdown().await.unwrap();
                asked
            };
            tokio::join!(request, serve)
        };
        let ((answer, asked), ()) = tokio::join!(talk, relay);
        assert_eq!((asked.as_str(), answer.as_str()), ("a request longer than a buffer", "an answer after the end"));
        assert_eq!(ends.get(), Ends { to_upstream: 30, to_client: 23, broken: None });
    }
}
