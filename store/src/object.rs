//! A JSON object as it is written into a line, member by member.
//!
//! Requests and responses are nearly all of what is written, and a general serialiser spends most
//! of its time on what is known beforehand: keys that need no escapes, texts of fixed shape.

use std::io::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::escape;
use crate::record::{Field, Hash, Id, Timestamp};

/// An object under way. Keys are constants without anything to escape.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Closes it.
    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    /// Begins a member: what is written next is its value.
    pub(crate) fn member(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        push_text(self.member(key), value);
    }

    pub(crate) fn optional_text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// A rare value, as its type says.
    pub(crate) fn serialized(&mut self, key: &str, value: &impl Serialize) {
        let out = self.member(key);
        serde_json::to_writer(out, value).expect("a value without maps, into a Vec");
    }

    /// Members that are written already.
    pub(crate) fn members(&mut self, members: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(members.as_bytes());
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        push_number(self.member(key), value);
    }

    pub(crate) fn optional_number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.member(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn id(&mut self, key: &str, value: Id) {
        let out = self.member(key);
        out.push(b'"');
        value.push(out);
        out.push(b'"');
    }

    pub(crate) fn time(&mut self, key: &str, value: Timestamp) {
        let out = self.member(key);
        out.push(b'"');
        value.push(out);
        out.push(b'"');
    }

    pub(crate) fn address(&mut self, key: &str, value: SocketAddr) {
        let out = self.member(key);
        out.push(b'"');
        match value {
            SocketAddr::V4(v4) => {
                for (place, part) in v4.ip().octets().into_iter().enumerate() {
                    if place > 0 {
                        out.push(b'.');
                    }
                    push_number(out, part.into());
                }
                out.push(b':');
                push_number(out, v4.port().into());
            }
            // A Vec takes every write.
            SocketAddr::V6(v6) => drop(write!(out, "{v6}")),
        }
        out.push(b'"');
    }

    pub(crate) fn hash(&mut self, key: &str, value: Hash) {
        let out = self.member(key);
        out.push(b'"');
        out.extend_from_slice(value.hex().as_bytes());
        out.push(b'"');
    }

    pub(crate) fn base64(&mut self, key: &str, value: &[u8]) {
        let out = self.member(key);
        out.push(b'"');
        out.extend_from_slice(BASE64.encode(value).as_bytes());
        out.push(b'"');
    }

    pub(crate) fn fields(&mut self, key: &str, fields: &[Field<'_>]) {
        let out = self.member(key);
        out.push(b'[');
        for (place, field) in fields.iter().enumerate() {
            out.extend_from_slice(if place > 0 { b",[" } else { b"[" });
            push_text(out, &field.name);
            out.push(b',');
            match std::str::from_utf8(&field.value) {
                Ok(text) => push_text(out, text),
                Err(_) => {
                    let mut object = Object::begin(out);
                    object.base64("base64", &field.value);
                    object.end();
                }
            }
            out.push(b']');
        }
        out.push(b']');
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape::push(out, text);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
