//! What clients say of themselves: addresses before them, cookies and parameters that place them, deadlines. And what
//! operators say: questions to the admin interface, files of configuration, files of saved state.

use crate::{Target, targets::seeds};
use http::{HeaderName, HeaderValue, Method, header};
use prost::Message as _;
use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3 as core,
            listener::v3 as listener,
            route::v3::{self as route, route_action, route_match},
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{self as manager, http_connection_manager as parts},
        },
    },
    google::protobuf::{self, Any},
};
use tombolo_gateway_core::{
    config::{Config, HashPolicy, HashSource, Hcm, RouteSource, RouteTable, Terminal},
    decide::{Moment, decide},
    decision::Decision,
    head::{ConnInfo, Head},
    request::{Caller, Node, admit},
    route::hash_request,
    time::Random,
    wire::{Kind, Resource, decode},
};
use tombolo_gateway_proxy::fuzzing;

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "forwarded_for", feed: forwarded_for, seeds: chains },
    Target { name: "hash_policy", feed: hash_policy, seeds: cookies },
    Target { name: "grpc_timeout", feed: grpc_timeout, seeds: timeouts },
    Target { name: "admin_query", feed: admin_query, seeds: queries },
    Target { name: "bootstrap_file", feed: bootstrap_file, seeds: bootstraps },
    Target { name: "saved_state", feed: saved_state, seeds: states },
];

const PEER: &str = "203.0.113.5:40000";
const LOCAL: &str = "192.0.2.1:80";
/// The longest that a `grpc-timeout` may ask for here, and what holds without one.
const LONGEST: Duration = Duration::from_secs(5);
const PLAIN: Duration = Duration::from_secs(7);

/// A connection manager with one route.
struct Door {
    hcm: Arc<Hcm>,
    table: Arc<RouteTable>,
    config: Config,
}

fn seconds(duration: Duration) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds: i64::try_from(duration.as_secs()).unwrap_or(0), nanos: 0 })
}

fn any<M: prost::Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// One route, which bounds the life of streams.
fn routes() -> route::RouteConfiguration {
    let limit = route_action::MaxStreamDuration {
        max_stream_duration: seconds(PLAIN),
        grpc_timeout_header_max: seconds(LONGEST),
        ..Default::default()
    };
    let action = route::RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster("c".into())),
        max_stream_duration: Some(limit),
        ..Default::default()
    };
    let everything = route::RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    let one = route::Route {
        r#match: Some(everything),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host =
        route::VirtualHost { name: "v".into(), domains: vec!["*".into()], routes: vec![one], ..Default::default() };
    route::RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() }
}

/// `edge`: clients are strangers. `hops`: so many proxies in front are trusted.
fn listener(edge: bool, hops: u32) -> listener::Listener {
    let router = manager::HttpFilter {
        name: "router".into(),
        config_type: Some(manager::http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..Default::default()
    };
    let message = manager::HttpConnectionManager {
        stat_prefix: "t".into(),
        use_remote_address: Some(protobuf::BoolValue { value: edge }),
        xff_num_trusted_hops: hops,
        http_filters: vec![router],
        route_specifier: Some(parts::RouteSpecifier::RouteConfig(routes())),
        ..Default::default()
    };
    let filter = listener::Filter {
        name: "f".into(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(&message))),
    };
    let socket = core::SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
        ..Default::default()
    };
    listener::Listener {
        name: "l".into(),
        address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) }),
        filter_chains: vec![listener::FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn door(edge: bool, hops: u32) -> Option<Door> {
    let bytes = listener(edge, hops).encode_to_vec();
    let Ok(Resource::Listener(listener)) = decode(Kind::Listener, "l", &bytes) else { return None };
    let cluster = Cluster { name: "c".into(), ..Default::default() };
    let Ok(Resource::Cluster(cluster)) = decode(Kind::Cluster, "c", &cluster.encode_to_vec()) else { return None };
    let Terminal::Http(hcm) = &listener.chains.first()?.terminal else { return None };
    let RouteSource::Inline(table) = &hcm.routes else { return None };
    let config = Config { clusters: [(Arc::from("c"), cluster)].into_iter().collect(), ..Config::default() };
    Some(Door { hcm: hcm.clone(), table: table.clone(), config })
}

/// Doors for strangers and for proxies, with no, one and two trusted hops.
static DOORS: LazyLock<Vec<(bool, u32, Door)>> = LazyLock::new(|| {
    let all = [true, false].into_iter().flat_map(|edge| (0..3).map(move |hops| (edge, hops)));
    all.map(|(edge, hops)| (edge, hops, door(edge, hops).expect("a configuration that is taken"))).collect()
});

fn conn() -> ConnInfo {
    let (peer, local) = (PEER.parse().ok(), LOCAL.parse().ok());
    ConnInfo { remote: peer, direct_remote: peer, local, ..ConnInfo::default() }
}

fn node() -> Node {
    let nobody = HeaderValue::from_static("");
    Node { address: IpAddr::from([192, 0, 2, 1]), cluster: nobody.clone(), id: nobody }
}

fn request(path: &str) -> Head {
    Head { method: Method::GET, authority: "a.test".into(), path: path.into(), ..Head::default() }
}

/// One value a line, as far as they are values.
fn values(input: &[u8]) -> Vec<HeaderValue> {
    input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// Who asks is the peer or somebody that the header names; a stranger is never internal, and never hides the peer.
fn forwarded_for(input: &[u8]) {
    let name = HeaderName::from_static("x-forwarded-for");
    let said = values(input);
    let named = |ip: IpAddr| {
        let of = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            text.split(',').any(|part| part.trim().parse() == Ok(ip))
        };
        said.iter().any(of)
    };
    let conn = conn();
    for (edge, hops, door) in &*DOORS {
        let mut head = request("/");
        for value in &said {
            head.headers.append(name.clone(), value.clone());
        }
        let before = head.clone();
        let admitted = admit(&door.hcm, &node(), &conn, Some(&door.table), &mut head, &mut Random::new(1));
        let Ok(caller) = admitted else { continue };
        let ip = caller.address.map(|address| address.ip());
        assert!(ip == conn.remote_ip() || ip.is_some_and(named), "{ip:?} of {said:?} ({edge}, {hops})");
        if *edge && *hops == 0 {
            assert_eq!(caller.address, conn.remote, "a stranger says who it is: {said:?}");
            assert!(!caller.internal, "a stranger is internal: {said:?}");
        }
        let after: Vec<&HeaderValue> = head.headers.get_all(&name).iter().collect();
        if *edge {
            let last = after.last().and_then(|value| value.as_bytes().rsplit(|byte| *byte == b',').next());
            assert_eq!(last, Some(&b"203.0.113.5"[..]), "the peer is hidden: {after:?}");
        } else {
            assert_eq!(after, before.headers.get_all(&name).iter().collect::<Vec<_>>(), "another's words are changed");
        }
    }
}

fn chains() -> Vec<Vec<u8>> {
    seeds(&[
        b"10.0.0.1",
        b"1.2.3.4, 10.0.0.1",
        b"1.2.3.4,::1,fe80::1%eth0",
        b"unknown, 1.2.3.4:80",
        b"[::1]:5\n10.0.0.1 , 127.0.0.1",
        b",,\n ,1.1.1.1,",
        b"::ffff:10.0.0.1",
    ])
}

/// The first line is a cookie header, the second a path: where a request goes does not depend on the order of cookies of
/// other names, and a cookie that is made leads its bearer to the same place again.
fn hash_policy(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let (Some(cookie), path) = (lines.next(), lines.next().unwrap_or_default()) else { return };
    let Ok(cookie) = HeaderValue::from_bytes(cookie) else { return };
    let path = std::str::from_utf8(path).ok().filter(|path| path.starts_with('/')).unwrap_or("/");
    let conn = conn();
    let caller = Caller { address: conn.remote, internal: false, edge: true };
    let policy = |source, terminal| HashPolicy { source, terminal };
    let by_cookie = HashSource::Cookie {
        name: "user".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/".into(),
        attributes: Box::default(),
    };
    let cookies = [policy(by_cookie, false)];
    let mut head = request(path);
    head.headers.insert(header::COOKIE, cookie);
    let first = hash_request(&cookies, &head, &conn, caller);
    assert!(first.hash.is_some(), "a cookie is found or made");
    assert!(first.cookies.len() <= 1, "more than one cookie is made");
    for made in &first.cookies {
        let text = made.to_str().expect("what is made is plain text");
        let pair = text.split(';').next().unwrap_or_default();
        let mut again = request(path);
        again.headers.insert(header::COOKIE, pair.parse().expect("a value"));
        let second = hash_request(&cookies, &again, &conn, caller);
        assert_eq!((second.hash, second.cookies.len()), (first.hash, 0), "{pair} leads elsewhere");
    }
    lines_and_lists(&head, path, &conn, caller);
}

/// Two lines are not one after the other, and what comes after the last policy that counts does not.
fn lines_and_lists(head: &Head, path: &str, conn: &ConnInfo, caller: Caller) {
    let policy = |source, terminal| HashPolicy { source, terminal };
    let header = [policy(HashSource::Header(header::COOKIE, None), false)];
    let (one, two) = (head.headers[header::COOKIE].clone(), HeaderValue::from_static("other=1"));
    let of = |values: [&HeaderValue; 2]| {
        let mut head = request(path);
        for value in values {
            head.headers.append(header::COOKIE, value.clone());
        }
        hash_request(&header, &head, conn, caller).hash
    };
    assert_eq!(of([&one, &two]), of([&two, &one]), "the order of lines counts");
    let query = || HashSource::Query("q".into());
    let alone = hash_request(&[policy(query(), true)], head, conn, caller).hash;
    let both = hash_request(&[policy(query(), true), policy(HashSource::SourceIp, false)], head, conn, caller).hash;
    let address = hash_request(&[policy(HashSource::SourceIp, false)], head, conn, caller).hash;
    assert_eq!(both, alone.or(address), "a policy that ends the list did not");
}

fn cookies() -> Vec<Vec<u8>> {
    seeds(&[
        b"a=1; user=\"x\"; b=2\n/?q=1",
        b"user=\n/x?q=&q=2",
        b"user\n/?p=1&q",
        b"userx=1; user =2;user=3",
        b"user=\"\"; user=a\n/?q=%00#f",
        b"; ;=;user==",
    ])
}

/// A reader of its own: at most eight digits and a unit.
fn told(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    // Of each unit, how many nanoseconds it has or how many seconds.
    let (nanos, seconds) = match unit {
        b'H' => (0, 3600),
        b'M' => (0, 60),
        b'S' => (0, 1),
        b'm' => (1_000_000, 0),
        b'u' => (1_000, 0),
        b'n' => (1, 0),
        _ => return None,
    };
    Some(Duration::from_secs(count * seconds) + Duration::from_nanos(count * nanos))
}

/// A deadline is what it says, never beyond the bound of the route; what is none changes nothing.
fn grpc_timeout(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let Some((_, _, door)) = DOORS.first() else { return };
    let conn = conn();
    let caller = Caller { address: conn.remote, internal: false, edge: true };
    let mut head = Head { method: Method::POST, ..request("/a.B/C") };
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(HeaderName::from_static("grpc-timeout"), value.clone());
    let (moment, mut random) = (Moment::default(), Random::new(1));
    let decision = decide(&door.config, &door.hcm, Some(&door.table), &conn, caller, &head, moment, &mut random);
    let Decision::Forward(forward) = decision else { panic!("{value:?} is answered here") };
    let wanted = told(input).map_or(PLAIN, |told| told.min(LONGEST));
    assert_eq!(forward.timeouts.max_stream, Some(wanted), "{value:?}");
}

fn timeouts() -> Vec<Vec<u8>> {
    seeds(&[b"1S", b"99999999H", b"4999m", b"0n", b"123456789S", b"+1S", b" 1S", b"1s", b"S", b"1.5S", b"00000005S"])
}

/// What is written with escapes is read as it was, and pairs are as many as there are between separators.
fn admin_query(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let pairs = fuzzing::admin_query(text);
        assert!(pairs.len() <= text.split('&').count(), "{pairs:?} of {text:?}");
        let escaped: String = input.iter().map(|byte| format!("%{byte:02x}")).collect();
        let read = fuzzing::admin_query(&format!("k{escaped}={escaped}"));
        let wanted = [(format!("k{text}"), text.to_owned())];
        assert_eq!(read, wanted, "escapes are not what they stand for");
    }
}

fn queries() -> Vec<Vec<u8>> {
    seeds(&[b"graceful", b"filter=a%2Eb&format=json", b"level=info&&=&x", b"a=%zz%4&b=+%2b", b"resource=a=b&a"])
}

/// Whatever a file says, it is read the same twice, and what it names can be encoded and read again.
fn bootstrap_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Long texts are slow and say nothing new.
    if text.len() > 4096 {
        return;
    }
    let read = fuzzing::bootstrap_file(text);
    assert_eq!(read, fuzzing::bootstrap_file(text), "read otherwise the second time");
    let Ok((parts, _)) = read else { return };
    for (part, body) in parts {
        let whole = match part {
            0 => Cluster::decode(&*body).is_ok(),
            1 => listener::Listener::decode(&*body).is_ok(),
            _ => true,
        };
        assert!(whole, "part {part} is no message of its type");
    }
}

fn bootstraps() -> Vec<Vec<u8>> {
    seeds(&[
        b"static_resources:\n  clusters:\n  - {name: c, type: STATIC, connect_timeout: 1.5s}\n  listeners: []\n",
        b"{\"static_resources\": {\"listeners\": [{\"name\": \"l\", \"address\": {\"socket_address\": {\"address\": \"::1\", \"port_value\": 1}}}]}}",
        b"node: {id: a}\nadmin: {}\nlayered_runtime: {layers: [{name: s, static_layer: {a: 1, b: {c: x}}}]}\n",
        b"a: &a [b]\nc: *a\n",
        b"static_resources: {clusters: [{name: c, load_assignment: {cluster_name: c, endpoints: [{}]}}]}\n---\nx: y\n",
        b"",
        b"{\"static_resources\": null}",
    ])
}

/// A file of another node gives nothing, a damaged one nothing or an error; never more than it holds, and never a key.
fn saved_state(input: &[u8]) {
    // A state as it is written, damaged by the input: the first two bytes say where.
    let whole = fuzzing::saved_state_sample();
    for bytes in [input.to_vec(), damaged(&whole, input)] {
        if let Ok(Some(bodies)) = fuzzing::saved_state(&bytes, b"node") {
            let held: usize = bodies.iter().sum();
            assert!(held <= bytes.len(), "{held} bytes out of {}", bytes.len());
        }
        let other = fuzzing::saved_state(&bytes, b"another node, whose name nobody guesses");
        assert!(matches!(other, Ok(None) | Err(())), "another node's configuration is taken");
    }
}

fn damaged(whole: &[u8], input: &[u8]) -> Vec<u8> {
    let (at, with) = match input {
        [a, b, rest @ ..] => (usize::from(u16::from_be_bytes([*a, *b])) % (whole.len() + 1), rest),
        _ => return whole.to_vec(),
    };
    let end = whole.len().min(at + with.len());
    [&whole[..at], with, &whole[end..]].concat()
}

fn states() -> Vec<Vec<u8>> {
    vec![fuzzing::saved_state_sample(), b"tombolo-gateway-state-1\n".to_vec(), vec![0, 30, 255, 255], vec![0, 0]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_reader_of_deadlines_reads_them() {
        let secs = Duration::from_secs;
        for (text, wanted) in
            [("2S", Some(secs(2))), ("99999999H", Some(secs(359_999_996_400))), ("x", None), ("123456789n", None)]
        {
            assert_eq!(told(text.as_bytes()), wanted, "{text}");
        }
    }
}
