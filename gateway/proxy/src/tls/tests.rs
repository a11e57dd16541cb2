//! Contexts whose certificates and roots are in files.

use super::{context::TlsStore, verify::HostCheck};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection, pki_types::ServerName,
};
use std::{fs, path::Path, sync::Arc};
use tombolo_gateway_core::config::{
    Config, DownstreamTls, SecretRef, TlsCommon, UpstreamTls, Validation, ValidationSource,
};

fn certificate(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let chain = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    (chain, key.serialize_pem())
}

fn path(dir: &Path, name: &str) -> Arc<str> {
    dir.join(name).to_str().unwrap().into()
}

fn server(dir: &Path) -> Arc<DownstreamTls> {
    let files = SecretRef::Files { chain: path(dir, "chain.pem"), key: path(dir, "key.pem") };
    let common = TlsCommon { certificates: Box::new([files]), ..TlsCommon::default() };
    Arc::new(DownstreamTls { common, ..DownstreamTls::default() })
}

fn write(dir: &Path, name: &str, text: &str) {
    // As a rotation does it: the file is replaced as a whole.
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join(name)).unwrap();
}

#[test]
fn files_are_read_when_they_come_and_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let (store, config, context) = (TlsStore::default(), Config::default(), server(dir.path()));
    let refused = store.server(&context, &config).err().unwrap();
    assert!(refused.contains("chain.pem") && refused.contains("No such file"), "{refused}");
    let (chain, key) = certificate("a.example");
    write(dir.path(), "chain.pem", &chain);
    write(dir.path(), "key.pem", &key);
    assert!(store.server(&context, &config).is_err(), "nobody looked yet");
    store.files.look();
    let first = store.server(&context, &config).ok().unwrap();
    let again = store.server(&context, &config).ok().unwrap();
    assert!(Arc::ptr_eq(&first.with_alpn, &again.with_alpn), "unchanged files are not read again");
    let (chain, key) = certificate("b.example");
    write(dir.path(), "chain.pem", &chain);
    store.files.look();
    let halfway = store.server(&context, &config).ok().unwrap();
    assert!(Arc::ptr_eq(&first.with_alpn, &halfway.with_alpn), "a chain without its key changes nothing");
    write(dir.path(), "key.pem", &key);
    store.files.look();
    let second = store.server(&context, &config).ok().unwrap();
    assert!(!Arc::ptr_eq(&first.with_alpn, &second.with_alpn));
}

#[test]
fn what_is_wrong_is_named_without_what_is_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let ((chain, _), (_, other_key)) = (certificate("a.example"), certificate("b.example"));
    write(dir.path(), "chain.pem", &chain);
    write(dir.path(), "key.pem", &other_key);
    let mismatch = TlsStore::default().server(&server(dir.path()), &Config::default()).err().unwrap();
    assert!(mismatch.contains("does not belong"), "{mismatch}");
    write(dir.path(), "key.pem", "not a key: hunter2");
    let nonsense = TlsStore::default().server(&server(dir.path()), &Config::default()).err().unwrap();
    assert!(nonsense.contains("key.pem") && !nonsense.contains("hunter2"), "{nonsense}");
}

#[test]
fn roots_in_a_file_follow_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let validation = Validation { roots_file: Some(path(dir.path(), "roots.pem")), ..Validation::default() };
    let common = TlsCommon { validation: Some(ValidationSource::Inline(Arc::new(validation))), ..TlsCommon::default() };
    let context = Arc::new(UpstreamTls { common, ..UpstreamTls::default() });
    let (store, config) = (TlsStore::default(), Config::default());
    let before = store.files.epoch();
    assert!(store.client(&context, &config, HostCheck::No).is_err());
    write(dir.path(), "roots.pem", &certificate("ca.example").0);
    store.files.look();
    assert_ne!(store.files.epoch(), before);
    let first = store.client(&context, &config, HostCheck::No).ok().unwrap().id;
    write(dir.path(), "roots.pem", &certificate("ca2.example").0);
    store.files.look();
    assert_ne!(store.client(&context, &config, HostCheck::No).ok().unwrap().id, first);
}

/// A handshake in memory: how it was done, with a ticket taken for the next one.
fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let name = ServerName::try_from("a.example").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    server.handshake_kind().unwrap()
}

#[test]
fn a_ticket_opens_nothing_but_the_context_that_gave_it() {
    let dir = tempfile::tempdir().unwrap();
    let write_pair = || {
        let (chain, key) = certificate("a.example");
        write(dir.path(), "chain.pem", &chain);
        write(dir.path(), "key.pem", &key);
    };
    write_pair();
    let (store, config) = (TlsStore::default(), Config::default());
    let (own, other) = (server(dir.path()), server(dir.path()));
    let context = |of| store.server(of, &config).ok().unwrap().with_alpn;
    let upstream = Arc::new(UpstreamTls { max_session_keys: 1, ..UpstreamTls::default() });
    let client = store.client(&upstream, &config, HostCheck::No).ok().unwrap().base;
    assert_eq!(handshake(&client, &context(&own)), HandshakeKind::Full);
    assert_eq!(handshake(&client, &context(&own)), HandshakeKind::Resumed);
    assert_eq!(handshake(&client, &context(&other)), HandshakeKind::Full, "another listener");
    assert_eq!(handshake(&client, &context(&own)), HandshakeKind::Full, "with the ticket of that other listener");
    assert_eq!(handshake(&client, &context(&own)), HandshakeKind::Resumed);
    write_pair();
    store.files.look();
    assert_eq!(handshake(&client, &context(&own)), HandshakeKind::Full, "after what it trusts or shows changed");
}

/// Clusters whose requests name their server (`auto_sni` with `auto_san_validation`).
#[test]
fn a_server_must_have_the_name_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = certificate("a.example");
    write(dir.path(), "chain.pem", &chain);
    write(dir.path(), "key.pem", &key);
    let (store, config, upstream) = (TlsStore::default(), Config::default(), Arc::new(UpstreamTls::default()));
    let server = store.server(&server(dir.path()), &config).ok().unwrap().with_alpn;
    let convinces = |name: &'static str, host: HostCheck| {
        let context = store.client(&upstream, &config, host).ok().unwrap().base;
        let mut client = ClientConnection::new(context, ServerName::try_from(name).unwrap()).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        let (mut hello, mut answer) = (Vec::new(), Vec::new());
        client.write_tls(&mut hello).unwrap();
        server.read_tls(&mut hello.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut answer).unwrap();
        }
        client.read_tls(&mut answer.as_slice()).unwrap();
        client.process_new_packets().is_ok()
    };
    assert!(convinces("b.example", HostCheck::No) && convinces("a.example", HostCheck::Always));
    assert!(!convinces("b.example", HostCheck::Always) && !convinces("127.0.0.1", HostCheck::Always));
    assert!(convinces("b.example", HostCheck::No), "the other way is not forgotten");
}

#[test]
fn only_groups_that_are_named_are_offered() {
    let groups = |names: &[&str]| {
        let common = TlsCommon { groups: names.iter().map(|name| Arc::from(*name)).collect(), ..TlsCommon::default() };
        let context = Arc::new(UpstreamTls { common, ..UpstreamTls::default() });
        let built = TlsStore::default().client(&context, &Config::default(), HostCheck::No).ok().unwrap().base;
        built.crypto_provider().kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>()
    };
    assert_eq!(groups(&["P-384", "X25519"]), [NamedGroup::secp384r1, NamedGroup::X25519]);
    assert_eq!(groups(&["nobody knows it"]), groups(&[]), "what nobody has cannot be the only choice");
}
