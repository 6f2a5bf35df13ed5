//! A proxy's answer to CONNECT (RFC 9110, section 9.3.6), read as it arrives: the tunnel is open,
//! or why it is not.

use super::body::BodyReader;
use super::framing::Framing;
use super::head::ResponseHead;
use crate::limits::{INTERIM_MAX, PROXY_REASON_BYTES_MAX, PROXY_REASON_CHARS_MAX};

/// A reader of the answer, at some place inside it.
#[derive(Debug, Default)]
pub(crate) struct ConnectAnswer {
    interim: usize,
    refusal: Option<Refusal>,
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More of its head is to come.
    Head,
    /// It is a refusal, and more of the reason may come.
    Reason,
    /// It is a refusal, and there is no more.
    Refused,
    /// The tunnel is open; what follows is the origin's.
    Open,
}

/// An answer that opens no tunnel.
#[derive(Debug)]
struct Refusal {
    head: ResponseHead,
    body: BodyReader,
    page: Vec<u8>,
}

impl ConnectAnswer {
    /// Reads from the front of `input`; how many bytes it took, and where it is then.
    ///
    /// # Errors
    /// When the answer is not HTTP; in words.
    pub(crate) fn read(&mut self, input: &[u8]) -> Result<(usize, Progress), String> {
        let mut taken = 0;
        while self.refusal.is_none() {
            let rest = &input[taken..];
            // httparse skips empty lines, and would wait for more of what can be no status line.
            let found = ResponseHead::parse(rest).map_err(|error| error.to_string())?;
            let Some((head, length)) = found else { return Ok((taken, Progress::Head)) };
            taken += length;
            match head.status {
                200..=299 => return Ok((taken, Progress::Open)),
                100..=199 if self.interim < INTERIM_MAX => self.interim += 1,
                100..=199 => return Err("too many interim answers".to_owned()),
                _ => self.refusal = Some(Refusal::new(head)),
            }
        }
        let Some(refusal) = &mut self.refusal else { return Ok((taken, Progress::Head)) };
        let (length, done) = refusal.read(&input[taken..]);
        Ok((taken + length, if done { Progress::Refused } else { Progress::Reason }))
    }

    /// The head of a refusal, and the proxy's own words for it as far as they have come.
    pub(crate) fn refusal(&self) -> Option<(&ResponseHead, String)> {
        self.refusal.as_ref().map(|refusal| (&refusal.head, refusal.reason()))
    }
}

impl Refusal {
    fn new(head: ResponseHead) -> Self {
        // What cannot be framed is not read: the head has said the most.
        let framing = Framing::of_response(&head, false).unwrap_or(Framing::None);
        Self { head, body: BodyReader::of_response(framing), page: Vec::new() }
    }

    /// How many bytes it took, and whether there is no more to learn.
    fn read(&mut self, input: &[u8]) -> (usize, bool) {
        let page = &mut self.page;
        let read = self.body.read(input, |content| {
            let room = PROXY_REASON_BYTES_MAX - page.len();
            page.extend_from_slice(&content[..content.len().min(room)]);
        });
        let full = self.page.len() >= PROXY_REASON_BYTES_MAX;
        match read {
            Ok(length) => (length, full || self.body.is_done()),
            Err(_) => (0, true),
        }
    }

    fn reason(&self) -> String {
        let record = self.head.record();
        let mut words = format!("{} {}", self.head.status, record.reason).trim_end().to_owned();
        // Structured words of the proxy about what went wrong (RFC 9209), and Squid's own.
        for name in ["proxy-status", "x-squid-error"] {
            for value in self.head.head.values(name) {
                words.push_str(&format!(" ({})", readable(&String::from_utf8_lossy(value))));
            }
        }
        let page = readable(&without_markup(&String::from_utf8_lossy(&self.page)));
        if !page.is_empty() {
            words.push_str(&format!(": {page}"));
        }
        words
    }
}

/// One line of at most so many characters, white space collapsed, control characters gone.
fn readable(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<_> = clean.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(PROXY_REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The text of an HTML page, roughly: what stands outside of tags, style sheets and scripts.
fn without_markup(page: &str) -> String {
    // Of the same length, so places in one are places in the other.
    let lower = page.to_ascii_lowercase();
    let (mut text, mut at) = (String::new(), 0);
    while let Some(start) = lower[at..].find('<').map(|start| at + start) {
        text.push_str(&page[at..start]);
        text.push(' ');
        match end_of_tag(&lower[start..]) {
            Some(length) => at = start + length,
            // Cut off in the middle.
            None => return text,
        }
    }
    text.push_str(&page[at..]);
    text
}

/// The length of the tag that `rest` begins with, content included where it is not for reading.
fn end_of_tag(rest: &str) -> Option<usize> {
    for (open, close) in
        [("<style", "</style"), ("<script", "</script"), ("<title", "</title"), ("<!--", "-->")]
    {
        if rest.starts_with(open) {
            let content = rest.find(close)?;
            return rest[content..].find('>').map(|end| content + end + 1);
        }
    }
    rest.find('>').map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `bytes` in two pieces; where it ended, how many bytes were taken, and the reason.
    fn read_cut(bytes: &[u8], cut: usize) -> Result<(Progress, usize, String), String> {
        let mut answer = ConnectAnswer::default();
        let mut taken = 0;
        let mut progress = Progress::Head;
        for end in [cut, bytes.len()] {
            let (length, found) = answer.read(&bytes[taken..end])?;
            (taken, progress) = (taken + length, found);
            if matches!(found, Progress::Open | Progress::Refused) {
                break;
            }
        }
        let reason = answer.refusal().map(|(_, reason)| reason).unwrap_or_default();
        Ok((progress, taken, reason))
    }

    #[test]
    fn answers_are_the_same_however_they_are_cut() {
        let long = format!("HTTP/1.1 503 X\r\n\r\n{}", "word ".repeat(200));
        for (text, progress, left, reason) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Progress::Open, 0, ""),
            ("HTTP/1.0 200\r\nVia: x\r\n\r\nhello", Progress::Open, 5, ""),
            ("HTTP/1.1 204 X\r\nContent-Length: 9\r\n\r\nhello", Progress::Open, 5, ""),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", Progress::Open, 1, ""),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
                Progress::Refused,
                0,
                "407 Proxy Authentication Required",
            ),
            (
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 21\r\n\r\n<b>no</b>\n\n this\thostx",
                Progress::Refused,
                1,
                "403 Forbidden: no this host",
            ),
            (
                "HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndown\r\n0\r\n\r\n",
                Progress::Refused,
                0,
                "502 Bad: down",
            ),
            (
                "HTTP/1.1 503 Busy\r\nProxy-Status: p; error=dns_error\r\nX-Squid-Error: E 0\r\n\r\nyes",
                Progress::Reason,
                0,
                "503 Busy (p; error=dns_error) (E 0): yes",
            ),
            (
                "HTTP/1.1 302 Found\r\nContent-Length: 1, 2\r\n\r\nx",
                Progress::Refused,
                1,
                "302 Found",
            ),
            ("HTTP/1.1 500\r\nTransfer-Encoding: chunked\r\n\r\nzz", Progress::Refused, 2, "500"),
            ("HTTP/1.1 20", Progress::Head, 11, ""),
        ] {
            for cut in 0..=text.len() {
                let (found, taken, words) = read_cut(text.as_bytes(), cut).unwrap();
                assert_eq!(found, progress, "{text:?} cut at {cut}");
                assert_eq!(text.len() - taken, left, "{text:?} cut at {cut}");
                assert_eq!(words, reason, "{text:?} cut at {cut}");
            }
        }
        let (_, _, reason) = read_cut(long.as_bytes(), 30).unwrap();
        assert!(reason.ends_with("wor…") || reason.ends_with('…'), "{reason}");
        assert!(reason.chars().count() < PROXY_REASON_CHARS_MAX + 20, "{reason}");
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX + 1);
        for text in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "\u{15}\u{3}\u{1}\0\u{2}", &endless] {
            for cut in 0..=text.len() {
                assert!(read_cut(text.as_bytes(), cut).is_err(), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_page_is_read_without_its_markup() {
        for (page, text) in [
            ("plain words", "plain words"),
            ("<html><head><style>a { b: c }</style><title>ERROR</title></head><p>no</p>", "no"),
            ("<SCRIPT>if (a<b) {}</Script>x<!-- <p>hidden --> y", "x y"),
            ("a <style>cut off", "a"),
            ("a <b", "a"),
            ("ünï <i>cödé</i>", "ünï cödé"),
        ] {
            assert_eq!(readable(&without_markup(page)), text, "{page}");
        }
        assert_eq!(readable("a\u{1b}[31mred\r\nb"), "a [31mred b");
    }

    #[test]
    fn a_page_without_end_is_bounded() {
        let mut answer = ConnectAnswer::default();
        answer.read(b"HTTP/1.1 403 X\r\n\r\n").unwrap();
        let piece = [b'x'; 1000];
        let mut pieces = 0;
        while answer.read(&piece).unwrap().1 == Progress::Reason {
            pieces += 1;
            assert!(pieces < 1000, "it reads on and on");
        }
    }
}
