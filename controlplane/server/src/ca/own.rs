//! The control plane's own certificate, for its servers and towards peers, renewed at half of its life.

use super::{Authority, IssueError, unix_seconds};
use rcgen::KeyPair;
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tombolo_federation_model::Identity;

/// Wait after a failed renewal.
const RETRY: Duration = Duration::from_secs(5);

/// One certificate of our own with its key.
pub struct OwnCertificate {
    /// Whom it names.
    pub identity: Identity,
    /// Leaf first, root last.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key in PKCS #8; never leaves this process.
    pub key: PrivatePkcs8KeyDer<'static>,
    /// The same, ready for a TLS server or client.
    pub certified: Arc<CertifiedKey>,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// When it was issued.
    pub issued: SystemTime,
    /// End of its life.
    pub not_after: SystemTime,
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}", self.serial, self.identity)
    }
}

/// The newest certificate of our own; old connections keep the one they began with.
#[derive(Debug, Clone)]
pub struct OwnIdentity(watch::Receiver<Arc<OwnCertificate>>);

impl OwnIdentity {
    /// Issues the first certificate. The returned future renews it for as long as it is polled.
    ///
    /// # Errors
    /// When the authority cannot issue.
    pub fn start(
        authority: Arc<Authority>,
        identity: Identity,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), IssueError> {
        let first = issue(&authority, &identity)?;
        let (sender, receiver) = watch::channel(Arc::new(first));
        Ok((Self(receiver), renew(authority, identity, sender)))
    }

    /// The certificate as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<OwnCertificate> {
        self.0.borrow().clone()
    }

    /// Tells of every renewal.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<OwnCertificate>> {
        self.0.clone()
    }
}

impl ResolvesServerCert for OwnIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }
}

/// Looks at the wall clock once a minute at most, so that a machine that slept or whose clock was set notices.
async fn renew(authority: Arc<Authority>, identity: Identity, sender: watch::Sender<Arc<OwnCertificate>>) {
    loop {
        let due = {
            let current = sender.borrow();
            let life = current.not_after.duration_since(current.issued).unwrap_or_default();
            current.issued + life / 2
        };
        let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(Duration::from_secs(60))).await;
            continue;
        }
        match issue(&authority, &identity) {
            Ok(next) => {
                tracing::info!(serial = %next.serial, until = unix_seconds(next.not_after), "renewed the control plane's own certificate");
                sender.send_replace(Arc::new(next));
            }
            Err(error) => {
                tracing::error!(%error, "cannot renew the control plane's own certificate");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn issue(authority: &Authority, identity: &Identity) -> Result<OwnCertificate, IssueError> {
    let now = SystemTime::now();
    let pair = KeyPair::generate()?;
    let issued = authority.issue(identity, &pair, None, now)?;
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der());
    let chain = vec![issued.leaf, authority.root().clone()];
    let signer = any_supported_type(&PrivateKeyDer::from(key.clone_key()))
        .map_err(|_| IssueError::Sign(rcgen::Error::KeyGenerationUnavailable))?;
    let certified = Arc::new(CertifiedKey::new(chain.clone(), signer));
    let (serial, not_after) = (issued.serial, issued.not_after);
    Ok(OwnCertificate { identity: identity.clone(), chain, key, certified, serial, issued: now, not_after })
}
