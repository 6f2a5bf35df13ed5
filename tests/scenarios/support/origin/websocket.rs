//! A WebSocket's far end that knows no frames: it sends the bytes that the test has laid out for
//! it, cut as the test wants, and keeps what it receives.
//!
//! `/ws?name=&step=&expect=&end=stay|close|reset&ext=&accept=no`: sends the bytes laid out under
//! `name` in pieces of `step`, receives until `expect` bytes are there or the client ends, and then
//! waits for the client's end, or ends the connection itself. `head=bytes` sends the 101 byte by
//! byte. `/ws/received?name=` tells how many bytes have come so far.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use super::Shared;
use super::answer::{Answer, head_text};
use super::log::Seen;
use super::routes::Next;

/// What goes each way, by name.
#[derive(Default)]
pub(super) struct Blobs(Mutex<HashMap<String, Blob>>);

#[derive(Default)]
struct Blob {
    to_send: Vec<u8>,
    received: Vec<u8>,
    is_over: bool,
}

impl Blobs {
    pub(super) fn lay_out(&self, name: &str, bytes: &[u8]) {
        self.with(name, |blob| blob.to_send = bytes.to_vec());
    }

    pub(super) fn received(&self, name: &str) -> Vec<u8> {
        self.with(name, |blob| blob.received.clone())
    }

    pub(super) fn is_over(&self, name: &str) -> bool {
        self.with(name, |blob| blob.is_over)
    }

    fn with<T>(&self, name: &str, look: impl FnOnce(&mut Blob) -> T) -> T {
        look(self.0.lock().unwrap().entry(name.to_owned()).or_default())
    }
}

pub(super) fn serve(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared) -> io::Result<Next> {
    let name = seen.query("name").expect("a name");
    let result = carry(seen, answer, shared, name);
    shared.blobs.with(name, |blob| blob.is_over = true);
    result
}

/// How much has come under a name, as a number.
pub(super) fn tell(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared) -> io::Result<Next> {
    let received = shared.blobs.received(seen.query("name").expect("a name"));
    answer.whole(200, &[], received.len().to_string().as_bytes())?;
    Ok(Next::Go)
}

fn carry(seen: &Seen, answer: &mut Answer<'_>, shared: &Shared, name: &str) -> io::Result<Next> {
    switch(seen, answer)?;
    let to_send = shared.blobs.with(name, |blob| blob.to_send.clone());
    let step = usize::try_from(seen.number("step", 1 << 30)).unwrap();
    for piece in to_send.chunks(step) {
        answer.wire().write(piece)?;
    }
    let expected = seen.number("expect", u64::MAX);
    let mut ends = false;
    while !ends && shared.blobs.with(name, |blob| (blob.received.len() as u64) < expected) {
        ends = receive(answer, shared, name);
    }
    match seen.query("end") {
        Some("reset") => return Ok(Next::Reset),
        Some("close") => {}
        _ => {
            while !ends {
                ends = receive(answer, shared, name);
            }
        }
    }
    Ok(Next::End)
}

/// Receives more; true when the client has ended.
fn receive(answer: &mut Answer<'_>, shared: &Shared, name: &str) -> bool {
    let bytes = answer.wire().read_raw().unwrap_or_default();
    shared.blobs.with(name, |blob| blob.received.extend_from_slice(&bytes));
    bytes.is_empty()
}

fn switch(seen: &Seen, answer: &mut Answer<'_>) -> io::Result<()> {
    let mut fields = vec![("Upgrade", "websocket"), ("Connection", "Upgrade")];
    if seen.query("accept") != Some("no") {
        // The raw clients of these scenarios do not hold it against their key.
        fields.push(("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }
    if let Some(extensions) = seen.query("ext") {
        fields.push(("Sec-WebSocket-Extensions", extensions));
    }
    if seen.query("head") != Some("bytes") {
        return answer.head(101, &fields);
    }
    let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let text = head_text(101, &fields);
    (answer.sent.status, answer.sent.fields) = (101, fields);
    text.as_bytes().iter().try_for_each(|byte| answer.wire().write(&[*byte]))
}
