//! Content codings: any bytes under any of them, and bodies of our own coding.

use std::io::Write as _;

use agent_gate_store::content_coding::{
    DECODED_BYTES_MAX, Decoder, PIECE_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX,
};
use agent_gate_store::record::CodingFlaw;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::cuts::Cuts;

/// Decodes the input under codings that its first byte chooses.
pub fn content_coding(data: &[u8]) {
    let cuts = Cuts::read(data);
    let bits = usize::from(data.first().copied().unwrap_or_default());
    let (inner, outer) = (NAMES[bits >> 3 & 3], NAMES[bits >> 5 & 3]);
    let codings = if bits & 128 == 0 { vec![inner] } else { vec![inner, outer] };
    decode_in_any_cut(&cuts, &codings);
    check_own_codings(&cuts, &codings);
}

const NAMES: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// What became of a body.
struct Read {
    content: Vec<u8>,
    flaw: Option<CodingFlaw>,
}

/// A body without a flaw gives the same bytes however it is cut. One with a flaw gives the same
/// flaw, and of what came before it more or less.
fn decode_in_any_cut(cuts: &Cuts<'_>, codings: &[&str]) -> Read {
    let at_once = decode([cuts.input], codings);
    check_bound(&at_once, cuts.input.len());
    let cut = [decode(cuts.pieces(), codings), decode(cuts.input.chunks(1), codings)];
    for other in cut {
        check_bound(&other, cuts.input.len());
        assert_eq!(other.flaw, at_once.flaw, "in pieces, and at once");
        let shorter = other.content.len().min(at_once.content.len());
        assert!(other.content[..shorter] == at_once.content[..shorter], "other bytes");
        assert!(at_once.flaw.is_some() || other.content.len() == at_once.content.len());
    }
    at_once
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, codings: &[&str]) -> Read {
    let codings: Vec<_> = codings.iter().map(|name| (*name).to_owned()).collect();
    let (mut decoder, mut content) = (Decoder::new(&codings), Vec::new());
    let mut sink = |piece: &[u8]| {
        assert!(piece.len() <= PIECE_BYTES_MAX && !piece.is_empty());
        content.extend_from_slice(piece);
    };
    for mut piece in pieces {
        loop {
            let progress = decoder.push(piece, &mut sink);
            piece = &piece[progress.taken..];
            if !progress.more {
                break;
            }
        }
        assert!(piece.is_empty(), "nothing to do, and not all is taken");
    }
    let decoded = decoder.finish();
    assert_eq!(decoded.as_ref().map_or(0, |it| it.bytes), content.len() as u64);
    Read { content, flaw: decoded.and_then(|it| it.flaw) }
}

fn check_bound(read: &Read, wire_bytes: usize) {
    let fair = RATIO_FREE_BYTES.max(wire_bytes as u64 * RATIO_MAX).min(DECODED_BYTES_MAX);
    assert!(read.content.len() as u64 <= fair, "{} of {wire_bytes}", read.content.len());
}

/// The input under those of the codings that are easily written is read as the input.
fn check_own_codings(cuts: &Cuts<'_>, codings: &[&str]) {
    let easy: Vec<_> = codings.iter().copied().filter(|name| *name != "br").collect();
    if easy.is_empty() {
        return;
    }
    let coded = easy.iter().fold(cuts.input.to_vec(), |body, name| encode(name, &body));
    let read = decode_in_any_cut(&cuts.over(&coded), &easy);
    assert_eq!(read.flaw, None, "{easy:?}");
    assert!(read.content == cuts.input, "{easy:?}");
}

fn encode(name: &str, body: &[u8]) -> Vec<u8> {
    match name {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).expect("memory takes all");
            encoder.finish().expect("memory takes all")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).expect("memory takes all");
            encoder.finish().expect("memory takes all")
        }
        _ => raw_zstd(body),
    }
}

/// A frame with a window of a kilobyte and raw blocks of at most as much (RFC 8878, section 3.1.1).
fn raw_zstd(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0];
    for block in body.chunks(1000) {
        let header = u32::try_from(block.len() << 3).expect("short").to_le_bytes();
        frame.extend_from_slice(&header[..3]);
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&[1, 0, 0]); // the last block is empty
    frame
}
