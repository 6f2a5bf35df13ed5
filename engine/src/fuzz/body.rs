//! Bodies by any framing: the content, where it ends, and that a simple decoder finds the same.

use super::cuts::Cuts;
use crate::proto::body::BodyReader;
use crate::proto::chunked::ChunkedError;
use crate::proto::framing::Framing;

/// Reads the input as a body of each framing, and as the content of chunks of our own making.
pub fn framing_chunked(data: &[u8]) {
    let cuts = Cuts::read(data);
    let strict = read_in_any_cut(&cuts, || BodyReader::of_request(Framing::Chunked));
    let tolerant = read_in_any_cut(&cuts, || BodyReader::of_response(Framing::Chunked));
    check_strict(&strict, cuts.input);
    if strict.done.is_ok() {
        assert_eq!(strict, tolerant, "what is to the letter needs no tolerance");
    }
    check_own_chunks(&cuts);

    let length = usize::from(data.first().copied().unwrap_or_default()) * 3;
    let front = &cuts.input[..length.min(cuts.input.len())];
    for (framing, content) in [
        (Framing::None, &[][..]),
        (Framing::Length(length as u64), front),
        (Framing::UntilClose, cuts.input),
    ] {
        let read = read_in_any_cut(&cuts, || BodyReader::of_response(framing));
        assert_eq!((&read.content[..], &read.forwarded[..]), (content, content));
        assert_eq!(read.wire_bytes, content.len());
    }
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    content: Vec<u8>,
    forwarded: Vec<u8>,
    /// How many bytes belong to the body as it is on the wire.
    wire_bytes: usize,
    trailers: Vec<(String, Vec<u8>)>,
    /// Whether it has ended, or is none.
    done: Result<bool, ChunkedError>,
}

/// Reads it at once, in pieces, and byte by byte, with the same result; and what is forwarded of
/// it is read as the same.
fn read_in_any_cut(cuts: &Cuts<'_>, reader: impl Fn() -> BodyReader) -> Read {
    let at_once = read([cuts.input], reader());
    assert_eq!(read(cuts.pieces(), reader()), at_once, "in pieces, and at once");
    assert_eq!(read(cuts.input.chunks(1), reader()), at_once, "byte by byte, and at once");
    assert!(at_once.content.len() <= cuts.input.len(), "content out of nothing");
    if at_once.done.is_ok() {
        let again = read([&at_once.forwarded[..]], reader());
        let (content, trailers) = (&at_once.content, &at_once.trailers);
        assert_eq!(
            (&again.content, &again.trailers, &again.done),
            (content, trailers, &at_once.done)
        );
        assert_eq!(again.forwarded, at_once.forwarded, "forwarded once more");
        assert_eq!(again.wire_bytes, at_once.forwarded.len());
    }
    at_once
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, mut reader: BodyReader) -> Read {
    let (mut content, mut forwarded, mut wire_bytes) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        match reader.read(piece, |it| content.extend_from_slice(it)) {
            Ok(n) => {
                assert!(n == piece.len() || reader.is_done(), "bytes left in mid-body");
                reader.forwarded(&piece[..n]).for_each(|it| forwarded.extend_from_slice(it));
                wire_bytes += n;
            }
            Err(error) => {
                // How much of a piece was read before the fault is nobody's concern.
                let (forwarded, trailers) = (Vec::new(), Vec::new());
                return Read { content, forwarded, wire_bytes: 0, trailers, done: Err(error) };
            }
        }
        if reader.is_done() {
            break;
        }
    }
    let trailers = reader.trailers().into_iter();
    let trailers = trailers.map(|it| (it.name.into_owned(), it.value.into_owned())).collect();
    Read { content, forwarded, wire_bytes, trailers, done: Ok(reader.is_done()) }
}

/// What is taken for a whole body of a request, the simple decoder takes for one too, and finds the
/// same in it.
fn check_strict(read: &Read, input: &[u8]) {
    if read.done == Ok(true) {
        let found = decode(input).expect("a whole body for the simple decoder too");
        assert_eq!((&found.0, found.1), (&read.content, read.wire_bytes));
    }
}

/// Chunked coding by the letter of RFC 9112, section 7.1, from a whole body: content and length.
fn decode(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut rest) = (Vec::new(), input);
    loop {
        let line;
        (line, rest) = cut_line(rest)?;
        let digits = line.split(|byte| !byte.is_ascii_hexdigit()).next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let (data, behind) = rest.split_at_checked(size)?;
        content.extend_from_slice(data);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    loop {
        let line;
        (line, rest) = cut_line(rest)?;
        if line.is_empty() {
            return Some((content, input.len() - rest.len()));
        }
    }
}

/// A line and what stands behind its end.
fn cut_line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.windows(2).position(|two| two == b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}

/// The input's pieces as chunks are read as the input again, up to the last byte of their own.
fn check_own_chunks(cuts: &Cuts<'_>) {
    let mut coded = Vec::new();
    for (n, piece) in cuts.pieces().into_iter().enumerate() {
        let extension = [";a", "", ";a=\"b\"", ";A=b;c"][n % 4];
        coded.extend_from_slice(
            format!("{:0width$x}{extension}\r\n", piece.len(), width = n % 5).as_bytes(),
        );
        coded.extend_from_slice(piece);
        coded.extend_from_slice(b"\r\n");
    }
    let trailers = ["", "A: b\r\n", "A: b\r\nC:\r\n"][cuts.input.len() % 3];
    coded.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    let length = coded.len();
    coded.extend_from_slice(b"next");

    let read = read_in_any_cut(&cuts.over(&coded), || BodyReader::of_request(Framing::Chunked));
    assert_eq!((&read.content[..], read.wire_bytes), (cuts.input, length));
    assert_eq!(read.done, Ok(true));
    assert_eq!(read.trailers.len(), cuts.input.len() % 3, "{trailers:?}");
}
