//! What the race needs beside the proxies themselves: a backend, a source and a sink for bulk transfer, load at a fixed rate
//! and over HTTP/3, a control plane with very many resources.
//!
//! Every part runs on one thread, so that `race.py` can pin it to a core. Results are one line of JSON on standard output.

mod ads;
mod backend;
mod bulk;
mod h3load;
mod rate;
mod report;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::SocketAddr;

#[derive(Parser)]
#[command(name = "tombolo-bench", about = "Backend and load for the race of proxies")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Answers every request with a body of so many bytes: HTTP/1.1, and HTTP/2 with prior knowledge.
    Backend {
        /// Where to listen.
        listen: SocketAddr,
        /// Bytes of a body.
        #[arg(default_value_t = 1024)]
        bytes: usize,
    },
    /// Sends so many bytes to whoever connects, then closes.
    Source {
        /// Where to listen.
        listen: SocketAddr,
        /// Bytes for one connection.
        bytes: u64,
    },
    /// Reads what a source sends until it closes.
    Sink {
        /// Where to connect.
        peer: SocketAddr,
    },
    /// HTTP/1.1 requests at random moments with a fixed mean rate; latency counts from the moment that was meant.
    Rate {
        /// Where to connect.
        peer: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Requests per second.
        #[arg(long, default_value_t = 2000)]
        rate: u32,
        /// Seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// A control plane with very many clusters and virtual hosts; what is to change comes on standard input.
    Ads {
        /// Where to listen.
        listen: SocketAddr,
        #[command(flatten)]
        settings: ads::Settings,
    },
    /// As many HTTP/3 requests as the streams of the connections can carry. Believes any certificate.
    H3 {
        /// Where to connect.
        peer: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Requests under way on each.
        #[arg(long, default_value_t = 32)]
        streams: usize,
        /// Seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match args.part {
            Part::Backend { listen, bytes } => backend::run(listen, bytes).await,
            Part::Source { listen, bytes } => bulk::source(listen, bytes).await,
            Part::Sink { peer } => bulk::sink(peer).await,
            Part::Rate { peer, connections, rate, seconds } => rate::run(peer, connections, rate, seconds).await,
            Part::Ads { listen, settings } => ads::run(listen, settings).await,
            Part::H3 { peer, connections, streams, seconds } => h3load::run(peer, connections, streams, seconds).await,
        }
    })
}
