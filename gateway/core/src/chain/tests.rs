//! Tests of `chain`.

use super::*;
use crate::config::{Address, Metadata, TcpCluster, TcpProxy, Terminal};

fn chain(name: &str, matches: FilterChainMatch) -> Arc<FilterChain> {
    let tcp = TcpProxy {
        stat_prefix: "t".into(),
        cluster: TcpCluster::One("c".into()),
        idle_timeout: None,
        max_duration: None,
        max_connect_attempts: 1,
        back_off: None,
        hash: None,
        metadata_match: None,
        access_logs: Box::default(),
    };
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        tls_timeout: None,
        filters: Box::default(),
        terminal: Terminal::Tcp(Arc::new(tcp)),
        metadata: Metadata::default(),
    })
}

fn listener(chains: Vec<Arc<FilterChain>>, default: Option<Arc<FilterChain>>) -> Listener {
    Listener {
        name: "l".into(),
        addresses: [Address::Internal].into(),
        stat_prefix: "".into(),
        index: ChainIndex::new(&chains).unwrap(),
        chains: chains.into(),
        default_chain: default,
        filters: Box::default(),
        filters_timeout: None,
        continue_on_filters_timeout: false,
        buffer_limit: 1,
        direction: crate::config::Direction::Inbound,
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        freebind: false,
        ipv4_compat: false,
        backlog: None,
        max_connections: None,
        quic: None,
        access_logs: Box::default(),
        metadata: Metadata::default(),
    }
}

fn names(list: &[&str]) -> Box<[Arc<str>]> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

fn chosen(listener: &Listener, sniffed: Sniffed<'_>) -> String {
    choose(listener, sniffed).map_or("closed".to_owned(), |chain| chain.name.to_string())
}

#[test]
fn longest_server_name_wins() {
    let all = listener(
        vec![
            chain("exact", FilterChainMatch { server_names: names(&["a.b.c"]), ..any() }),
            chain("short", FilterChainMatch { server_names: names(&["*.c"]), ..any() }),
            chain("long", FilterChainMatch { server_names: names(&["*.b.c"]), ..any() }),
            chain("any", any()),
        ],
        None,
    );
    for (name, expect) in
        [("a.b.c", "exact"), ("x.b.c", "long"), ("x.c", "short"), ("c", "any"), ("", "any"), ("b.c", "short")]
    {
        assert_eq!(chosen(&all, Sniffed { server_name: name, ..Sniffed::default() }), expect, "{name:?}");
    }
}

#[test]
fn there_is_no_way_back() {
    let all = listener(
        vec![
            chain("tls", FilterChainMatch { server_names: names(&["a.b"]), transport_protocol: "tls".into(), ..any() }),
            chain("any", any()),
        ],
        Some(chain("default", any())),
    );
    let plain = Sniffed { server_name: "a.b", transport: "raw_buffer", ..Sniffed::default() };
    assert_eq!(chosen(&all, plain), "default");
    assert_eq!(chosen(&all, Sniffed { transport: "tls", ..plain }), "tls");
}

#[test]
fn the_mesh_tells_its_own_from_others_by_protocol() {
    let istio = names(&["istio", "istio-peer-exchange"]);
    let all = listener(
        vec![
            chain("mtls", FilterChainMatch { transport_protocol: "tls".into(), application_protocols: istio, ..any() }),
            chain("plain", FilterChainMatch { transport_protocol: "raw_buffer".into(), ..any() }),
            chain("port", FilterChainMatch { destination_port: Some(9), ..any() }),
        ],
        None,
    );
    let tls = Sniffed { transport: "tls", application_protocols: &["istio"], ..Sniffed::default() };
    assert_eq!(chosen(&all, tls), "mtls");
    assert_eq!(chosen(&all, Sniffed { application_protocols: &["h2"], ..tls }), "closed");
    assert_eq!(chosen(&all, Sniffed { transport: "raw_buffer", ..Sniffed::default() }), "plain");
    assert_eq!(chosen(&all, Sniffed { destination: Some("1.2.3.4:9".parse().unwrap()), ..tls }), "port");
}

#[test]
fn sources_narrow() {
    let all = listener(
        vec![
            chain("wide", FilterChainMatch { sources: ["10.0.0.0/8".parse().unwrap()].into(), ..any() }),
            chain("narrow", FilterChainMatch { sources: ["10.1.0.0/16".parse().unwrap()].into(), ..any() }),
        ],
        None,
    );
    for (source, expect) in [("10.1.2.3:1", "narrow"), ("10.2.0.1:1", "wide"), ("11.0.0.1:1", "closed")] {
        assert_eq!(chosen(&all, Sniffed { source: Some(source.parse().unwrap()), ..Sniffed::default() }), expect);
    }
}

#[test]
fn two_chains_for_the_same_connections_are_refused() {
    assert_eq!(ChainIndex::new(&[chain("a", any()), chain("b", any())]), Err((0, 1)));
}
