//! The corpus against the parser, whole and in pieces, and laws that hold for any bytes.

mod corpus;

use bytes::{Bytes, BytesMut};
use corpus::Outcome;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use tombolo_gateway_http1::{
    Case, Decoded, Decoder, Framing, Names, Refusal, RequestHead, RequestLine, Rules, Scanner, parse_request,
    request_head,
};

/// A reader of a connection, as a server has it.
struct Reader {
    input: BytesMut,
    scanner: Scanner,
    body: Option<(String, Decoder, usize)>,
    names: Names,
    outcomes: Vec<Outcome>,
    heads: Vec<RequestHead>,
    bodies: Vec<u8>,
    over: bool,
}

impl Reader {
    fn new() -> Self {
        Self {
            input: BytesMut::new(),
            scanner: Scanner::new(),
            body: None,
            names: Names::new(),
            outcomes: Vec::new(),
            heads: Vec::new(),
            bodies: Vec::new(),
            over: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.over && self.step() {}
    }

    /// False when more bytes are needed.
    fn step(&mut self) -> bool {
        if let Some((method, decoder, length)) = &mut self.body {
            match decoder.decode(&mut self.input, &mut self.names) {
                Ok(Decoded::Partial) => return false,
                Ok(Decoded::Data(data)) => {
                    *length += data.len();
                    self.bodies.extend_from_slice(&data);
                }
                Ok(Decoded::Trailers(_) | Decoded::End) => {
                    self.outcomes.push(Outcome::Request(std::mem::take(method), *length));
                    self.body = None;
                }
                Err(_) => {
                    self.outcomes.push(Outcome::Body(std::mem::take(method)));
                    self.over = true;
                }
            }
            return true;
        }
        match self.scanner.find(&self.input, Rules::STRICT.max_bytes) {
            Ok(None) => false,
            Err(refusal) => self.refuse(refusal),
            Ok(Some(found)) => {
                let bytes = self.input.split_to(found.end).freeze().slice(found.start..);
                self.scanner = Scanner::new();
                match parse_request(&bytes, &Rules::STRICT, &mut self.names) {
                    Ok(head) => {
                        self.body = Some((head.method.to_string(), Decoder::new(head.framing), 0));
                        self.heads.push(head);
                        true
                    }
                    Err(refusal) => self.refuse(refusal),
                }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> bool {
        self.outcomes.push(Outcome::Refused(match refusal {
            Refusal::Malformed(_) => 400,
            Refusal::Version => 426,
            Refusal::TooLarge | Refusal::TooMany => 431,
            Refusal::Coding => 501,
        }));
        self.over = true;
        true
    }

    fn finish(mut self) -> (Vec<Outcome>, Vec<u8>) {
        if !self.over {
            match self.body.take() {
                Some((method, ..)) => self.outcomes.push(Outcome::Partial(Some(method))),
                None if !self.input.is_empty() => self.outcomes.push(Outcome::Partial(None)),
                None => {}
            }
        }
        (self.outcomes, self.bodies)
    }
}

fn read(pieces: &[&[u8]]) -> (Vec<Outcome>, Vec<u8>) {
    let mut reader = Reader::new();
    pieces.iter().for_each(|piece| reader.feed(piece));
    reader.finish()
}

#[test]
fn each_case_is_read_as_listed() {
    let cases = corpus::cases();
    assert!(cases.len() >= 300, "{} cases", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let (found, _) = read(&[&case.bytes]);
            (found != case.outcomes).then(|| format!("{}: {found:?} instead of {:?}", case.name, case.outcomes))
        })
        .collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_case_is_read_alike_in_pieces() {
    for case in corpus::cases().iter().filter(|case| case.bytes.len() < 1000) {
        let whole = read(&[&case.bytes]);
        for cut in 0..case.bytes.len() {
            let (one, two) = case.bytes.split_at(cut);
            assert_eq!(read(&[one, two]), whole, "{} cut at {cut}", case.name);
        }
        let bytes: Vec<&[u8]> = case.bytes.chunks(1).collect();
        assert_eq!(read(&bytes), whole, "{} byte by byte", case.name);
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_looked_at_once() {
    // Quadratic work on 60 KiB would take minutes here.
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(90) + "z: " + &"a".repeat(50_000) + "\r\n");
    let mut scanner = Scanner::new();
    for end in 0..head.len() {
        assert_eq!(scanner.find(&head.as_bytes()[..end], Rules::STRICT.max_bytes), Ok(None));
    }
    assert!(scanner.find(head.as_bytes(), Rules::STRICT.max_bytes).unwrap().is_some());
}

#[test]
fn what_is_taken_off_a_head_costs_no_copy() {
    let bytes = Bytes::from_static(b"GET /path HTTP/1.1\r\nhost: a\r\nuser-agent: someone\r\n\r\n");
    let head = parse_request(&bytes, &Rules::STRICT, &mut Names::new()).unwrap();
    let within = |part: &[u8]| bytes.as_ptr_range().contains(&part.as_ptr());
    assert!(within(head.headers["user-agent"].as_bytes()) && within(head.host.unwrap().as_bytes()));
}

fn sound() -> impl Strategy<Value = Vec<u8>> {
    let cases: Vec<Vec<u8>> =
        corpus::cases().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 400).collect();
    prop::sample::select(cases)
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_in_any_pieces(
        mut bytes in sound(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        more in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(more);
        let whole = read(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        prop_assert_eq!(read(&pieces), whole);
    }

    #[test]
    fn what_is_written_is_read_back(
        path in "/[a-z0-9/?=&.%]{0,20}",
        fields in prop::collection::vec(("[a-z][a-z0-9-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..12),
        body in prop::collection::vec(any::<u8>(), 0..50),
        chunked in any::<bool>(),
        proper in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            if matches!(name.as_str(), "host" | "te" | "connection") {
                continue;
            }
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        headers.remove("content-length");
        headers.remove("transfer-encoding");
        let framing = if chunked { Framing::Chunked } else { Framing::Length(body.len() as u64) };
        let case = if proper { Case::Proper } else { Case::Lower };
        let line = RequestLine { method: "POST", target: &path, host: "h:1", upgrade: "", spelled: &[] };
        let mut out = Vec::new();
        request_head(line, &headers, framing, case, &mut out);
        let mut reader = Reader::new();
        reader.feed(&out);
        let head = reader.heads.first().cloned().expect("a head");
        prop_assert_eq!(&head.method, Method::POST);
        let host = head.host.unwrap();
        prop_assert_eq!(host.as_bytes(), b"h:1");
        let mut read = head.headers.clone();
        read.remove("content-length");
        read.remove("transfer-encoding");
        prop_assert_eq!(read, headers);
    }
}
