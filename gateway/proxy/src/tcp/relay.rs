//! Moving bytes between two streams until both directions have ended.
//!
//! Owns no buffer while nothing moves: reads go into one scratch buffer of the thread, and only what the other side did
//! not take at once is kept. Reading stops while something is kept, which is the bound.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SCRATCH: usize = 64 * 1024;

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
    pub(crate) broken: bool,
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
}

/// Moves bytes until both directions have ended or one breaks. `moved` is called whenever something moves.
pub(crate) async fn run<A, B>(mut client: A, mut upstream: B, ends: &Cell<Ends>, moved: impl Fn())
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Way::default(), Way::default());
    let count_up = |n: usize| ends.set(Ends { to_upstream: ends.get().to_upstream + n as u64, ..ends.get() });
    let count_down = |n: usize| ends.set(Ends { to_client: ends.get().to_client + n as u64, ..ends.get() });
    std::future::poll_fn(|cx| {
        let first = step(&mut up, &mut client, &mut upstream, cx, &count_up, &moved);
        let second = step(&mut down, &mut upstream, &mut client, cx, &count_down, &moved);
        match (first, second) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                ends.set(Ends { broken: true, ..ends.get() });
                Poll::Ready(())
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    })
    .await;
}

/// Moves what can be moved in one direction; ready when it has ended.
fn step<R, W>(
    way: &mut Way,
    from: &mut R,
    to: &mut W,
    cx: &mut Context<'_>,
    count: &impl Fn(usize),
    moved: &impl Fn(),
) -> Poll<io::Result<()>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        while way.at < way.kept.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &way.kept[way.at..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
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
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
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
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    way.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }
}

/// Reads once into the thread's buffer and passes on what the other side takes at once.
fn read<R, W>(way: &mut Way, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> io::Result<Poll<usize>>
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
            Poll::Ready(outcome) => outcome?,
        }
        let data = space.filled();
        if data.is_empty() {
            way.ended = true;
            return Ok(Poll::Ready(0));
        }
        let taken = match Pin::new(to).poll_write(cx, data) {
            Poll::Ready(outcome) => outcome?,
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
        assert_eq!(ends.get(), Ends { to_upstream: 30, to_client: 23, broken: false });
    }
}
