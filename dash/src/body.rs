//! Showing a body: what it is, how much of it is shown, and the bytes in their most readable form.

use std::borrow::Cow;
use std::io::Read;

use agent_gate_store::Reader;
use agent_gate_store::record::{Body, CodingFlaw, Field};

use crate::html::Html;
use crate::{json, sse, words};

/// The most bytes of a body that a page shows; the raw download has all that was kept. A longer page
/// is slow to lay out and nobody reads it.
pub(crate) const SHOWN_BYTES_MAX: u64 = 256 * 1024;

/// The most bytes of a binary body that are shown, as hexadecimal.
const HEX_BYTES_MAX: usize = 512;

/// How much of an event's data stands in its closed line, in characters.
const PREVIEW_CHARS: usize = 140;

/// Appends the body, with a link to its raw bytes at `raw`; decoded, if it has content codings.
pub(crate) fn put(
    out: &mut Html,
    reader: &Reader,
    body: &Body<'_>,
    fields: &[Field<'_>],
    raw: &str,
) {
    if body.bytes == 0 {
        out.put("<p class=\"note\">No body.</p>", &[]);
        return;
    }
    let size = words::bytes(body.bytes);
    let kind = value(fields, "content-type").unwrap_or_default();
    out.put(
        "<p class=\"body-line\"><span>Body · {}</span> <span>{}</span> <a href=\"{}\">raw bytes</a></p>",
        &[&size, &kind, &raw],
    );
    let kept = body.kept_bytes();
    if kept < body.bytes {
        let kept = words::bytes(kept);
        let note = format!("Only the first {kept} of {size} were kept (the capture bound).");
        out.put("<p class=\"note\">{}</p>", &[&note]);
    }
    match start(reader, body, fields) {
        Ok(start) => put_start(out, body, fields, raw, &start),
        // The rest of the page is still worth reading.
        Err(reason) => out.put("<p class=\"note bad\">It cannot be read: {}</p>", &[&reason]),
    }
}

/// What is read of a body for the page.
struct Start {
    bytes: Vec<u8>,
    /// Whether content codings were undone, and what was wrong with them.
    decoded: bool,
    flaw: Option<CodingFlaw>,
    /// Whether there is no more.
    is_whole: bool,
}

fn start(reader: &Reader, body: &Body<'_>, fields: &[Field<'_>]) -> Result<Start, String> {
    let decoded = reader.decoded(body, fields).map_err(|error| error.to_string())?;
    if let Some(mut decoded) = decoded {
        let (bytes, is_whole) = read_start(&mut decoded)?;
        // A coding that is not known leaves the bytes of the wire to look at.
        if decoded.flaw() != Some(CodingFlaw::Unsupported) {
            return Ok(Start { bytes, decoded: true, flaw: decoded.flaw(), is_whole });
        }
    }
    let mut wire = reader.body(body).map_err(|error| error.to_string())?;
    let (bytes, is_whole) = read_start(&mut wire)?;
    Ok(Start { bytes, decoded: false, flaw: None, is_whole })
}

/// The first bytes, and whether they are all.
fn read_start(bytes: &mut dyn Read) -> Result<(Vec<u8>, bool), String> {
    let mut start = Vec::new();
    bytes.take(SHOWN_BYTES_MAX + 1).read_to_end(&mut start).map_err(|error| error.to_string())?;
    let is_whole = start.len() as u64 <= SHOWN_BYTES_MAX;
    if !is_whole {
        start.pop();
    }
    Ok((start, is_whole))
}

fn put_start(out: &mut Html, body: &Body<'_>, mut fields: &[Field<'_>], raw: &str, start: &Start) {
    let is_kept = body.kept_bytes() == body.bytes;
    let mut of = Some(body.bytes);
    if start.decoded {
        put_decoded(out, body, fields, raw);
        let told = body.decoded.as_ref().filter(|_| is_kept);
        of = told.map(|told| told.bytes).or(start.is_whole.then_some(start.bytes.len() as u64));
        // The record knows the whole body; the start may be sound, and what was not kept is not
        // missing.
        let flaw = body.decoded.as_ref().map_or(start.flaw.filter(|_| is_kept), |told| told.flaw);
        if let Some(flaw) = flaw {
            out.put("<p class=\"note bad\">{}</p>", &[&words::coding_flaw(flaw)]);
        }
    } else if let Some(coding) = value(fields, "content-encoding")
        && !coding.eq_ignore_ascii_case("identity")
    {
        let note = words::coding_flaw(CodingFlaw::Unsupported);
        out.put("<p class=\"note bad\">{} ({})</p>", &[&note, &coding]);
        // They speak of what it would decode to.
        fields = &[];
    }
    put_part(out, fields, Part { bytes: &start.bytes, of, is_whole: start.is_whole && is_kept });
}

/// What the codings were, what they hid, and where to get it.
fn put_decoded(out: &mut Html, body: &Body<'_>, fields: &[Field<'_>], raw: &str) {
    let named = fields.iter().filter(|f| f.name.eq_ignore_ascii_case("content-encoding"));
    let named: Vec<_> = named.map(|field| String::from_utf8_lossy(&field.value)).collect();
    let named = named.join(", ");
    let size = body.decoded.as_ref().map_or_else(String::new, |told| words::bytes(told.bytes));
    out.put("<p class=\"body-line\"><span>Decoded · {}</span> <span>{}</span>", &[&size, &named]);
    if decoded_bytes(body).is_some() {
        out.put(" <a href=\"{}/decoded\">decoded bytes</a>", &[&raw]);
    }
    out.put("</p>", &[]);
}

/// How long the decoded body is, if it is there whole and sound.
pub(crate) fn decoded_bytes(body: &Body<'_>) -> Option<u64> {
    let decoded = body.decoded.as_ref().filter(|_| body.kept_bytes() == body.bytes)?;
    let is_sound = matches!(decoded.flaw, None | Some(CodingFlaw::Trailing));
    is_sound.then_some(decoded.bytes)
}

fn put_part(out: &mut Html, fields: &[Field<'_>], part: Part<'_>) {
    match form(fields, part) {
        Form::Binary => put_hex(out, part),
        Form::Events(text) => put_events(out, part, &text),
        Form::Json(text) => put_json(out, part, &text),
        Form::Text(text) => {
            put_extent(out, part.bytes.len(), part.of);
            out.put("<pre>{}</pre>", &[&text]);
        }
    }
}

/// The start of a body.
#[derive(Clone, Copy)]
struct Part<'a> {
    bytes: &'a [u8],
    /// Length of the whole, if it is known.
    of: Option<u64>,
    /// Whether this is all of it.
    is_whole: bool,
}

impl<'a> Part<'a> {
    /// As text, if it is UTF-8 as far as it goes: a cut may fall inside a character.
    fn as_text(self) -> Option<&'a str> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() && !self.is_whole => {
                std::str::from_utf8(&self.bytes[..error.valid_up_to()]).ok()
            }
            Err(_) => None,
        }
    }
}

enum Form<'a> {
    Events(Cow<'a, str>),
    Json(Cow<'a, str>),
    Text(Cow<'a, str>),
    Binary,
}

fn form<'a>(fields: &[Field<'_>], part: Part<'a>) -> Form<'a> {
    let kind = value(fields, "content-type").unwrap_or_default().to_ascii_lowercase();
    let Some(text) = text_of(&kind, part) else { return Form::Binary };
    if kind.starts_with("text/event-stream") {
        Form::Events(text)
    } else if json::is_json(&text, part.is_whole) && !kind.starts_with("text/html") {
        Form::Json(text)
    } else {
        Form::Text(text)
    }
}

/// UTF-8 without NUL is text whatever it is called; a textual type is shown as text even where it is
/// broken.
fn text_of<'a>(kind: &str, part: Part<'a>) -> Option<Cow<'a, str>> {
    let textual = kind.starts_with("text/")
        || ["json", "xml", "javascript", "urlencoded"].iter().any(|word| kind.contains(word));
    match part.as_text() {
        Some(text) if textual || !text.contains('\0') => Some(Cow::Borrowed(text)),
        None if textual => Some(String::from_utf8_lossy(part.bytes)),
        _ => None,
    }
}

fn put_extent(out: &mut Html, shown: usize, of: Option<u64>) {
    let shown = shown as u64;
    let line = match of {
        Some(of) if shown >= of => return,
        Some(of) => format!("Shown: the first {} of {}.", words::bytes(shown), words::bytes(of)),
        None => format!("Shown: the first {}.", words::bytes(shown)),
    };
    out.put("<p class=\"note\">{}</p>", &[&line]);
}

fn put_json(out: &mut Html, part: Part<'_>, text: &str) {
    put_extent(out, part.bytes.len(), part.of);
    out.put("<pre class=\"json\">{}</pre>", &[&set_out(text)]);
}

fn set_out(text: &str) -> Html {
    let mut html = Html::new();
    if !json::put(text, &mut html) {
        html.text("\n… too deep to set out; the raw bytes have the rest");
    }
    html
}

fn put_events(out: &mut Html, part: Part<'_>, text: &str) {
    put_extent(out, part.bytes.len(), part.of);
    out.put("<ol class=\"events\">", &[]);
    for event in sse::events(text) {
        put_event(out, &event);
    }
    out.put("</ol>", &[]);
}

fn put_event(out: &mut Html, event: &sse::Event<'_>) {
    let data = event.data.as_deref().unwrap_or_default();
    let name = event.name.unwrap_or(if event.data.is_some() { "message" } else { "no data" });
    let preview: String = data.chars().take(PREVIEW_CHARS).collect();
    let state = if event.finished { "" } else { "unfinished" };
    out.put(
        "<li><details><summary><b>{}</b> <em>{}</em> <span>{}</span></summary>",
        &[&name, &state, &preview],
    );
    for line in &event.others {
        out.put("<p class=\"note\">{}</p>", &[line]);
    }
    if json::is_json(data, true) {
        out.put("<pre class=\"json\">{}</pre>", &[&set_out(data)]);
    } else if event.data.is_some() {
        out.put("<pre>{}</pre>", &[&data]);
    }
    out.put("</details></li>", &[]);
}

fn put_hex(out: &mut Html, part: Part<'_>) {
    let shown = &part.bytes[..part.bytes.len().min(HEX_BYTES_MAX)];
    put_extent(out, shown.len(), part.of);
    let mut dump = String::new();
    for (row, bytes) in shown.chunks(16).enumerate() {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String = bytes.iter().map(|&byte| printable(byte)).collect();
        dump += &format!("{:06x}  {:<47}  {text}\n", row * 16, hex.join(" "));
    }
    out.put("<pre class=\"hex\">{}</pre>", &[&dump]);
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '·' }
}

/// The first value of that field.
fn value(fields: &[Field<'_>], name: &str) -> Option<String> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    Some(String::from_utf8_lossy(&field.value).into_owned())
}
