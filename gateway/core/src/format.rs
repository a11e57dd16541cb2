//! Values made of text and operators (`%REQ(x-a)%`), as header mutations, local replies and path rewrites use them.
//!
//! Owns the compiled form. An operator that is not known is refused when compiled, never rendered as nothing. Access log
//! lines have a larger set of operators and live in `accesslog`.

use crate::{
    failure::Flags,
    head::{ConnInfo, Head, Name},
};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    /// As written.
    pub text: Arc<str>,
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Box<str>),
    /// With a bound on the length in bytes.
    Operator(Operator, Option<usize>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operator {
    /// First header, and the one that is taken when that is absent; without the query when asked.
    Request(Name, Option<Name>, bool),
    Response(HeaderName, Option<HeaderName>),
    Protocol,
    Address(Side, Part),
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags(bool),
    UpstreamCluster,
    UpstreamHost,
    RouteName,
    VirtualHost,
    ServerName,
    TlsVersion,
    TlsCipher,
    PeerUriSan,
    PeerDnsSan,
    PeerSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint,
    PeerCert,
    LocalUriSan,
    LocalSubject,
    LocalReplyBody,
    AttemptCount,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Remote,
    DirectRemote,
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Whole,
    Ip,
    Port,
}

/// What operators read. Unknown things are left `None` or empty and render as nothing.
#[derive(Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The request.
    pub head: Option<&'a Head>,
    /// The connection.
    pub conn: Option<&'a ConnInfo>,
    /// The client's address when it is not the connection's (trusted `x-forwarded-for`).
    pub client: Option<SocketAddr>,
    /// Status of the response.
    pub status: Option<u16>,
    /// Headers of the response.
    pub response: Option<&'a HeaderMap>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the virtual host.
    pub virtual_host: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
    /// Tries so far.
    pub attempts: u32,
    /// Body of an answer made here.
    pub local_reply: &'a str,
}

impl Format {
    /// Compiles.
    ///
    /// # Errors
    /// When an operator is not known or not closed; says so in lower case.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(rest.get(..at).unwrap_or_default());
            rest = rest.get(at + 1..).unwrap_or_default();
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (operator, bound, after) = parse_operator(rest)?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Piece::Operator(operator, bound));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The text, when there are no operators.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Renders. What is not known renders as nothing.
    #[must_use]
    pub fn render(&self, facts: &Facts<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Operator(operator, bound) => {
                    let start = out.len();
                    operator.render(facts, &mut out);
                    if let Some(bound) = bound {
                        out.truncate((start + bound).min(out.len()));
                    }
                }
            }
        }
        out
    }
}

/// `NAME`, `NAME(ARGUMENT)` or `NAME(ARGUMENT):LENGTH`, up to the closing percent sign.
fn parse_operator(text: &str) -> Result<(Operator, Option<usize>, &str), String> {
    let name_end =
        text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (arg, after) = inside.split_once(')').ok_or_else(|| format!("%{name}( is not closed"))?;
        argument = Some(arg);
        rest = after;
    }
    let mut bound = None;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find('%').ok_or_else(|| format!("%{name} is not closed"))?;
        let (digits, after) = after.split_at(end);
        bound = Some(digits.parse().map_err(|_| format!("%{name}: {digits:?} is not a length"))?);
        rest = after;
    }
    let after = rest.strip_prefix('%').ok_or_else(|| format!("%{name} is not an operator"))?;
    Ok((operator(name, argument)?, bound, after))
}

fn operator(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    use Operator as O;
    let need = || argument.ok_or_else(|| format!("%{name}% needs a name in parentheses"));
    let found = match name {
        "REQ" => {
            let (first, second) = alternatives(need()?);
            O::Request(Name::parse(first)?, second.map(Name::parse).transpose()?, false)
        }
        "REQ_WITHOUT_QUERY" => {
            let (first, second) = alternatives(need()?);
            O::Request(Name::parse(first)?, second.map(Name::parse).transpose()?, true)
        }
        "RESP" => {
            let (first, second) = alternatives(need()?);
            O::Response(header(first)?, second.map(header).transpose()?)
        }
        _ => return plain_operator(name, argument),
    };
    Ok(found)
}

fn plain_operator(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    use Operator as O;
    if let Some(argument) = argument {
        return Err(format!("%{name}({argument})% is not supported"));
    }
    Ok(match name {
        "PROTOCOL" => O::Protocol,
        "DOWNSTREAM_REMOTE_ADDRESS" => O::Address(Side::Remote, Part::Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => O::Address(Side::Remote, Part::Ip),
        "DOWNSTREAM_REMOTE_PORT" => O::Address(Side::Remote, Part::Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => O::Address(Side::DirectRemote, Part::Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => O::Address(Side::DirectRemote, Part::Ip),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => O::Address(Side::DirectRemote, Part::Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => O::Address(Side::Local, Part::Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => O::Address(Side::Local, Part::Ip),
        "DOWNSTREAM_LOCAL_PORT" => O::Address(Side::Local, Part::Port),
        "RESPONSE_CODE" => O::ResponseCode,
        "RESPONSE_CODE_DETAILS" => O::ResponseCodeDetails,
        "RESPONSE_FLAGS" => O::ResponseFlags(false),
        "RESPONSE_FLAGS_LONG" => O::ResponseFlags(true),
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => O::UpstreamCluster,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => O::UpstreamHost,
        "ROUTE_NAME" => O::RouteName,
        "VIRTUAL_HOST_NAME" => O::VirtualHost,
        "REQUESTED_SERVER_NAME" => O::ServerName,
        "DOWNSTREAM_TLS_VERSION" => O::TlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => O::TlsCipher,
        "DOWNSTREAM_PEER_URI_SAN" => O::PeerUriSan,
        "DOWNSTREAM_PEER_DNS_SAN" => O::PeerDnsSan,
        "DOWNSTREAM_PEER_SUBJECT" => O::PeerSubject,
        "DOWNSTREAM_PEER_ISSUER" => O::PeerIssuer,
        "DOWNSTREAM_PEER_SERIAL" => O::PeerSerial,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => O::PeerFingerprint,
        "DOWNSTREAM_PEER_CERT" => O::PeerCert,
        "DOWNSTREAM_LOCAL_URI_SAN" => O::LocalUriSan,
        "DOWNSTREAM_LOCAL_SUBJECT" => O::LocalSubject,
        "LOCAL_REPLY_BODY" => O::LocalReplyBody,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => O::AttemptCount,
        _ => return Err(format!("%{name}% is not supported")),
    })
}

fn alternatives(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    }
}

fn header(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes()).map_err(|_| format!("{text:?} is not a header name"))
}

impl Operator {
    fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let peer = || facts.conn.and_then(|c| c.tls.as_ref()).and_then(|t| t.peer.as_ref());
        let tls = || facts.conn.and_then(|c| c.tls.as_ref());
        let mut text = |text: &str| out.extend_from_slice(text.as_bytes());
        match self {
            Self::Request(first, second, without_query) => request(facts, first, second.as_ref(), *without_query, out),
            Self::Response(first, second) => {
                let found = facts.response.and_then(|r| r.get(first).or_else(|| r.get(second.as_ref()?)));
                out.extend_from_slice(found.map_or(b"", |v| v.as_bytes()));
            }
            Self::Protocol => text(facts.head.map_or("", |h| h.protocol.as_str())),
            Self::Address(side, part) => address(facts, *side, *part, out),
            Self::ResponseCode => number(facts.status.map_or(0, u64::from), out),
            Self::ResponseCodeDetails => text(facts.details),
            Self::ResponseFlags(false) => facts.flags.write_short(out),
            Self::ResponseFlags(true) => facts.flags.write_long(out),
            Self::UpstreamCluster => text(facts.cluster),
            Self::UpstreamHost => text(&facts.upstream.map(|a| a.to_string()).unwrap_or_default()),
            Self::RouteName => text(facts.route),
            Self::VirtualHost => text(facts.virtual_host),
            Self::ServerName => text(facts.conn.map_or("", |c| &c.sni)),
            Self::TlsVersion => text(tls().map_or("", |t| t.version)),
            Self::TlsCipher => text(tls().map_or("", |t| t.cipher)),
            Self::PeerUriSan => text(&peer().map(|p| p.uris.join(",")).unwrap_or_default()),
            Self::PeerDnsSan => text(&peer().map(|p| p.dns.join(",")).unwrap_or_default()),
            Self::PeerSubject => text(peer().map_or("", |p| &p.subject)),
            Self::PeerIssuer => text(peer().map_or("", |p| &p.issuer)),
            Self::PeerSerial => text(peer().map_or("", |p| &p.serial)),
            Self::PeerFingerprint => text(peer().map_or("", |p| &p.sha256)),
            Self::PeerCert => text(peer().map_or("", |p| &p.pem)),
            Self::LocalUriSan => text(&tls().map(|t| t.local_uris.join(",")).unwrap_or_default()),
            Self::LocalSubject => text(tls().map_or("", |t| &t.local_subject)),
            Self::LocalReplyBody => text(facts.local_reply),
            Self::AttemptCount => number(u64::from(facts.attempts), out),
        }
    }
}

fn request(facts: &Facts<'_>, first: &Name, second: Option<&Name>, without_query: bool, out: &mut Vec<u8>) {
    let found = facts.head.and_then(|head| head.value(first).or_else(|| head.value(second?)));
    let mut value = found.unwrap_or_default();
    if without_query {
        value = value.split(|b| *b == b'?').next().unwrap_or_default();
    }
    out.extend_from_slice(value);
}

fn address(facts: &Facts<'_>, side: Side, part: Part, out: &mut Vec<u8>) {
    let Some(conn) = facts.conn else { return };
    let found = match side {
        Side::Remote => facts.client.or(conn.remote),
        Side::DirectRemote => conn.direct_remote,
        Side::Local => conn.local,
    };
    let Some(found) = found else { return };
    let mut text: SmallVec<[u8; 64]> = SmallVec::new();
    let mut sink = Sink(&mut text);
    // Writing to memory cannot fail.
    let _ = match part {
        Part::Whole => write!(sink, "{found}"),
        Part::Ip => write!(sink, "{}", found.ip()),
        Part::Port => write!(sink, "{}", found.port()),
    };
    out.extend_from_slice(&text);
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

struct Sink<'a>(&'a mut SmallVec<[u8; 64]>);

impl std::fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let mut head = Head { path: "/p?q=1".into(), ..Head::default() };
        head.headers.insert("x-src", "hey".parse().unwrap());
        let conn = ConnInfo { remote: Some("1.2.3.4:5".parse().unwrap()), ..ConnInfo::default() };
        let facts = Facts {
            head: Some(&head),
            conn: Some(&conn),
            status: Some(200),
            cluster: "c",
            route: "r",
            ..Facts::default()
        };
        assert_eq!(String::from_utf8(Format::parse(text).unwrap().render(&facts)).unwrap(), expect);
    }

    #[test]
    fn operators_render() {
        check("plain", "plain");
        check(
            "%REQ(X-SRC?:PATH)%|%PROTOCOL%|%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%REQ(:METHOD):2%|100%%",
            "hey|HTTP/1.1|1.2.3.4|GE|100%",
        );
        check("%REQ(nope?:PATH)%", "/p?q=1");
        check("%REQ_WITHOUT_QUERY(:PATH)%", "/p");
        check("a%REQ(nope)%b", "ab");
        check("%RESPONSE_CODE%|%UPSTREAM_CLUSTER%|%ROUTE_NAME%", "200|c|r");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in ["%NOPE%", "%REQ%", "%REQ(x%", "50%", "%REQ(a):x%", "%PROTOCOL(x)%", "%REQ(a b)%"] {
            assert!(Format::parse(bad).is_err(), "{bad:?} should be refused");
        }
    }
}
