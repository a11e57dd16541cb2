//! Bytes from one plaintext socket to another without passing through this process' memory.
//!
//! Owns the pipes: a direction holds one only while bytes are in it or about to be, so an idle connection holds none. Never
//! moves bytes that TLS or a sniffer already took: who asks says that both sockets are bare.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};
use tokio::{io::Interest, net::TcpStream};

/// What one pipe holds. Larger saves calls; the kernel allows an unprivileged user 64 MiB of pipes in all.
const CAPACITY: i32 = 256 * 1024;
/// Asked for at once.
const AT_ONCE: usize = 256 * 1024;
/// Pipes that a worker keeps for the next bulk transfer.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe with what is in it.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Beyond the user's share of pipe memory the kernel refuses; a smaller pipe works the same.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        Ok(Self { read, write })
    }

    /// Gives back a pipe that is empty.
    fn keep(self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < KEPT {
                pool.push(self);
            }
        });
    }
}

/// One direction's pipe, while it has one.
#[derive(Default)]
pub(super) struct Spliced {
    pipe: Option<Pipe>,
    held: usize,
}

/// What a call moved.
pub(super) enum Moved {
    /// So many bytes reached the other socket.
    Bytes(usize),
    /// The reader ended, and all of it is out.
    End,
    /// No pipe can be had: the caller's own buffers must do.
    Unable,
}

impl Spliced {
    /// Moves what can be moved at once. Pending: both sockets were asked to wake the task for what is missing.
    pub(super) fn poll_move(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Moved>> {
        if self.held == 0 {
            match ready!(self.poll_fill(from, cx)) {
                Ok(0) => {
                    self.release();
                    return Poll::Ready(Ok(Moved::End));
                }
                Ok(n) => self.held = n,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Poll::Ready(Ok(Moved::Unable)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let moved = ready!(self.poll_empty(to, cx))?;
        Poll::Ready(Ok(Moved::Bytes(moved)))
    }

    /// Whether bytes are in the pipe.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// Gives the pipe back.
    pub(super) fn release(&mut self) {
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipe.keep();
        }
    }

    /// Socket to pipe.
    fn poll_fill(&mut self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if from.poll_read_ready(cx)?.is_pending() {
                self.release();
                return Poll::Pending;
            }
            let pipe = match &self.pipe {
                Some(pipe) => pipe,
                None => match Pipe::take() {
                    Ok(pipe) => self.pipe.insert(pipe),
                    Err(_) => return Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
                },
            };
            match from.try_io(Interest::READABLE, || transfer(from, &pipe.write, AT_ONCE)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Pipe to socket.
    fn poll_empty(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut moved = 0;
        while self.held > 0 {
            let Some(pipe) = &self.pipe else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
            if to.poll_write_ready(cx)?.is_pending() {
                break;
            }
            match to.try_io(Interest::WRITABLE, || transfer(&pipe.read, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.held -= n.min(self.held);
                    moved += n;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if moved == 0 { Poll::Pending } else { Poll::Ready(Ok(moved)) }
    }
}

fn transfer(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match splice(&from, None, &to, None, most, flags) {
            Err(Errno::EINTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::relay::{Ends, Sockets, run_between};
    use crate::net::stream::{Replay, Stream};
    use std::cell::Cell;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn bulk_passes_whole_in_both_directions_and_leaves_no_pipe_behind() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let ends = Cell::new(Ends::default());
        let (near, far) = (Stream::Tcp(Replay::new(near)), Stream::Tcp(Replay::new(far)));
        let sockets = Sockets { client: Stream::bare, upstream: Stream::bare };
        let relay = run_between(near, far, &ends, || (), sockets);
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let talk = async {
            let (mut read, mut write) = client.split();
            let up = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let down = read.read_to_end(&mut back);
            let (_, _) = tokio::join!(up, down);
            back
        };
        let echo = async {
            let (mut read, mut write) = server.split();
            let n = tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.write_all(b"after the end").await.unwrap();
            write.shutdown().await.unwrap();
            n
        };
        let (back, n, ()) = tokio::join!(talk, echo, relay);
        assert_eq!(n, 4_000_000);
        assert!(back.starts_with(&sent) && back.ends_with(b"after the end"));
        assert_eq!(ends.get(), Ends { to_upstream: 4_000_000, to_client: 4_000_013, broken: None });
        super::POOL.with_borrow(|pool| assert!(!pool.is_empty(), "bulk goes through pipes, which are kept"));
    }
}
