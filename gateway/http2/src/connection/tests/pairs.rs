//! Tests of both roles against each other, with random actions.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// Cuts `bytes` into pieces and feeds them; what must be the same whatever the pieces are.
fn outcome(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<Seen>, Option<ConnectionError>) {
    let mut connection = Connection::server(Settings { malformed_ends_stream: true, ..Settings::default() }, 0);
    let mut buffer = BytesMut::new();
    let mut events = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let next = (at + cut).min(bytes.len());
        buffer.extend_from_slice(&bytes[at..next]);
        at = next;
        let done = connection.receive(&mut buffer, 0);
        events.extend(std::iter::from_fn(|| connection.event()));
        if done.is_err() {
            break;
        }
    }
    (tell(&events), frames(&connection.output().take()), connection.error())
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![Just(0_u32), Just(1), Just(3), Just(5), Just(2), 0..20_u32];
    let fields = prop_oneof![
        Just(GET.to_vec()),
        Just([&GET[..], &[("content-length", "5")]].concat()),
        Just(vec![("grpc-status", "0")]),
        Just([&GET[..], &[("X", "1")]].concat()),
    ];
    prop_oneof![
        4 => (id.clone(), any::<bool>(), fields).prop_map(|(id, end, fields)| headers(id, end, &fields)),
        4 => (id.clone(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(id, end, p)| data(id, &p, end)),
        1 => id.clone().prop_map(|id| reset(id, Code::CANCEL)),
        1 => (id.clone(), 0..100_u32).prop_map(|(id, more)| window(id, more)),
        1 => Just(settings(&[(4, 100), (1, 50)])),
        1 => Just(frame(kind::PING, 0, 0, &[1; 8])),
        1 => (any::<u8>(), any::<u8>(), id, proptest::collection::vec(any::<u8>(), 0..30)).prop_map(|(k, f, id, p)| frame(k, f, id, &p)),
    ]
}

fn begun(rest: &[Vec<u8>]) -> Vec<u8> {
    [&PREFACE[..], &settings(&[]), &rest.concat()].concat()
}

proptest! {
    #[test]
    fn any_cut_of_the_input_gives_the_same(
        all in proptest::collection::vec(any_frame(), 0..20),
        cuts in proptest::collection::vec(0_usize..40, 0..60),
    ) {
        let bytes = begun(&all);
        prop_assert_eq!(outcome(&bytes, &cuts), outcome(&bytes, &[]));
        prop_assert_eq!(outcome(&bytes, &vec![1; bytes.len()]), outcome(&bytes, &[]));
    }

    #[test]
    fn changed_bytes_never_panic(
        all in proptest::collection::vec(any_frame(), 0..20),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
    ) {
        let mut bytes = begun(&all);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        outcome(&bytes, &[]);
    }

    #[test]
    fn both_halves_agree(seed in proptest::collection::vec(action(), 1..200), small: bool) {
        let mut pair = Pair::new(small);
        for action in seed {
            pair.act(action);
        }
        pair.settle();
    }
}

#[derive(Debug, Clone)]
enum Action {
    Open { end: bool },
    Upload { at: usize, size: usize, end: bool },
    Respond { at: usize, end: bool },
    Answer { at: usize, size: usize, end: bool },
    Trailers { at: usize },
    Reset { at: usize, client: bool },
    Carry { client: bool, bytes: usize },
    Drain,
}

fn action() -> impl Strategy<Value = Action> {
    let at = 0_usize..8;
    let size = prop_oneof![0_usize..100, 0_usize..40_000];
    prop_oneof![
        3 => any::<bool>().prop_map(|end| Action::Open { end }),
        3 => (at.clone(), size.clone(), any::<bool>()).prop_map(|(at, size, end)| Action::Upload { at, size, end }),
        3 => (at.clone(), any::<bool>()).prop_map(|(at, end)| Action::Respond { at, end }),
        3 => (at.clone(), size, any::<bool>()).prop_map(|(at, size, end)| Action::Answer { at, size, end }),
        1 => at.clone().prop_map(|at| Action::Trailers { at }),
        1 => (at, any::<bool>()).prop_map(|(at, client)| Action::Reset { at, client }),
        8 => (any::<bool>(), 0_usize..60_000).prop_map(|(client, bytes)| Action::Carry { client, bytes }),
        1 => prop_oneof![9 => Just(Action::Carry { client: true, bytes: 100 }), 1 => Just(Action::Drain)],
    ]
}

/// A client and a server with a wire between them.
struct Pair {
    client: Connection,
    server: Connection,
    /// Streams as each side knows them.
    opened: Vec<Stream>,
    taken: Vec<Stream>,
    up: BytesMut,
    down: BytesMut,
    to_server: BytesMut,
    to_client: BytesMut,
    /// Bytes given and got, by stream and direction.
    sent: HashMap<(u32, bool), usize>,
    got: HashMap<(u32, bool), usize>,
    broken: HashMap<u32, ()>,
}

impl Pair {
    fn new(small: bool) -> Self {
        let own = if small {
            Settings { max_streams: 3, stream_window: 1000, connection_window: 65_535, ..Settings::default() }
        } else {
            Settings::default()
        };
        Self {
            client: Connection::client(own.clone(), 0),
            server: Connection::server(own, 0),
            opened: Vec::new(),
            taken: Vec::new(),
            up: BytesMut::new(),
            down: BytesMut::new(),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            sent: HashMap::new(),
            got: HashMap::new(),
            broken: HashMap::new(),
        }
    }

    fn act(&mut self, action: Action) {
        let pick = |all: &[Stream], at: usize| all.get(all.len().saturating_sub(1 + at)).copied();
        match action {
            Action::Open { end } => {
                let line =
                    RequestLine { method: &Method::POST, scheme: "http", authority: "a", path: "/x", protocol: None };
                let mut headers = HeaderMap::new();
                headers.insert("x-repeated", HeaderValue::from_static("value"));
                if let Ok(stream) = self.client.send_request(&line, &headers, end) {
                    self.opened.push(stream);
                }
            }
            Action::Upload { at, size, end } => {
                let Some(stream) = pick(&self.opened, at) else { return };
                if self.client.send_data(stream, Bytes::from(vec![0; size]), end).is_ok() {
                    *self.sent.entry((stream.id(), true)).or_default() += size;
                }
            }
            Action::Respond { at, end } => {
                let Some(stream) = pick(&self.taken, at) else { return };
                let _ = self.server.send_response(stream, StatusCode::OK, &HeaderMap::new(), end);
            }
            Action::Answer { at, size, end } => {
                let Some(stream) = pick(&self.taken, at) else { return };
                if self.server.send_data(stream, Bytes::from(vec![0; size]), end).is_ok() {
                    *self.sent.entry((stream.id(), false)).or_default() += size;
                }
            }
            Action::Trailers { at } => {
                let Some(stream) = pick(&self.taken, at) else { return };
                let _ = self.server.send_trailers(stream, HeaderMap::new());
            }
            Action::Reset { at, client } => {
                let Some(stream) = pick(if client { &self.opened } else { &self.taken }, at) else { return };
                self.broken.insert(stream.id(), ());
                if client { self.client.reset(stream, Code::CANCEL) } else { self.server.reset(stream, Code::CANCEL) }
            }
            Action::Carry { client, bytes } => self.carry(client, bytes),
            Action::Drain => self.server.drain(),
        }
    }

    /// Moves some bytes of one direction, and looks at what that did.
    fn carry(&mut self, client: bool, bytes: usize) {
        let (from, wire, input) = if client {
            (&mut self.client, &mut self.up, &mut self.to_server)
        } else {
            (&mut self.server, &mut self.down, &mut self.to_client)
        };
        from.pump();
        wire.extend_from_slice(&from.output().take());
        let moved = wire.split_to(bytes.min(wire.len()));
        input.extend_from_slice(&moved);
        let to = if client { &mut self.server } else { &mut self.client };
        to.receive(input, 0).expect("both keep to the rules");
        while let Some(event) = to.event() {
            match event {
                Event::Request { stream, .. } => self.taken.push(stream),
                Event::Data { stream, bytes, .. } => {
                    *self.got.entry((stream.id(), client)).or_default() += bytes.len();
                    to.consumed(stream, bytes.len());
                }
                Event::Reset { stream, .. } => {
                    self.broken.insert(stream.id(), ());
                }
                _ => {}
            }
        }
    }

    /// Carries everything, ends everything, and looks whether both sides agree.
    fn settle(&mut self) {
        for round in 0..6 {
            for _ in 0..400 {
                self.carry(true, usize::MAX);
                self.carry(false, usize::MAX);
            }
            if round == 2 {
                for stream in self.opened.clone() {
                    let _ = self.client.send_data(stream, Bytes::new(), true);
                }
                for stream in self.taken.clone() {
                    let _ = self.server.send_response(stream, StatusCode::OK, &HeaderMap::new(), false);
                    let _ = self.server.send_data(stream, Bytes::new(), true);
                }
            }
        }
        assert_eq!((self.client.open_streams(), self.server.open_streams()), (0, 0));
        for (key, sent) in &self.sent {
            let got = self.got.get(key).copied().unwrap_or(0);
            if self.broken.contains_key(&key.0) {
                assert!(got <= *sent);
            } else {
                assert_eq!(got, *sent, "stream {key:?}");
            }
        }
    }
}
