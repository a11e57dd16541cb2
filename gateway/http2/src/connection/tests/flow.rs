//! Tests of flow control and of limits on streams.

use super::*;

fn open_response(own: Settings, client_says: &[(u16, u32)]) -> (Bench, Stream) {
    let mut bench = Bench::server(own);
    bench.feed(&settings(client_says)).unwrap();
    bench.events();
    bench.feed(&get(1)).unwrap();
    let stream = bench.request();
    bench.respond(stream, false);
    bench.written();
    (bench, stream)
}

fn sizes(seen: &[Seen]) -> Vec<(u32, usize)> {
    seen.iter().filter(|f| f.kind == kind::DATA).map(|f| (f.stream, f.payload.len())).collect()
}

#[test]
fn data_keeps_to_the_streams_window() {
    let (mut bench, stream) = open_response(Settings::default(), &[(4, 10)]);
    bench.connection.send_data(stream, Bytes::from_static(b"0123456789abcdef"), true).unwrap();
    assert_eq!(sizes(&bench.written()), [(1, 10)]);
    assert!(bench.written().is_empty());
    bench.feed(&window(1, 4)).unwrap();
    assert_eq!(sizes(&bench.written()), [(1, 4)]);
    bench.feed(&window(1, 4)).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].payload.len(), seen[0].flags), (2, 1), "the end goes with the last piece");
    assert_eq!(bench.connection.open_streams(), 0);
}

#[test]
fn data_keeps_to_the_connections_window() {
    let (mut bench, stream) = open_response(Settings::default(), &[(4, 1 << 20)]);
    bench.connection.send_data(stream, Bytes::from(vec![7; 70_000]), true).unwrap();
    let total: usize = sizes(&bench.written()).iter().map(|(_, size)| size).sum();
    assert_eq!(total, 65_535);
    bench.feed(&window(0, 10_000)).unwrap();
    assert_eq!(sizes(&bench.written()), [(1, 4465)]);
}

#[test]
fn an_end_needs_no_window() {
    let (mut bench, stream) = open_response(Settings::default(), &[(4, 0)]);
    bench.connection.send_data(stream, Bytes::new(), true).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].flags), (kind::DATA, 1));
}

#[test]
fn a_smaller_window_later_may_leave_less_than_nothing() {
    let (mut bench, stream) = open_response(Settings::default(), &[]);
    bench.connection.send_data(stream, Bytes::from(vec![0; 50_000]), false).unwrap();
    bench.written();
    bench.feed(&settings(&[(4, 100)])).unwrap();
    bench.connection.send_data(stream, Bytes::from_static(b"x"), true).unwrap();
    assert!(sizes(&bench.written()).is_empty());
    bench.feed(&window(1, 49_900)).unwrap();
    assert!(sizes(&bench.written()).is_empty(), "the window is 0 now");
    bench.feed(&settings(&[(4, 101)])).unwrap();
    assert_eq!(sizes(&bench.written()), [(1, 1)]);
}

#[test]
fn streams_take_turns() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&settings(&[(4, 1 << 20)])).unwrap();
    bench.feed(&[get(1), get(3), get(5)].concat()).unwrap();
    let streams: Vec<Stream> = bench
        .events()
        .iter()
        .filter_map(|e| if let Event::Request { stream, .. } = e { Some(*stream) } else { None })
        .collect();
    for stream in &streams {
        bench.respond(*stream, false);
    }
    bench.written();
    for stream in &streams {
        bench.connection.send_data(*stream, Bytes::from(vec![0; 40_000]), true).unwrap();
    }
    let order: Vec<u32> = sizes(&bench.written()).iter().map(|(stream, _)| *stream).collect();
    assert_eq!(order, [1, 3, 5, 1], "one frame each, as far as the window of 65,535 goes");
}

#[test]
fn what_is_consumed_is_announced_by_halves() {
    let own = Settings { stream_window: 70_000, connection_window: 100_000, ..Settings::default() };
    let mut bench = Bench::server(own);
    bench.feed(&post(1)).unwrap();
    let stream = bench.request();
    for _ in 0..4 {
        bench.feed(&data(1, &[0; 10_000], false)).unwrap();
        bench.connection.consumed(stream, 10_000);
    }
    let seen = bench.written();
    assert_eq!(seen.iter().map(|f| (f.stream, f.number(0))).collect::<Vec<_>>(), [(1, 40_000)]);
    bench.feed(&data(1, &[0; 10_000], true)).unwrap();
    bench.connection.consumed(stream, 10_000);
    let seen = bench.written();
    assert_eq!(seen.iter().map(|f| (f.stream, f.number(0))).collect::<Vec<_>>(), [(0, 50_000)]);
}

#[test]
fn more_than_the_windows_is_refused() {
    let own = Settings { stream_window: 65_535, connection_window: 80_000, ..Settings::default() };
    let mut bench = Bench::server(own);
    bench.feed(&[post(1), post(3)].concat()).unwrap();
    for _ in 0..4 {
        bench.feed(&data(1, &[0; 16_000], false)).unwrap();
    }
    bench.written();
    bench.feed(&data(1, &[0; 1600], false)).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].stream, seen[0].number(0)), (kind::RST_STREAM, 1, Code::FLOW_CONTROL_ERROR.0));
    let error = bench.feed(&data(3, &[0; 16_000], false)).unwrap_err();
    assert_eq!(error.code, Code::FLOW_CONTROL_ERROR);
}

#[test]
fn a_small_window_holds_once_it_is_known() {
    let mut connection = Connection::server(Settings { stream_window: 10, ..Settings::default() }, 0);
    let before = [&PREFACE[..], &settings(&[]), &post(1), &data(1, &[0; 100], false)].concat();
    connection.receive(&mut BytesMut::from(&before[..]), 0).unwrap();
    let after = [frame(kind::SETTINGS, 1, 0, &[]), post(3), data(3, &[0; 11], false)].concat();
    connection.receive(&mut BytesMut::from(&after[..]), 0).unwrap();
    let resets: Vec<u32> = std::iter::from_fn(|| connection.event())
        .filter_map(|e| if let Event::Reset { stream, .. } = e { Some(stream.id()) } else { None })
        .collect();
    assert_eq!(resets, [3]);
}

#[test]
fn a_full_stream_tells_when_there_is_room() {
    let own = Settings { send_buffer: 1000, ..Settings::default() };
    let (mut bench, stream) = open_response(own, &[(4, 0)]);
    assert_eq!(bench.connection.capacity(stream), Ok(1000));
    bench.connection.send_data(stream, Bytes::from(vec![0; 1000]), false).unwrap();
    assert_eq!(bench.connection.capacity(stream), Ok(0));
    bench.feed(&window(1, 100)).unwrap();
    bench.written();
    assert!(tell(&bench.events()).is_empty());
    bench.feed(&window(1, 500)).unwrap();
    bench.written();
    assert_eq!(tell(&bench.events()), ["writable 1"]);
}

#[test]
fn trailers_wait_for_data() {
    let (mut bench, stream) = open_response(Settings::default(), &[(4, 3)]);
    bench.connection.send_data(stream, Bytes::from_static(b"12345"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("a", HeaderValue::from_static("b"));
    bench.connection.send_trailers(stream, trailers).unwrap();
    assert_eq!(bench.written().len(), 1);
    bench.feed(&window(1, 3)).unwrap();
    let kinds: Vec<(u8, u8)> = bench.written().iter().map(|f| (f.kind, f.flags)).collect();
    assert_eq!(kinds, [(kind::DATA, 0), (kind::HEADERS, 5)]);
}

#[test]
fn large_payloads_are_not_copied() {
    let (mut bench, stream) = open_response(Settings::default(), &[(4, 1 << 20)]);
    let payload = Bytes::from(vec![1; 10_000]);
    bench.connection.send_data(stream, payload.clone(), true).unwrap();
    let output = bench.connection.output();
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    assert_eq!(output.slices(&mut slices), 2);
    assert_eq!(slices[1].as_ptr(), payload.as_ptr());
    output.advance(5);
    output.advance(HEAD - 5 + 100);
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    assert_eq!(output.slices(&mut slices), 1);
    assert_eq!((slices[0].len(), output.len()), (9900, 9900));
    output.advance(9900);
    assert!(output.is_empty());
}
