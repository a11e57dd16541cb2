//! How the listeners of all gateway objects that select a gateway combine, port by port.
//!
//! First come, first served, where the oldest object comes first: what cannot stand beside an older listener is left out,
//! host by host where that is possible, with a complaint about the object that lost.

use super::{View, complain, selects};
use crate::intent::{ConflictRule, Gateway, Server, ServerHost, ServerTlsMode};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{Diagnostic, Host, Severity};

/// One server of a gateway object.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerRef {
    /// The object.
    pub gateway: Arc<Gateway>,
    /// Index of the server in it.
    pub index: usize,
}

impl ServerRef {
    /// The server itself.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.gateway.servers[self.index]
    }

    /// Name of the object, as routes refer to it.
    #[must_use]
    pub fn name(&self) -> crate::intent::NamedRef {
        crate::intent::NamedRef { namespace: self.gateway.meta.namespace.clone(), name: self.gateway.meta.name.clone() }
    }
}

/// What is done with connections of one server's hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Terminate and route requests.
    Http,
    /// Terminate and route connections.
    Tcp,
    /// Route by server name.
    Passthrough,
    /// Route by a server name that says the service.
    AutoPassthrough,
}

/// One server on a TLS port.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsChain {
    /// The server.
    pub server: ServerRef,
    /// Its hosts that no older server claims.
    pub hosts: Vec<ServerHost>,
    /// What is done.
    pub kind: ChainKind,
}

/// What a port does.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerKind {
    /// Requests in plaintext, all servers merged.
    Http(Vec<ServerRef>),
    /// TLS, a chain for each server.
    Tls(Vec<TlsChain>),
    /// Plain connections of one server.
    Tcp(ServerRef),
}

/// One port.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerPlan {
    /// Address instead of the gateway's.
    pub bind: Option<String>,
    /// Declared number.
    pub port: u16,
    /// What it does.
    pub kind: ListenerKind,
}

/// All ports of a class of gateways.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayPlan {
    /// By bind address and port.
    pub listeners: Vec<ListenerPlan>,
    /// What was left out.
    pub complaints: Vec<Diagnostic>,
}

impl TlsChain {
    /// Name of the routes of a chain that terminates HTTP.
    #[must_use]
    pub fn route_name(&self) -> String {
        let server = self.server.server();
        let meta = &self.server.gateway.meta;
        format!("https.{}.{}.{}.{}", server.port, server.port_name, meta.name, meta.namespace)
    }
}

impl ListenerPlan {
    /// Name of the routes of a plaintext HTTP port.
    #[must_use]
    pub fn route_name(&self) -> String {
        match &self.bind {
            None => format!("http.{}", self.port),
            Some(bind) => format!("http.{}.{bind}", self.port),
        }
    }
}

/// Combines the servers of all gateway objects that select the class.
#[must_use]
pub fn plan(view: View<'_, '_>) -> GatewayPlan {
    let mut builder = Builder::default();
    for gateway in view.reader.gateways().filter(|g| selects(&g.selector, &view.audience.labels)) {
        let losers = builder.indistinct(gateway);
        for index in (0..gateway.servers.len()).filter(|index| !losers.contains(index)) {
            builder.add(ServerRef { gateway: gateway.clone(), index });
        }
    }
    builder.finish()
}

#[derive(Default)]
struct Builder {
    ports: BTreeMap<(Option<String>, u16), ListenerKind>,
    claimed: BTreeMap<(Option<String>, u16), BTreeSet<Host>>,
    complaints: Vec<Diagnostic>,
}

impl Builder {
    /// Servers of one object that cannot be told apart, where the object's API says that then none of them holds.
    fn indistinct(&mut self, gateway: &Gateway) -> BTreeSet<usize> {
        if gateway.conflict == ConflictRule::OldestWins {
            return BTreeSet::new();
        }
        let mut losers = BTreeSet::new();
        for (i, a) in gateway.servers.iter().enumerate() {
            for (j, b) in gateway.servers.iter().enumerate().filter(|(j, b)| *j != i && b.port == a.port) {
                let same_class = class(a) == class(b);
                let same_host = a.hosts.iter().any(|x| b.hosts.iter().any(|y| x.host == y.host));
                if !same_class || same_host || class(a) == Class::Tcp {
                    losers.insert(i);
                    let text = format!(
                        "it cannot be told apart from listener {}; neither is in force",
                        gateway.servers[j].name
                    );
                    self.complaints.push(complain(
                        Severity::Error,
                        "LISTENER_CONFLICT",
                        &gateway.meta.object,
                        &a.field,
                        text,
                    ));
                }
            }
        }
        losers
    }

    fn add(&mut self, server: ServerRef) {
        let at = (server.server().bind.clone(), server.server().port);
        match (self.ports.get_mut(&at), class(server.server())) {
            (Some(ListenerKind::Http(servers)), Class::Http) => servers.push(server),
            (Some(ListenerKind::Tls(_)), Class::Tls(kind)) => self.add_chain(at, server, kind),
            (Some(_), _) => self.refuse(
                &server,
                "GATEWAY_PORT_CONFLICT",
                "an older Gateway uses the port in another way; this server is not in force",
            ),
            (None, Class::Http) => drop(self.ports.insert(at, ListenerKind::Http(vec![server]))),
            (None, Class::Tcp) => drop(self.ports.insert(at, ListenerKind::Tcp(server))),
            (None, Class::Tls(kind)) => {
                self.ports.insert(at.clone(), ListenerKind::Tls(Vec::new()));
                self.add_chain(at, server, kind);
            }
        }
    }

    fn add_chain(&mut self, at: (Option<String>, u16), server: ServerRef, kind: ChainKind) {
        let claimed = self.claimed.entry(at.clone()).or_default();
        let mut hosts = Vec::new();
        let mut lost = Vec::new();
        for host in &server.server().hosts {
            // Servers that only route by name claim no host: their names come from routes or services.
            if kind == ChainKind::AutoPassthrough || kind == ChainKind::Passthrough || claimed.insert(host.host.clone())
            {
                hosts.push(host.clone());
            } else {
                lost.push(host.host.clone());
            }
        }
        for host in lost {
            let text = format!("an older server on port {} already serves {host}; it is left out here", at.1);
            self.refuse(&server, "GATEWAY_HOST_CONFLICT", &text);
        }
        if let Some(ListenerKind::Tls(chains)) = self.ports.get_mut(&at)
            && !hosts.is_empty()
        {
            chains.push(TlsChain { server, hosts, kind });
        }
    }

    fn refuse(&mut self, server: &ServerRef, code: &str, text: &str) {
        let object = &server.gateway.meta.object;
        self.complaints.push(complain(Severity::Error, code, object, &server.server().field, text));
    }

    fn finish(self) -> GatewayPlan {
        let listeners = self.ports.into_iter().map(|((bind, port), kind)| ListenerPlan { bind, port, kind });
        GatewayPlan { listeners: listeners.collect(), complaints: self.complaints }
    }
}

/// How a server treats its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Http,
    Tls(ChainKind),
    Tcp,
}

fn class(server: &Server) -> Class {
    // Settings that only ask for a redirect do not make a plaintext port one of TLS.
    let plaintext = !server.protocol.is_tls()
        && server
            .tls
            .as_ref()
            .is_none_or(|tls| tls.https_redirect && tls.credentials.is_empty() && tls.files.is_none());
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    match mode {
        _ if plaintext && server.protocol.is_http() => Class::Http,
        _ if plaintext => Class::Tcp,
        Some(ServerTlsMode::Passthrough) | None => Class::Tls(ChainKind::Passthrough),
        Some(ServerTlsMode::AutoPassthrough) => Class::Tls(ChainKind::AutoPassthrough),
        Some(_) if server.protocol == tombolo_federation_model::Protocol::Https || server.protocol.is_http() => {
            Class::Tls(ChainKind::Http)
        }
        Some(_) => Class::Tls(ChainKind::Tcp),
    }
}
