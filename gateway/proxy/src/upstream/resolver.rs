//! Names that requests bring (dynamic forward proxy), resolved when they are first needed.
//!
//! Owns a bounded cache of one worker. Never resolves a name twice at the same time.

use super::dns;
use ahash::AHashMap;
use std::{
    cell::RefCell,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tombolo_gateway_core::config::DnsFamily;

/// Names kept at most; more are resolved each time.
const MOST: usize = 1024;
/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(30);
/// How long a failure counts.
const FAILED: Duration = Duration::from_secs(2);

type Answer = Option<Arc<[IpAddr]>>;

struct Entry {
    until: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

/// The cache.
pub(crate) struct Resolver {
    names: RefCell<AHashMap<(Arc<str>, DnsFamily), Entry>>,
}

impl Resolver {
    /// Empty.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { names: RefCell::default() })
    }

    /// The addresses of a name; `None` when it does not resolve.
    pub(crate) async fn resolve(self: &Rc<Self>, name: &str, family: DnsFamily) -> Answer {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Arc::from([ip]));
        }
        let key = (Arc::<str>::from(name), family);
        let known = self.names.borrow().get(&key).filter(|e| e.until > Instant::now()).map(|e| e.answer.clone());
        let mut answer = known.unwrap_or_else(|| self.ask(key));
        match answer.wait_for(Option::is_some).await {
            Ok(found) => found.clone().flatten(),
            Err(_) => None,
        }
    }

    fn ask(self: &Rc<Self>, key: (Arc<str>, DnsFamily)) -> watch::Receiver<Option<Answer>> {
        let (tell, answer) = watch::channel(None);
        let this = Rc::downgrade(self);
        {
            let mut names = self.names.borrow_mut();
            if names.len() < MOST {
                names.insert(key.clone(), Entry { until: Instant::now() + FRESH, answer: answer.clone() });
            }
        }
        tokio::task::spawn_local(async move {
            let found = dns::resolve(&key.0, key.1).await;
            if found.is_err()
                && let Some(this) = this.upgrade()
                && let Some(entry) = this.names.borrow_mut().get_mut(&key)
            {
                entry.until = Instant::now() + FAILED;
            }
            tell.send_replace(Some(found.ok().map(Arc::from)));
        });
        answer
    }

    /// Forgets old answers.
    pub(crate) fn sweep(&self, now: Instant) {
        self.names.borrow_mut().retain(|_, entry| entry.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local")]
    async fn addresses_and_local_names_resolve() {
        let resolver = Resolver::new();
        assert_eq!(resolver.resolve("[::1]", DnsFamily::Auto).await.as_deref(), Some(&["::1".parse().unwrap()][..]));
        let found = resolver.resolve("localhost", DnsFamily::V4Preferred).await.unwrap();
        assert!(found.iter().all(IpAddr::is_ipv4) && !found.is_empty());
        assert!(resolver.names.borrow().len() == 1);
    }
}
