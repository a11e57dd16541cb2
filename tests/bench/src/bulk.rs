//! Bulk transfer: one side sends, the other reads and counts.

use crate::backend::bind;
use anyhow::Result;
use serde_json::json;
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Bytes of one write or read.
const PIECE: usize = 256 * 1024;

/// Sends `bytes` to whoever connects, until it is ended.
pub(crate) async fn source(listen: SocketAddr, bytes: u64) -> Result<()> {
    let listener = bind(listen)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            let piece = vec![b'x'; PIECE];
            let mut left = bytes;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                if stream.write_all(&piece[..take]).await.is_err() {
                    return;
                }
                left -= take as u64;
            }
        });
    }
}

/// Reads until the end and reports bytes and seconds.
pub(crate) async fn sink(peer: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(peer).await?;
    let mut piece = vec![0; PIECE];
    let (begun, mut total) = (Instant::now(), 0_u64);
    loop {
        let read = stream.read(&mut piece).await?;
        if read == 0 {
            break;
        }
        total += read as u64;
    }
    println!("{}", json!({ "n": total, "bad": 0, "seconds": begun.elapsed().as_secs_f64() }));
    Ok(())
}
