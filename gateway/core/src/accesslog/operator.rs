//! Owns the operators of a line: their names, their arguments, and what each reads from a record.
//!
//! Reading yields a value that borrows from the record; how it is written is up to text and JSON.

use super::metadata::Path;
use super::record::{Record, Times};
use super::target::{From, ServerName, Shown, queries, query, server_name};
use super::time::TimeFormat;
use crate::config::Value;
use crate::failure::Flags;
use crate::format::Facts;
use crate::head::{Name, PeerCertificate, TlsInfo};
use crate::names;
use http::HeaderName;
use std::net::SocketAddr;

/// What an operator found.
pub(super) enum Found<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Number(u64),
    Address(SocketAddr, Part),
    Flags(Flags, bool),
    List(&'a [String]),
    Time(&'a TimeFormat, u64),
    GrpcStatus(u32, GrpcForm),
    Value(&'a Value),
    Owned(String),
}

/// A part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Ip,
    Port,
    /// So many bits of the address.
    Network(u8),
}

/// How a gRPC status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// A moment in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Start,
    RequestEnd,
    ConnectBegin,
    ConnectEnd,
    HandshakeEnd,
    PoolReady,
    SendBegin,
    SendEnd,
    ReceiveBegin,
    BodyBegin,
    ReceiveEnd,
    ResponseBegin,
    ResponseEnd,
    End,
}

/// Addresses of both connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Remote,
    DirectRemote,
    Local,
    UpstreamHost,
    UpstreamLocal,
    UpstreamRemote,
}

/// A text that is a field of the record.
type Text = for<'r> fn(&Record<'r>) -> &'r str;
/// A number that is a field of the record.
type Number = fn(&Record<'_>) -> Option<u64>;
/// Texts of TLS with the client.
type Tls = fn(&TlsInfo) -> &str;
type Peer = fn(&PeerCertificate) -> &str;

/// An operator with its arguments.
#[derive(Debug, Clone)]
pub(super) enum Operator {
    Request {
        first: Name,
        second: Option<Name>,
        without_query: bool,
    },
    Response {
        first: HeaderName,
        second: Option<HeaderName>,
    },
    Trailer {
        first: HeaderName,
        second: Option<HeaderName>,
    },
    Query(Box<str>),
    /// The whole query, decoded when asked.
    Queries(bool),
    Path(Shown),
    ServerName(ServerName, From),
    Environment(Box<str>),
    Metadata(Path),
    /// Details, with spaces as they are when asked.
    Details(bool),
    Protocol,
    Flags(bool),
    StartTime(TimeFormat),
    EndTime(TimeFormat),
    /// Between two moments, in units of so many microseconds.
    Between(Moment, Moment, u64),
    Address(Whose, Part),
    GrpcStatus(GrpcForm),
    Text(Text),
    Number(Number),
    Tls(Tls),
    LocalUris,
    Peer(Peer),
    PeerUris,
    PeerDns,
    /// Known, but this gateway has nothing that it could show.
    Absent,
}

const MILLIS: u64 = 1000;

impl Operator {
    /// Reads a name and what stood in its parentheses.
    pub(super) fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        if let Some(operator) = with_argument(name, argument)? {
            return Ok(operator);
        }
        if argument.is_some() {
            return Err(format!("%{name}% takes nothing in parentheses, or is not known"));
        }
        timing(name)
            .or_else(|| address(name))
            .or_else(|| size(name))
            .or_else(|| text(name))
            .or_else(|| tls(name))
            .ok_or_else(|| format!("%{name}% is not a known operator"))
    }

    pub(super) fn find<'a>(&'a self, record: &'a Record<'a>) -> Found<'a> {
        let facts = &record.facts;
        let tls = || facts.conn.and_then(|conn| conn.tls.as_deref());
        let peer = || tls().and_then(|tls| tls.peer.as_ref());
        match self {
            Self::Request { first, second, without_query } => request(record, first, second.as_ref(), *without_query),
            Self::Response { first, second } => header(facts.response, first, second.as_ref()),
            Self::Trailer { first, second } => header(record.trailers, first, second.as_ref()),
            Self::Query(name) => facts.head.map_or(Found::Nothing, |head| query(&head.path, name)),
            Self::Protocol => {
                let protocol = facts.head.map(|head| head.protocol).or(facts.unheard);
                protocol.map_or(Found::Nothing, |protocol| bytes(protocol.as_str()))
            }
            Self::Flags(long) => Found::Flags(facts.flags, *long),
            Self::Queries(decoded) => facts.head.map_or(Found::Nothing, |head| queries(&head.path, *decoded)),
            Self::Path(shown) => shown.find(facts),
            Self::ServerName(which, from) => which.find(*from, facts),
            Self::Environment(name) => environment(facts, name),
            Self::Metadata(path) => path.find(record),
            Self::Details(spaces) => details(facts.details, *spaces),
            Self::StartTime(format) => Found::Time(format, facts.start),
            Self::EndTime(format) => Found::Time(format, facts.start + record.times.end.unwrap_or(0)),
            Self::Between(from, to, unit) => between(&record.times, *from, *to, *unit),
            Self::Address(whose, part) => match whose.find(record) {
                Some(address) => Found::Address(address, *part),
                None if whose.is_downstream() && *part != Part::Port => bytes(facts.conn.map_or("", |conn| &conn.pipe)),
                None => Found::Nothing,
            },
            Self::GrpcStatus(form) => grpc_status(record).map_or(Found::Nothing, |code| Found::GrpcStatus(code, *form)),
            Self::Text(read) => bytes(read(record)),
            Self::Number(read) => read(record).map_or(Found::Nothing, Found::Number),
            Self::Tls(read) => tls().map_or(Found::Nothing, |tls| bytes(read(tls))),
            Self::LocalUris => tls().map_or(Found::Nothing, |tls| list(&tls.local_uris)),
            Self::Peer(read) => peer().map_or(Found::Nothing, |peer| bytes(read(peer))),
            Self::PeerUris => peer().map_or(Found::Nothing, |peer| list(&peer.uris)),
            Self::PeerDns => peer().map_or(Found::Nothing, |peer| list(&peer.dns)),
            Self::Absent => Found::Nothing,
        }
    }

    /// Whether metadata of the cluster or endpoint is read.
    pub(super) fn reads_metadata(&self) -> bool {
        matches!(self, Self::Metadata(path) if path.is_of_upstream())
    }
}

fn with_argument(name: &str, argument: Option<&str>) -> Result<Option<Operator>, String> {
    let need =
        || argument.filter(|text| !text.is_empty()).ok_or_else(|| format!("%{name}% needs a name in parentheses"));
    let time = || argument.filter(|text| !text.is_empty()).map_or(Ok(TimeFormat::standard()), TimeFormat::parse);
    Ok(Some(match name {
        "REQ" | "REQUEST_HEADER" | "REQ_WITHOUT_QUERY" => {
            let (first, second) = alternatives(need()?);
            let (first, second) = (Name::parse(first)?, second.map(Name::parse).transpose()?);
            Operator::Request { first, second, without_query: name == "REQ_WITHOUT_QUERY" }
        }
        "RESP" | "RESPONSE_HEADER" | "TRAILER" | "RESPONSE_TRAILER" => {
            let (first, second) = alternatives(need()?);
            let (first, second) = (header_name(first)?, second.map(header_name).transpose()?);
            match name {
                "RESP" | "RESPONSE_HEADER" => Operator::Response { first, second },
                _ => Operator::Trailer { first, second },
            }
        }
        "QUERY_PARAM" => Operator::Query(need()?.into()),
        "QUERY_PARAMS" => Operator::Queries(match argument {
            None | Some("" | "ORIG") => false,
            Some("DECODED") => true,
            Some(other) => return Err(format!("%QUERY_PARAMS% has no form {other:?}")),
        }),
        "PATH" => Operator::Path(Shown::parse(argument.unwrap_or_default())?),
        "REQUESTED_SERVER_NAME" => server_name(argument.unwrap_or_default())?,
        "ENVIRONMENT" => Operator::Environment(need()?.into()),
        "RESPONSE_CODE_DETAILS" => Operator::Details(match argument {
            None | Some("") => false,
            Some("ALLOW_WHITESPACES") => true,
            Some(other) => return Err(format!("%RESPONSE_CODE_DETAILS% has no form {other:?}")),
        }),
        "START_TIME" => Operator::StartTime(time()?),
        "EMIT_TIME" => Operator::EndTime(time()?),
        "COMMON_DURATION" => common_duration(need()?)?,
        "GRPC_STATUS" => Operator::GrpcStatus(match argument {
            None | Some("" | "CAMEL_STRING") => GrpcForm::Camel,
            Some("SNAKE_STRING") => GrpcForm::Snake,
            Some("NUMBER") => GrpcForm::Number,
            Some(other) => return Err(format!("%GRPC_STATUS% has no form {other:?}")),
        }),
        "DYNAMIC_METADATA" | "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA" => {
            Operator::Metadata(Path::parse(name, need()?)?)
        }
        // Nothing here leaves objects for others to read.
        "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => filter_state(name, need()?)?,
        _ => match (network_of(name), argument) {
            (Some(whose), Some(bits)) => Operator::Address(whose, Part::Network(prefix(bits)?)),
            _ => return Ok(None),
        },
    }))
}

/// `KEY`, `KEY:PLAIN`, `KEY:TYPED` or `KEY:FIELD:NAME`.
fn filter_state(name: &str, argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':').skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (None | Some("PLAIN" | "TYPED"), None, None) | (Some("FIELD"), Some(_), None) => Ok(Operator::Absent),
        _ => Err(format!("%{name}({argument})% is not KEY, KEY:PLAIN, KEY:TYPED or KEY:FIELD:NAME")),
    }
}

/// Whose address, of operators that take a number of bits.
fn network_of(name: &str) -> Option<Whose> {
    match (name.ends_with("_ADDRESS_WITHOUT_PORT"), address(name)) {
        (true, Some(Operator::Address(whose, _))) => Some(whose),
        _ => None,
    }
}

fn prefix(bits: &str) -> Result<u8, String> {
    bits.parse().ok().filter(|bits| *bits <= 128).ok_or_else(|| format!("{bits:?} is not a number of bits"))
}

/// An absent variable is told apart from nothing, also where nothing is left out.
fn environment<'a>(facts: &Facts<'a>, name: &str) -> Found<'a> {
    Found::Bytes(facts.around.environment.and_then(|all| all.get(name)).map_or(b"-", |value| value.as_bytes()))
}

fn details(text: &str, spaces: bool) -> Found<'_> {
    if spaces || !text.contains(char::is_whitespace) {
        return bytes(text);
    }
    Found::Owned(text.split(char::is_whitespace).collect::<Vec<_>>().join("_"))
}

fn timing(name: &str) -> Option<Operator> {
    use Moment as M;
    let (from, to) = match name {
        "DURATION" => (M::Start, M::End),
        "REQUEST_DURATION" => (M::Start, M::RequestEnd),
        "REQUEST_TX_DURATION" => (M::Start, M::SendEnd),
        "RESPONSE_DURATION" => (M::Start, M::ReceiveBegin),
        "RESPONSE_TX_DURATION" => (M::ReceiveBegin, M::ResponseEnd),
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => (M::Start, M::PoolReady),
        "DOWNSTREAM_HANDSHAKE_DURATION" => {
            return Some(Operator::Number(|record| record.times.downstream_handshake.map(|time| time / MILLIS)));
        }
        _ => return None,
    };
    Some(Operator::Between(from, to, MILLIS))
}

fn common_duration(argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':');
    let (Some(from), Some(to), Some(unit), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(format!("%COMMON_DURATION({argument})% is not START:END:UNIT"));
    };
    let unit = match unit {
        "ms" => MILLIS,
        "us" => 1,
        other => return Err(format!("%COMMON_DURATION% has no unit {other:?}")),
    };
    Ok(Operator::Between(moment(from)?, moment(to)?, unit))
}

fn moment(name: &str) -> Result<Moment, String> {
    Ok(match name {
        "DS_RX_BEG" => Moment::Start,
        "DS_RX_END" => Moment::RequestEnd,
        "US_CX_BEG" => Moment::ConnectBegin,
        "US_CX_END" => Moment::ConnectEnd,
        "US_HS_END" => Moment::HandshakeEnd,
        "US_TX_BEG" => Moment::SendBegin,
        "US_TX_END" => Moment::SendEnd,
        "US_RX_BEG" => Moment::ReceiveBegin,
        "US_RX_BODY_BEG" => Moment::BodyBegin,
        "US_RX_END" => Moment::ReceiveEnd,
        "DS_TX_BEG" => Moment::ResponseBegin,
        "DS_TX_END" => Moment::ResponseEnd,
        other => return Err(format!("%COMMON_DURATION% has no moment {other:?}")),
    })
}

fn address(name: &str) -> Option<Operator> {
    if name == "UPSTREAM_HOST" {
        // It has no forms for a part of it.
        return Some(Operator::Address(Whose::UpstreamHost, Part::Whole));
    }
    let (base, part) = match name.strip_suffix("_ADDRESS_WITHOUT_PORT") {
        Some(base) => (base, Part::Ip),
        None => match (name.strip_suffix("_ADDRESS"), name.strip_suffix("_PORT")) {
            (Some(base), _) => (base, Part::Whole),
            (_, Some(base)) => (base, Part::Port),
            _ => return None,
        },
    };
    let whose = match base {
        "DOWNSTREAM_REMOTE" => Whose::Remote,
        "DOWNSTREAM_DIRECT_REMOTE" => Whose::DirectRemote,
        "DOWNSTREAM_LOCAL" | "DOWNSTREAM_DIRECT_LOCAL" => Whose::Local,
        "UPSTREAM_LOCAL" => Whose::UpstreamLocal,
        "UPSTREAM_REMOTE" => Whose::UpstreamRemote,
        _ => return None,
    };
    Some(Operator::Address(whose, part))
}

fn size(name: &str) -> Option<Operator> {
    Some(Operator::Number(match name {
        "RESPONSE_CODE" => |record| Some(u64::from(record.facts.status.unwrap_or(0))),
        "BYTES_RECEIVED" => |record| Some(record.bytes.received),
        "BYTES_SENT" => |record| Some(record.bytes.sent),
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => |record| Some(record.bytes.downstream_wire_received),
        "DOWNSTREAM_WIRE_BYTES_SENT" => |record| Some(record.bytes.downstream_wire_sent),
        "DOWNSTREAM_HEADER_BYTES_RECEIVED" => |record| Some(record.bytes.downstream_header_received),
        "DOWNSTREAM_HEADER_BYTES_SENT" => |record| Some(record.bytes.downstream_header_sent),
        "UPSTREAM_WIRE_BYTES_RECEIVED" => |record| Some(record.bytes.upstream_wire_received),
        "UPSTREAM_WIRE_BYTES_SENT" => |record| Some(record.bytes.upstream_wire_sent),
        "UPSTREAM_HEADER_BYTES_RECEIVED" => |record| Some(record.bytes.upstream_header_received),
        "UPSTREAM_HEADER_BYTES_SENT" => |record| Some(record.bytes.upstream_header_sent),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => |record| Some(u64::from(record.facts.attempts)),
        "CONNECTION_ID" => |record| record.facts.around.connection_id,
        "UPSTREAM_CONNECTION_ID" => |record| record.upstream.connection_id,
        "GRPC_STATUS_NUMBER" => |record| grpc_status(record).map(u64::from),
        _ => return None,
    }))
}

fn text(name: &str) -> Option<Operator> {
    Some(match name {
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_FLAGS" => Operator::Flags(false),
        "RESPONSE_FLAGS_LONG" => Operator::Flags(true),
        "CONNECTION_TERMINATION_DETAILS" => Operator::Text(|record| record.termination),
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::Text(|record| record.upstream.failure),
        "UPSTREAM_CLUSTER_RAW" => Operator::Text(|record| record.facts.cluster),
        "UPSTREAM_CLUSTER" => Operator::Text(|record| match record.upstream.observed_cluster {
            "" => record.facts.cluster,
            observed => observed,
        }),
        "UPSTREAM_HOST_NAME" | "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::Text(|record| record.upstream.hostname),
        "UPSTREAM_PROTOCOL" => Operator::Text(|record| record.upstream.protocol),
        "ROUTE_NAME" => Operator::Text(|record| record.facts.route),
        "VIRTUAL_HOST_NAME" => Operator::Text(|record| record.facts.virtual_host),
        "FILTER_CHAIN_NAME" => Operator::Text(|record| record.facts.around.filter_chain),
        "HOSTNAME" => Operator::Text(|record| record.facts.around.hostname),
        "STREAM_ID" => {
            Operator::Request { first: Name::Header(names::X_REQUEST_ID), second: None, without_query: false }
        }
        "TRACE_ID" => Operator::Text(|record| record.trace_id),
        "LOCAL_REPLY_BODY" => Operator::Text(|record| record.facts.local_reply),
        "UPSTREAM_TLS_VERSION" => Operator::Text(|record| record.upstream.tls_version),
        "UPSTREAM_TLS_CIPHER" => Operator::Text(|record| record.upstream.tls_cipher),
        "UPSTREAM_PEER_URI_SAN" => Operator::Text(|record| record.upstream.peer_uri_sans),
        "UPSTREAM_PEER_SUBJECT" => Operator::Text(|record| record.upstream.peer_subject),
        "VIRTUAL_CLUSTER_NAME"
        | "DOWNSTREAM_TRANSPORT_FAILURE_REASON"
        | "ACCESS_LOG_TYPE"
        | "DOWNSTREAM_TLS_SESSION_ID" => Operator::Absent,
        _ => return None,
    })
}

fn tls(name: &str) -> Option<Operator> {
    Some(match name {
        "DOWNSTREAM_TLS_VERSION" => Operator::Tls(|tls| tls.version),
        "DOWNSTREAM_TLS_CIPHER" => Operator::Tls(|tls| tls.cipher),
        "DOWNSTREAM_ALPN" => Operator::Tls(|tls| &tls.alpn),
        "DOWNSTREAM_LOCAL_SUBJECT" => Operator::Tls(|tls| &tls.local_subject),
        "DOWNSTREAM_LOCAL_URI_SAN" => Operator::LocalUris,
        "DOWNSTREAM_PEER_SUBJECT" => Operator::Peer(|peer| &peer.subject),
        "DOWNSTREAM_PEER_ISSUER" => Operator::Peer(|peer| &peer.issuer),
        "DOWNSTREAM_PEER_SERIAL" => Operator::Peer(|peer| &peer.serial),
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Operator::Peer(|peer| &peer.sha256),
        "DOWNSTREAM_PEER_CERT" => Operator::Peer(|peer| &peer.pem),
        "DOWNSTREAM_PEER_URI_SAN" => Operator::PeerUris,
        "DOWNSTREAM_PEER_DNS_SAN" => Operator::PeerDns,
        _ => return None,
    })
}

impl Whose {
    fn is_downstream(self) -> bool {
        matches!(self, Self::Remote | Self::DirectRemote | Self::Local)
    }

    fn find(self, record: &Record<'_>) -> Option<SocketAddr> {
        let (facts, upstream) = (&record.facts, &record.upstream);
        match self {
            Whose::Remote => facts.client.or(facts.conn?.remote),
            Whose::DirectRemote => facts.conn?.direct_remote,
            Whose::Local => facts.conn?.local,
            Whose::UpstreamHost => facts.upstream,
            Whose::UpstreamLocal => upstream.local,
            Whose::UpstreamRemote => upstream.remote.or(facts.upstream),
        }
    }
}

impl Moment {
    fn find(self, times: &Times) -> Option<u64> {
        match self {
            Moment::Start => Some(0),
            Moment::RequestEnd => times.request_end,
            Moment::ConnectBegin => times.connect_begin,
            Moment::ConnectEnd => times.connect_end,
            Moment::HandshakeEnd => times.handshake_end,
            Moment::PoolReady => times.pool_ready,
            Moment::SendBegin => times.upstream_send_begin,
            Moment::SendEnd => times.upstream_send_end,
            Moment::ReceiveBegin => times.upstream_receive_begin,
            Moment::BodyBegin => times.upstream_body_begin,
            Moment::ReceiveEnd => times.upstream_receive_end,
            Moment::ResponseBegin => times.response_begin,
            Moment::ResponseEnd => times.response_end,
            Moment::End => times.end,
        }
    }
}

fn between<'a>(times: &Times, from: Moment, to: Moment, unit: u64) -> Found<'a> {
    match (from.find(times), to.find(times)) {
        (Some(from), Some(to)) if to >= from => Found::Number((to - from) / unit),
        _ => Found::Nothing,
    }
}

fn request<'a>(record: &'a Record<'a>, first: &Name, second: Option<&Name>, without_query: bool) -> Found<'a> {
    let found = record.facts.head.and_then(|head| head.value(first).or_else(|| head.value(second?)));
    match found {
        Some(value) if without_query => Found::Bytes(value.split(|byte| *byte == b'?').next().unwrap_or_default()),
        Some(value) => Found::Bytes(value),
        None => Found::Nothing,
    }
}

fn header<'a>(headers: Option<&'a http::HeaderMap>, first: &HeaderName, second: Option<&HeaderName>) -> Found<'a> {
    let found = headers.and_then(|headers| headers.get(first).or_else(|| headers.get(second?)));
    found.map_or(Found::Nothing, |value| Found::Bytes(value.as_bytes()))
}

/// From the trailers, or from the head when there was nothing else.
fn grpc_status(record: &Record<'_>) -> Option<u32> {
    let read = |headers: &http::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    record.trailers.and_then(read).or_else(|| record.facts.response.and_then(read))
}

pub(super) fn bytes(text: &str) -> Found<'_> {
    if text.is_empty() { Found::Nothing } else { Found::Bytes(text.as_bytes()) }
}

fn list(items: &[String]) -> Found<'_> {
    if items.is_empty() { Found::Nothing } else { Found::List(items) }
}

fn alternatives(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    text.parse().map_err(|_| format!("{text:?} is not a header name"))
}
