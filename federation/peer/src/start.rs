//! Starts the exchange with every peer. Owns all tasks of this crate.

use crate::{
    LocalSite, PeerEvent, PeerState, Settings,
    accept::{Directory, Refusals, serve},
    exchange::{Exchange, Order},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tombolo_federation_model::{Identity, SiteName};

/// Streams of one peer that wait to be looked at.
const DOOR: usize = 2;
/// How long the tasks may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running exchange with all peers. Dropping it ends it.
#[derive(Debug)]
pub struct Peers {
    local: LocalSite,
    out: mpsc::Sender<PeerEvent>,
    directory: Directory,
    refusals: Refusals,
    peers: BTreeMap<SiteName, Peer>,
    epochs: u64,
    tasks: JoinSet<()>,
    listening: JoinSet<()>,
}

#[derive(Debug)]
struct Peer {
    identity: Identity,
    order: watch::Sender<Order>,
    state: watch::Receiver<PeerState>,
}

/// Starts listening, where there is a listener, and one task for each peer. Events are to be taken from the other end
/// of `out` in order; while it is full nothing is read from the peers.
pub fn start(
    local: LocalSite,
    peers: Vec<Settings>,
    listener: Option<TcpListener>,
    out: mpsc::Sender<PeerEvent>,
) -> Peers {
    let (directory, refusals) = (Directory::default(), Refusals::default());
    let mut listening = JoinSet::new();
    if let Some(listener) = listener {
        listening.spawn(serve(listener, local.clone(), directory.clone(), refusals.clone()));
    }
    let tasks = JoinSet::new();
    let mut started = Peers { local, out, directory, refusals, peers: BTreeMap::new(), epochs: 0, tasks, listening };
    for settings in peers {
        started.add(settings);
    }
    started
}

impl Peers {
    /// Starts the exchange with one more peer; one of the same name is replaced, what it said is kept until the new
    /// exchange has a complete listing.
    pub fn add(&mut self, settings: Settings) {
        if let Some(old) = self.peers.remove(&settings.name) {
            self.directory.remove(&old.identity);
            old.order.send_replace(Order::Leave);
        }
        let (door, incoming) = mpsc::channel(DOOR);
        let (order, stop) = watch::channel(Order::Run);
        let (state, states) = watch::channel(PeerState::of(&settings));
        self.directory.insert(settings.identity.clone(), door);
        let peer = Peer { identity: settings.identity.clone(), order, state: states };
        self.peers.insert(settings.name.clone(), peer);
        self.epochs += 1;
        let (epoch, local, out) = (self.epochs, self.local.clone(), self.out.clone());
        self.tasks.spawn(Exchange { settings, epoch, local, incoming, out, state, stop }.run());
    }

    /// Ends the exchange with a peer and withdraws everything that it said. False when there is none of that name.
    pub fn remove(&mut self, name: &SiteName) -> bool {
        let Some(peer) = self.peers.remove(name) else { return false };
        self.directory.remove(&peer.identity);
        peer.order.send_replace(Order::Withdraw);
        true
    }

    /// How the exchange with each peer stands.
    #[must_use]
    pub fn states(&self) -> Vec<PeerState> {
        self.peers.values().map(|peer| peer.state.borrow().clone()).collect()
    }

    /// Follows the exchange with one peer.
    #[must_use]
    pub fn watch(&self, name: &SiteName) -> Option<watch::Receiver<PeerState>> {
        self.peers.get(name).map(|peer| peer.state.clone())
    }

    /// Callers that were turned away lately, with the reason.
    #[must_use]
    pub fn turned_away(&self) -> Vec<String> {
        self.refusals.list()
    }

    /// Ends all exchanges. What the peers said stays.
    pub async fn shutdown(mut self) {
        self.listening.abort_all();
        for peer in self.peers.values() {
            peer.order.send_replace(Order::Leave);
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            self.tasks.abort_all();
        }
    }
}
