//! Tables of small bodies, sound and flawed, each cut in every way; bombs; and bodies that were
//! changed at random.

use std::cell::Cell;
use std::io::Write as _;

use flate2::Compression;

use super::*;

/// What came out, and what was wrong.
type Outcome = (Vec<u8>, Option<CodingFlaw>);

fn names(list: &str) -> Vec<String> {
    codings([("Content-Encoding", list.as_bytes())].into_iter())
}

/// Applies the codings as an origin does: the first of the list first.
fn encode(list: &str, plain: &[u8]) -> Vec<u8> {
    list.split(", ").fold(plain.to_vec(), |body, name| encode_one(name, &body))
}

fn encode_one(name: &str, plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    let level = Compression::default();
    match name {
        "gzip" | "x-gzip" | "X-GZIP" => {
            let mut encoder = flate2::write::GzEncoder::new(&mut coded, level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap();
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(&mut coded, level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap();
        }
        "raw" => {
            let mut encoder = flate2::write::DeflateEncoder::new(&mut coded, level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap();
        }
        "br" => {
            let mut encoder = ::brotli::CompressorWriter::new(&mut coded, 4096, 5, 18);
            encoder.write_all(plain).unwrap();
        }
        "zstd" => {
            let mut encoder = ::zstd::Encoder::new(&mut coded, 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap();
        }
        "identity" => coded = plain.to_vec(),
        other => panic!("{other}"),
    }
    coded
}

/// Decodes pieces, each driven to its end; checks what every push promises.
fn decode<'a>(list: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(&names(list));
    let mut decoded = Vec::new();
    for piece in pieces {
        let mut rest = piece;
        loop {
            let before = decoded.len();
            let progress = decoder.push(rest, &mut |out| {
                assert!(!out.is_empty() && out.len() <= PIECE_BYTES_MAX);
                decoded.extend_from_slice(out);
            });
            assert!(decoded.len() - before <= SLICE_BYTES + PIECE_BYTES_MAX, "a long turn");
            rest = &rest[progress.taken..];
            if !progress.more {
                break;
            }
        }
        assert!(rest.is_empty(), "nothing to do, and something left");
    }
    let flaw = match decoder.finish() {
        Some(told) => {
            assert_eq!(told.bytes, decoded.len() as u64);
            assert_eq!(told.codings, names(list));
            told.flaw
        }
        None => None,
    };
    (decoded, flaw)
}

fn at_once(list: &str, coded: &[u8]) -> Outcome {
    decode(list, [coded])
}

/// A text that no coding handles in one block or literal run.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let words = ["data", " the", "{\"", "\":", "delta", ",", "\n", "0", "schön", "claude"];
    let mut text = Vec::new();
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(words[(state >> 24) as usize % words.len()].as_bytes());
    }
    text.truncate(bytes);
    text
}

/// How the name in the field and the encoder are called.
const LISTS: [(&str, &str); 9] = [
    ("gzip", "gzip"),
    ("x-gzip", "gzip"),
    ("deflate", "deflate"),
    ("deflate", "raw"),
    ("br", "br"),
    ("zstd", "zstd"),
    ("gzip, br", "gzip, br"),
    ("zstd, deflate, gzip", "zstd, deflate, gzip"),
    ("br, zstd, identity", "br, zstd"),
];

#[test]
fn every_cut_gives_the_same() {
    for (list, encoder) in LISTS {
        for plain in [&b""[..], b"a", b"event: x\ndata: 1\n\n", &text(700)] {
            let coded = encode(encoder, plain);
            let expected = (plain.to_vec(), None);
            for at in 0..=coded.len() {
                assert_eq!(decode(list, [&coded[..at], &coded[at..]]), expected, "{list} at {at}");
            }
            for step in 1..=coded.len().min(40) {
                assert_eq!(decode(list, coded.chunks(step)), expected, "{list} by {step}");
            }
        }
    }
}

#[test]
fn long_bodies_come_in_turns() {
    let plain = text(3_000_000);
    for (list, encoder) in LISTS {
        let coded = encode(encoder, &plain);
        for step in [7_001, 65_536, coded.len()] {
            let (decoded, flaw) = decode(list, coded.chunks(step));
            assert!(decoded == plain && flaw.is_none(), "{list} by {step}: {flaw:?}");
        }
    }
}

/// The last piece may fill the room there is for it.
#[test]
fn bodies_of_whole_pieces_have_their_end() {
    for (list, encoder) in LISTS {
        for pieces in 1..=9 {
            let plain = text(pieces * PIECE_BYTES_MAX);
            let coded = encode(encoder, &plain);
            assert!(at_once(list, &coded) == (plain, None), "{list}, {pieces}");
        }
    }
    // Without a checksum the last piece and the end come at once.
    let plain = text(PIECE_BYTES_MAX);
    let coded = ::zstd::bulk::compress(&plain, 3).unwrap();
    assert!(at_once("zstd", &coded) == (plain, None));
}

/// What an origin flushes can be read before more comes.
#[test]
fn what_is_flushed_comes_out() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    let mut br = ::brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
    let mut zstd = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
    let [mut of_gzip, mut of_br, mut of_zstd] =
        ["gzip", "br", "zstd"].map(|n| Decoder::new(&names(n)));
    let (mut at_gzip, mut at_br, mut at_zstd) = (0, 0, 0);
    for n in 0..20 {
        let event = format!("data: {n}\n\n");
        gzip.write_all(event.as_bytes()).unwrap();
        gzip.flush().unwrap();
        assert_eq!(flushed(&mut of_gzip, gzip.get_ref(), &mut at_gzip), event);
        br.write_all(event.as_bytes()).unwrap();
        br.flush().unwrap();
        assert_eq!(flushed(&mut of_br, br.get_ref(), &mut at_br), event);
        zstd.write_all(event.as_bytes()).unwrap();
        zstd.flush().unwrap();
        assert_eq!(flushed(&mut of_zstd, zstd.get_ref(), &mut at_zstd), event);
    }
    assert_eq!(of_gzip.finish().unwrap().flaw, Some(CodingFlaw::Truncated));
}

fn flushed(decoder: &mut Decoder, coded: &[u8], at: &mut usize) -> String {
    let mut out = Vec::new();
    let progress = decoder.push(&coded[*at..], &mut |piece| out.extend_from_slice(piece));
    assert_eq!(progress, Progress { taken: coded.len() - *at, more: false });
    *at = coded.len();
    String::from_utf8(out).unwrap()
}

#[test]
fn members_and_frames_in_a_row() {
    let two = |name| [encode(name, b"one "), encode(name, b"two")].concat();
    let empty_ones = [encode("gzip", b"").repeat(5_000), encode("gzip", b"end")].concat();
    // A frame that is skipped (RFC 8878, section 3.1.2).
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &two("zstd")].concat();
    for (list, coded, plain) in [
        ("gzip", two("gzip"), "one two"),
        ("gzip", empty_ones, "end"),
        ("zstd", two("zstd"), "one two"),
        ("zstd", skipped, "one two"),
    ] {
        for step in [1, 2, 3, 5, coded.len()] {
            let expected = (plain.as_bytes().to_vec(), None);
            assert_eq!(decode(list, coded.chunks(step)), expected, "{list} by {step}");
        }
    }
}

#[test]
fn flaws_are_told_whatever_the_cut() {
    let plain = text(600);
    for (list, encoder) in LISTS {
        let coded = encode(encoder, &plain);
        let cut = &coded[..coded.len() - 1];
        all_cuts(list, cut, CodingFlaw::Truncated);
        all_cuts(list, &coded[..1], CodingFlaw::Truncated);
        all_cuts(list, &[&coded, &b"x"[..]].concat(), CodingFlaw::Trailing);
    }
    let mut bad_sum = encode("gzip", &plain);
    let at = bad_sum.len() - 8;
    bad_sum[at] ^= 1;
    let mut bad_zlib_sum = encode("deflate", &plain);
    *bad_zlib_sum.last_mut().unwrap() ^= 1;
    let mut bad_zstd_sum = encode("zstd", &plain);
    *bad_zstd_sum.last_mut().unwrap() ^= 1;
    // A dictionary that nobody has (RFC 1950, section 2.2).
    let wants_dictionary = [0x78, 0xbb, 1, 2, 3, 4, 5, 6];
    // The window of the "large window" extension.
    let large_br = [0x11, 0x1e, 0, 0, 0, 0];
    for (list, coded, flaw) in [
        ("gzip", &b"plain text"[..], CodingFlaw::Corrupt),
        ("gzip", &[0x1f, 0x8b, 9, 0, 0], CodingFlaw::Corrupt),
        ("gzip", &bad_sum, CodingFlaw::Corrupt),
        ("deflate", b"plain text", CodingFlaw::Corrupt),
        ("deflate", &bad_zlib_sum, CodingFlaw::Corrupt),
        ("deflate", &wants_dictionary, CodingFlaw::Corrupt),
        ("br", b"plain text, quite long", CodingFlaw::Corrupt),
        ("br", &large_br, CodingFlaw::Corrupt),
        ("zstd", b"plain text", CodingFlaw::Corrupt),
        ("zstd", &bad_zstd_sum, CodingFlaw::Corrupt),
        ("gzip, br", &encode("gzip", b"once only"), CodingFlaw::Corrupt),
        ("gzip", &[encode("gzip", b"a"), vec![0x1f]].concat(), CodingFlaw::Truncated),
        ("gzip", &[encode("gzip", b"a"), vec![0x1f, 0x8c]].concat(), CodingFlaw::Trailing),
        ("gzip", &[encode("gzip", b"a"), vec![0; 512]].concat(), CodingFlaw::Trailing),
        ("compress", b"\x1f\x9d\x90", CodingFlaw::Unsupported),
        ("gzip, utf-8", b"{}", CodingFlaw::Unsupported),
        ("gzip, gzip, gzip, gzip, gzip, gzip", b"{}", CodingFlaw::Unsupported),
    ] {
        all_cuts(list, coded, flaw);
    }
}

/// Checks the flaw for every cut, and that what comes before it is the same too, or for br at
/// least its beginning.
fn all_cuts(list: &str, coded: &[u8], flaw: CodingFlaw) {
    let whole = at_once(list, coded);
    assert_eq!(whole.1, Some(flaw), "{list} {coded:02x?}");
    for at in 0..=coded.len() {
        let cut = decode(list, [&coded[..at], &coded[at..]]);
        assert_eq!(cut.1, Some(flaw), "{list} at {at}");
        if list.contains("br") {
            assert!(cut.0.starts_with(&whole.0), "{list} at {at}");
        } else {
            assert_eq!(cut.0, whole.0, "{list} at {at}");
        }
    }
    assert_eq!(decode(list, coded.chunks(1)).1, Some(flaw), "{list}");
}

/// What lies before a flaw is read.
#[test]
fn the_sound_part_comes_out() {
    let plain = text(100_000);
    for name in ["gzip", "deflate", "br", "zstd"] {
        let coded = encode(name, &plain);
        let (decoded, flaw) = at_once(name, &coded[..coded.len() / 2]);
        assert_eq!(flaw, Some(CodingFlaw::Truncated), "{name}");
        assert!(plain.starts_with(&decoded), "{name}");
        // zstd has blocks of 128 KiB: this is one.
        assert!(decoded.len() > 30_000 || name == "zstd", "{name}: {}", decoded.len());
    }
    let two = [encode("zstd", &plain), encode("zstd", &plain)].concat();
    let (decoded, flaw) = at_once("zstd", &two[..two.len() - 10]);
    assert!(decoded.len() >= plain.len() && flaw == Some(CodingFlaw::Truncated));
}

#[test]
fn no_body_has_no_flaw() {
    for list in ["gzip", "br", "zstd, gzip", "compress"] {
        assert_eq!(at_once(list, b""), (Vec::new(), None), "{list}");
    }
}

#[test]
fn names_in_the_field() {
    let list = |values: &[&'static str]| {
        let fields = values.iter().map(|value| ("content-ENCODING", value.as_bytes()));
        codings([("Content-Type", &b"gzip"[..])].into_iter().chain(fields))
    };
    assert_eq!(list(&[]), [""; 0]);
    assert_eq!(list(&["identity", " , ,"]), [""; 0]);
    assert_eq!(list(&["GZip ,\tbr", "X-gzip"]), ["gzip", "br", "x-gzip"]);
    assert_eq!(list(&["a,b,c,d,e,f,g,h"]).len(), CODINGS_MAX + 1);
    assert_eq!(names(&"é".repeat(100))[0].chars().count(), 16);
}

#[test]
fn bombs_stop_the_decoder() {
    let zeros = vec![0; 10_000_000];
    let free = usize::try_from(RATIO_FREE_BYTES).unwrap();
    for list in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "br, gzip", "zstd, br"] {
        let coded = encode(list, &zeros);
        for step in [1_000, coded.len()] {
            let (decoded, flaw) = decode(list, coded.chunks(step));
            assert_eq!(flaw, Some(CodingFlaw::Bomb), "{list}");
            assert_eq!(decoded.len(), free, "{list}");
        }
    }
    // The middle of a stack may be the bomb: the inner gzip makes little of many zeros.
    let hidden = encode("gzip", &encode("gzip", &zeros)[..10]);
    assert_eq!(at_once("gzip, gzip", &hidden).1, Some(CodingFlaw::Truncated));
    assert_eq!(at_once("gzip, gzip", &encode("gzip", &zeros)).1, Some(CodingFlaw::Corrupt));
}

#[test]
fn what_swells_within_the_bounds_is_no_bomb() {
    let short = vec![0; usize::try_from(RATIO_FREE_BYTES).unwrap()];
    let log = b"2026-11-24T10:00:00Z INFO nothing happened; nothing will\n".repeat(200_000);
    // The log shrinks to a 300th or so: with as much noise before it, it is within the ratio.
    let mut noise = vec![0; 400_000];
    let mut state = 7_u32;
    noise.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    for name in ["gzip", "deflate", "br", "zstd"] {
        for plain in [&short, &[&noise[..], &log].concat()] {
            let (decoded, flaw) = at_once(name, &encode(name, plain));
            assert!(decoded == **plain && flaw.is_none(), "{name}: {flaw:?}");
        }
    }
}

#[test]
fn a_bomb_gives_its_memory_back() {
    let coded = encode("zstd", &vec![0; 10_000_000]);
    let mut decoder = Decoder::new(&names("zstd"));
    let mut rest = &coded[..];
    while !rest.is_empty() {
        rest = &rest[decoder.push(rest, &mut |_| ()).taken..];
    }
    assert_eq!(decoder.flaw(), Some(CodingFlaw::Bomb));
    assert!(decoder.layers.is_empty());
    assert_eq!(decoder.push(b"more", &mut |_| panic!()), Progress { taken: 4, more: false });
}

#[test]
fn zstd_windows() {
    for (log, flaw) in
        [(20, None), (23, None), (24, Some(CodingFlaw::Window)), (27, Some(CodingFlaw::Window))]
    {
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"windows").unwrap();
        let coded = encoder.finish().unwrap();
        assert_eq!(at_once("zstd", &coded).1, flaw, "{log}");
        assert_eq!(decode("zstd", coded.chunks(1)).1, flaw, "{log}");
    }
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Bodies changed at random: no decoder panics or runs on, and however such a body is cut, its flaw
/// is the same and one outcome is the beginning of the other.
#[test]
fn changed_bodies() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        shown(info);
    }));
    let mut random = Random(0x5eed);
    for (list, encoder) in LISTS {
        let coded = encode(encoder, &text(2_000));
        for round in 0..400 {
            let mut changed = coded.clone();
            for _ in 0..=random.below(4) {
                random.change(&mut changed);
            }
            let whole = at_once(list, &changed);
            let step = 1 + random.below(changed.len().clamp(1, 60));
            let cut = decode(list, changed.chunks(step));
            assert_eq!(whole.1, cut.1, "{list}, round {round}, by {step}");
            let is_start = cut.0.starts_with(&whole.0) || whole.0.starts_with(&cut.0);
            assert!(is_start, "{list}, round {round}, by {step}");
            assert_eq!(PANICS.get(), 0, "{list}, round {round}: {changed:02x?}");
        }
    }
}

/// The same changes in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn change(&mut self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let (at, byte) = (self.below(body.len()), u8::try_from(self.below(256)).unwrap());
        match self.below(5) {
            0 => body[at] = byte,
            1 => body[at] ^= 1 << (byte % 8),
            2 => body.truncate(at),
            3 => body.insert(at, byte),
            _ => drop(body.remove(at)),
        }
    }
}
