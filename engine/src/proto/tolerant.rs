//! A response head that is not to the letter, read as RFC 9112 lets a recipient read it, so that
//! an answer that a client would have understood without a gate does not fail because of one.
//!
//! curl, wget and Python take nearly every line; Node does not. What is read here is handed on
//! (`rewrite` does what the standard asks of an intermediary), so each client sees what it would
//! have seen.

use std::ops::Range;

use super::head::{FieldRange, HeadError};
use crate::limits::FIELDS_MAX;

/// Where the parts of a response head lie.
pub(super) struct Response {
    /// HTTP/1.`minor`.
    pub(super) minor: u8,
    /// Three digits.
    pub(super) status: u16,
    /// Where the status ends.
    pub(super) status_end: usize,
    /// Where the field lines begin.
    pub(super) fields_start: usize,
    /// All of the head, with the empty line.
    pub(super) length: usize,
}

/// How many bytes of empty lines come first (RFC 9112, section 2.2).
pub(super) fn empty_lines(input: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match &input[at..] {
            [b'\n', ..] => at += 1,
            [b'\r', b'\n', ..] => at += 2,
            _ => return at,
        }
    }
}

/// Reads the head that `input` begins with; `None` when more is needed.
pub(super) fn response(input: &[u8]) -> Result<Option<Response>, HeadError> {
    const START: &[u8] = b"HTTP/1.";
    if input.iter().zip(START).any(|(a, b)| a != b) {
        return Err(HeadError::Malformed("not an HTTP/1 response"));
    }
    let Some(line_end) = memchr::memchr(b'\n', input) else { return Ok(None) };
    let (minor, status, status_end) = status_line(&input[..line_end])
        .ok_or(HeadError::Malformed("a status line that is not HTTP/1.x STATUS"))?;
    let fields_start = line_end + 1;
    let Some((_, length)) = fields(input, fields_start, FIELDS_MAX)? else { return Ok(None) };
    Ok(Some(Response { minor, status, status_end, fields_start, length }))
}

/// The head as the standard lets an intermediary hand it on: spaces where field lines are folded
/// (RFC 9112, section 5.2), for a carriage return but before a line feed (section 2.2) and for NUL
/// (RFC 9110, section 5.5).
pub(super) fn flattened(head: &[u8]) -> Vec<u8> {
    let mut flat = head.to_vec();
    for at in 0..flat.len() {
        let is_bare = flat[at] == b'\r' && flat.get(at + 1) != Some(&b'\n');
        if is_bare || flat[at] == 0 {
            flat[at] = b' ';
        }
    }
    // What is folded behind the start line belongs to no field.
    let start = memchr::memchr(b'\n', &flat).map_or(flat.len(), |at| at + 1);
    for at in start..flat.len() {
        if flat[at] == b'\n' && flat.get(at + 1).copied().is_some_and(is_white) {
            flat[at] = b' ';
            if flat[at - 1] == b'\r' {
                flat[at - 1] = b' ';
            }
        }
    }
    flat
}

/// Version and status, and where the status ends.
fn status_line(line: &[u8]) -> Option<(u8, u16, usize)> {
    let minor = match line.get(7)? {
        b'0' => 0,
        b'1' => 1,
        _ => return None,
    };
    let white = line[8..].iter().take_while(|b| is_white(**b)).count();
    let start = 8 + white;
    let digits = line.get(start..start + 3)?;
    let ends = matches!(line.get(start + 3), None | Some(b' ' | b'\t' | b'\r'));
    if white == 0 || !ends || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    Some((minor, status, start + 3))
}

/// Reads field lines from `from` on: the fields, and where the empty line behind them ends;
/// `None` when more is needed.
///
/// A line without a colon is a name alone. A folded line (RFC 9112, section 5.2) belongs to the
/// field before it; where there is none (section 2.2), it is a value without a name.
pub(super) fn fields(
    input: &[u8],
    from: usize,
    fields_max: usize,
) -> Result<Option<(Vec<FieldRange>, usize)>, HeadError> {
    let (mut fields, mut start) = (Vec::<FieldRange>::new(), from);
    loop {
        let Some(line_end) = memchr::memchr(b'\n', &input[start..]) else { return Ok(None) };
        let next = start + line_end + 1;
        let end = next - if input[start..next].ends_with(b"\r\n") { 2 } else { 1 };
        if start == end {
            return Ok(Some((fields, next)));
        }
        match (is_white(input[start]), fields.last_mut()) {
            (true, Some(folded)) => fold(input, folded, start..end),
            (true, None) => fields.push(nameless(input, start..end)),
            (false, _) => fields.push(field(input, start..end)),
        }
        if fields.len() > fields_max {
            return Err(HeadError::TooManyFields);
        }
        start = next;
    }
}

fn field(input: &[u8], line: Range<usize>) -> FieldRange {
    let colon = memchr::memchr(b':', &input[line.clone()]).map(|at| line.start + at);
    let name = line.start..colon.unwrap_or(line.end);
    let name = name.start..trimmed(input, name).end;
    let value = colon.map_or(line.end..line.end, |colon| trimmed(input, colon + 1..line.end));
    FieldRange { name: narrow(name), value: narrow(value) }
}

fn nameless(input: &[u8], line: Range<usize>) -> FieldRange {
    FieldRange { name: narrow(line.start..line.start), value: narrow(trimmed(input, line)) }
}

fn fold(input: &[u8], field: &mut FieldRange, line: Range<usize>) {
    let more = narrow(trimmed(input, line));
    if field.value.is_empty() {
        field.value = more;
    } else if !more.is_empty() {
        field.value.end = more.end;
    }
}

fn trimmed(input: &[u8], range: Range<usize>) -> Range<usize> {
    let part = &input[range.clone()];
    let Some(first) = part.iter().position(|b| !is_white(*b)) else {
        return range.start..range.start;
    };
    let last = part.iter().rposition(|b| !is_white(*b)).unwrap_or(first);
    range.start + first..range.start + last + 1
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[allow(clippy::cast_possible_truncation)] // heads are bounded by HEAD_BYTES_MAX
fn narrow(range: Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}
