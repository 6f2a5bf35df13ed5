//! Directions of frames, cut anywhere, and what is told of their messages.

use flate2::{Compress, Compression, FlushCompress};

use super::*;
use crate::limits::INFLATED_BYTES_FREE;
use crate::proto::ws_deflate::Deflate;

const DEFLATE: Extensions = Extensions {
    deflate: Some(Deflate { client_takeover: true, server_takeover: true }),
    unknown: false,
};

/// A frame: first byte, payload; masked as a client's or not.
fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut out = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    let length = (payload.len() as u64).to_be_bytes();
    match payload.len() {
        0..126 => out.push(mask_bit | length[7]),
        126..65_536 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&length[6..]);
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&length);
        }
    }
    let key = if masked { [7, 0xff, 0, 0x31] } else { [0; 4] };
    if masked {
        out.extend_from_slice(&key);
    }
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]));
    out
}

type Ended = (Told, Vec<u8>);

/// What is told of a direction that arrives in pieces and then ends.
fn read(direction: Direction, extensions: Extensions, pieces: &[&[u8]]) -> Vec<Ended> {
    let mut reader = MessageReader::new(direction, extensions);
    let (mut told, mut contents) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut take = |event, contents: &mut [Vec<u8>; 2]| {
        if let Event::Ended(lane, ended) = event {
            told.push((ended, std::mem::take(&mut contents[lane as usize])));
        }
    };
    for piece in pieces {
        let mut piece = *piece;
        loop {
            let (read, event) = reader.read(piece, |lane, content| {
                contents[lane as usize].extend_from_slice(content);
            });
            piece = &piece[read..];
            if event == Event::Starved {
                break;
            }
            take(event, &mut contents);
        }
        assert!(piece.is_empty());
    }
    while let Some(event) = reader.cut(|lane, content| {
        contents[lane as usize].extend_from_slice(content);
    }) {
        take(event, &mut contents);
    }
    assert_eq!(contents, [b"", b""], "content without a message");
    told
}

/// The same however it is cut.
fn read_cut(direction: Direction, extensions: Extensions, input: &[u8]) -> Vec<Ended> {
    let whole = read(direction, extensions, &[input]);
    for cut in 0..=input.len().min(2000) {
        let (before, behind) = input.split_at(cut);
        let cut_there = read(direction, extensions, &[before, behind]);
        assert!(cut_there == whole, "cut at {cut}: {cut_there:?}, not {whole:?}");
    }
    for step in [1, 2, 3, 5, 1000] {
        let pieces: Vec<_> = input.chunks(step).collect();
        assert!(read(direction, extensions, &pieces) == whole, "by {step}");
    }
    whole
}

fn plain(kind: MessageKind, wire_bytes: u64, frames: u64) -> Told {
    Told {
        kind,
        opcode: None,
        wire_bytes,
        frames,
        compressed: false,
        close_code: None,
        flaws: Vec::new(),
        complete: true,
    }
}

#[test]
fn messages_and_what_stands_between_their_fragments() {
    let long = vec![b'y'; 70_000];
    for (direction, masked) in [(Direction::Sent, true), (Direction::Received, false)] {
        let frame = |first, payload: &[u8]| frame(first, payload, masked);
        let input = [
            frame(0x81, "grüße".as_bytes()),
            frame(0x01, b"one \xc3"),
            frame(0x89, b"ping"),
            frame(0x00, b"\xbc two"),
            frame(0x8a, b""),
            frame(0x80, b""),
            frame(0x82, &[0xff; 200]),
            frame(0x82, &long),
            frame(0x81, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let told: Vec<Ended> = vec![
            (plain(MessageKind::Text, 7, 1), "grüße".into()),
            (plain(MessageKind::Ping, 4, 1), b"ping".to_vec()),
            (plain(MessageKind::Pong, 0, 1), Vec::new()),
            (plain(MessageKind::Text, 10, 3), "one ü two".into()),
            (plain(MessageKind::Binary, 200, 1), vec![0xff; 200]),
            (plain(MessageKind::Binary, 70_000, 1), long.clone()),
            (plain(MessageKind::Text, 0, 1), Vec::new()),
            (Told { close_code: Some(1000), ..plain(MessageKind::Close, 5, 1) }, b"bye".to_vec()),
        ];
        assert!(read_cut(direction, Extensions::default(), &input) == told);
    }
}

#[test]
fn what_is_wrong_is_told() {
    use Flaw::*;
    use MessageKind::*;
    let none = Extensions::default();
    let unknown = Extensions { unknown: true, ..none };
    let server = |first, payload: &[u8]| frame(first, payload, false);
    type Case<'a> = (Vec<u8>, Extensions, Vec<(MessageKind, &'a [u8], &'a [Flaw], bool)>);
    let cases: Vec<Case<'_>> = vec![
        (server(0xc1, b"a"), none, vec![(Text, b"a", &[ReservedBits], true)]),
        (server(0xa1, b"a"), DEFLATE, vec![(Text, b"a", &[ReservedBits], true)]),
        (server(0xc9, b"a"), DEFLATE, vec![(Ping, b"a", &[ReservedBits], true)]),
        (server(0xc1, b"a"), unknown, vec![(Text, b"a", &[NotInflated], true)]),
        (server(0xb2, b"a"), unknown, vec![(Binary, b"a", &[], true)]),
        (server(0x83, b"a"), none, vec![(Reserved, b"a", &[UnknownOpcode], true)]),
        (server(0x8f, b"a"), none, vec![(Reserved, b"a", &[UnknownOpcode], true)]),
        (b"\x81\x7e\x00\x01a".to_vec(), none, vec![(Text, b"a", &[LengthNotMinimal], true)]),
        (
            b"\x82\x7f\x80\0\0\0\0\0\0\0abc".to_vec(),
            none,
            vec![(Binary, b"abc", &[LengthOutOfRange], false)],
        ),
        (
            b"\x8a\x7f\x80\0\0\0\0\0\0\x01abc".to_vec(),
            none,
            vec![(Pong, b"abc", &[LengthOutOfRange, ControlTooLong], false)],
        ),
        (server(0x09, b"a"), none, vec![(Ping, b"a", &[ControlFragmented], true)]),
        (server(0x89, &[b'p'; 126]), none, vec![(Ping, &[b'p'; 126], &[ControlTooLong], true)]),
        (frame(0x81, b"abc", true), none, vec![(Text, b"abc", &[Masked], true)]),
        (server(0x80, b"a"), none, vec![(Continuation, b"a", &[ContinuationWithoutStart], true)]),
        (
            [server(0x00, b"a"), server(0x80, b"b")].concat(),
            none,
            vec![(Continuation, b"ab", &[ContinuationWithoutStart], true)],
        ),
        (
            [server(0x01, b"a"), server(0x82, b"b"), server(0x80, b"c")].concat(),
            none,
            vec![
                (Text, b"a", &[Interrupted], false),
                (Binary, b"b", &[], true),
                (Continuation, b"c", &[ContinuationWithoutStart], true),
            ],
        ),
        (
            [server(0x01, b"a"), server(0xc0, b"b")].concat(),
            DEFLATE,
            vec![(Text, b"ab", &[ReservedBits], true)],
        ),
        (server(0x81, b"a\xc3"), none, vec![(Text, b"a\xc3", &[NotUtf8], true)]),
        (server(0x81, b"\xc3("), none, vec![(Text, b"\xc3(", &[NotUtf8], true)]),
        (server(0x81, b"\xed\xa0\x80x"), none, vec![(Text, b"\xed\xa0\x80x", &[NotUtf8], true)]),
        (server(0x88, b""), none, vec![(Close, b"", &[], true)]),
        (server(0x88, b"\x03"), none, vec![(Close, b"\x03", &[CloseTooShort], true)]),
        (server(0x88, b"\x03\xed"), none, vec![(Close, b"", &[CloseCodeInvalid], true)]),
        (server(0x88, b"\x0f\xa0\xff"), none, vec![(Close, b"\xff", &[NotUtf8], true)]),
        (
            [server(0x88, b""), server(0x81, b"a")].concat(),
            none,
            vec![(Close, b"", &[], true), (Text, b"a", &[AfterClose], true)],
        ),
        (b"\x81\x05he".to_vec(), none, vec![(Text, b"he", &[], false)]),
        (
            b"\x01\x02he\x89\x03p".to_vec(),
            none,
            vec![(Ping, b"p", &[], false), (Text, b"he", &[], false)],
        ),
        (b"\x88\x05\x03".to_vec(), none, vec![(Close, b"\x03", &[CloseTooShort], false)]),
        (b"\x81".to_vec(), none, vec![]),
        (
            server(0xc1, b"no deflate"),
            DEFLATE,
            vec![
                (Text, b"", &[InflateFailed], false),
                (Text, b"no deflate", &[Rest, NotInflated], true),
            ],
        ),
        (
            [server(0x41, b"no "), server(0x00, b"deflate"), server(0xc1, b"x")].concat(),
            DEFLATE,
            vec![
                (Text, b"", &[InflateFailed], false),
                (Text, b"no deflate", &[Rest, NotInflated, Interrupted], false),
                (Text, b"x", &[NotInflated], true),
            ],
        ),
    ];
    for (input, extensions, expected) in cases {
        let told = read_cut(Direction::Received, extensions, &input);
        let told: Vec<_> = told
            .iter()
            .map(|(told, content)| (told.kind, &content[..], &told.flaws[..], told.complete))
            .collect();
        assert_eq!(told, expected, "{input:x?}");
    }
    let unmasked = read_cut(Direction::Sent, none, &server(0x81, b"a"));
    assert_eq!(unmasked[0].0.flaws, [Unmasked]);
}

/// Sends each text as one message, split into frames of `frame_bytes`.
fn deflated(texts: &[&[u8]], takeover: bool, frame_bytes: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut out = Vec::new();
    for text in texts {
        let mut payload = Vec::with_capacity(text.len() + 100);
        compress.compress_vec(text, &mut payload, FlushCompress::Sync).unwrap();
        payload.truncate(payload.len() - 4);
        if !takeover {
            compress.reset();
        }
        let count = payload.len().div_ceil(frame_bytes);
        for (at, piece) in payload.chunks(frame_bytes).enumerate() {
            let first = if at == 0 { 0x41 } else { 0 } | if at + 1 == count { 0x80 } else { 0 };
            out.extend(frame(first, piece, true));
        }
    }
    out
}

#[test]
fn compressed_messages_are_inflated() {
    let words = "the quick brown fox ".repeat(600);
    let texts: [&[u8]; 4] = [b"hello", words.as_bytes(), words.as_bytes(), b"hello"];
    for (takeover, frame_bytes) in [(true, 1000), (false, 1000), (true, 50)] {
        let deflate = Deflate { client_takeover: takeover, server_takeover: true };
        let extensions = Extensions { deflate: Some(deflate), unknown: false };
        let input = deflated(&texts, takeover, frame_bytes);
        let told = read_cut(Direction::Sent, extensions, &input);
        assert_eq!(told.len(), texts.len());
        for ((told, content), text) in told.iter().zip(texts) {
            assert!(content == text && told.compressed && told.complete, "{told:?}");
            assert_eq!(told.flaws, []);
            assert!(told.wire_bytes < 300, "{told:?}");
        }
    }
}

#[test]
fn a_bomb_ends_inflating_and_nothing_is_lost_of_what_follows() {
    let zeros = vec![0; 16 << 20];
    for takeover in [true, false] {
        let deflate = Deflate { client_takeover: takeover, server_takeover: true };
        let extensions = Extensions { deflate: Some(deflate), unknown: false };
        let input = deflated(&[b"before", &zeros, b"after", b"after"], takeover, 9000);
        let pieces: Vec<_> = input.chunks(700).collect();
        let told = read(Direction::Sent, extensions, &pieces);
        assert!(told == read(Direction::Sent, extensions, &[&input]));
        let [before, bomb, rest, after, last] = &told[..] else { panic!("{}", told.len()) };
        assert_eq!(before.1, b"before");
        assert_eq!((&bomb.0.flaws[..], bomb.0.complete), (&[Flaw::InflateBomb][..], false));
        assert!(bomb.1.len() as u64 > INFLATED_BYTES_FREE);
        assert_eq!(
            (&rest.0.flaws[..], rest.0.complete),
            (&[Flaw::Rest, Flaw::NotInflated][..], true)
        );
        let payload = deflated(&[b"before", &zeros], takeover, usize::MAX);
        assert!(bomb.0.wire_bytes + rest.0.wire_bytes < payload.len() as u64);
        // The rest is what was not inflated, unmasked, to the last byte.
        assert_eq!(rest.1.len() as u64, rest.0.wire_bytes);
        if takeover {
            assert_eq!(after.0.flaws, [Flaw::NotInflated]);
            assert_ne!(after.1, b"after");
        } else {
            assert_eq!((&after.1[..], &last.1[..]), (&b"after"[..], &b"after"[..]));
        }
    }
}

#[test]
fn lengths_are_known_where_one_frame_tells() {
    let mut reader = MessageReader::new(Direction::Received, DEFLATE);
    let mut begun = Vec::new();
    let input = [
        frame(0x82, b"abc", false),
        frame(0x02, b"ab", false),
        frame(0x80, b"", false),
        frame(0xc2, b"\0", false),
        frame(0x89, b"p", false),
    ]
    .concat();
    let mut input = &input[..];
    loop {
        match reader.read(input, |_, _| ()) {
            (_, Event::Starved) => break,
            (read, event) => {
                input = &input[read..];
                if let Event::Begun(lane, length) = event {
                    begun.push((lane, length));
                }
            }
        }
    }
    let data = |length| (Lane::Data, length);
    let expected = [data(Some(3)), data(None), data(None), (Lane::Control, Some(1))];
    assert_eq!(begun, expected);
}
