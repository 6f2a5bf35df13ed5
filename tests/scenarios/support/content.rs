//! A body as one side saw it: its length and hash always, its bytes when there are not too many.

/// Bodies up to this many bytes are kept whole, so that a difference can be shown.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Length, hash and, for small bodies, the bytes themselves.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) bytes: u64,
    hasher: blake3::Hasher,
    kept: Vec<u8>,
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.push(bytes);
        content
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.kept.len() < KEPT_BYTES_MAX {
            let room = KEPT_BYTES_MAX - self.kept.len();
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    pub(crate) fn blake3(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// All its bytes, unless there were too many to keep.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        (self.bytes == self.kept.len() as u64).then_some(&self.kept[..])
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.kept[..self.kept.len().min(200)]);
        write!(f, "{} bytes, {}, {start:?}", self.bytes, self.blake3())
    }
}

/// Bytes that look random and depend on `seed` alone (xorshift64*), handed out in pieces.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        // The generator stands still at zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn fill(&mut self, piece: &mut [u8]) {
        for eight in piece.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }

    /// `n` bytes at once.
    pub(crate) fn bytes(seed: u64, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        // In the same pieces as a long body is made of, so that both give the same bytes.
        let mut noise = Self::new(seed);
        bytes.chunks_mut(NOISE_PIECE).for_each(|piece| noise.fill(piece));
        bytes
    }
}

/// The size of the pieces in which noise is made; a multiple of eight.
pub(crate) const NOISE_PIECE: usize = 64 << 10;
