//! Sessions that are resumed: row 42 of the attack catalogue (a ticket skips what a handshake would have checked). A ticket
//! opens nothing but the listener that gave it, and nothing any more once that listener's trust, revocations or rules
//! changed; who would be refused by a handshake is refused with a ticket too.

use crate::GATEWAY;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    certificates::{Authority, Leaf},
    files::{Filed, cluster, listener, manager, to, typed},
    recorder::Recorder,
    wire1::PATIENCE,
};

/// A client that keeps its tickets.
#[derive(Clone)]
struct Client(Arc<ClientConfig>);

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Every check was made, and a request was answered.
    Full,
    /// A ticket was taken, and a request was answered.
    Resumed,
    Refused,
}
use Outcome::{Full, Refused, Resumed};

impl Client {
    fn new(root: &str, own: Option<&Leaf>, version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        Self(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = vec![CertificateDer::from_pem_slice(leaf.chain.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }))
    }

    /// A connection with one request. An answer comes after the tickets, so they are taken.
    fn ask(&self, at: SocketAddr) -> Outcome {
        let mut socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = ClientConnection::new(self.0.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        let mut read = Vec::new();
        let sent = stream.write_all(b"GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        // The end may come without a goodbye.
        let _ = stream.read_to_end(&mut read);
        if sent.is_err() || !read.starts_with(b"HTTP/1.1 200 ") {
            assert!(read.is_empty(), "{}", read.escape_ascii());
            return Refused;
        }
        match tls.handshake_kind() {
            Some(HandshakeKind::Resumed) => Resumed,
            _ => Full,
        }
    }
}

/// What a listener asks of its clients.
#[derive(Clone)]
struct Rules {
    validation: Option<Value>,
    required: bool,
}

struct World {
    filed: Filed,
    at: [SocketAddr; 3],
    own: Leaf,
    clusters: Vec<Value>,
    turn: std::cell::Cell<u32>,
    _recorder: Recorder,
}

fn listeners(at: [SocketAddr; 3], own: &Leaf, rules: &Rules, sign: &str) -> Vec<Value> {
    let text = |text: &str| json!({"inline_string": text});
    let mut common =
        json!({"tls_certificates": [{"certificate_chain": text(&own.chain), "private_key": text(&own.key)}]});
    if let Some(validation) = &rules.validation {
        common["validation_context"] = validation.clone();
    }
    let context = json!({"common_tls_context": common, "require_client_certificate": rules.required});
    let context = typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext", context);
    let socket = json!({"name": "tls", "typed_config": context});
    let manager = manager(json!([to("/", "ok")]), &[], &json!({"server_name": sign}));
    let door = |name: &str, at| listener(name, at, &manager, Some(&socket));
    vec![door("one", at[0]), door("two", at[1]), listener("sign", at[2], &manager, None)]
}

impl World {
    async fn start(own: Leaf, rules: &Rules) -> Self {
        let recorder = Recorder::http1().await.unwrap();
        let at = [free(), free(), free()];
        let clusters = vec![cluster("ok", &[recorder.address])];
        let filed = Filed::start(GATEWAY, &listeners(at, &own, rules, "turn-0"), &clusters).await.unwrap();
        Self { filed, at, own, clusters, turn: 0.into(), _recorder: recorder }
    }

    async fn set(&self, rules: &Rules) {
        self.turn.set(self.turn.get() + 1);
        let sign = format!("turn-{}-", self.turn.get());
        self.filed.change(&listeners(self.at, &self.own, rules, &sign), &self.clusters, &sign).await.unwrap();
        // It is served once answers say so: all listeners change as one.
        let begun = Instant::now();
        while !said(self.at[2]).contains(&sign) {
            assert!(begun.elapsed() < PATIENCE, "{sign} was never served");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An answer of the listener without TLS.
fn said(at: SocketAddr) -> String {
    let mut socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET /probe HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut read = String::new();
    socket.read_to_string(&mut read).unwrap();
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_open_nothing_that_a_handshake_would_not() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let [good, bad] = ["spiffe://d/ns/a/sa/good", "spiffe://d/ns/a/sa/bad"].map(|id| authority.sign(&[id]).unwrap());
    let own = authority.sign(&["localhost"]).unwrap();
    let trusted = |root: &str| json!({"trusted_ca": {"inline_string": root}});
    let with = |name: &str, value: Value| {
        let mut validation = trusted(&authority.root);
        validation[name] = value;
        Rules { validation: Some(validation), required: true }
    };
    let base = Rules { validation: Some(trusted(&authority.root)), required: true };
    let named = json!([{"san_type": "URI", "matcher": {"exact": "spiffe://d/ns/a/sa/good"}}]);
    let crl = json!({"inline_string": authority.revoke(&[&bad]).unwrap()});
    // What changes, and what then becomes of the good client and the bad one.
    let changes = [
        ("revocation", with("crl", crl), [Full, Refused]),
        ("rules about names", with("match_typed_subject_alt_names", named), [Full, Refused]),
        ("the bundle", Rules { validation: Some(trusted(&other.root)), required: true }, [Refused, Refused]),
        ("nothing that is asked", Rules { required: false, ..base.clone() }, [Full, Full]),
    ];
    let world = World::start(own, &base).await;
    for version in [&TLS12, &TLS13] {
        let clients = [&good, &bad].map(|leaf| Client::new(&authority.root, Some(leaf), version));
        let nobody = Client::new(&authority.root, None, version);
        let play = |client: &Client, at| client.ask(at);
        for (what, changed, wanted) in &changes {
            for client in &clients {
                assert_eq!(play(client, world.at[0]), Full, "{version:?}, before {what}");
                assert_eq!(play(client, world.at[0]), Resumed, "{version:?}, before {what}");
                // Ticket and name are the same, the listener is another.
                assert_eq!(play(client, world.at[1]), Full, "{version:?}, another listener");
                assert_eq!(play(client, world.at[0]), Full, "{version:?}, with a ticket of another listener");
                assert_eq!(play(client, world.at[0]), Resumed, "{version:?}, before {what}");
            }
            world.set(changed).await;
            for (client, wanted) in clients.iter().zip(wanted) {
                assert_eq!(play(client, world.at[0]), *wanted, "{version:?}, after a change of {what}");
                let again = if *wanted == Full { Resumed } else { Refused };
                assert_eq!(play(client, world.at[0]), again, "{version:?}, again after a change of {what}");
            }
            // Who needed no certificate and then needs one.
            let open = Rules { validation: None, required: false };
            if *what == "nothing that is asked" {
                world.set(&open).await;
                assert_eq!(play(&nobody, world.at[0]), Full);
                assert_eq!(play(&nobody, world.at[0]), Resumed);
            }
            world.set(&base).await;
            if *what == "nothing that is asked" {
                assert_eq!(play(&nobody, world.at[0]), Refused, "{version:?}: a ticket instead of a certificate");
            }
        }
    }
    world.filed.gateway.is_whole().await.unwrap();
}
