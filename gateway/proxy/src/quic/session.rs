//! A server's TLS session whose settings are chosen when the client's hello is there.
//!
//! Owns the choice of the filter chain. quinn wants to know the TLS settings of a connection with its first packet, but
//! which ones apply stands in the hello inside it. So the session begins empty, reads the hello, chooses, and from then on is
//! the session that rustls makes.

use super::hello::{self, Hello, Looked};
use crate::tls::{
    context::{ServerContext, TlsStore},
    provider,
};
use quinn::crypto::{
    self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
    rustls::QuicServerConfig,
};
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode, transport_parameters::TransportParameters};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use std::{
    any::Any,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use tombolo_gateway_core::{
    chain::{self, Sniffed},
    config::{Config, FilterChain, Listener},
};

/// TLS alerts that a handshake ends with here.
const HANDSHAKE_FAILURE: u8 = 40;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

/// What a connection's TLS is chosen from, and what was chosen.
pub(super) struct Choice {
    pub(super) listener: Arc<Listener>,
    pub(super) config: Arc<Config>,
    pub(super) store: Arc<TlsStore>,
    pub(super) remote: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    pub(super) chosen: OnceLock<Chosen>,
}

/// What was chosen.
pub(super) struct Chosen {
    pub(super) chain: Arc<FilterChain>,
    pub(super) context: ServerContext,
    pub(super) sni: String,
}

/// Keys that depend on the version alone; its certificate is never asked for.
pub(super) fn base() -> Option<Arc<QuicServerConfig>> {
    static BASE: OnceLock<Option<Arc<QuicServerConfig>>> = OnceLock::new();
    BASE.get_or_init(|| {
        let config = rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).ok()?;
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(Nobody));
        QuicServerConfig::try_from(config).ok().map(Arc::new)
    })
    .clone()
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// The TLS settings of one connection.
pub(super) struct Choosing {
    pub(super) base: Arc<QuicServerConfig>,
    pub(super) choice: Arc<Choice>,
}

impl crypto::ServerConfig for Choosing {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.base.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.base.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        // Its initial keys are all that is asked of it before the hello.
        let before = self.base.clone().start_session(version, params);
        Box::new(Undecided {
            choosing: self,
            version,
            params: *params,
            read: Vec::new(),
            session: before,
            chosen: false,
        })
    }
}

struct Undecided {
    choosing: Arc<Choosing>,
    version: u32,
    params: TransportParameters,
    /// Handshake bytes before the choice.
    read: Vec<u8>,
    session: Box<dyn Session>,
    chosen: bool,
}

fn alert(code: u8, reason: impl Into<String>) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason: reason.into() }
}

impl Choice {
    fn choose(&self, hello: Hello) -> Result<Arc<QuicServerConfig>, TransportError> {
        let Hello { name, protocols } = hello;
        let offered: Vec<&str> = protocols.iter().map(String::as_str).collect();
        let sniffed = Sniffed {
            destination: self.local,
            source: Some(self.remote),
            direct_source: Some(self.remote),
            server_name: &name,
            transport: "quic",
            application_protocols: &offered,
        };
        let Some(chain) = chain::choose(&self.listener, sniffed) else {
            return Err(alert(UNRECOGNIZED_NAME, "no filter chain for the connection"));
        };
        let tls = chain.tls.as_ref().ok_or_else(|| alert(INTERNAL_ERROR, "the chain has no TLS"))?;
        let context = self.store.server(tls, &self.config).map_err(|reason| {
            tracing::warn!(listener = %self.listener.name, chain = %chain.name, %reason, "TLS cannot be ended");
            alert(INTERNAL_ERROR, "")
        })?;
        if context.require_sni && name.is_empty() {
            return Err(alert(UNRECOGNIZED_NAME, "a server name is required"));
        }
        let mut config = (*context.with_alpn).clone();
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h3".to_vec()];
        }
        // Data that can be replayed is never taken.
        config.max_early_data_size = 0;
        let config = QuicServerConfig::try_from(Arc::new(config))
            .map_err(|error| alert(HANDSHAKE_FAILURE, format!("TLS cannot be used for QUIC: {error}")))?;
        let _ = self.chosen.set(Chosen { chain: chain.clone(), context, sni: name });
        Ok(Arc::new(config))
    }
}

impl Session for Undecided {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if self.chosen {
            return self.session.read_handshake(buf);
        }
        self.read.extend_from_slice(buf);
        match hello::look(&self.read) {
            Looked::Partial => Ok(false),
            Looked::Bad => Err(alert(HANDSHAKE_FAILURE, "this is no hello")),
            Looked::Hello(hello) => {
                let config = self.choosing.choice.choose(hello)?;
                self.session = crypto::ServerConfig::start_session(config, self.version, &self.params);
                self.chosen = true;
                let read = std::mem::take(&mut self.read);
                self.session.read_handshake(&read)
            }
        }
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        if self.chosen { self.session.write_handshake(buf) } else { None }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}
