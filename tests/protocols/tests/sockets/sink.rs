//! A server of bytes: reads to the end, then says what it read.

use std::{net::SocketAddr, sync::Arc, sync::atomic::AtomicUsize, sync::atomic::Ordering::SeqCst};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tombolo_tests_protocols::wire1::PATIENCE;

pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    /// Connections taken so far.
    pub(crate) count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    pub(crate) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::<AtomicUsize>::default();
        let counted = count.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                tokio::spawn(answer(stream));
            }
        });
        Self { address, count, task }
    }

    pub(crate) fn taken(&self) -> usize {
        self.count.load(SeqCst)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads to the end and says what it read.
pub(crate) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut read = Vec::new();
    if stream.read_to_end(&mut read).await.is_ok() {
        let _ = stream.write_all(&read).await;
        let _ = stream.shutdown().await;
    }
}

/// Sends pieces on a connection of its own, ends, and reads what the server read: the port it came from, and that.
pub(crate) async fn told(at: SocketAddr, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let port = stream.local_addr().unwrap().port();
    for piece in pieces {
        // Whoever is refused early cannot send the rest.
        if stream.write_all(piece.as_ref()).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    let mut read = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the connection ends");
    (port, read)
}
