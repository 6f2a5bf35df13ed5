//! One WebSocket message under way: what is known of it, and what its content shows of it.

use agent_gate_store::record::{Flaw, MessageKind};

use super::ws_frame::FrameHead;

/// What is known of a message besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// What its first frame says it is.
    pub(crate) kind: MessageKind,
    /// The opcode of a reserved frame.
    pub(crate) opcode: Option<u8>,
    /// Bytes of its payload on the wire.
    pub(crate) wire_bytes: u64,
    /// Frames it came in.
    pub(crate) frames: u64,
    /// Whether it was compressed.
    pub(crate) compressed: bool,
    /// The status code of a close frame.
    pub(crate) close_code: Option<u16>,
    /// What was wrong with it, each flaw once.
    pub(crate) flaws: Vec<Flaw>,
    /// Whether it came to its end.
    pub(crate) complete: bool,
}

/// A message under way.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) told: Told,
    /// Whether it is being inflated.
    pub(super) inflates: bool,
    /// Content that is still to be shown before what comes.
    pub(super) unshown: Vec<u8>,
    /// What has arrived of a close frame's status code.
    code: Vec<u8>,
    /// Of text: what was seen of its UTF-8.
    text: Option<Utf8>,
}

impl Open {
    /// A message of which the header is there. Text that is not inflated may be anything.
    pub(super) fn new(told: Told, inflates: bool) -> Self {
        let is_text = matches!(told.kind, MessageKind::Text | MessageKind::Close)
            && !told.flaws.contains(&Flaw::NotInflated);
        let text = is_text.then(Utf8::default);
        Self { told, inflates, unshown: Vec::new(), code: Vec::new(), text }
    }

    /// Takes payload that is not to be inflated.
    pub(super) fn read(&mut self, payload: &[u8], content: &mut dyn FnMut(&[u8])) {
        let mut payload = payload;
        while self.told.kind == MessageKind::Close
            && self.told.close_code.is_none()
            && let Some((&byte, rest)) = payload.split_first()
        {
            payload = rest;
            self.code.push(byte);
            if let [high, low] = self.code[..] {
                self.told.set_close_code(u16::from_be_bytes([high, low]));
            }
        }
        self.show(payload, content);
    }

    pub(super) fn show(&mut self, piece: &[u8], content: &mut dyn FnMut(&[u8])) {
        if let Some(text) = &mut self.text {
            text.push(piece);
        }
        if !piece.is_empty() {
            content(piece);
        }
    }

    /// Half a status code is content like any other.
    pub(super) fn show_code(&mut self, content: &mut dyn FnMut(&[u8])) {
        if self.told.close_code.is_none() && !self.code.is_empty() {
            self.told.add(Flaw::CloseTooShort);
            content(&self.code);
        }
    }

    /// What is not inflated of it, as a message of its own.
    pub(super) fn rest(&self, unshown: Vec<u8>) -> Self {
        let told = Told {
            wire_bytes: unshown.len() as u64,
            frames: 1,
            flaws: vec![Flaw::Rest, Flaw::NotInflated],
            ..self.told.clone()
        };
        Self { told, inflates: false, unshown, code: Vec::new(), text: None }
    }

    pub(super) fn ended(mut self) -> Told {
        if self.text.as_ref().is_some_and(|text| !text.is_whole()) {
            self.told.add(Flaw::NotUtf8);
        }
        self.told.complete = true;
        self.told
    }

    pub(super) fn broken_off(mut self) -> Told {
        if self.text.as_ref().is_some_and(|text| text.is_broken) {
            self.told.add(Flaw::NotUtf8);
        }
        self.told
    }
}

impl Told {
    pub(super) fn new(head: &FrameHead, flaws: Vec<Flaw>) -> Self {
        let kind = kind_of(head.opcode);
        Self {
            kind,
            opcode: (kind == MessageKind::Reserved).then_some(head.opcode),
            wire_bytes: 0,
            frames: 1,
            compressed: false,
            close_code: None,
            flaws,
            complete: false,
        }
    }

    pub(super) fn add(&mut self, flaw: Flaw) {
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }

    /// RFC 6455, section 7.4, and the codes that IANA has added since.
    fn set_close_code(&mut self, code: u16) {
        self.close_code = Some(code);
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            self.add(Flaw::CloseCodeInvalid);
        }
    }
}

pub(super) fn kind_of(opcode: u8) -> MessageKind {
    match opcode {
        0 => MessageKind::Continuation,
        1 => MessageKind::Text,
        2 => MessageKind::Binary,
        8 => MessageKind::Close,
        9 => MessageKind::Ping,
        10 => MessageKind::Pong,
        _ => MessageKind::Reserved,
    }
}

/// Whether text that comes in pieces is UTF-8.
#[derive(Debug, Default)]
struct Utf8 {
    is_broken: bool,
    /// A character of which more is to come.
    partial: [u8; 4],
    length: usize,
}

impl Utf8 {
    fn push(&mut self, piece: &[u8]) {
        let mut piece = piece;
        while self.length > 0
            && let Some((&byte, rest)) = piece.split_first()
        {
            self.partial[self.length] = byte;
            self.length += 1;
            piece = rest;
            match std::str::from_utf8(&self.partial[..self.length]) {
                Ok(_) => self.length = 0,
                Err(e) if e.error_len().is_none() => {}
                Err(_) => self.fail(),
            }
        }
        if self.is_broken {
            return;
        }
        if let Err(e) = std::str::from_utf8(piece) {
            let tail = &piece[e.valid_up_to()..];
            if e.error_len().is_some() {
                return self.fail();
            }
            self.partial[..tail.len()].copy_from_slice(tail);
            self.length = tail.len();
        }
    }

    fn fail(&mut self) {
        (self.is_broken, self.length) = (true, 0);
    }

    fn is_whole(&self) -> bool {
        !self.is_broken && self.length == 0
    }
}
