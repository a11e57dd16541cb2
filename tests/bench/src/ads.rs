//! A control plane for one gateway that serves as many clusters and virtual hosts as asked for, and changes one of them when told.
//!
//! Owns what it made up; keeps nothing of what readers hold, so that its own cost stays out of what is measured. Commands come on
//! standard input, `cluster 17`, `load 17` or `host 17`: that one changes, and a line of JSON says how long its acknowledgement took
//! and how many bytes went over the wire.

mod made;

use anyhow::Result;
use made::{Kind, Made};
use prost::Message as _;
use std::{net::SocketAddr, sync::Arc, time::Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt as _;
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    },
    google::{protobuf::Any, rpc::Status as Problem},
};
use tombolo_tests_kit::ads::{Discovery, Out, Speaker};
use tonic::Streaming;

/// What is to be served.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Settings {
    /// Clusters and virtual hosts.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) count: usize,
    /// Where the gateway is to listen.
    #[arg(long, default_value_t = 21_031)]
    pub(crate) port: u16,
    /// Where all endpoints are.
    #[arg(long, default_value_t = 9000)]
    pub(crate) backend: u16,
    /// Virtual hosts come one by one (VHDS) instead of in one route table.
    #[arg(long)]
    pub(crate) one_by_one: bool,
}

/// One resource has a new version.
#[derive(Debug, Clone, Copy)]
struct Change(Kind, usize, u32);

/// An answer of the gateway to a change.
#[derive(Debug)]
struct Answer {
    nonce: String,
    problem: Option<Problem>,
    sent: usize,
    received: usize,
}

#[derive(Clone)]
struct Service {
    made: Made,
    changes: broadcast::Sender<Change>,
    answers: mpsc::Sender<Answer>,
}

/// Serves until standard input ends.
pub(crate) async fn run(listen: SocketAddr, settings: Settings) -> Result<()> {
    let (changes, _) = broadcast::channel(16);
    let (answers, mut answered) = mpsc::channel(16);
    let service = Service { made: Made::new(settings), changes: changes.clone(), answers };
    let server = AggregatedDiscoveryServiceServer::new(Discovery(service)).max_decoding_message_size(256 << 20);
    let serving = tokio::spawn(tonic::transport::Server::builder().add_service(server).serve(listen));
    let (read, mut lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).all(|line| read.blocking_send(line).is_ok())
    });
    let mut revision = 0;
    while let Some(line) = lines.recv().await {
        let mut words = line.split_whitespace();
        let kind = Kind::named(words.next().unwrap_or_default())?;
        let index = words.next().unwrap_or_default().parse()?;
        revision += 1;
        let begun = Instant::now();
        changes.send(Change(kind, index, revision))?;
        let answer = loop {
            let answer = answered.recv().await.ok_or_else(|| anyhow::anyhow!("no gateway"))?;
            if answer.nonce == revision.to_string() {
                break answer;
            }
        };
        let line = serde_json::json!({
            "micros": begun.elapsed().as_micros(), "sent": answer.sent, "received": answer.received,
            "problem": answer.problem.map(|problem| problem.message),
        });
        println!("{line}");
    }
    serving.abort();
    Ok(())
}

impl Speaker for Service {
    async fn differences(self, requests: Streaming<DeltaDiscoveryRequest>, out: Out<DeltaDiscoveryResponse>) {
        differences(self, requests, out).await;
    }

    async fn whole(self, requests: Streaming<DiscoveryRequest>, out: Out<DiscoveryResponse>) {
        whole(self, requests, out).await;
    }
}

/// The delta protocol: what is asked for once, then what changes.
async fn differences(
    service: Service,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    out: Out<DeltaDiscoveryResponse>,
) {
    let (mut made, mut changes) = (service.made.clone(), service.changes.subscribe());
    let mut sent = 0;
    loop {
        let (kind, named, nonce) = tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                let received = request.encoded_len();
                if let Some(problem) = &request.error_detail {
                    eprintln!("refused: {}", problem.message);
                }
                if !request.response_nonce.is_empty() {
                    let answer = Answer { nonce: request.response_nonce, problem: request.error_detail, sent, received };
                    let _ = service.answers.try_send(answer);
                    continue;
                }
                let Some(kind) = Kind::of(&request.type_url) else { continue };
                let named = request.resource_names_subscribe;
                (kind, if kind.comes_whole() { made.all(kind) } else { made.named(kind, &named) }, String::from("all"))
            },
            change = changes.recv() => {
                let Ok(Change(kind, index, revision)) = change else { return };
                let (kind, one) = made.change(kind, index, revision);
                (kind, vec![one], revision.to_string())
            },
        };
        let any = |value: Vec<u8>| Any { type_url: kind.type_url().to_owned(), value };
        let wrap = |(name, version, body): (Arc<str>, u32, Vec<u8>)| Resource {
            name: name.to_string(),
            version: version.to_string(),
            resource: Some(any(body)),
            ..Resource::default()
        };
        let resources = named.into_iter().map(wrap).collect();
        let type_url = kind.type_url().to_owned();
        let response = DeltaDiscoveryResponse { type_url, nonce, resources, ..DeltaDiscoveryResponse::default() };
        sent = response.encoded_len();
        if out.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

/// The state of the world: clusters and listeners whole each time.
async fn whole(service: Service, mut requests: Streaming<DiscoveryRequest>, out: Out<DiscoveryResponse>) {
    let (mut made, mut changes) = (service.made.clone(), service.changes.subscribe());
    let mut sent = 0;
    let mut asked: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    loop {
        let (kind, named, nonce) = tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                let received = request.encoded_len();
                if let Some(problem) = &request.error_detail {
                    eprintln!("refused: {}", problem.message);
                }
                let again = asked.get(&request.type_url).is_some_and(|names| *names == request.resource_names);
                let Some(kind) = Kind::of(&request.type_url) else { continue };
                if again {
                    let answer = Answer { nonce: request.response_nonce, problem: request.error_detail, sent, received };
                    let _ = service.answers.try_send(answer);
                    continue;
                }
                let named = if kind.comes_whole() { made.all(kind) } else { made.named(kind, &request.resource_names) };
                asked.insert(request.type_url, request.resource_names);
                (kind, named, String::from("all"))
            },
            change = changes.recv() => {
                let Ok(Change(kind, index, revision)) = change else { return };
                let (kind, one) = made.change(kind, index, revision);
                (kind, if kind.comes_whole() { made.all(kind) } else { vec![one] }, revision.to_string())
            },
        };
        let type_url = kind.type_url().to_owned();
        let resources = named.into_iter().map(|(_, _, value)| Any { type_url: type_url.clone(), value }).collect();
        let version_info = nonce.clone();
        let response = DiscoveryResponse { version_info, type_url, nonce, resources, ..DiscoveryResponse::default() };
        sent = response.encoded_len();
        if out.send(Ok(response)).await.is_err() {
            return;
        }
    }
}
