//! Exchanges made up from a seed: what each side writes, and what the other is to get.
//!
//! What is written is anything that RFC 9110 and 9112 allow, as unlike as possible: methods and
//! targets no library sends, fields in any case and order, repeated, with 8-bit values, bodies of
//! every framing. A share of the responses has what a recipient is to put up with. Where a gate has
//! to change a message, the generator says by itself what comes of it.

use std::ops::Range;

use super::content::Noise;

/// Numbers that look random and depend on the seed alone (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // The generator stands still at zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn within(&mut self, range: Range<usize>) -> usize {
        let span = range.len() as u64;
        range.start + usize::try_from(self.next() % span).expect("within a range")
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.within(0..n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.within(0..from.len())]
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        Noise::bytes(self.next(), n)
    }

    fn text(&mut self, alphabet: &str, length: Range<usize>) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..self.within(length)).map(|_| letters[self.within(0..letters.len())]).collect()
    }
}

/// Bytes as one side writes them, and as the other side of a gate gets them.
#[derive(Default, Clone)]
pub(crate) struct Wire {
    pub(crate) written: Vec<u8>,
    pub(crate) arrives: Vec<u8>,
}

impl Wire {
    fn both(&mut self, bytes: impl AsRef<[u8]>) {
        self.written.extend_from_slice(bytes.as_ref());
        self.arrives.extend_from_slice(bytes.as_ref());
    }

    fn changed(&mut self, written: impl AsRef<[u8]>, arrives: impl AsRef<[u8]>) {
        self.written.extend_from_slice(written.as_ref());
        self.arrives.extend_from_slice(arrives.as_ref());
    }

    fn append(&mut self, other: &Self) {
        self.changed(&other.written, &other.arrives);
    }
}

/// One exchange.
pub(crate) struct Case {
    pub(crate) number: usize,
    method: String,
    target: String,
    /// Of the request, what follows the target.
    rest: Wire,
    pub(crate) request_content: Vec<u8>,
    pub(crate) response: Wire,
    pub(crate) response_content: Vec<u8>,
    /// The connection ends behind the response.
    pub(crate) closes: bool,
}

/// The host that every case is for.
pub(crate) const HOST: &str = "case.test";

impl Case {
    /// The case of this number under this seed.
    pub(crate) fn new(seed: u64, number: usize) -> Self {
        let mut random = Random::new(seed ^ (number as u64) << 32);
        let r = &mut random;
        let method = r.pick(&METHODS).to_owned();
        let target = target(r, &method);
        let (old, says_close) = (r.once_in(20), r.once_in(20));
        let (mut fields, body, request_content) = request_body(r, old);
        fields.extend(odd_fields(r));
        fields.push(same(format!("{}: {HOST}", any_case(r, "Host"))));
        fields.push(same(format!("X-Case: {number}")));
        if says_close {
            fields.push(same(format!("{}: close", any_case(r, "Connection"))));
        }
        let mut rest = Wire::default();
        rest.both(if old { " HTTP/1.0\r\n" } else { " HTTP/1.1\r\n" });
        rest.append(&field_lines(r, fields, false));
        rest.append(&body);
        let ends = old || says_close;
        let (response, response_content, closes) = response(r, &method, ends);
        Self { number, method, target, rest, request_content, response, response_content, closes }
    }

    /// The request as it is written to the origin itself.
    pub(crate) fn request(&self) -> Vec<u8> {
        [self.method.as_bytes(), b" ", self.target.as_bytes(), &self.rest.written].concat()
    }

    /// The request as it is written to a proxy.
    pub(crate) fn request_to_proxy(&self) -> Vec<u8> {
        let path = if self.target == "*" { "" } else { &self.target };
        let target = format!("http://{HOST}{path}");
        [self.method.as_bytes(), b" ", target.as_bytes(), &self.rest.written].concat()
    }

    /// The request as the origin gets it through a gate.
    pub(crate) fn request_arrives(&self) -> Vec<u8> {
        [self.method.as_bytes(), b" ", self.target.as_bytes(), &self.rest.arrives].concat()
    }
}

const METHODS: [&str; 14] = [
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "get",
    "M-SEARCH",
    "PROPFIND",
    "!#$%&'*+-.^_`|~x1",
];

fn target(r: &mut Random, method: &str) -> String {
    if method == "OPTIONS" && r.once_in(2) {
        return "*".to_owned();
    }
    let path = r.text("abcXYZ019-._~!$&'()*+,;=:@/%\"<>[]\\^`{|}äß→", 0..60);
    let query = r.text("ab09=&?/%+\"{}|é", 0..40);
    if r.once_in(3) { format!("/{path}") } else { format!("/{path}?{query}") }
}

fn any_case(r: &mut Random, name: &str) -> String {
    let odd = |c: char| if r.once_in(2) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    name.chars().map(odd).collect()
}

/// A field line without its end that passes as it is.
fn same(line: impl AsRef<[u8]>) -> Wire {
    let mut wire = Wire::default();
    wire.both(line);
    wire
}

/// In any order, with line ends, and the empty line.
fn field_lines(r: &mut Random, mut fields: Vec<Wire>, forgiven: bool) -> Wire {
    let mut lines = Wire::default();
    while !fields.is_empty() {
        let field = fields.swap_remove(r.within(0..fields.len()));
        lines.append(&field);
        let end = line_end(r, forgiven);
        // A line of which nothing is left takes its end along.
        lines.changed(end, if field.arrives.is_empty() { "" } else { end });
    }
    lines.both(line_end(r, forgiven));
    lines
}

/// Fields that mean nothing to anybody on the way; some of them twice.
fn odd_fields(r: &mut Random) -> Vec<Wire> {
    let mut fields = Vec::new();
    for _ in 0..r.within(0..12) {
        let name = match r.within(0..4) {
            0 => r
                .pick(&["Accept", "Cookie", "user-agent", "Via", "TE", "Keep-Alive", "Date"])
                .to_owned(),
            1 => r.text("!#$%&'*+-.^_`|~aZ0", 1..20) + "-",
            _ => format!("X-{}", r.text("abcXYZ019_-", 1..30)),
        };
        let value = odd_value(r);
        fields.push(same([name.as_bytes(), b":", &value].concat()));
        if r.once_in(5) {
            fields.push(same([any_case(r, &name).as_bytes(), b":", &odd_value(r)].concat()));
        }
    }
    fields
}

/// Any bytes that a value may have, with or without white space around it.
fn odd_value(r: &mut Random) -> Vec<u8> {
    let mut value = r.text(" \t", 0..4).into_bytes();
    let length = if r.once_in(20) { r.within(0..5000) } else { r.within(0..60) };
    let bytes = r.bytes(length);
    value.extend(bytes.iter().map(|b| if *b < b' ' || *b == 0x7f { b'\t' } else { *b }));
    if r.once_in(3) {
        value.retain(u8::is_ascii);
    }
    value
}

/// Mostly short, sometimes long.
fn content(r: &mut Random) -> Vec<u8> {
    let length = match r.within(0..20) {
        0 => 0,
        1 => r.within(100_000..1 << 20),
        2..6 => r.within(1000..100_000),
        _ => r.within(1..1000),
    };
    r.bytes(length)
}

fn request_body(r: &mut Random, old: bool) -> (Vec<Wire>, Wire, Vec<u8>) {
    match r.within(0..4) {
        0 | 1 => (Vec::new(), Wire::default(), Vec::new()),
        2 if !old => {
            let content = content(r);
            let name = any_case(r, "Transfer-Encoding");
            let line = format!("{name}: {}", any_case(r, "chunked"));
            (vec![same(line)], chunks(r, &content, false), content)
        }
        _ => {
            let content = content(r);
            (vec![length_line(r, content.len())], same(&content), content)
        }
    }
}

fn length_line(r: &mut Random, length: usize) -> Wire {
    let zeros = "0".repeat(if r.once_in(10) { r.within(0..5) } else { 0 });
    let white = r.text(" \t", 0..3);
    let name = any_case(r, "Content-Length");
    same(format!("{name}:{white}{zeros}{length}{white}"))
}

/// Chunked coding. `forgiven`: with what a recipient may put up with.
fn chunks(r: &mut Random, content: &[u8], forgiven: bool) -> Wire {
    let mut wire = Wire::default();
    let mut rest = content;
    let largest = if r.once_in(4) { 40 } else { 70_000 };
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(r.within(1..largest).min(rest.len()));
        size_line(r, &mut wire, chunk.len(), forgiven);
        wire.both(chunk);
        wire.both(line_end(r, forgiven));
        rest = behind;
    }
    size_line(r, &mut wire, 0, forgiven);
    for _ in 0..if r.once_in(3) { r.within(1..5) } else { 0 } {
        wire.both([&b"X-Sum-"[..], r.text("aB9", 1..5).as_bytes(), b":", &odd_value(r)].concat());
        wire.both(line_end(r, forgiven));
        if forgiven && r.once_in(4) {
            wire.both(" folded\r\n");
        }
    }
    wire.both(line_end(r, forgiven));
    wire
}

fn size_line(r: &mut Random, wire: &mut Wire, size: usize, forgiven: bool) {
    let zeros = "0".repeat(if r.once_in(10) { r.within(0..4) } else { 0 });
    let digits = if r.once_in(2) { format!("{size:x}") } else { format!("{size:X}") };
    wire.both(format!("{zeros}{digits}"));
    if r.once_in(6) {
        let names = ["a", "sig=b1", " ; a = \"x;y\"", "q=\"\\\"\\\\\" ", "\tz=\"\""];
        let extension = format!("{};{}", r.text(" \t", 0..3), r.pick(&names));
        wire.changed(extension, "");
    } else if forgiven && r.once_in(6) {
        wire.changed("  ", "");
    }
    wire.both(line_end(r, forgiven));
}

fn line_end(r: &mut Random, forgiven: bool) -> &'static str {
    if forgiven && r.once_in(6) { "\n" } else { "\r\n" }
}

/// The response, its content, and whether the connection ends behind it.
fn response(r: &mut Random, method: &str, mut closes: bool) -> (Wire, Vec<u8>, bool) {
    let mut wire = Wire::default();
    for _ in 0..if r.once_in(4) { r.within(1..4) } else { 0 } {
        let status = r.pick(&["100", "102", "103", "199"]);
        wire.both(format!("HTTP/1.1 {status}{}\r\n", reason(r)));
        let fields = odd_fields(r);
        wire.append(&field_lines(r, fields, false));
    }
    let status = match r.within(0..4) {
        0 => r.pick(&["200", "204", "304", "404", "418", "500", "206", "205", "401"]).to_owned(),
        1 => r.within(200..1000).to_string(),
        _ => "200".to_owned(),
    };
    let bodiless = method == "HEAD" || status == "204" || status == "304";
    let odd = !bodiless && r.once_in(5);
    let Body { mut fields, coded, content, ends } = response_body(r, odd);
    let old = ends == Ends::WithConnection && r.once_in(3);
    closes |= !bodiless && ends != Ends::ByItself;
    fields.extend(odd_fields(r));
    if odd {
        fields.push(forgiven_field(r));
    }
    if r.once_in(10) {
        fields.push(alt_svc(r));
    }
    if closes && !old && r.once_in(2) {
        fields.push(same("Connection: close"));
    }
    let closes = closes || old;
    wire.both(format!("HTTP/1.{} {status}{}\r\n", if old { 0 } else { 1 }, reason(r)));
    wire.append(&field_lines(r, fields, odd));
    if bodiless {
        return (wire, Vec::new(), closes);
    }
    wire.append(&coded);
    (wire, content, closes)
}

fn reason(r: &mut Random) -> String {
    match r.within(0..4) {
        0 => String::new(),
        1 => " ".to_owned(),
        2 => " OK".to_owned(),
        _ => format!(" {}", r.text("abC \tü:;,\"()", 0..40)),
    }
}

/// The body of a response.
struct Body {
    /// The fields that tell its framing.
    fields: Vec<Wire>,
    coded: Wire,
    content: Vec<u8>,
    ends: Ends,
}

/// How the end of a response is known.
#[derive(PartialEq, Eq)]
enum Ends {
    ByItself,
    /// By itself, but the framing was told in two ways: the connection is not used again.
    InDoubt,
    WithConnection,
}

fn response_body(r: &mut Random, odd: bool) -> Body {
    let content = content(r);
    match r.within(0..5) {
        0 => {
            Body { fields: Vec::new(), coded: same(&content), content, ends: Ends::WithConnection }
        }
        1 | 2 => {
            let coding = r.pick(&["chunked", "Chunked", "gzip, chunked", "gzip ,\tchunked"]);
            let name = any_case(r, "Transfer-Encoding");
            let mut fields = vec![same(format!("{name}: {coding}"))];
            let both = odd && r.once_in(3);
            if both {
                let mut void = Wire::default();
                void.changed(format!("Content-Length: {}", content.len()), "");
                fields.push(void);
            }
            let coded = chunks(r, &content, odd);
            Body { fields, coded, content, ends: if both { Ends::InDoubt } else { Ends::ByItself } }
        }
        _ => {
            let mut fields = vec![length_line(r, content.len())];
            if odd && r.once_in(3) {
                fields.push(length_line(r, content.len()));
            }
            Body { fields, coded: same(&content), content, ends: Ends::ByItself }
        }
    }
}

/// A field that is not to the letter, and what RFC 9112 makes of it.
fn forgiven_field(r: &mut Random) -> Wire {
    let mut wire = Wire::default();
    let (written, arrives) = *r.pick(&[
        &("X-Folded: a\r\n b\r\n\tc", "X-Folded: a   b  \tc"),
        &("X-Folded:\n  a", "X-Folded:   a"),
        &("X-White \t: a", "X-White: a"),
        &("X-Return: a\rb", "X-Return: a b"),
        &("X-Zero: a\0b", "X-Zero: a b"),
        &("X-Control: \u{1}\u{1b}\u{7f}", "X-Control: \u{1}\u{1b}\u{7f}"),
        &("X-no-colon", "X-no-colon"),
        &("X Odd(Näme): a", "X Odd(Näme): a"),
    ]);
    wire.changed(written, arrives);
    wire
}

fn alt_svc(r: &mut Random) -> Wire {
    let mut wire = Wire::default();
    let (written, arrives) = *r.pick(&[
        &("alt-svc: h3=\":443\"; ma=86400,h3-29=\":443\"; ma=86400", ""),
        &("Alt-Svc: h3=\":443\", h2=\":443\"; ma=5", "Alt-Svc: h2=\":443\"; ma=5"),
        &("Alt-Svc: clear", "Alt-Svc: clear"),
    ]);
    wire.changed(written, arrives);
    wire
}
