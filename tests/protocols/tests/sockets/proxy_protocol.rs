//! The PROXY protocol over sockets: read from clients, written to servers, and what is neither one nor the other.

use crate::{
    serve,
    sink::{Sink, told},
};
use std::net::{IpAddr, SocketAddr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                core::v3::proxy_protocol_config::Version,
                listener::v3::{FilterChainMatch, Listener},
            },
            extensions::filters::listener::{proxy_protocol::v3::ProxyProtocol, tls_inspector::v3::TlsInspector},
        },
        google::protobuf::{BoolValue, Duration},
    },
};
use tombolo_tests_kit::{ads::Ads, free};
use tombolo_tests_protocols::{
    gateway::Gateway,
    recorder::{Recorder, Seen},
    resources,
    wire1::{PATIENCE, Wire},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// The addresses of a version 2 header.
fn pair(source: &str, destination: &str) -> Vec<u8> {
    let (a, b): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [octets(a.ip()), octets(b.ip()), a.port().to_be_bytes().to_vec(), b.port().to_be_bytes().to_vec()].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// CRC-32C as its definition has it: the remainder of a division, with bits in the order of the wire.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |n| u32::from(byte >> n & 1))) {
        let odd = (rest ^ bit) & 1;
        rest = (rest >> 1) ^ (0x82f6_3b78 * odd);
    }
    rest ^ u32::MAX
}

const FOUR: (&str, &str) = ("1.2.3.4:5", "6.7.8.9:10");
const SIX: (&str, &str) = ("[2001:db8::1]:65535", "[::1]:1");

/// What becomes of a header.
#[derive(Clone, Copy)]
enum Fate {
    /// The server hears of these addresses.
    Told(&'static str, &'static str),
    /// The server hears of the connection's own addresses.
    Own,
    /// The connection ends, and no server hears of it.
    Refused,
}
use Fate::{Own, Refused, Told};

fn version1() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let long = |n: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(n - 16)).into_bytes();
    let text = |line: &str| line.as_bytes().to_vec();
    vec![
        ("TCP4", text("PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"), Told(FOUR.0, FOUR.1)),
        ("TCP6", text("PROXY TCP6 2001:db8::1 ::1 65535 1\r\n"), Told(SIX.0, SIX.1)),
        ("port 0", text("PROXY TCP4 1.2.3.4 6.7.8.9 0 10\r\n"), Told("1.2.3.4:0", FOUR.1)),
        ("UNKNOWN", text("PROXY UNKNOWN\r\n"), Own),
        ("UNKNOWN with addresses", text("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), Own),
        ("as long as may be", long(107), Own),
        ("one byte longer", long(108), Refused),
        ("no end", format!("PROXY TCP4 {}", "x".repeat(200)).into_bytes(), Refused),
        ("small letters", text("proxy TCP4 1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("another family", text("PROXY TCP5 1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("UDP4", text("PROXY UDP4 1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("IPv6 said to be IPv4", text("PROXY TCP4 ::1 ::2 5 10\r\n"), Refused),
        ("IPv4 said to be IPv6", text("PROXY TCP6 1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("mixed families", text("PROXY TCP4 1.2.3.4 ::2 5 10\r\n"), Refused),
        ("a name", text("PROXY TCP4 localhost 6.7.8.9 5 10\r\n"), Refused),
        ("octet too large", text("PROXY TCP4 1.2.3.256 6.7.8.9 5 10\r\n"), Refused),
        ("octets missing", text("PROXY TCP4 1.2.3 6.7.8.9 5 10\r\n"), Refused),
        ("zeros before octets", text("PROXY TCP4 01.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("port too large", text("PROXY TCP4 1.2.3.4 6.7.8.9 65536 10\r\n"), Refused),
        ("signed port", text("PROXY TCP4 1.2.3.4 6.7.8.9 +5 10\r\n"), Refused),
        ("zeros before a port", text("PROXY TCP4 1.2.3.4 6.7.8.9 05 10\r\n"), Refused),
        ("port missing", text("PROXY TCP4 1.2.3.4 6.7.8.9 5\r\n"), Refused),
        ("a word more", text("PROXY TCP4 1.2.3.4 6.7.8.9 5 10 x\r\n"), Refused),
        ("two spaces", text("PROXY TCP4  1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("space at the end", text("PROXY TCP4 1.2.3.4 6.7.8.9 5 10 \r\n"), Refused),
        ("tabs", text("PROXY\tTCP4\t1.2.3.4\t6.7.8.9\t5\t10\r\n"), Refused),
        ("bare LF", text("PROXY TCP4 1.2.3.4 6.7.8.9 5 10\n"), Refused),
        ("scope of IPv6", text("PROXY TCP6 fe80::1%eth0 ::1 5 10\r\n"), Refused),
        ("brackets", text("PROXY TCP6 [::1] [::2] 5 10\r\n"), Refused),
        ("NUL", text("PROXY TCP4 1.2.3.4\0 6.7.8.9 5 10\r\n"), Refused),
        ("high bytes", b"PROXY TCP4 1.2.3.4\xff 6.7.8.9 5 10\r\n".to_vec(), Refused),
        ("nothing but the word", text("PROXY \r\n"), Refused),
        ("cut short", text("PROXY TCP4 1.2.3.4"), Refused),
        ("not at the beginning", text(" PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"), Refused),
        ("HTTP instead", text("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), Refused),
    ]
}

fn version2() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let (four, six) = (pair(FOUR.0, FOUR.1), pair(SIX.0, SIX.1));
    let with = |more: &[u8]| v2(0x21, 0x11, &[&four[..], more].concat());
    let noop = |n: usize| tlv(4, &vec![0; n - 3]);
    let summed = |before: &[u8], after: &[u8]| {
        let mut header = with(&[before, &tlv(3, &[0; 4]), after].concat());
        let sum = crc32c(&header).to_be_bytes();
        let at = 16 + 12 + before.len() + 3;
        header[at..at + 4].copy_from_slice(&sum);
        header
    };
    let changed = |at: usize| {
        let mut header = summed(&tlv(1, b"h2"), b"");
        header[at] ^= 1;
        header
    };
    let twice = {
        let header = summed(b"", b"");
        with(&[&header[28..], &header[28..]].concat())
    };
    let tls = tlv(0x20, &[&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"a")].concat());
    let mut wrong_signature = v2(0x21, 0x11, &four);
    wrong_signature[11] = b'!';
    let mut cut = v2(0x21, 0x11, &four);
    cut.truncate(20);
    vec![
        ("IPv4", v2(0x21, 0x11, &four), Told(FOUR.0, FOUR.1)),
        ("IPv6", v2(0x21, 0x21, &six), Told(SIX.0, SIX.1)),
        ("datagrams over IPv4", v2(0x21, 0x12, &four), Told(FOUR.0, FOUR.1)),
        ("datagrams over IPv6", v2(0x21, 0x22, &six), Told(SIX.0, SIX.1)),
        ("LOCAL", v2(0x20, 0, &[]), Own),
        ("LOCAL with addresses", v2(0x20, 0x11, &four), Own),
        ("LOCAL with anything", v2(0x20, 0xff, b"whatever it is"), Own),
        ("unspecified", v2(0x21, 0, &[]), Own),
        ("unspecified with bytes", v2(0x21, 0, b"whatever"), Own),
        ("Unix", v2(0x21, 0x31, &[7; 216]), Own),
        ("value of ALPN", with(&tlv(1, b"h2")), Told(FOUR.0, FOUR.1)),
        ("value of an authority", with(&tlv(2, b"example.com")), Told(FOUR.0, FOUR.1)),
        ("checksum", summed(b"", b""), Told(FOUR.0, FOUR.1)),
        ("checksum among values", summed(&tlv(1, b"h2"), &tlv(4, b"x")), Told(FOUR.0, FOUR.1)),
        ("checksum that is another", with(&tlv(3, &[1, 2, 3, 4])), Refused),
        ("checksum of another address", changed(16), Refused),
        ("checksum of another port", changed(27), Refused),
        ("checksum of another value", changed(31), Refused),
        ("checksum in other bits", changed(39), Refused),
        ("checksum too short", with(&tlv(3, &[0; 3])), Refused),
        ("checksum too long", with(&tlv(3, &[0; 5])), Refused),
        ("checksum of nothing", with(&tlv(3, b"")), Refused),
        ("two checksums", twice, Refused),
        ("value of TLS", with(&tls), Told(FOUR.0, FOUR.1)),
        ("unknown value", with(&tlv(0xe7, b"x")), Told(FOUR.0, FOUR.1)),
        ("empty value", with(&tlv(5, b"")), Told(FOUR.0, FOUR.1)),
        ("three values", with(&[tlv(1, b"h2"), tlv(2, b"a"), tlv(4, b"")].concat()), Told(FOUR.0, FOUR.1)),
        ("as long as may be", with(&noop(4096 - 12)), Told(FOUR.0, FOUR.1)),
        ("one byte longer", with(&noop(4097 - 12)), Refused),
        ("as long as can be", v2(0x21, 0x11, &[0; 65535]), Refused),
        ("value beyond the header", with(&[1, 0, 9, b'x']), Refused),
        ("value cut short", with(&[1, 0]), Refused),
        ("value of one byte", with(&[1]), Refused),
        ("version 1", v2(0x11, 0x11, &four), Refused),
        ("version 3", v2(0x31, 0x11, &four), Refused),
        ("command 2", v2(0x22, 0x11, &four), Refused),
        ("command 15", v2(0x2f, 0x11, &four), Refused),
        ("unknown family", v2(0x21, 0x41, &four), Refused),
        ("unknown transport", v2(0x21, 0x13, &four), Refused),
        ("IPv4 too short", v2(0x21, 0x11, &four[..11]), Refused),
        ("IPv6 too short", v2(0x21, 0x21, &six[..35]), Refused),
        ("no addresses", v2(0x21, 0x11, &[]), Refused),
        ("wrong signature", wrong_signature, Refused),
        ("cut short", cut, Refused),
        ("signature alone", SIGNATURE.to_vec(), Refused),
    ]
}

struct World {
    gateway: Gateway,
    sink: Sink,
    recorder: Recorder,
    at: [SocketAddr; 8],
    _ads: Ads,
}

/// Listeners, by their place in [`World::at`].
const MUST: usize = 0;
const MAY: usize = 1;
const NO_V1: usize = 2;
const NO_V2: usize = 3;
const PLAIN: usize = 4;
const HTTP: usize = 5;
const TLS: usize = 6;
const SLOW: usize = 7;

fn reading(mut listener: Listener, settings: ProxyProtocol) -> tombolo_controlplane_api::xds::google::protobuf::Any {
    listener.listener_filters.insert(0, resources::listener_filter(pack_any(settings)));
    pack_any(listener)
}

impl World {
    /// Servers are told by headers of this version.
    async fn start(version: Version) -> Self {
        let (sink, recorder) = (Sink::start().await, Recorder::http1().await.unwrap());
        let at: [SocketAddr; 8] = std::array::from_fn(|_| free());
        let mut cluster = resources::raw_cluster("told", resources::tcp_address(sink.address));
        cluster.transport_socket = resources::proxy_socket(version);
        let tcp = |place: usize| resources::tcp_listener(&format!("l{place}"), at[place], "told");
        let deny = |version: Version| ProxyProtocol { disallowed_versions: vec![version as i32], ..Default::default() };
        let may = ProxyProtocol { allow_requests_without_proxy_protocol: true, ..Default::default() };
        let mut hcm = resources::manager("http");
        hcm.use_remote_address = Some(BoolValue { value: true });
        let http = resources::http_listener("http", at[HTTP], hcm);
        let mut tls = tcp(TLS);
        tls.listener_filters = vec![resources::listener_filter(pack_any(TlsInspector::default()))];
        let names = FilterChainMatch { server_names: vec!["a.test".into()], ..Default::default() };
        tls.filter_chains[0].filter_chain_match = Some(names);
        let mut slow = tcp(SLOW);
        slow.listener_filters_timeout = Some(Duration { seconds: 0, nanos: 200_000_000 });
        let (gateway, _ads) = serve(vec![
            pack_any(cluster),
            resources::http1_cluster("http", recorder.address),
            reading(tcp(MUST), ProxyProtocol::default()),
            reading(tcp(MAY), may),
            reading(tcp(NO_V1), deny(Version::V1)),
            reading(tcp(NO_V2), deny(Version::V2)),
            pack_any(tcp(PLAIN)),
            reading(http, ProxyProtocol::default()),
            reading(tls, ProxyProtocol::default()),
            reading(slow, ProxyProtocol::default()),
        ])
        .await;
        Self { gateway, sink, recorder, at, _ads }
    }
}

/// The header that a server is told with.
fn written(version: Version, source: &str, destination: &str) -> Vec<u8> {
    let (a, b): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    if version == Version::V2 {
        return v2(0x21, if a.is_ipv4() { 0x11 } else { 0x21 }, &pair(source, destination));
    }
    let family = if a.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {} {} {} {}\r\n", a.ip(), b.ip(), a.port(), b.port()).into_bytes()
}

async fn check_all(version: Version) {
    let world = World::start(version).await;
    let mut wrong = Vec::new();
    for (name, header, fate) in [version1(), version2()].concat() {
        for bytewise in [false, true] {
            if bytewise && header.len() > 300 {
                continue;
            }
            let before = world.sink.taken();
            let sent = [&header[..], b"payload"].concat();
            // A cut header is cut by the end of the connection.
            let sent = if name == "cut short" || name == "signature alone" { header.clone() } else { sent };
            let at = world.at[MUST];
            let (port, read) = if bytewise { told(at, sent.chunks(1)).await } else { told(at, [&sent]).await };
            let own = written(version, &format!("127.0.0.1:{port}"), &at.to_string());
            let expected = match fate {
                Told(source, destination) => [&written(version, source, destination)[..], b"payload"].concat(),
                Own => [&own[..], b"payload"].concat(),
                Refused => Vec::new(),
            };
            let heard = world.sink.taken() - before;
            if read != expected || heard != usize::from(!matches!(fate, Refused)) {
                let text = read.escape_ascii();
                wrong.push(format!("{name} (byte by byte {bytewise}): {text}, {heard} connections"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.gateway.is_whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_read_and_written_as_version_1() {
    check_all(Version::V1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_read_and_written_as_version_2() {
    check_all(Version::V2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_say_what_they_take() {
    let world = World::start(Version::V1).await;
    let (one, two) = (&b"PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"[..], v2(0x21, 0x11, &pair(FOUR.0, FOUR.1)));
    let said = [one, b"x"].concat();
    // Two headers are one header and a payload.
    for (place, header) in [(MUST, one), (MUST, &two), (MAY, one), (MAY, &two), (NO_V2, one), (NO_V1, &two)] {
        let (_, read) = told(world.at[place], [header, b"x"]).await;
        assert_eq!(read, said, "listener {place}");
        let (_, read) = told(world.at[place], [header, header]).await;
        assert_eq!(read, [one, header].concat(), "listener {place}");
    }
    for (place, header) in [(NO_V1, one), (NO_V2, &two), (MUST, b"no header")] {
        assert_eq!(told(world.at[place], [header, b"x"]).await.1, b"", "listener {place}");
    }
    for (place, sent) in [(MAY, &b"no header"[..]), (MAY, b"PROXIES"), (PLAIN, one), (PLAIN, b"x")] {
        let (port, read) = told(world.at[place], [sent]).await;
        let own = written(Version::V1, &format!("127.0.0.1:{port}"), &world.at[place].to_string());
        assert_eq!(read, [&own[..], sent].concat(), "listener {place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_header_in_its_segment_is_the_payload() {
    let world = World::start(Version::V2).await;
    let two = v2(0x21, 0x11, &[pair(FOUR.0, FOUR.1), tlv(2, b"a.test")].concat());
    for header in [&b"PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"[..], &two] {
        let mut wire = Wire::new(TcpStream::connect(world.at[HTTP]).await.unwrap());
        let request = b"GET /one HTTP/1.1\r\nhost: a\r\n\r\nGET /two HTTP/1.1\r\nhost: a\r\n\r\n";
        wire.send(&[header, request].concat()).await;
        for _ in 0..2 {
            assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200);
        }
        let seen = world.recorder.take();
        let heads = seen.iter().filter_map(|seen| if let Seen::Head(head) = seen { Some(head) } else { None });
        let arrived: Vec<_> = heads.map(|head| (head.target.as_str(), head.all("x-forwarded-for"))).collect();
        assert_eq!(arrived, [("/one", vec!["1.2.3.4"]), ("/two", vec!["1.2.3.4"])]);
        let hello = tombolo_gateway_proxy::fuzzing::sample_hello("a.test");
        let expected = [&written(Version::V2, FOUR.0, FOUR.1)[..], &hello].concat();
        assert_eq!(told(world.at[TLS], [[header, &hello].concat()]).await.1, expected);
        assert_eq!(told(world.at[TLS], [header, &hello].concat().chunks(1)).await.1, expected);
        let other = tombolo_gateway_proxy::fuzzing::sample_hello("b.test");
        assert_eq!(told(world.at[TLS], [[header, &other].concat()]).await.1, b"", "no chain for this name");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_come_is_not_awaited_for_ever() {
    let world = World::start(Version::V1).await;
    for begun in [&b""[..], b"PROXY TCP4 1.2", SIGNATURE] {
        let mut stream = TcpStream::connect(world.at[SLOW]).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && rest.is_empty(), "after {begun:?}: {ended:?}");
    }
    assert_eq!(world.sink.taken(), 0);
}
