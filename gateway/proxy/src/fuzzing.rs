//! Doors for the fuzz targets into parsers that nobody else outside needs. Not an interface: it changes with them.

use crate::{
    admin,
    http::filters,
    net::{
        proxy_protocol::{self, Parsed},
        sniff::{self, Http, Sniffer, Tls},
    },
    telemetry::metadata,
    upstream::dns,
    xds::{files, store},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_sync::Resource;

/// Length of the complete PROXY header that the bytes begin with.
#[must_use]
pub fn proxy_protocol(bytes: &[u8]) -> Option<usize> {
    match proxy_protocol::parse(bytes) {
        Parsed::Complete(header) => Some(header.length),
        Parsed::Partial | Parsed::Absent | Parsed::Bad(_) => None,
    }
}

/// Server name (empty for none) of a client hello that arrives in these pieces.
#[must_use]
pub fn client_hello(pieces: &[&[u8]]) -> Option<String> {
    let mut sniffer = Sniffer::new();
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(piece);
        match sniffer.feed(&bytes) {
            Tls::Hello(hello) => return Some(hello.server_name.unwrap_or_default()),
            Tls::Partial => {}
            Tls::Absent | Tls::Bad => return None,
        }
    }
    None
}

/// A hello as a client of this project's own TLS sends it; empty when the name is none.
#[must_use]
pub fn sample_hello(name: &str) -> Vec<u8> {
    let provider = crate::tls::provider();
    let Ok(builder) = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    else {
        return Vec::new();
    };
    let config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let Ok(name) = rustls::pki_types::ServerName::try_from(name.to_owned()) else { return Vec::new() };
    let mut hello = Vec::new();
    if let Ok(mut client) = rustls::ClientConnection::new(std::sync::Arc::new(config), name) {
        // Writing to memory does not fail.
        let _ = client.write_tls(&mut hello);
    }
    hello
}

/// The verdict on the beginning of a connection about HTTP; `None` while more bytes are needed.
#[must_use]
pub fn http(bytes: &[u8]) -> Option<&'static str> {
    match sniff::http(bytes) {
        Http::Partial => None,
        Http::Absent => Some("no"),
        Http::Http10 => Some("1.0"),
        Http::Http11 => Some("1.1"),
        Http::Http2 => Some("2"),
    }
}

/// The addresses that an answer of a name server gives to a question for a name, with a number of its own; `None` for no
/// answer.
#[must_use]
pub fn dns_answer(bytes: &[u8], id: u16, name: &str, version6: bool) -> Option<Vec<IpAddr>> {
    dns::addresses(bytes, id, name, version6)
}

/// Workload and namespace of a peer that tells of itself in a header.
#[must_use]
pub fn peer_metadata(told: &[u8]) -> Option<(String, String)> {
    metadata::read(told).map(|facts| (facts.workload, facts.namespace))
}

/// The bytes in a body of gRPC-Web as text that comes in these pieces; `None` when it is malformed.
#[must_use]
pub fn grpc_web_text(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    filters::bytes_of_text(pieces)
}

/// The pairs of a query to the admin interface.
#[must_use]
pub fn admin_query(text: &str) -> Vec<(String, String)> {
    admin::pairs(text)
}

/// Resources by the part of a configuration file that they stand in (clusters, listeners, secrets).
pub type Parts = Vec<(usize, Vec<u8>)>;

/// The resources of a configuration file, and what remains of it.
///
/// # Errors
/// What is wrong with it.
pub fn bootstrap_file(text: &str) -> Result<(Parts, Vec<u8>), String> {
    let mut parts = Parts::new();
    let rest = files::messages(text, &mut |part, body| parts.push((part, body))).map_err(|error| error.to_string())?;
    Ok((parts, rest))
}

/// Sizes of the resources in a file of saved state; `None` when it is another node's.
///
/// # Errors
/// When it is damaged.
#[expect(clippy::result_unit_err, reason = "there is one way to be damaged")]
pub fn saved_state(bytes: &[u8], node: &[u8]) -> Result<Option<Vec<usize>>, ()> {
    let kept = store::decode(bytes, node).map_err(drop)?;
    Ok(kept.map(|kept| kept.values().flat_map(BTreeMap::values).map(|resource| resource.body.len()).collect()))
}

/// A file of saved state of a node that is called `node`.
#[must_use]
pub fn saved_state_sample() -> Vec<u8> {
    let resources = ["a", "b"].map(|name| (Arc::from(name), Arc::new(Resource::new(name, vec![b'x'; 40]))));
    store::encode(&BTreeMap::from([(Arc::from("type"), resources.into_iter().collect())]), b"node")
}
