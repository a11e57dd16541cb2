//! How the exchange with one peer stands, for `federation status`.

use crate::Settings;
use std::time::Instant;
use tombolo_controlplane_api::status::PeerStatus;
use tombolo_federation_registry::Lease;

/// Whether there is a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Link {
    /// There is none; it is being tried, or waited for.
    #[default]
    Connecting,
    /// There is one, and the peer has said who it is.
    Connected,
    /// One end refused the other.
    Refused,
}

/// One peer.
#[derive(Debug, Clone, Default)]
pub struct PeerState {
    /// Name of its site.
    pub name: String,
    /// Where it is dialed; empty when only it dials.
    pub address: String,
    /// Whether there is a stream.
    pub link: Link,
    /// Why there is none.
    pub reason: String,
    /// When something was last heard.
    pub heard: Option<Instant>,
    /// How long its silence is trusted.
    pub lease: Lease,
    /// Streams since the start.
    pub streams: u64,
    /// Resources received since the start.
    pub received: u64,
    /// Services that it exports.
    pub services: u64,
    /// Endpoints of those.
    pub endpoints: u64,
    /// East-west gateways.
    pub gateways: u64,
    /// Messages outside its remit that were dropped.
    pub out_of_remit: u64,
    /// The newest of those, with reasons.
    pub dropped: Vec<String>,
    /// Trust domains whose roots it published.
    pub trust_domains: Vec<String>,
}

impl PeerState {
    /// Before anything happened.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            name: settings.name.to_string(),
            address: settings.dial.clone().unwrap_or_default(),
            lease: settings.lease,
            ..Self::default()
        }
    }

    /// The same for a status page. A peer that was never heard has been silent for as long as the site runs.
    #[must_use]
    pub fn to_status(&self, started: Instant, now: Instant) -> PeerStatus {
        let age = now.saturating_duration_since(self.heard.unwrap_or(started)).as_millis();
        let age_ms = u64::try_from(age).unwrap_or(u64::MAX);
        let state = match self.link {
            Link::Connected => "connected",
            Link::Refused => "refused",
            Link::Connecting if self.heard.is_none() => "connecting",
            Link::Connecting if age_ms >= self.lease.expire_after => "expired",
            Link::Connecting if age_ms >= self.lease.stale_after => "stale",
            Link::Connecting => "connecting",
        };
        PeerStatus {
            name: self.name.clone(),
            address: self.address.clone(),
            state: state.to_owned(),
            reason: self.reason.clone(),
            age_ms,
            services: self.services,
            endpoints: self.endpoints,
            gateways: self.gateways,
            out_of_remit: self.out_of_remit,
            trust_domains: self.trust_domains.clone(),
        }
    }
}
