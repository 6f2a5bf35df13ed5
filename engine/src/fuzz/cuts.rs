//! An input that says itself how it is cut.

/// Bytes to parse, and the pieces in which they arrive.
pub(super) struct Cuts<'a> {
    /// What is to be parsed.
    pub(super) input: &'a [u8],
    /// What says how long pieces are, used over and over; with none there is one piece.
    lengths: &'a [u8],
}

impl<'a> Cuts<'a> {
    /// The low three bits of the first byte say how many bytes behind it are lengths; what follows
    /// is the input.
    pub(super) fn read(data: &'a [u8]) -> Self {
        let (first, rest) = data.split_first().unwrap_or((&0, data));
        let (lengths, input) = rest.split_at(usize::from(first & 7).min(rest.len()));
        Self { input, lengths }
    }

    /// Another input, cut in the same way.
    pub(super) fn over<'b>(&self, input: &'b [u8]) -> Cuts<'b>
    where
        'a: 'b,
    {
        Cuts { input, lengths: self.lengths }
    }

    /// The pieces in order; none is empty, and there are no more than [`PIECES_MAX`] and one.
    pub(super) fn pieces(&self) -> Vec<&'a [u8]> {
        let least = self.input.len() / PIECES_MAX + 1;
        let mut rest = self.input;
        let mut lengths = self.lengths.iter().cycle();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let length = lengths.next().map_or(rest.len(), |n| least + usize::from(*n));
            let (piece, behind) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }

    /// Where a reader that keeps what it has looks at it: behind each piece, and for a short input
    /// behind each byte.
    pub(super) fn ends(&self) -> Vec<usize> {
        if self.input.len() <= SHORT_BYTES {
            return (1..=self.input.len()).collect();
        }
        let mut end = 0;
        let ends = self.pieces().into_iter().map(|piece| {
            end += piece.len();
            end
        });
        ends.collect()
    }

    /// What a parser that is asked again with ever more of the input says first, if it is not "more
    /// is needed". Asked with all at once it must say the same.
    pub(super) fn first<T: PartialEq + std::fmt::Debug>(
        &self,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let early = self.ends().into_iter().find_map(|end| parse(&self.input[..end]));
        assert_eq!(early, parse(self.input), "in pieces, and at once");
        early
    }
}

/// A reader that looks at all it has again with each piece takes the square of the number of pieces.
const PIECES_MAX: usize = 128;

/// Up to this length every cut is tried.
const SHORT_BYTES: usize = 64;
