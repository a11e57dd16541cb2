//! Listeners of gateways: one for each port, with a filter chain for each server or server name.

use super::{
    Resources, cluster, connection, encode, gateway_routes, hcm,
    hcm::{Manager, RouteSource},
    inbound::tls_inspection,
    names,
    pb::{boolean, host_address, transport_socket},
    secret, tls,
    wire::{core, hcm as wire_hcm, listener, tls as wire_tls},
};
use crate::{
    bind::{ChainKind, ListenerKind, ListenerPlan, ServerRef, TlsChain, View, complain, permit_connections},
    intent::{Attachment, ServerTls, ServerTlsMode, TcpMatch},
    proxy::Proxy,
};
use prost::Message;
use std::{collections::BTreeSet, sync::Arc};
use tombolo_federation_model::{Diagnostic, Severity};
use tombolo_federation_sync::Resource;

/// The listeners of a gateway. One without any filter chain is left out: Envoy refuses it, and nothing could be done with its
/// connections anyway.
#[must_use]
pub fn gateway_listeners(view: View<'_, '_>, proxy: &Proxy) -> Resources {
    let mut out = Resources::default();
    let Some(plan) = view.reader.plan(view.id) else { return out };
    let mut taken = BTreeSet::new();
    for listener in &plan.listeners {
        let mut builder =
            Builder { view, listener, names: BTreeSet::new(), chains: Vec::new(), complaints: Vec::new() };
        builder.fill();
        let made = builder.finish(proxy);
        out.complaints.extend(builder.complaints);
        // Two declared ports may be moved to one; the first keeps it.
        out.value.extend(made.filter(|resource| taken.insert(resource.name.clone())));
    }
    out
}

struct Builder<'a, 'w> {
    view: View<'a, 'w>,
    listener: &'w ListenerPlan,
    /// Server names that have a chain already.
    names: BTreeSet<String>,
    chains: Vec<listener::FilterChain>,
    complaints: Vec<Diagnostic>,
}

impl<'w> Builder<'_, 'w> {
    fn fill(&mut self) {
        match &self.listener.kind {
            ListenerKind::Http(_) => {
                let filter = self.manager(
                    self.listener.route_name(),
                    wire_hcm::http_connection_manager::ForwardClientCertDetails::Sanitize,
                );
                self.chains.push(listener::FilterChain { filters: vec![filter], ..Default::default() });
            }
            ListenerKind::Tcp(server) => self.plain_connections(server),
            ListenerKind::Tls(chains) => chains.iter().for_each(|chain| self.tls_chain(chain)),
        }
    }

    fn finish(&self, proxy: &Proxy) -> Option<Arc<Resource>> {
        if self.chains.is_empty() {
            return None;
        }
        let ip = self.listener.bind.clone().unwrap_or_else(|| proxy.bind.to_string());
        let port = proxy.bound_port(self.listener.port);
        let name = format!("{ip}_{port}");
        let sniffs = matches!(self.listener.kind, ListenerKind::Tls(_));
        let made = listener::Listener {
            name: name.clone(),
            address: Some(host_address(&ip, port)),
            filter_chains: self.chains.clone(),
            listener_filters: sniffs.then(tls_inspection).into_iter().collect(),
            traffic_direction: core::TrafficDirection::Outbound.into(),
            ..Default::default()
        };
        Some(encode::resource(&name, made.encode_to_vec()))
    }

    fn manager(
        &self,
        routes: String,
        client_cert: wire_hcm::http_connection_manager::ForwardClientCertDetails,
    ) -> listener::Filter {
        let prefix = format!("outbound_0.0.0.0_{}", self.listener.port);
        let manager = Manager {
            stat_prefix: &prefix,
            routes: RouteSource::Named(routes),
            client_cert,
            edge: true,
            dynamic_hosts: false,
        };
        hcm::filter(self.view.reader.mesh(), manager)
    }

    fn tls_chain(&mut self, chain: &TlsChain) {
        match chain.kind {
            ChainKind::Http | ChainKind::Tcp => self.terminated(chain),
            ChainKind::Passthrough => self.passthrough(chain),
            ChainKind::AutoPassthrough => self.auto_passthrough(),
        }
    }

    fn terminated(&mut self, chain: &TlsChain) {
        let server = chain.server.server();
        let Some(settings) = &server.tls else { return };
        let Some(context) = self.certificate(&chain.server, settings) else { return };
        let filters = if chain.kind == ChainKind::Http {
            use wire_hcm::http_connection_manager::ForwardClientCertDetails;
            let asks =
                matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual | ServerTlsMode::Mesh);
            let details = if asks { ForwardClientCertDetails::SanitizeSet } else { ForwardClientCertDetails::Sanitize };
            Some(self.manager(chain.route_name(), details))
        } else {
            self.connection_filter(&chain.server)
        };
        let names: Vec<String> = chain.hosts.iter().map(|host| host.host.to_string()).collect();
        self.push(names, filters, Some(transport_socket(tls::TLS_SOCKET, &context)), &chain.server);
    }

    /// The TLS settings of a server; `None`, with a complaint, when its certificate is not there. Then the server has no chain
    /// and its handshakes fail, while the others of the port work.
    fn certificate(&mut self, server: &ServerRef, settings: &ServerTls) -> Option<wire_tls::DownstreamTlsContext> {
        let protocols: &[&str] =
            if server.server().protocol == tombolo_federation_model::Protocol::Tls { &[] } else { &["h2", "http/1.1"] };
        let mut common = if settings.mode == ServerTlsMode::Mesh {
            let names = settings.subject_alt_names.iter().map(|name| tls::peer_name(name)).collect();
            tls::mesh_context(&tls::SERVER_PROTOCOLS, names)
        } else {
            self.own_certificate(server, settings, protocols)?
        };
        common.tls_params = parameters(settings);
        Some(wire_tls::DownstreamTlsContext {
            common_tls_context: Some(common),
            require_client_certificate: boolean(matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::Mesh)),
            ..Default::default()
        })
    }

    fn own_certificate(
        &mut self,
        server: &ServerRef,
        settings: &ServerTls,
        protocols: &[&str],
    ) -> Option<wire_tls::CommonTlsContext> {
        let view = self.view;
        let mut common = wire_tls::CommonTlsContext {
            alpn_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
            ..Default::default()
        };
        for credential in settings.credentials.iter().map(|named| named.at(&view.audience.namespace)) {
            if secret::usable(view, Some(&server.gateway.meta), &credential).is_some() {
                let name = secret::secret_name(view, &credential);
                common.tls_certificate_sds_secret_configs.push(tls::served_secret(&name));
            } else {
                let text = format!(
                    "secret {}/{} is missing, not permitted, or has no certificate and key; handshakes for its hosts fail",
                    credential.namespace, credential.name
                );
                self.complain_server(Severity::Error, "UNUSABLE_SECRET", server, ".tls.credentialName", text);
            }
        }
        if let Some((certificate, key)) = &settings.files {
            common.tls_certificates.push(tls::certificate_files(certificate, key));
        }
        if common.tls_certificates.is_empty() && common.tls_certificate_sds_secret_configs.is_empty() {
            return None;
        }
        if matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
            common.validation_context_type = Some(self.client_roots(server, settings)?);
        }
        Some(common)
    }

    fn client_roots(
        &mut self,
        server: &ServerRef,
        settings: &ServerTls,
    ) -> Option<wire_tls::common_tls_context::ValidationContextType> {
        let names = settings.subject_alt_names.iter().map(|name| tls::peer_name(name)).collect();
        let mut extra =
            wire_tls::CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() };
        if let Some(file) = &settings.client_roots_file {
            extra.trusted_ca = Some(super::pb::file(file));
            return Some(wire_tls::common_tls_context::ValidationContextType::ValidationContext(extra));
        }
        let view = self.view;
        let mut named = settings.credentials.iter().map(|named| named.at(&view.audience.namespace));
        let gateway = Some(&server.gateway.meta);
        if let Some(credential) = named.find(|credential| secret::usable_roots(view, gateway, credential).is_some()) {
            return Some(tls::checked_by(extra, &secret::roots_name(view, &credential)));
        }
        let text = "client certificates are asked for, but there are no roots to check them (ca.crt in the secret, or a secret NAME-cacert); handshakes fail";
        self.complain_server(Severity::Error, "NO_CLIENT_ROOTS", server, ".tls", text);
        None
    }

    /// Server names of unterminated TLS, from the rules that are bound to the server.
    fn passthrough(&mut self, chain: &TlsChain) {
        let view = self.view;
        let name = chain.server.name();
        let port = self.listener.port;
        for routes in
            view.reader.gateway_routes(&name).filter(|routes| gateway_routes::attached(view, &chain.server, routes))
        {
            let hosts = gateway_routes::common_hosts(&chain.hosts, routes);
            for rule in &routes.tls {
                for condition in rule.matches.iter().filter(|m| in_force(&m.connection, &name, port)) {
                    let common = |sni: &&tombolo_federation_model::Host| hosts.iter().any(|host| host.covers(sni));
                    let names: Vec<String> =
                        condition.sni_hosts.iter().filter(common).map(ToString::to_string).collect();
                    if names.is_empty() {
                        continue;
                    }
                    let backends =
                        permit_connections(view.reader, routes, &rule.field, &rule.backends, &mut Vec::new());
                    let filter = connection::to_backends(view, &rule.field, &backends, port);
                    self.push(names, Some(filter), None, &chain.server);
                }
            }
        }
    }

    /// One chain for each port and subset of each exported service, and nothing else: what is not exported is refused.
    fn auto_passthrough(&mut self) {
        let view = self.view;
        let Some(scope) = view.reader.scope(view.id) else { return };
        for key in scope.services.values() {
            let Some(service) = view.reader.service(key).filter(|service| service.exported) else { continue };
            let effective = cluster::served(view, service);
            for port in cluster::service_ports(service) {
                for subset in std::iter::once("").chain(effective.subsets.iter().map(|s| s.name.as_str())) {
                    let name = names::server_name(port.number, subset, &key.host);
                    if self.names.insert(name.clone()) {
                        let filter = connection::to_cluster(view.reader.mesh(), &name, &name);
                        self.chains.push(chain_for(vec![name], filter, None));
                    }
                }
            }
        }
    }

    fn connection_filter(&self, server: &ServerRef) -> Option<listener::Filter> {
        let view = self.view;
        let name = server.name();
        let mut bound =
            view.reader.gateway_routes(&name).filter(|routes| gateway_routes::attached(view, server, routes));
        let port = self.listener.port;
        let (routes, rule) = bound.find_map(|routes| {
            let hosts = gateway_routes::common_hosts(&server.server().hosts, routes);
            let fits = |m: &TcpMatch| in_force(m, &name, port);
            routes
                .tcp
                .iter()
                .filter(|_| !hosts.is_empty())
                .find(|rule| rule.matches.is_empty() || rule.matches.iter().any(fits))
                .map(|rule| (routes, rule))
        })?;
        // What is wrong with the object is said where it is checked.
        let backends = permit_connections(view.reader, routes, &rule.field, &rule.backends, &mut Vec::new());
        Some(connection::to_backends(view, &rule.field, &backends, port))
    }

    /// Plain connections go by the first rule that fits; rules may be told apart by the address that was dialled.
    fn plain_connections(&mut self, server: &ServerRef) {
        if let Some(filter) = self.connection_filter(server) {
            self.chains.push(listener::FilterChain { filters: vec![filter], ..Default::default() });
        } else {
            let text = "no TCP route is bound to this server, so its port is not opened";
            self.complain_server(Severity::Warning, "NO_TCP_ROUTE", server, "", text);
        }
    }

    fn push(
        &mut self,
        names: Vec<String>,
        filter: Option<listener::Filter>,
        socket: Option<core::TransportSocket>,
        server: &ServerRef,
    ) {
        let Some(filter) = filter else {
            let text = "no TCP route is bound to this server, so its handshakes fail";
            self.complain_server(Severity::Warning, "NO_TCP_ROUTE", server, "", text);
            return;
        };
        let mut free = Vec::new();
        for name in names {
            if self.names.insert(name.clone()) {
                free.push(name);
            } else {
                let text = format!("connections to {name} on port {} already go elsewhere", self.listener.port);
                self.complain_server(Severity::Error, "SERVER_NAME_CONFLICT", server, "", text);
            }
        }
        if !free.is_empty() {
            self.chains.push(chain_for(free, filter, socket));
        }
    }

    fn complain_server(
        &mut self,
        severity: Severity,
        code: &str,
        server: &ServerRef,
        field: &str,
        text: impl Into<String>,
    ) {
        let path = format!("{}{field}", server.server().field);
        self.complaints.push(complain(severity, code, &server.gateway.meta.object, path, text));
    }
}

/// Whether conditions that are not about the connection's name hold at this gateway.
fn in_force(condition: &TcpMatch, gateway: &crate::intent::NamedRef, port: u16) -> bool {
    let here =
        |attachment: &Attachment| matches!(attachment, Attachment::Gateway { gateway: named, .. } if named == gateway);
    condition.port.is_none_or(|wanted| wanted == port)
        && (condition.attachments.is_empty() || condition.attachments.iter().any(here))
}

/// A chain for server names; `*` among them means every connection.
fn chain_for(
    names: Vec<String>,
    filter: listener::Filter,
    socket: Option<core::TransportSocket>,
) -> listener::FilterChain {
    let any = names.iter().any(|name| name == "*");
    let condition = (!any).then(|| listener::FilterChainMatch { server_names: names, ..Default::default() });
    listener::FilterChain {
        filter_chain_match: condition,
        filters: vec![filter],
        transport_socket: socket,
        ..Default::default()
    }
}

fn parameters(settings: &ServerTls) -> Option<wire_tls::TlsParameters> {
    use wire_tls::tls_parameters::TlsProtocol;
    let version = |number: Option<u8>| match number {
        Some(3) => TlsProtocol::TlSv13,
        Some(_) => TlsProtocol::TlSv12,
        None => TlsProtocol::TlsAuto,
    };
    if settings.min_version.is_none() && settings.max_version.is_none() && settings.cipher_suites.is_empty() {
        return None;
    }
    Some(wire_tls::TlsParameters {
        tls_minimum_protocol_version: version(settings.min_version).into(),
        tls_maximum_protocol_version: version(settings.max_version).into(),
        cipher_suites: settings.cipher_suites.clone(),
        ..Default::default()
    })
}
