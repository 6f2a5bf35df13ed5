//! The small values records are made of: ids, moments, hashes, and how each looks as text.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A ULID: 48 bits of milliseconds, 80 random bits; sorts by time; 26 characters as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u128);

impl Id {
    /// A fresh id, greater than every id this thread made before.
    #[expect(clippy::new_without_default, reason = "an id is never a neutral default")]
    pub fn new() -> Self {
        thread_local! {
            static GENERATOR: RefCell<ulid::Generator> = const { RefCell::new(ulid::Generator::new()) };
        }
        GENERATOR.with_borrow_mut(|generator| {
            let ulid = match generator.generate() {
                Ok(ulid) => ulid,
                // 2^80 steps from a random start within a millisecond: take the next one anyway.
                Err(overflow) => overflow.commit_overflow_increment(),
            };
            Self(u128::from_be_bytes(ulid.to_bytes()))
        })
    }

    /// Appends its text.
    pub(crate) fn push(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text(&mut [0; ulid::ULID_LEN]).as_bytes());
    }

    fn text(self, buffer: &mut [u8; ulid::ULID_LEN]) -> &str {
        ulid::Ulid::from_bytes(self.0.to_be_bytes()).array_to_str(buffer)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(&mut [0; ulid::ULID_LEN]))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // 26 characters hold 130 bits; the two on top must be zero.
        if text.as_bytes().first().is_none_or(|first| *first > b'7') {
            return Err(ValueError::Id);
        }
        let ulid = ulid::Ulid::from_string(text).map_err(|_| ValueError::Id)?;
        Ok(Self(u128::from_be_bytes(ulid.to_bytes())))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; ulid::ULID_LEN]))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// A moment: microseconds since the Unix epoch; RFC 3339 in UTC with six decimals as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock's moment.
    pub fn now() -> Self {
        // A clock before 1970 or after 294,000 years is no reason to fail: it shows as the epoch.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or_default())
    }

    /// Year, month and day in UTC, as journal files are named by.
    pub(crate) fn day(self) -> (i16, i8, i8) {
        let date = self.jiff().to_zoned(jiff::tz::TimeZone::UTC).date();
        (date.year(), date.month(), date.day())
    }

    /// Appends its text.
    pub(crate) fn push(self, out: &mut Vec<u8>) {
        // Thousands of records share a second, so its text is kept.
        thread_local! {
            static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
        }
        let (second, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        SECOND.with_borrow_mut(|(kept, text)| {
            if *kept != second {
                *kept = second;
                *text = self.to_string();
                text.truncate(text.len() - "000000Z".len());
            }
            out.extend_from_slice(text.as_bytes());
        });
        // Six digits: those behind a leading one.
        out.extend_from_slice(&itoa::Buffer::new().format(1_000_000 + micros).as_bytes()[1..]);
        out.push(b'Z');
    }

    fn jiff(self) -> jiff::Timestamp {
        let out_of_range = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(out_of_range)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.jiff())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| ValueError::Timestamp)?;
        Ok(Self(timestamp.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// A BLAKE3 hash, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the very first line of a journal names as the line before it.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        blake3::hash(bytes).into()
    }

    /// Its text.
    pub(crate) fn hex(self) -> impl std::ops::Deref<Target = str> {
        blake3::Hash::from(self.0).to_hex()
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ValueError::Hash)?;
        Ok(hash.into())
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

/// A text that is not the value it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not 26 characters of a ULID.
    #[error("not an id (26 characters of a ULID)")]
    Id,
    /// Not RFC 3339.
    #[error("not a time as in RFC 3339")]
    Timestamp,
    /// Not 64 hex digits.
    #[error("not a BLAKE3 hash (64 hex digits)")]
    Hash,
}

/// Reads a value from the JSON string that holds its text form.
fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = ValueError>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct Text<T>(std::marker::PhantomData<T>);

    impl<T: FromStr<Err = ValueError>> de::Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_within_a_thread_and_read_back() {
        let mut last = Id::new();
        for _ in 0..10_000 {
            let next = Id::new();
            assert!(next > last);
            assert!(next.to_string() > last.to_string());
            last = next;
        }
        assert_eq!(last.to_string().len(), 26);
        assert_eq!(last.to_string().parse(), Ok(last));
        assert_eq!("01J".parse::<Id>(), Err(ValueError::Id));
        assert_eq!("8ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<Id>(), Err(ValueError::Id));
    }

    #[test]
    fn moments_have_six_decimals_in_utc() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_764_000_000_000_001, "2025-11-24T16:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp(micros).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(micros)));
        }
        assert_eq!(Timestamp(1_764_000_000_000_001).day(), (2025, 11, 24));
        assert_eq!("yesterday".parse::<Timestamp>(), Err(ValueError::Timestamp));
        assert!(Timestamp(i64::MAX).to_string().starts_with("9999-12-3"));
    }

    #[test]
    fn hashes_are_hex() {
        let hash = Hash::of(b"agent-gate");
        assert_eq!(hash.to_string().len(), 64);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(Hash::ZERO.to_string(), "0".repeat(64));
        assert_eq!("xyz".parse::<Hash>(), Err(ValueError::Hash));
    }
}
