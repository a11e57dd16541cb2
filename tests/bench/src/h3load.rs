//! Closed-loop load over HTTP/3. Certificates are not checked: this is a measuring tool for the loopback.

use crate::report::Latencies;
use anyhow::{Context as _, Result};
use quinn::{ClientConfig, Endpoint, crypto::rustls::QuicClientConfig};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tombolo_tests_kit::trusting;

fn config() -> Result<ClientConfig> {
    let mut tls = trusting(&[&rustls::version::TLS13]).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

/// Sends and reports.
pub(crate) async fn run(peer: SocketAddr, connections: usize, streams: usize, seconds: u64) -> Result<()> {
    let any: SocketAddr = if peer.is_ipv4() { "127.0.0.1:0".parse()? } else { "[::1]:0".parse()? };
    let config = config()?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    for _ in 0..connections {
        // A socket for each connection, as different clients have.
        let endpoint = Endpoint::client(any)?;
        let connection = endpoint.connect_with(config.clone(), peer, "localhost")?.await.context("connecting")?;
        let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        tokio::task::spawn_local(async move {
            std::future::poll_fn(|cx| driver.poll_close(cx)).await;
            drop(endpoint);
        });
        for _ in 0..streams {
            tasks.push(tokio::task::spawn_local(stream(sender.clone(), until)));
        }
    }
    let (mut all, mut failed) = (Latencies::default(), 0);
    for task in tasks {
        let (latencies, bad) = task.await?;
        all.merge(latencies);
        failed += bad;
    }
    println!("{}", all.report(failed, begun.elapsed()));
    Ok(())
}

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, bytes::Bytes>;

async fn stream(mut sender: Sender, until: Instant) -> (Latencies, usize) {
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    while Instant::now() < until {
        let begun = Instant::now();
        match exchange(&mut sender).await {
            Ok(true) => latencies.add(begun.elapsed()),
            Ok(false) => failed += 1,
            Err(_) => return (latencies, failed + 1),
        }
    }
    (latencies, failed)
}

async fn exchange(sender: &mut Sender) -> Result<bool> {
    let request = http::Request::get("https://localhost/").body(())?;
    let mut stream = sender.send_request(request).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status();
    while stream.recv_data().await?.is_some() {}
    Ok(status.is_success())
}
