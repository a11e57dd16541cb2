//! What others ask of the client while it runs: resources that a request needs, and runtime values of the administrator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Questions that may wait; a request that finds no room is answered without.
const WAITING: usize = 1024;
/// A control plane that does not answer holds a request up no longer than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// A question.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A virtual host by the name of its resource. Answered with the generation of the configuration that has it, or that the
    /// control plane said there is none by.
    Host(String, oneshot::Sender<u64>),
    /// Runtime values of the administrator; an empty text takes one back.
    Runtime(BTreeMap<String, String>),
}

/// The asking end.
#[derive(Debug, Clone)]
pub(crate) struct Asker(mpsc::Sender<Ask>);

/// Both ends.
pub(crate) fn channel() -> (Asker, mpsc::Receiver<Ask>) {
    let (send, receive) = mpsc::channel(WAITING);
    (Asker(send), receive)
}

impl Asker {
    /// Waits until the virtual host that serves a host name of a table is known, or known not to be there. Says from which
    /// generation of the configuration on; `None` when nobody answered.
    pub(crate) async fn host(&self, table: &Arc<str>, host: &str) -> Option<u64> {
        let (done, answer) = oneshot::channel();
        let name = format!("{table}/{}", host.to_ascii_lowercase());
        self.0.try_send(Ask::Host(name, done)).ok()?;
        timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// Sets runtime values; false when there is no room for it now.
    pub(crate) fn runtime(&self, values: BTreeMap<String, String>) -> bool {
        self.0.try_send(Ask::Runtime(values)).is_ok()
    }
}
