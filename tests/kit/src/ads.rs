//! A control plane that says what a test puts into it, in both forms of the protocol, and writes down what it hears.
//!
//! Owns a server, the resources that it shows, and notes. What to send and when is decided by the publisher that the real
//! control plane uses, so that names are asked for, refused and taken away as there. Never looks into what a resource means.

mod speech;
mod stream;

pub use speech::{Discovery, Out, Speaker};

use prost::{Message, Name};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use stream::Script;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tombolo_controlplane_api::xds::{
    envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    google::protobuf::Any,
};
use tombolo_federation_sync::{Plan, Resource, ResourceSet, Snapshot};
use tonic::{service::Routes, transport::Server};

/// How long an answer may take: a machine that is busy with other tests has time to give it.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was refused: type and reason.
pub type Refusal = (String, String);

/// A request that opened a type of the delta protocol, and what it says is held: versions by name.
pub type Opening = (String, BTreeMap<String, String>);

/// A line of what was said with the delta protocol: `Cluster ask`, `Cluster leave`, `Cluster ACK` or `Cluster NACK`, and a
/// name, which has a `-` before it where it was taken away.
pub type Heard = (String, String);

/// A resource that is offered out of turn, with the delta protocol.
#[derive(Debug)]
pub struct Probe {
    /// Type in the envelope.
    pub type_url: String,
    /// Type of the content, which may be a wrong one.
    pub content_url: String,
    /// Name in the envelope.
    pub name: String,
    /// The encoded message; `None` takes the name away.
    pub body: Option<Vec<u8>>,
}

/// A probe, and who waits for what is said to it.
type Asked = (Probe, oneshot::Sender<Option<String>>);

/// What a control plane is besides its resources.
#[derive(Debug)]
pub struct Settings {
    /// What is sent in which order.
    pub plan: Plan,
    /// How it serves: with TLS, for example.
    pub server: Server,
    /// What it serves besides.
    pub beside: Routes,
}

impl Default for Settings {
    fn default() -> Self {
        Self { plan: Plan::quiet(), server: Server::builder(), beside: Routes::default() }
    }
}

/// A running control plane. It ends with its owner.
#[derive(Debug)]
pub struct Ads {
    /// Where it listens.
    pub address: SocketAddr,
    snapshot: watch::Sender<Arc<Snapshot>>,
    notes: Arc<Notes>,
    server: JoinHandle<()>,
}

/// What is written down.
#[derive(Debug, Default)]
struct Notes {
    refusals: watch::Sender<Vec<Refusal>>,
    openings: Mutex<Vec<Opening>>,
    heard: Mutex<Vec<Heard>>,
    /// The way into the newest stream.
    probes: Mutex<Option<mpsc::Sender<Asked>>>,
}

fn open<T>(notes: &Mutex<T>) -> MutexGuard<'_, T> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ads {
    /// One with nothing in it. A test may end it and later finds its place as it left it.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        Self::start_at(crate::free(), Settings::default()).await
    }

    /// One with these settings, there.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start_at(address: SocketAddr, mut settings: Settings) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().expect("a socket that is bound has an address");
        let (snapshot, shown) = watch::channel(Arc::new(Snapshot::default()));
        let notes = Arc::<Notes>::default();
        let script = Script { plan: settings.plan, shown, notes: notes.clone() };
        let service = AggregatedDiscoveryServiceServer::new(Discovery(script)).max_decoding_message_size(64 << 20);
        let router = settings.server.add_routes(settings.beside.add_service(service));
        // Ends with the task, which the owner aborts.
        let server = tokio::spawn(async move {
            let _ = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Self { address, snapshot, notes, server }
    }

    /// Shows these resources, and no others of their type.
    pub fn set<N: Into<Arc<str>>, M: Message + Name>(&self, resources: impl IntoIterator<Item = (N, M)>) {
        let one = |(name, message): (N, M)| Arc::new(Resource::new(name, message.encode_to_vec()));
        let set = tombolo_federation_sync::resource_set(resources.into_iter().map(one));
        self.change(|snapshot| snapshot.with(M::type_url(), set));
    }

    /// Shows these resources, and no others of their types. They have the names that they bear.
    pub fn set_any(&self, resources: impl IntoIterator<Item = Any>) {
        let mut types = BTreeMap::<String, ResourceSet>::new();
        for Any { type_url, value } in resources {
            let resource = Arc::new(Resource::new(name_in(&value), value));
            types.entry(type_url).or_default().insert(resource.name.clone(), resource);
        }
        self.change(|snapshot| types.into_iter().fold(snapshot, |snapshot, (kind, set)| snapshot.with(kind, set)));
    }

    /// Takes a resource away.
    pub fn remove(&self, type_url: &str, name: &str) {
        self.change(|snapshot| {
            let mut set = snapshot.set(type_url).map(|set| (**set).clone()).unwrap_or_default();
            set.remove(name);
            snapshot.with(type_url, set)
        });
    }

    /// Shows something else, all at once.
    pub fn change(&self, change: impl FnOnce(Snapshot) -> Snapshot) {
        self.snapshot.send_modify(|snapshot| {
            let mut next = change((**snapshot).clone());
            next.revision += 1;
            *snapshot = Arc::new(next);
        });
    }

    /// Waits for a refusal that has these words in its reason.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn refused(&self, words: &str) -> Refusal {
        let named = |(_, why): &&Refusal| why.contains(words);
        let mut all = self.notes.refusals.subscribe();
        match timeout(PATIENCE, all.wait_for(|all| all.iter().any(|one| named(&one)))).await {
            Ok(Ok(all)) => all.iter().find(named).cloned().expect("it was just seen"),
            _ => panic!("nothing was refused for {words:?}, but: {:?}", self.refusals()),
        }
    }

    /// All that was refused.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.notes.refusals.borrow().clone()
    }

    /// All requests that opened a type.
    pub fn openings(&self) -> Vec<Opening> {
        open(&self.notes.openings).clone()
    }

    /// How much was heard.
    pub fn mark(&self) -> usize {
        open(&self.notes.heard).len()
    }

    /// What was heard since, in order.
    pub fn heard(&self, since: usize) -> Vec<Heard> {
        open(&self.notes.heard).iter().skip(since).cloned().collect()
    }

    /// Offers a resource and waits for the answer: nothing, or why it was refused.
    ///
    /// # Errors
    /// When no stream is open, or no answer comes.
    pub async fn probe(&self, probe: Probe) -> Result<Option<String>, String> {
        let (answer, answered) = oneshot::channel();
        let stream = open(&self.notes.probes).clone().ok_or("no stream is open")?;
        stream.send((probe, answer)).await.map_err(|_| "the stream has ended")?;
        let answer = timeout(PATIENCE, answered).await.map_err(|_| "no answer in time")?;
        answer.map_err(|_| "the stream ended without an answer".to_owned())
    }

    /// Ends it, and all its streams; where it was.
    pub fn stop(self) -> SocketAddr {
        self.address
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Listens where nobody else does, or will soon not: one that was ended has its socket until its task was ended, and a child that
/// another test just forked until it becomes another program.
async fn bind(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(
                error.kind() == ErrorKind::AddrInUse && begun.elapsed() < PATIENCE,
                "{address}, which is the test's own: {error}"
            ),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Every kind of resource begins with its name.
fn name_in(body: &[u8]) -> String {
    #[derive(Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    Named::decode(body).expect("a resource").name
}
