//! When bodies are compressed, decompressed or turned into another form of gRPC: what heads say, and what heads say afterwards.
//!
//! Owns the negotiation. The bytes are the I/O layer's business: it gets a list of [`Recode`]s for each direction.

use crate::{
    config::{Coder, Coding, Compressible, Compressor, Decompressor},
    head::Head,
    names,
};
use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;
use std::sync::Arc;

/// A body filter of one request's chain, in the order of the chain.
#[derive(Debug, Clone, PartialEq)]
pub enum BodyFilter {
    /// Compresses. The second is what the client accepts, once [`enter`] saw it.
    Compress(Arc<Compressor>, Option<HeaderValue>),
    /// Decompresses.
    Decompress(Arc<Decompressor>),
    /// Turns gRPC-Web into gRPC and back. The flag is what [`enter`] found of the response that is asked for.
    GrpcWeb(Web),
    /// Keeps the whole request back until it is complete; longer ones get 413.
    Buffer(u64),
}

/// Of what kind a gRPC-Web request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Web {
    /// None at all.
    #[default]
    Not,
    /// The response is binary.
    Binary,
    /// The response is base64.
    Text,
}

/// What is to be done to the bytes of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recode {
    /// Compress.
    Compress(Coder),
    /// Decompress, with the most that a byte may grow to.
    Decompress(Coding, u32),
    /// Base64 becomes bytes.
    FromText,
    /// Trailers become a last frame; the flag says that all becomes base64.
    ToWeb(bool),
    /// Keep back until complete, at most so many bytes.
    Buffer(u64),
}

/// In the order of their application.
pub type Recodes = SmallVec<[Recode; 1]>;

const WEB: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];

fn text_of(name: &header::HeaderName, headers: &HeaderMap) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// True for gRPC-Web requests.
#[must_use]
pub fn is_grpc_web(head: &Head) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| WEB.iter().any(|web| web.as_bytes() == kind))
}

/// Changes a request's head as the filters ask for, and says what happens to its body. `complete`: there is none.
pub fn enter(filters: &mut [BodyFilter], head: &mut Head, complete: bool) -> Recodes {
    let mut out = Recodes::new();
    for filter in filters {
        match filter {
            BodyFilter::Compress(settings, accepted) => {
                enter_compressor(settings, accepted, head, complete, &mut out);
            }
            BodyFilter::Decompress(settings) => enter_decompressor(settings, head, complete, &mut out),
            BodyFilter::GrpcWeb(kind) => enter_web(kind, head, &mut out),
            BodyFilter::Buffer(most) if !complete => out.push(Recode::Buffer(*most)),
            BodyFilter::Buffer(_) => {}
        }
    }
    out
}

fn enter_compressor(
    settings: &Compressor,
    accepted: &mut Option<HeaderValue>,
    head: &mut Head,
    complete: bool,
    out: &mut Recodes,
) {
    if settings.response.is_some() {
        *accepted = head.headers.get(header::ACCEPT_ENCODING).cloned();
        if settings.remove_accept_encoding {
            head.headers.remove(header::ACCEPT_ENCODING);
        }
    }
    let Some(wanted) = settings.request.as_ref().filter(|_| !complete) else { return };
    let length = content_length(&head.headers);
    if wanted.is_long_enough(length.or(Some(u64::MAX)))
        && wanted.has_type(&head.headers)
        && !head.headers.contains_key(header::CONTENT_ENCODING)
    {
        head.headers.remove(header::CONTENT_LENGTH);
        head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(settings.coder.coding().as_str()));
        out.push(Recode::Compress(settings.coder));
    }
}

fn enter_decompressor(settings: &Decompressor, head: &mut Head, complete: bool, out: &mut Recodes) {
    if settings.advertise && settings.request.is_some() {
        advertise(settings.coding, &mut head.headers);
    }
    if let Some(always) = settings.request.filter(|_| !complete)
        && take_coding(settings.coding, always, &mut head.headers)
    {
        out.push(Recode::Decompress(settings.coding, settings.most_growth));
    }
}

/// Adds a coding to what is accepted.
fn advertise(coding: Coding, headers: &mut HeaderMap) {
    let before = text_of(&header::ACCEPT_ENCODING, headers).unwrap_or_default();
    if before.split(',').any(|token| token.trim().eq_ignore_ascii_case(coding.as_str())) {
        return;
    }
    let all = if before.is_empty() { coding.as_str().to_owned() } else { format!("{before},{}", coding.as_str()) };
    crate::request::set_text(headers, header::ACCEPT_ENCODING, &all);
}

fn enter_web(kind: &mut Web, head: &mut Head, out: &mut Recodes) {
    if head.path.is_empty() || !is_grpc_web(head) {
        *kind = Web::Not;
        return;
    }
    let is_text = |value: &HeaderValue| value.as_bytes() == WEB[2].as_bytes() || value.as_bytes() == WEB[3].as_bytes();
    let headers = &mut head.headers;
    if headers.get(header::CONTENT_TYPE).is_some_and(is_text) {
        out.push(Recode::FromText);
    }
    *kind = if headers.get(header::ACCEPT).is_some_and(is_text) { Web::Text } else { Web::Binary };
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.entry(names::GRPC_ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity,deflate,gzip"));
}

/// A response's head, as filters see it.
pub struct Leaving<'h> {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: &'h mut HeaderMap,
    /// There is no body.
    pub complete: bool,
    /// The body's length is not told by a header but by chunks.
    pub chunked: bool,
}

/// Changes a response's head as the filters ask for, and says what happens to its body.
pub fn leave(filters: &[BodyFilter], response: &mut Leaving<'_>) -> Recodes {
    let mut out = Recodes::new();
    if filters.is_empty() {
        return out;
    }
    let chosen = choose(filters, response);
    for (at, filter) in filters.iter().enumerate().rev() {
        match filter {
            BodyFilter::Compress(settings, _) if chosen == Some(at) => compress(settings, response.headers, &mut out),
            BodyFilter::Compress(..) | BodyFilter::Buffer(_) | BodyFilter::GrpcWeb(Web::Not) => {}
            BodyFilter::Decompress(settings) => {
                if let Some(always) = settings.response.filter(|_| !response.complete)
                    && take_coding(settings.coding, always, response.headers)
                {
                    out.push(Recode::Decompress(settings.coding, settings.most_growth));
                }
            }
            BodyFilter::GrpcWeb(kind) => leave_web(*kind, response, &mut out),
        }
    }
    out
}

fn leave_web(kind: Web, response: &mut Leaving<'_>, out: &mut Recodes) {
    let text = kind == Web::Text;
    let name = if text { WEB[3] } else { WEB[1] };
    response.headers.remove(header::CONTENT_LENGTH);
    response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(name));
    if !response.complete {
        out.push(Recode::ToWeb(text));
    }
}

/// Whether a response is neither gRPC nor gRPC-Web, so that a gRPC-Web client can be told of it only by its head.
#[must_use]
pub fn is_foreign_to_web(status: u16, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let plain = kind.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let grpc = plain == "application/grpc" || plain.starts_with("application/grpc+");
    status != 200 || !(grpc || plain == WEB[0] || plain == WEB[1])
}

fn compress(settings: &Compressor, headers: &mut HeaderMap, out: &mut Recodes) {
    let strong = |tag: &HeaderValue| !matches!(tag.as_bytes(), [b'W' | b'w', b'/', ..]);
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| strong(tag)).cloned() {
        headers.remove(header::ETAG);
        if settings.weaken_etag
            && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
        {
            headers.insert(header::ETAG, weak);
        }
    }
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(settings.coder.coding().as_str()));
    out.push(Recode::Compress(settings.coder));
}

/// Which compressor works, if any. Those that could have worked are named in `vary`.
fn choose(filters: &[BodyFilter], response: &mut Leaving<'_>) -> Option<usize> {
    let mut able: SmallVec<[(usize, &Compressor); 2]> = SmallVec::new();
    let mut accepted = None;
    for (at, filter) in filters.iter().enumerate() {
        let BodyFilter::Compress(settings, told) = filter else { continue };
        // The first of them may have removed the header before the others could see it.
        accepted = accepted.or(told.as_ref());
        if may_compress(settings, response) {
            able.push((at, settings));
        }
    }
    if able.is_empty() {
        return None;
    }
    add_vary(response.headers);
    if response.complete {
        return None;
    }
    let accepted = accepted?.to_str().ok()?;
    preferred(accepted, &able)
}

fn may_compress(settings: &Compressor, response: &Leaving<'_>) -> bool {
    let Some(wanted) = &settings.response else { return false };
    let headers = &*response.headers;
    let length = content_length(headers).or(response.chunked.then_some(u64::MAX));
    wanted.is_long_enough(length)
        && response.status != 101
        && !settings.not_with_status.contains(&response.status)
        && wanted.has_type(headers)
        && !no_transform(headers)
        && !(settings.not_with_etag && headers.contains_key(header::ETAG))
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The coding that the client likes best; of equals the one that it names first, unless one insists.
fn preferred(accepted: &str, able: &[(usize, &Compressor)]) -> Option<usize> {
    let mut best: Option<(f32, Option<usize>)> = None;
    for token in accepted.split(',') {
        let mut parts = token.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let told = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = told.map_or(Some(1.0), |told| told.parse::<f32>().ok());
        let Some(weight) = weight.filter(|weight| *weight > 0.0 && *weight <= 1.0) else { continue };
        let of_name = able.iter().find(|(_, c)| c.coder.coding().as_str().eq_ignore_ascii_case(name));
        let found = match name {
            "identity" => None,
            // A coding that is refused by name is not meant by the star.
            "*" => able.iter().find(|(_, c)| !refused(accepted, c.coder.coding().as_str())),
            _ if of_name.is_none() => continue,
            _ => of_name,
        };
        let first = found.is_some_and(|(_, settings)| settings.choose_first);
        if best.is_none_or(|(before, _)| weight > before || (first && weight >= before)) {
            best = Some((weight, found.map(|(at, _)| *at)));
        }
    }
    best?.1
}

fn refused(accepted: &str, name: &str) -> bool {
    accepted.split(',').any(|token| {
        let mut parts = token.split(';').map(str::trim);
        parts.next().is_some_and(|n| n.eq_ignore_ascii_case(name))
            && parts.any(|part| part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0))
    })
}

fn add_vary(headers: &mut HeaderMap) {
    let before = text_of(&header::VARY, headers).unwrap_or_default();
    if before.split(',').any(|token| token.trim().eq_ignore_ascii_case("accept-encoding")) {
        return;
    }
    let all = if before.is_empty() { "Accept-Encoding".to_owned() } else { format!("{before}, Accept-Encoding") };
    crate::request::set_text(headers, header::VARY, &all);
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn no_transform(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(',').any(|token| token.trim().eq_ignore_ascii_case("no-transform"))
}

/// Takes the outermost coding off a head when it is this one.
fn take_coding(coding: Coding, always: bool, headers: &mut HeaderMap) -> bool {
    let Some(all) = text_of(&header::CONTENT_ENCODING, headers) else { return false };
    let (first, rest) = all.split_once(',').unwrap_or((&all, ""));
    if !first.trim().eq_ignore_ascii_case(coding.as_str()) || (!always && no_transform(headers)) {
        return false;
    }
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    if !rest.trim().is_empty() {
        crate::request::set_text(headers, header::CONTENT_ENCODING, rest.trim());
    }
    true
}

impl Compressible {
    /// `None`: nobody knows how long the message is.
    fn is_long_enough(&self, length: Option<u64>) -> bool {
        length.is_some_and(|length| length >= self.min_length)
    }

    fn has_type(&self, headers: &HeaderMap) -> bool {
        let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
        let whole = kind.as_bytes();
        let plain = whole.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        (self.types.is_empty() && self.matchers.is_empty())
            || self.types.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(plain))
            || self.matchers.iter().any(|matcher| matcher.fits(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::head;

    fn compressor(coder: Coder) -> Compressor {
        let wanted = Compressible { min_length: 30, types: ["text/plain".into()].into(), matchers: Box::default() };
        Compressor {
            coder,
            request: None,
            response: Some(wanted),
            not_with_etag: false,
            weaken_etag: false,
            remove_accept_encoding: false,
            not_with_status: [206].into(),
            choose_first: false,
        }
    }

    const GZIP: Coder = Coder::Gzip { level: None };
    const BROTLI: Coder = Coder::Brotli { quality: 3, window: 18 };

    fn chain(all: &[Compressor]) -> Vec<BodyFilter> {
        all.iter().map(|one| BodyFilter::Compress(Arc::new(one.clone()), None)).collect()
    }

    fn coded(filters: &[BodyFilter], accept: &str, headers: &[(&'static str, &str)]) -> (Option<String>, HeaderMap) {
        let mut filters = filters.to_vec();
        let mut asked = head("/", &[("accept-encoding", accept)]);
        assert!(enter(&mut filters, &mut asked, true).is_empty());
        let mut map = HeaderMap::new();
        for (name, value) in [("content-type", "text/plain; charset=utf-8"), ("content-length", "100")] {
            map.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let mut leaving = Leaving { status: 200, headers: &mut map, complete: false, chunked: false };
        leave(&filters, &mut leaving);
        (map.get("content-encoding").map(|v| v.to_str().unwrap().to_owned()), map)
    }

    #[test]
    fn the_client_chooses_the_coding() {
        let both = chain(&[compressor(GZIP), compressor(BROTLI)]);
        let check =
            |accept: &str, expect: Option<&str>| assert_eq!(coded(&both, accept, &[]).0.as_deref(), expect, "{accept}");
        check("gzip", Some("gzip"));
        check("br, gzip", Some("br"));
        check("br;q=0.5, gzip;q=0.8", Some("gzip"));
        check("deflate", None);
        check("identity, gzip;q=0.5", None);
        check("gzip;q=0", None);
        check("*", Some("gzip"));
        check("gzip;q=0, *", Some("br"));
        check("gzip;q=x, br;q=0.1", Some("br"));
        check("", None);
        let insists = Compressor { choose_first: true, ..compressor(BROTLI) };
        assert_eq!(coded(&chain(&[compressor(GZIP), insists]), "gzip, br", &[]).0.as_deref(), Some("br"));
    }

    #[test]
    fn what_is_compressed_says_so() {
        let one = chain(&[compressor(GZIP)]);
        let (_, map) = coded(&one, "gzip", &[("etag", "\"a\""), ("vary", "origin")]);
        assert_eq!((map.get("etag"), map.get("content-length")), (None, None));
        assert_eq!(map["vary"], "origin, Accept-Encoding");
        let weak = Compressor { weaken_etag: true, ..compressor(GZIP) };
        assert_eq!(coded(&chain(&[weak]), "gzip", &[("etag", "\"a\"")]).1["etag"], "W/\"a\"");
        assert_eq!(coded(&one, "gzip", &[("etag", "W/\"a\"")]).1["etag"], "W/\"a\"");
    }

    #[test]
    fn some_responses_are_left_alone() {
        let one = chain(&[compressor(GZIP)]);
        let alone = |header: (&'static str, &str)| {
            let (coding, map) = coded(&one, "gzip", &[header]);
            assert!(coding.is_none_or(|coding| coding == "x"), "{header:?}");
            assert!(!map.contains_key("vary"), "{header:?}");
        };
        alone(("content-length", "29"));
        alone(("content-type", "image/png"));
        alone(("content-encoding", "x"));
        alone(("cache-control", "public, No-Transform"));
        let (_, map) = coded(&one, "br", &[]);
        assert_eq!(map["vary"], "Accept-Encoding", "another client could get it compressed");
        let no_etag = Compressor { not_with_etag: true, ..compressor(GZIP) };
        assert_eq!(coded(&chain(&[no_etag]), "gzip", &[("etag", "\"a\"")]).0, None);
    }

    #[test]
    fn requests_are_compressed_and_decompressed() {
        let wanted = Compressible { min_length: 0, types: Box::default(), matchers: Box::default() };
        let up = Compressor { request: Some(wanted), response: None, ..compressor(GZIP) };
        let mut asked = head("/", &[("content-length", "100")]);
        let recodes = enter(&mut chain(&[up]), &mut asked, false);
        assert_eq!(recodes.as_slice(), [Recode::Compress(GZIP)]);
        assert_eq!(asked.headers["content-encoding"], "gzip");
        let down = Decompressor {
            coding: Coding::Gzip,
            most_growth: 100,
            request: Some(false),
            response: Some(false),
            advertise: true,
        };
        let recodes = enter(&mut [BodyFilter::Decompress(Arc::new(down))], &mut asked, false);
        assert_eq!(recodes.as_slice(), [Recode::Decompress(Coding::Gzip, 100)]);
        assert!(!asked.headers.contains_key("content-encoding"));
        assert_eq!(asked.headers["accept-encoding"], "gzip");
    }

    #[test]
    fn grpc_web_becomes_grpc() {
        let mut filters = [BodyFilter::GrpcWeb(Web::Not)];
        let mut asked = head(
            "/s/m",
            &[
                ("content-type", "application/grpc-web-text"),
                ("accept", "application/grpc-web-text"),
                ("content-length", "8"),
            ],
        );
        assert_eq!(enter(&mut filters, &mut asked, false).as_slice(), [Recode::FromText]);
        assert!(asked.is_grpc() && asked.headers["te"] == "trailers" && !asked.headers.contains_key("content-length"));
        let mut map = HeaderMap::new();
        map.insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut leaving = Leaving { status: 200, headers: &mut map, complete: false, chunked: true };
        assert_eq!(leave(&filters, &mut leaving).as_slice(), [Recode::ToWeb(true)]);
        assert_eq!(map["content-type"], "application/grpc-web-text+proto");
        let mut plain = head("/s/m", &[("content-type", "application/grpc")]);
        assert!(enter(&mut filters, &mut plain, false).is_empty());
        assert_eq!(filters, [BodyFilter::GrpcWeb(Web::Not)]);
    }
}
