//! Names that requests bring (dynamic forward proxy), resolved when they are first needed.
//!
//! Owns bounded caches of one worker, by the name of the cache. Never resolves a name twice at the same time.

use super::dns;
use ahash::AHashMap;
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout};
use tombolo_gateway_core::config::ForwardNames;

/// How long a failure counts where nothing is configured.
const FAILED: Duration = Duration::from_secs(2);

/// The cache and the name.
type Key = (Arc<str>, Arc<str>);
type Answer = Option<Arc<[IpAddr]>>;

struct Entry {
    until: Instant,
    /// When somebody last asked, and after how long that is too long ago.
    last: Cell<Instant>,
    unused: Duration,
    answer: watch::Receiver<Option<Answer>>,
    /// What was known before this question; serves until there is an answer.
    before: Answer,
}

/// The caches.
pub(crate) struct Resolver {
    names: RefCell<AHashMap<Key, Entry>>,
    pending: Cell<u32>,
}

struct Pending<'a>(&'a Cell<u32>);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Resolver {
    /// Empty.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self { names: RefCell::default(), pending: Cell::new(0) })
    }

    /// The addresses of a name; `None` when it does not resolve, or there is no room for the question.
    pub(crate) async fn resolve(self: &Rc<Self>, name: &str, settings: &ForwardNames) -> Answer {
        if let Ok(ip) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Arc::from([ip]));
        }
        let key = (settings.cache.clone(), Arc::<str>::from(name.to_ascii_lowercase()));
        let mut answer = self.known_or_asked(key, settings)?;
        if let Some(found) = &*answer.0.borrow() {
            return found.clone();
        }
        if answer.1.is_some() {
            return answer.1;
        }
        if self.pending.get() >= settings.pending {
            return None;
        }
        self.pending.set(self.pending.get() + 1);
        let _pending = Pending(&self.pending);
        match timeout(settings.timeout, answer.0.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone().flatten(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// The answer that there is or will be, and what serves until then.
    fn known_or_asked(
        self: &Rc<Self>,
        key: Key,
        settings: &ForwardNames,
    ) -> Option<(watch::Receiver<Option<Answer>>, Answer)> {
        let now = Instant::now();
        let mut names = self.names.borrow_mut();
        let mut before = None;
        if let Some(entry) = names.get(&key) {
            entry.last.set(now);
            if entry.until > now || entry.answer.borrow().is_none() {
                return Some((entry.answer.clone(), entry.before.clone()));
            }
            before = entry.answer.borrow().clone().flatten();
        } else if names.keys().filter(|(cache, _)| *cache == key.0).count() >= settings.most as usize {
            return None;
        }
        let (tell, answer) = watch::channel(None);
        let entry = Entry {
            until: now + settings.dns.refresh,
            last: Cell::new(now),
            unused: settings.unused,
            answer: answer.clone(),
            before: before.clone(),
        };
        names.insert(key.clone(), entry);
        let (this, dns) = (Rc::downgrade(self), settings.dns.clone());
        let kept = before.clone();
        tokio::task::spawn_local(async move {
            let found = dns::resolve(&key.1, &dns).await;
            let (addresses, wait) = match found {
                Ok(found) => (found.addresses, dns::pause(&dns, found.ttl, 0, rand::random())),
                Err(error) => {
                    tracing::debug!(name = %key.1, %error, "name not resolved");
                    (Vec::new(), dns.failure.map_or(FAILED, |(base, _)| base))
                }
            };
            if let Some(this) = this.upgrade()
                && let Some(entry) = this.names.borrow_mut().get_mut(&key)
            {
                entry.until = Instant::now() + wait;
            }
            // A good answer outlives a question that failed.
            let answer = if addresses.is_empty() { kept } else { Some(Arc::from(addresses)) };
            tell.send_replace(Some(answer));
        });
        Some((answer, before))
    }

    /// Forgets names that nobody asks for.
    pub(crate) fn sweep(&self, now: Instant) {
        let unused = |entry: &Entry| now.saturating_duration_since(entry.last.get()) >= entry.unused;
        self.names.borrow_mut().retain(|_, entry| entry.answer.borrow().is_none() || !unused(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_gateway_core::config::{DnsFamily, DnsResolver, DnsSettings};

    fn settings(most: u32) -> ForwardNames {
        ForwardNames {
            cache: "c".into(),
            dns: DnsSettings {
                refresh: Duration::from_secs(60),
                failure: None,
                jitter: Duration::ZERO,
                min_refresh: Duration::ZERO,
                respect_ttl: true,
                family: DnsFamily::V4Preferred,
                resolver: DnsResolver::default(),
            },
            most,
            unused: Duration::from_secs(300),
            pending: 10,
            timeout: Duration::from_secs(5),
        }
    }

    #[tokio::test(flavor = "local")]
    async fn addresses_and_local_names_resolve() {
        let resolver = Resolver::new();
        let found = resolver.resolve("[::1]", &settings(1)).await;
        assert_eq!(found.as_deref(), Some(&["::1".parse().unwrap()][..]));
        let found = resolver.resolve("localhost", &settings(1)).await.unwrap();
        assert!(found.iter().all(IpAddr::is_ipv4) && !found.is_empty());
        assert!(resolver.names.borrow().len() == 1);
        assert_eq!(resolver.resolve("one.localhost", &settings(1)).await, None, "there is room for one name");
        resolver.sweep(Instant::now() + Duration::from_secs(301));
        assert!(resolver.names.borrow().is_empty());
    }
}
