//! WebSocket frames and the messages in them: any bytes, and messages of our own making.

use agent_gate_store::record::{Direction, Flaw, MessageKind};
use flate2::{Compress, Compression, FlushCompress};

use super::cuts::Cuts;
use crate::limits::{INFLATE_RATIO_MAX, INFLATE_STEP_BYTES, INFLATED_BYTES_FREE};
use crate::proto::ws_deflate::{Deflate, Extensions};
use crate::proto::ws_frame::{FrameHead, FramePart, FrameReader};
use crate::proto::ws_message::{Event, Lane, MessageReader, Told};

/// Reads the input as frames and as messages, under extensions that its first byte chooses.
pub fn ws_frame(data: &[u8]) {
    let cuts = Cuts::read(data);
    let frames = frames_in_any_cut(&cuts);
    assert_eq!(frames, decode(cuts.input), "as a simple decoder finds them");

    let (direction, extensions) = choose(data.first().copied().unwrap_or_default());
    let messages = messages_in_any_cut(&cuts, direction, extensions);
    check_messages(&messages, &frames, extensions);
    check_own_messages(&cuts, extensions);
}

/// Direction and extensions by the five bits that [`Cuts`] leaves.
fn choose(bits: u8) -> (Direction, Extensions) {
    let deflate = Deflate { client_takeover: bits & 8 != 0, server_takeover: bits & 16 != 0 };
    let direction = if bits & 32 == 0 { Direction::Sent } else { Direction::Received };
    let deflate = (bits & 64 != 0).then_some(deflate);
    (direction, Extensions { deflate, unknown: bits & 128 != 0 })
}

/// A frame with what has arrived of its unmasked payload.
type Frame = (FrameHead, Vec<u8>);

fn frames_in_any_cut(cuts: &Cuts<'_>) -> Vec<Frame> {
    let at_once = frames([cuts.input]);
    assert_eq!(frames(cuts.pieces()), at_once, "in pieces, and at once");
    assert_eq!(frames(cuts.input.chunks(1)), at_once, "byte by byte, and at once");
    at_once
}

fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
    let (mut reader, mut frames) = (FrameReader::new(), Vec::<Frame>::new());
    for mut piece in pieces {
        loop {
            let (read, part) = reader.read(piece);
            piece = &piece[read..];
            match part {
                FramePart::Head(head) => frames.push((head, Vec::new())),
                FramePart::Payload(payload) => {
                    let mut room = [0; 100];
                    let plain = reader.plain(payload, &mut room);
                    frames.last_mut().expect("a header").1.extend_from_slice(plain);
                    reader.advance(plain.len());
                    piece = &piece[plain.len()..];
                }
                FramePart::End(head) => {
                    let (begun, payload) = frames.last().expect("a header");
                    assert_eq!((*begun, payload.len() as u64), (head, head.length));
                }
                FramePart::Starved => break,
            }
        }
        assert!(piece.is_empty(), "starved before the piece's end");
    }
    frames
}

/// Frames by the letter of RFC 6455, section 5.2, the last one as far as it has arrived.
fn decode(mut rest: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(&[first, second]) = rest.get(..2) {
        let length_bytes = [0, 2, 8][usize::from((second & 127).saturating_sub(125))];
        let mask_bytes = if second & 128 == 0 { 0 } else { 4 };
        let Some((header, behind)) = rest.split_at_checked(2 + length_bytes + mask_bytes) else {
            break;
        };
        let (length, key) = header[2..].split_at(length_bytes);
        let length = match length {
            [] => u64::from(second & 127),
            bytes => bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let least = [0, 126, 65_536][length_bytes.div_ceil(4)];
        let arrived = usize::try_from(length).map_or(behind.len(), |it| it.min(behind.len()));
        let (payload, next) = behind.split_at(arrived);
        let masked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let head = FrameHead {
            is_final: first & 128 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 15,
            mask: key.try_into().ok(),
            length,
            is_padded: length < least,
        };
        frames.push((head, if key.is_empty() { payload.to_vec() } else { masked.collect() }));
        rest = next;
    }
    frames
}

/// A message and its content.
type Message = (Told, Vec<u8>);

fn messages_in_any_cut(
    cuts: &Cuts<'_>,
    direction: Direction,
    extensions: Extensions,
) -> Vec<Message> {
    let at_once = messages([cuts.input], direction, extensions);
    let in_pieces = messages(cuts.pieces(), direction, extensions);
    assert!(in_pieces == at_once, "in pieces {in_pieces:?}, at once {at_once:?}");
    let by_bytes = messages(cuts.input.chunks(1), direction, extensions);
    assert!(by_bytes == at_once, "byte by byte {by_bytes:?}, at once {at_once:?}");
    at_once
}

fn messages<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    direction: Direction,
    extensions: Extensions,
) -> Vec<Message> {
    let mut reader = MessageReader::new(direction, extensions);
    let mut contents = [Vec::new(), Vec::new()];
    let mut messages = Vec::new();
    let mut take = |event, contents: &mut [Vec<u8>; 2]| {
        if let Event::Ended(lane, told) = event {
            messages.push((told, std::mem::take(&mut contents[lane as usize])));
        }
    };
    for mut piece in pieces {
        loop {
            let (read, event) = reader.read(piece, |lane, it| show(&mut contents, lane, it));
            piece = &piece[read..];
            if event == Event::Starved {
                break;
            }
            take(event, &mut contents);
        }
        assert!(piece.is_empty(), "starved before the piece's end");
    }
    while let Some(event) = reader.cut(|lane, it| show(&mut contents, lane, it)) {
        take(event, &mut contents);
    }
    assert_eq!(contents, [b"", b""], "content without a message");
    messages
}

fn show(contents: &mut [Vec<u8>; 2], lane: Lane, content: &[u8]) {
    contents[lane as usize].extend_from_slice(content);
}

/// Every byte of payload belongs to one message, and nothing grows beyond its bound.
fn check_messages(messages: &[Message], frames: &[Frame], extensions: Extensions) {
    let payload: u64 = frames.iter().map(|(_, payload)| payload.len() as u64).sum();
    let told: u64 = messages.iter().map(|(told, _)| told.wire_bytes).sum();
    assert_eq!(told, payload, "payload, and what is told of it: {messages:?}");
    for (told, content) in messages {
        let bytes = content.len() as u64;
        let code = told.close_code.map_or(0, |_| 2);
        if extensions.deflate.is_none() {
            assert_eq!(bytes + code, told.wire_bytes, "{told:?}");
        } else {
            let step = INFLATE_STEP_BYTES as u64;
            let fair = INFLATED_BYTES_FREE.max(told.wire_bytes * INFLATE_RATIO_MAX);
            assert!(bytes <= fair + step, "{told:?} gave {bytes}");
        }
        let mut flaws = told.flaws.clone();
        flaws.dedup();
        assert_eq!(flaws.len(), told.flaws.len(), "a flaw twice: {told:?}");
    }
}

/// The input as one message in fragments, with a ping between them; then, deflated, the pieces as
/// messages that build on each other. They are read as what they are.
fn check_own_messages(cuts: &Cuts<'_>, extensions: Extensions) {
    let pieces = cuts.pieces();
    let mut coded = Vec::new();
    for (n, piece) in pieces.iter().enumerate() {
        put_frame(&mut coded, if n == 0 { 2 } else { 0 }, piece);
        put_frame(&mut coded, 0x89, b"ping");
    }
    put_frame(&mut coded, if pieces.is_empty() { 0x82 } else { 0x80 }, b"");
    let found = messages_in_any_cut(&cuts.over(&coded), Direction::Sent, extensions);
    assert_eq!(found.len(), pieces.len() + 1);
    let (told, content) = &found[pieces.len()];
    assert!(content == cuts.input && told.complete && told.kind == MessageKind::Binary);
    assert_eq!(told.flaws, []);

    let Some(deflate) = extensions.deflate.filter(|_| !extensions.unknown) else { return };
    let mut compress = Compress::new(Compression::fast(), false);
    let mut coded = Vec::new();
    for piece in &pieces {
        let mut payload = Vec::with_capacity(piece.len() + 100);
        let flushed = compress.compress_vec(piece, &mut payload, FlushCompress::Sync);
        flushed.expect("room enough");
        payload.truncate(payload.len() - 4);
        put_frame(&mut coded, 0xc2, &payload);
        if !deflate.client_takeover {
            compress.reset();
        }
    }
    let found = messages_in_any_cut(&cuts.over(&coded), Direction::Sent, extensions);
    assert_eq!(found.len(), pieces.len());
    for ((told, content), piece) in found.iter().zip(pieces) {
        assert_eq!((&content[..], &told.flaws[..]), (piece, &[] as &[Flaw]), "{told:?}");
    }
}

/// A masked frame with this first byte.
fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    const KEY: [u8; 4] = [7, 255, 0, 49];
    out.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(128 | length),
        (_, Ok(length)) => out.extend([&[128 | 126][..], &length.to_be_bytes()].concat()),
        _ => out.extend([&[128 | 127][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    out.extend(KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}
