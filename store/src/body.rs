//! How bytes stand in JSON: bodies and field values, as text where they are UTF-8.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de;
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object::Object;
use crate::record::{Body, Decoded, Field, Hash, Kept};

impl<'a> Body<'a> {
    /// A body kept whole in the record.
    pub fn inline(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            bytes: bytes.len() as u64,
            blake3: Hash::of(&bytes),
            kept: Kept::Inline(bytes),
            decoded: None,
        }
    }

    /// The body of a message that has none.
    pub fn empty() -> Self {
        Self::inline(&[][..])
    }

    /// How many of its bytes were kept.
    pub fn kept_bytes(&self) -> u64 {
        match &self.kept {
            Kept::Inline(bytes) => bytes.len() as u64,
            Kept::File { bytes, .. } => *bytes,
        }
    }
}

impl<'a> Field<'a> {
    /// A field line as sent.
    pub fn new(name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// Appends a body. Bodies are most of what is written, so they go straight into the line.
pub(crate) fn push_body(out: &mut Vec<u8>, body: &Body<'_>) {
    let Body { bytes, blake3, kept, decoded } = body;
    let mut object = Object::begin(out);
    object.number("bytes", *bytes);
    object.hash("blake3", *blake3);
    if body.kept_bytes() < *bytes {
        object.number("kept", body.kept_bytes());
    }
    match kept {
        Kept::Inline(kept) => match std::str::from_utf8(kept) {
            Ok(text) => object.text("text", text),
            Err(_) => object.base64("base64", kept),
        },
        Kept::File { blake3: kept, .. } => {
            object.flag("file", true);
            if kept != blake3 {
                object.hash("kept_blake3", *kept);
            }
        }
    }
    if let Some(decoded) = decoded {
        object.serialized("decoded", decoded);
    }
    object.end();
}

impl<'de> Deserialize<'de> for Body<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BodyForm::deserialize(deserializer)?.body().map_err(de::Error::custom)
    }
}

/// The members a body may have in JSON.
#[derive(Deserialize)]
struct BodyForm {
    bytes: u64,
    blake3: Hash,
    kept: Option<u64>,
    text: Option<String>,
    base64: Option<String>,
    #[serde(default)]
    file: bool,
    kept_blake3: Option<Hash>,
    decoded: Option<Decoded>,
}

impl BodyForm {
    fn body<'a>(self) -> Result<Body<'a>, String> {
        let kept = match (self.text, self.base64, self.file) {
            (Some(text), None, false) => Kept::Inline(text.into_bytes().into()),
            (None, Some(base64), false) => Kept::Inline(decode(&base64)?.into()),
            (None, None, true) => Kept::File {
                bytes: self.kept.unwrap_or(self.bytes),
                blake3: self.kept_blake3.unwrap_or(self.blake3),
            },
            _ => return Err("a body has one of text, base64 and file".to_owned()),
        };
        Ok(Body { bytes: self.bytes, blake3: self.blake3, kept, decoded: self.decoded })
    }
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Encoded {
            base64: String,
        }

        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(&self.name)?;
        match std::str::from_utf8(&self.value) {
            Ok(text) => pair.serialize_element(text)?,
            Err(_) => pair.serialize_element(&Encoded { base64: BASE64.encode(&self.value) })?,
        }
        pair.end()
    }
}

impl<'de> Deserialize<'de> for Field<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, value) = <(String, FieldValue)>::deserialize(deserializer)?;
        let value = match value {
            FieldValue::Text(text) => text.into_bytes(),
            FieldValue::Encoded { base64 } => decode(&base64).map_err(de::Error::custom)?,
        };
        Ok(Self::new(name, value))
    }
}

/// A field's value: a string, or `{"base64":"…"}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum FieldValue {
    Text(String),
    Encoded { base64: String },
}

fn decode(base64: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(base64).map_err(|error| format!("not base64: {error}"))
}
