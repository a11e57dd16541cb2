//! TCP proxying: bytes from a connection to one endpoint of a cluster.
//!
//! Owns the choice of the cluster by weight or SNI, and tries to connect. Never looks into the bytes.

pub(crate) mod relay;
mod splice;

use crate::{
    control::Backoff,
    http::Logs,
    inbound::Inbound,
    listen::{Clock, Limits},
    net::stream::Stream,
    telemetry::{ends::OtherEnd, labels::TcpFinished},
    upstream::{
        choice::{self, Picked, Question},
        cluster::{Cluster, Endpoint, Wish},
        connect,
        keeper::{Blame, Suspect},
    },
};
use relay::{Ends, Side, Sockets};
use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tombolo_gateway_core::{
    accesslog::{Bytes, Record, Times, Upstream},
    balance::Request,
    breaker::{Permit, Resource},
    config::{MetadataMatch, NetworkFilter, RoutePriority, TcpCluster, TcpHash, TcpProxy},
    failure::{Failure, Flag, Flags, Kind},
    format::{Facts, Surroundings},
    hash,
    outlier::Outcome,
};

/// How a connection went.
struct Story {
    start: Instant,
    wall: SystemTime,
    cluster: Option<Rc<Cluster>>,
    endpoint: Option<Rc<Endpoint>>,
    end: Option<OtherEnd>,
    flags: Flags,
    trouble: Option<String>,
    attempts: u32,
}

impl Story {
    /// A failure stays in the story even when a later try does better, as in Envoy.
    fn note(&mut self, failure: &Failure) {
        if let Some(flag) = failure.flag() {
            self.flags.insert(flag);
        }
        if let Some(reason) = failure.transport_reason() {
            self.trouble = Some(reason.replace(' ', "_"));
        }
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(inbound: Box<Inbound>, proxy: Arc<TcpProxy>, stream: Stream) {
    let handle = inbound.entered.handle.clone();
    handle.settle(Limits { idle: proxy.idle_timeout, head: None, life: proxy.max_duration, abrupt: true });
    let stats = inbound.chain.filters.iter().any(|f| matches!(f, NetworkFilter::MeshStats));
    let mut story = Story {
        start: Instant::now(),
        wall: SystemTime::now(),
        cluster: None,
        endpoint: None,
        end: None,
        flags: Flags::NONE,
        trouble: None,
        attempts: 0,
    };
    let ends = Cell::new(Ends::default());
    // Boxed, being over long before the connection is.
    let opened = tokio::select! {
        opened = Box::pin(open(&inbound, &proxy, &mut story)) => opened,
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => Err(Failure::new(Kind::LocalReset)),
    };
    match opened {
        Ok((upstream, permit)) => {
            let labels = &inbound.worker.labels;
            let side = labels.side(inbound.listener.direction, &inbound.info);
            let series = stats.then(|| {
                labels.tcp(
                    &side,
                    &TcpFinished {
                        cluster: story.cluster.as_deref(),
                        endpoint: story.endpoint.as_deref(),
                        end: story.end.as_ref(),
                        flags: story.flags,
                    },
                )
            });
            if let Some(series) = &series {
                series.opened.add(1);
            }
            let sockets = Sockets { client: Stream::bare, upstream: Stream::bare };
            tokio::select! {
                () = relay::run_between(stream, upstream, &ends, || handle.touch(), sockets) => {}
                clock = handle.expired() => if clock == Clock::Life {
                    story.flags.insert(Flag::DurationTimeout);
                },
                () = std::future::poll_fn(|cx| handle.poll_close(cx)) => {}
            }
            if let Some(series) = &series {
                series.closed.add(1);
                series.sent.add(ends.get().to_client);
                series.received.add(ends.get().to_upstream);
            }
            drop(permit);
        }
        Err(failure) => {
            story.note(&failure);
            tracing::debug!(listener = %inbound.listener.name, %failure, "no upstream for the connection");
        }
    }
    log(&inbound, &proxy, &story, ends.get());
}

async fn open(inbound: &Inbound, proxy: &TcpProxy, story: &mut Story) -> Result<(Stream, Permit), Failure> {
    let worker = &inbound.worker;
    let (name, weighted_match) = choose_cluster(inbound, proxy);
    let cluster = worker.cluster(&name).ok_or_else(|| Failure::new(Kind::NoCluster))?;
    story.cluster = Some(cluster.clone());
    let (upstream, live) = (cluster.upstream(), worker.live());
    let breakers = upstream.breakers(RoutePriority::Default);
    let taken = |resource| breakers.acquire(resource).ok_or_else(|| Failure::new(Kind::Overflow));
    let (permit, _pending) = (taken(Resource::Connections)?, taken(Resource::Pending)?);
    let subset = weighted_match.or_else(|| proxy.metadata_match.clone());
    let hash = match (&proxy.hash, inbound.info.remote_ip()) {
        (Some(TcpHash::SourceIp), Some(ip)) => Some(hash::address(ip)),
        _ => None,
    };
    let wish = Wish {
        downstream_http2: false,
        priority: RoutePriority::Default,
        host: &inbound.info.sni,
        addresses: inbound.info.remote.zip(inbound.info.local),
        downstream: inbound.entered.handle.id,
        http1_only: false,
    };
    let mut last = Failure::new(Kind::NoHealthyUpstream);
    let mut back_off = proxy.back_off.map(|(base, most)| Backoff::new(base, most));
    for _ in 0..proxy.max_connect_attempts.max(1) {
        if let Some(back_off) = back_off.as_mut().filter(|_| story.attempts > 0) {
            tokio::time::sleep(back_off.wait()).await;
        }
        let request = Request { hash, subset: subset.as_deref(), ..Request::default() };
        let question = Question {
            request,
            original: choice::original(&inbound.listener, inbound.info.local),
            headers: None,
            host: &inbound.info.sni,
            tried: story.attempts,
        };
        let picked = choice::choose(worker, &cluster, &upstream, &question, worker.now()).await;
        let Some(Picked { endpoint, .. }) = picked else { return Err(last) };
        let upstream = endpoint.upstream();
        story.attempts += 1;
        story.endpoint = Some(endpoint.clone());
        let target = endpoint.tcp_target(&worker.around, &live, &upstream, &wish)?;
        let outcome = connect::open(&target).await;
        if let (Some(settings), Some(host)) = (&upstream.cluster.outlier, &*endpoint.host.borrow()) {
            let outcome = if outcome.is_ok() { Outcome::Connected } else { Outcome::ConnectFailed };
            if let Some(cause) = host.state.outliers().record(settings, outcome) {
                let blame = Blame::Outlier(cause);
                let suspect = Suspect { cluster: endpoint.cluster.clone(), host: host.id(), blame };
                let _ = worker.setup.suspects.try_send(suspect);
            }
        }
        match outcome {
            Ok(stream) => {
                story.end = OtherEnd::of_server(&target, &stream);
                return Ok((stream, permit));
            }
            Err(failure) => {
                worker.setup.own.upstream_failures.add(1);
                story.note(&failure);
                last = failure;
            }
        }
    }
    story.flags.insert(Flag::UpstreamRetryLimitExceeded);
    Err(last)
}

fn choose_cluster(inbound: &Inbound, proxy: &TcpProxy) -> (Arc<str>, Option<MetadataMatch>) {
    let by_sni = inbound.chain.filters.iter().any(|f| matches!(f, NetworkFilter::SniCluster));
    if by_sni && !inbound.info.sni.is_empty() {
        return (Arc::from(inbound.info.sni.as_str()), None);
    }
    match &proxy.cluster {
        TcpCluster::One(name) => (name.clone(), None),
        TcpCluster::Weighted(clusters) => {
            let total: u64 = clusters.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
            let mut left = inbound.worker.draw() % total.max(1);
            for (name, weight, subset) in clusters {
                match left.checked_sub(u64::from(*weight)) {
                    Some(rest) => left = rest,
                    None => return (name.clone(), subset.clone()),
                }
            }
            (Arc::from(""), None)
        }
    }
}

fn surroundings(inbound: &Inbound) -> Surroundings<'_> {
    let machine = &inbound.worker.setup.machine;
    Surroundings {
        hostname: &machine.hostname,
        environment: Some(&machine.environment),
        connection_id: Some(inbound.entered.handle.id),
        filter_chain: &inbound.chain.name,
        listener: Some(&inbound.listener.metadata),
        chain: Some(&inbound.chain.metadata),
    }
}

fn log(inbound: &Inbound, proxy: &Arc<TcpProxy>, story: &Story, ends: Ends) {
    if proxy.access_logs.is_empty() {
        return;
    }
    let worker = &inbound.worker;
    let end = u64::try_from(story.start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut flags = story.flags;
    if ends.broken == Some(Side::Upstream) {
        flags.insert(Flag::UpstreamRemoteReset);
    }
    let observed = story.cluster.as_ref().and_then(|cluster| cluster.upstream().cluster.alias());
    let record = Record {
        facts: Facts {
            conn: Some(&inbound.info),
            flags,
            cluster: story.cluster.as_ref().map_or("", |c| &c.name),
            upstream: story.endpoint.as_ref().and_then(|e| e.address()),
            attempts: story.attempts,
            start: story
                .wall
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(0)),
            around: surroundings(inbound),
            ..Facts::default()
        },
        times: Times { end: Some(end), ..Times::default() },
        bytes: Bytes { received: ends.to_upstream, sent: ends.to_client, ..Bytes::default() },
        upstream: Upstream {
            failure: story.trouble.as_deref().unwrap_or(""),
            observed_cluster: observed.as_deref().unwrap_or(""),
            ..Upstream::default()
        },
        ..Record::default()
    };
    let compiled = worker.logs.of(proxy, &proxy.access_logs);
    Logs::write(&compiled, &worker.lines, &record, end / 1000, worker.draw());
}
