//! The DNS messages of a jail (RFC 1035, section 4): one question in, one answer out.

use std::net::Ipv4Addr;

/// An A or AAAA question, or any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question<'a> {
    /// The name without the last dot, as asked; empty for the root.
    pub(crate) name: String,
    /// The type, for instance 1 (A) or 28 (AAAA).
    pub(crate) kind: u16,
    id: [u8; 2],
    recursion_desired: bool,
    /// The question section as it stood in the query.
    section: &'a [u8],
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The name has this address.
    Address(Ipv4Addr),
    /// The name exists and has no record of that type.
    NoData,
    /// There is no such name.
    NameUnknown,
}

/// Type A (RFC 1035, section 3.2.2).
pub(crate) const TYPE_A: u16 = 1;
/// Class IN (RFC 1035, section 3.2.4).
const CLASS_IN: u16 = 1;
/// How long a client may keep an answer: as long as a run may last, in seconds.
const TTL_SECONDS: u32 = 3600;

impl<'a> Question<'a> {
    /// Reads a query with one question; `None` for anything that deserves no answer.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(12)?;
        let is_query = header[2] & 0b1111_1000 == 0;
        let one_question = header[4..6] == [0, 1];
        if !is_query || !one_question {
            return None;
        }
        let (name, name_bytes) = name(rest)?;
        let section = rest.get(..name_bytes + 4)?;
        let kind = u16::from_be_bytes([section[name_bytes], section[name_bytes + 1]]);
        let class = u16::from_be_bytes([section[name_bytes + 2], section[name_bytes + 3]]);
        (class == CLASS_IN).then(|| Self {
            name,
            kind,
            id: [header[0], header[1]],
            recursion_desired: header[2] & 1 != 0,
            section,
        })
    }

    /// The response message.
    pub(crate) fn answer(&self, answer: Answer) -> Vec<u8> {
        let (code, count) = match answer {
            Answer::Address(_) => (0, 1),
            Answer::NoData => (0, 0),
            Answer::NameUnknown => (3, 0),
        };
        let mut out = Vec::with_capacity(12 + self.section.len() + 16);
        out.extend_from_slice(&self.id);
        // A response, authoritative, recursion available.
        out.push(0b1000_0100 | u8::from(self.recursion_desired));
        out.push(0b1000_0000 | code);
        out.extend_from_slice(&[0, 1, 0, count, 0, 0, 0, 0]);
        out.extend_from_slice(self.section);
        if let Answer::Address(address) = answer {
            out.extend_from_slice(&[0xc0, 12]); // the name of the question
            out.extend_from_slice(&TYPE_A.to_be_bytes());
            out.extend_from_slice(&CLASS_IN.to_be_bytes());
            out.extend_from_slice(&TTL_SECONDS.to_be_bytes());
            out.extend_from_slice(&[0, 4]);
            out.extend_from_slice(&address.octets());
        }
        out
    }
}

/// A name in wire form at the front of `bytes`, as text, and its length in bytes. Queries have no
/// reason to compress names, so a pointer is malformed.
fn name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut text, mut at) = (String::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((text, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok().filter(|l| !l.contains('.'))?);
        if at > 255 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&str], kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_answered_with_an_address() {
        let message = query(&["api", "example", "com"], TYPE_A);
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("api.example.com", TYPE_A));
        let answer = question.answer(Answer::Address(Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!(answer[..8], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[12..message.len()], message[12..]);
        assert_eq!(
            answer[message.len()..],
            [0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 198, 18, 0, 1]
        );
    }

    #[test]
    fn refusals_carry_their_code_and_no_record() {
        let message = query(&["a"], 28);
        let question = Question::parse(&message).unwrap();
        for (answer, code) in [(Answer::NoData, 0), (Answer::NameUnknown, 3)] {
            let bytes = question.answer(answer);
            assert_eq!((bytes[3] & 15, bytes[7], bytes.len()), (code, 0, message.len()));
        }
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        let good = query(&["a", "b"], TYPE_A);
        for cut in 0..good.len() {
            assert_eq!(Question::parse(&good[..cut]), None, "cut at {cut}");
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        let mut two = good.clone();
        two[5] = 2;
        let mut pointer = good.clone();
        pointer[12] = 0xc0;
        for message in [response, two, pointer] {
            assert_eq!(Question::parse(&message), None);
        }
    }
}
