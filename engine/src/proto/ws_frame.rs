//! WebSocket frames (RFC 6455, section 5.2), read beside the bytes: which of them are header, which
//! payload. Nothing is refused; what is wrong with a frame is told to whoever reads the message.

/// The first two bytes, eight of a length, four of a masking key.
const HEADER_BYTES_MAX: usize = 14;

/// A reader of one direction's frames, at some place inside them.
#[derive(Debug)]
pub(crate) struct FrameReader {
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In a header, of which the first `length` bytes are here.
    Header { bytes: [u8; HEADER_BYTES_MAX], length: usize },
    /// In the payload, or at its end.
    Payload { head: FrameHead, done: u64 },
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Whether it is the message's last.
    pub(crate) is_final: bool,
    /// The three reserved bits, in the order of the byte: 4 is RSV1.
    pub(crate) reserved: u8,
    /// The opcode.
    pub(crate) opcode: u8,
    /// The masking key, if it is masked.
    pub(crate) mask: Option<[u8; 4]>,
    /// Length of the payload.
    pub(crate) length: u64,
    /// Whether the length could have been written shorter.
    pub(crate) is_padded: bool,
}

/// What comes next in a direction's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FramePart<'a> {
    /// A header has ended.
    Head(FrameHead),
    /// Payload as it is on the wire. It counts as read by [`FrameReader::advance`].
    Payload(&'a [u8]),
    /// The frame has ended.
    End(FrameHead),
    /// More bytes are needed.
    Starved,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        Self { place: Place::start() }
    }

    /// Reads from the front of `input`: what is there, and how many bytes of it are now read.
    pub(crate) fn read<'a>(&mut self, input: &'a [u8]) -> (usize, FramePart<'a>) {
        match &mut self.place {
            Place::Header { bytes, length } => {
                let before = *length;
                let Some(head) = read_header(bytes, length, input) else {
                    return (*length - before, FramePart::Starved);
                };
                let read = *length - before;
                self.place = Place::Payload { head, done: 0 };
                (read, FramePart::Head(head))
            }
            Place::Payload { head, done } if *done == head.length => {
                let head = *head;
                self.place = Place::start();
                (0, FramePart::End(head))
            }
            Place::Payload { .. } if input.is_empty() => (0, FramePart::Starved),
            Place::Payload { head, done } => {
                let left = usize::try_from(head.length - *done).unwrap_or(usize::MAX);
                (0, FramePart::Payload(&input[..left.min(input.len())]))
            }
        }
    }

    /// The first `bytes` of the payload that was there are read.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let Place::Payload { head, done } = &mut self.place else {
            unreachable!("only payload is read in parts")
        };
        *done += bytes as u64;
        debug_assert!(*done <= head.length, "read beyond the frame");
    }

    /// Payload at the place that is reached, unmasked, as much of it as there is room for. It is
    /// copied into the room only where it is masked.
    pub(crate) fn plain<'a>(&self, payload: &'a [u8], room: &'a mut [u8]) -> &'a [u8] {
        let Place::Payload { head, done } = &self.place else {
            unreachable!("only payload is masked")
        };
        let payload = &payload[..payload.len().min(room.len())];
        let Some(key) = head.mask else { return payload };
        let room = &mut room[..payload.len()];
        unmask(key, *done, payload, room);
        room
    }
}

impl Place {
    fn start() -> Self {
        Self::Header { bytes: [0; _], length: 0 }
    }
}

/// Gathers header bytes until there is a whole one.
fn read_header(
    bytes: &mut [u8; HEADER_BYTES_MAX],
    length: &mut usize,
    input: &[u8],
) -> Option<FrameHead> {
    let mut input = input;
    loop {
        let wanted = if *length < 2 { 2 } else { header_bytes(bytes[1]) };
        let part = (wanted - *length).min(input.len());
        bytes[*length..*length + part].copy_from_slice(&input[..part]);
        *length += part;
        input = &input[part..];
        if *length < wanted {
            return None;
        }
        if wanted == header_bytes(bytes[1]) {
            return Some(FrameHead::of(bytes));
        }
    }
}

/// How long a header is, by its second byte.
fn header_bytes(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

impl FrameHead {
    fn of(bytes: &[u8; HEADER_BYTES_MAX]) -> Self {
        let (length, least, behind) = match bytes[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([bytes[2], bytes[3]])), 126, 4),
            127 => {
                let [_, _, length @ .., _, _, _, _] = *bytes;
                (u64::from_be_bytes(length), 1 << 16, 10)
            }
            short => (u64::from(short), 0, 2),
        };
        let key = [bytes[behind], bytes[behind + 1], bytes[behind + 2], bytes[behind + 3]];
        Self {
            is_final: bytes[0] & 0x80 != 0,
            reserved: bytes[0] >> 4 & 7,
            opcode: bytes[0] & 0x0f,
            mask: (bytes[1] & 0x80 != 0).then_some(key),
            length,
            is_padded: length < least,
        }
    }

    /// Whether it stands between the frames of other messages (section 5.5).
    pub(crate) fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }

    /// Whether the length is one that no frame may have: the top bit is set.
    pub(crate) fn is_out_of_range(&self) -> bool {
        self.length >> 63 != 0
    }
}

/// Section 5.3: byte `i` of the payload is masked by byte `i` mod 4 of the key. Eight at a time.
fn unmask(key: [u8; 4], offset: u64, payload: &[u8], out: &mut [u8]) {
    let offset = usize::try_from(offset % 4).unwrap_or_default();
    let turned: [u8; 4] = std::array::from_fn(|i| key[(offset + i) % 4]);
    let [a, b, c, d] = turned;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks::<8>();
    let (out_words, out_rest) = out.as_chunks_mut::<8>();
    for (from, to) in words.iter().zip(out_words) {
        *to = (u64::from_ne_bytes(*from) ^ word).to_ne_bytes();
    }
    for (i, (from, to)) in rest.iter().zip(out_rest).enumerate() {
        *to = from ^ turned[i % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Frame = (FrameHead, Vec<u8>);

    /// The heads and unmasked payloads in `input`, fed piece by piece; and what of the last frame
    /// has arrived, if it has begun.
    fn frames(pieces: &[&[u8]]) -> (Vec<Frame>, Option<Frame>) {
        let (mut reader, mut whole, mut open) = (FrameReader::new(), Vec::new(), None);
        for piece in pieces {
            let mut input = *piece;
            loop {
                let (read, part) = reader.read(input);
                input = &input[read..];
                match part {
                    FramePart::Head(head) => open = Some((head, Vec::new())),
                    FramePart::Payload(payload) => {
                        let mut room = [0; 5];
                        let plain = reader.plain(payload, &mut room);
                        open.as_mut().unwrap().1.extend_from_slice(plain);
                        reader.advance(plain.len());
                        input = &input[plain.len()..];
                    }
                    FramePart::End(head) => {
                        let frame = open.take().unwrap();
                        assert_eq!(frame.0, head);
                        whole.push(frame);
                    }
                    FramePart::Starved => break,
                }
            }
            assert!(input.is_empty());
        }
        (whole, open)
    }

    fn head(first: u8, mask: Option<[u8; 4]>, length: u64) -> FrameHead {
        FrameHead {
            is_final: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 15,
            mask,
            length,
            is_padded: false,
        }
    }

    #[test]
    fn every_cut_gives_the_same() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let long = vec![b'x'; 300];
        let mut input = vec![0x81, 5];
        input.extend_from_slice(b"Hello");
        // RFC 6455, section 5.7: a single-frame masked text message.
        input
            .extend_from_slice(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        input.extend_from_slice(&[0x89, 0x80, 1, 2, 3, 4, 0x72, 126, 1, 44]);
        input.extend_from_slice(&long);
        input.extend_from_slice(&[0x80, 127, 0, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
        input.extend_from_slice(&[0x8a, 0]);
        let padded = FrameHead { is_padded: true, ..head(0x80, None, 2) };
        let expected = vec![
            (head(0x81, None, 5), b"Hello".to_vec()),
            (head(0x81, Some(key), 5), b"Hello".to_vec()),
            (head(0x89, Some([1, 2, 3, 4]), 0), Vec::new()),
            (head(0x72, None, 300), long),
            (padded, b"hi".to_vec()),
            (head(0x8a, None, 0), Vec::new()),
        ];
        assert!(expected[2].0.is_control() && !expected[3].0.is_control());
        for cut in 0..=input.len() {
            let (before, behind) = input.split_at(cut);
            assert_eq!(frames(&[before, behind]).0, expected, "cut at {cut}");
        }
        for step in 1..20 {
            let pieces: Vec<_> = input.chunks(step).collect();
            assert_eq!(frames(&pieces), (expected.clone(), None), "by {step}");
        }
    }

    #[test]
    fn lengths_and_how_they_may_be_written() {
        for (written, length, padded, out_of_range) in [
            (&[125][..], 125, false, false),
            (&[126, 0, 125], 125, true, false),
            (&[126, 0, 126], 126, false, false),
            (&[126, 0xff, 0xff], 65_535, false, false),
            (&[127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 65_535, true, false),
            (&[127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536, false, false),
            (&[127, 0x7f, 255, 255, 255, 255, 255, 255, 255], u64::MAX >> 1, false, false),
            (&[127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1 << 63, false, true),
        ] {
            let mut input = vec![0x82];
            input.extend_from_slice(written);
            input.extend_from_slice(b"abc");
            let (whole, open) = frames(&[&input]);
            let (head, payload) = open.unwrap_or_else(|| panic!("{written:?}: {whole:?}"));
            assert_eq!((head.length, head.is_padded), (length, padded), "{written:?}");
            assert_eq!(head.is_out_of_range(), out_of_range, "{written:?}");
            assert_eq!(payload, b"abc");
        }
    }

    #[test]
    fn unmasking_goes_by_the_place_in_the_payload() {
        let key = [1, 20, 77, 255];
        let plain: Vec<u8> = (0..200).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
        for from in 0..40 {
            for to in from..=masked.len() {
                let mut out = vec![0; to - from];
                unmask(key, from as u64, &masked[from..to], &mut out);
                assert_eq!(out, plain[from..to], "{from}..{to}");
            }
        }
    }
}
