//! WebSocket messages (RFC 6455, section 5.4), read beside the frames of one direction: fragments
//! put together, control frames taken from between them, payloads unmasked and inflated. What is
//! wrong with a message is told with it; nothing is refused.

use agent_gate_store::record::{Direction, Flaw, MessageKind};

use super::ws_deflate::{Extensions, Inflater, Step};
use super::ws_frame::{FrameHead, FramePart, FrameReader};
pub(crate) use super::ws_open::Told;
use super::ws_open::{Open, kind_of};
use crate::limits::{INFLATE_STEP_BYTES, UNMASK_STEP_BYTES};

/// A reader of one direction's messages, at some place inside them.
#[derive(Debug)]
pub(crate) struct MessageReader {
    direction: Direction,
    frames: FrameReader,
    /// Whether an extension is at work that is not known here.
    unknown_extension: bool,
    /// permessage-deflate, where agreed on.
    inflater: Option<Inflater>,
    message: Option<Open>,
    control: Option<Open>,
    /// What is to be done before more is read.
    due: Due,
    /// Whether the close frame has passed.
    is_closed: bool,
}

/// Data messages and control frames may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A message, perhaps in fragments.
    Data,
    /// A control frame, perhaps between them.
    Control,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// More bytes are needed.
    Starved,
    /// Some content was found, or a step was taken towards it.
    Progress,
    /// A message began; its length, where its first frame tells.
    Begun(Lane, Option<u64>),
    /// A message ended, or was broken off.
    Ended(Lane, Told),
}

/// What is to be done before more is read.
#[derive(Debug)]
enum Due {
    Nothing,
    /// This header begins a message, or goes on with one.
    Head(FrameHead),
    /// The message's last frame has ended.
    Finish,
    /// The message will have no end; the header of the one that broke in.
    BreakOff(Option<FrameHead>),
}

/// The bit that says "compressed" (RFC 7692, section 6).
const RSV1: u8 = 0b100;

/// The most that a control frame may carry (section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

impl MessageReader {
    pub(crate) fn new(direction: Direction, extensions: Extensions) -> Self {
        let takeover = extensions.deflate.map(|deflate| match direction {
            Direction::Sent => deflate.client_takeover,
            Direction::Received => deflate.server_takeover,
        });
        Self {
            direction,
            frames: FrameReader::new(),
            unknown_extension: extensions.unknown,
            inflater: takeover.map(Inflater::new),
            message: None,
            control: None,
            due: Due::Nothing,
            is_closed: false,
        }
    }

    /// Reads from the front of `input`, a bounded step at a time, and pushes the content it finds.
    /// Returns how many bytes are read, and what that came to. Call it until it is starved.
    pub(crate) fn read(
        &mut self,
        input: &[u8],
        mut content: impl FnMut(Lane, &[u8]),
    ) -> (usize, Event) {
        if let Some(event) = self.settle(&mut content) {
            return (0, event);
        }
        let (read, part) = self.frames.read(input);
        match part {
            FramePart::Starved => (read, Event::Starved),
            FramePart::Head(head) => {
                self.due = Due::Head(head);
                (read, Event::Progress)
            }
            FramePart::Payload(payload) => self.read_payload(payload, &mut content),
            FramePart::End(head) => (read, self.end_frame(&head, &mut content)),
        }
    }

    /// The direction is over: tells what of its messages was not. Call it until there is nothing.
    pub(crate) fn cut(&mut self, mut content: impl FnMut(Lane, &[u8])) -> Option<Event> {
        if let Some(mut open) = self.control.take() {
            open.show_code(&mut |piece| content(Lane::Control, piece));
            return Some(Event::Ended(Lane::Control, open.broken_off()));
        }
        if self.message.is_some() && matches!(self.due, Due::Nothing) {
            self.due = Due::BreakOff(None);
        }
        self.settle(&mut content)
    }

    /// Does a step of what is due.
    fn settle(&mut self, content: &mut impl FnMut(Lane, &[u8])) -> Option<Event> {
        if let Some(open) = &mut self.message
            && !open.unshown.is_empty()
        {
            content(Lane::Data, &std::mem::take(&mut open.unshown));
            return Some(Event::Progress);
        }
        match self.due {
            Due::Nothing => None,
            Due::Head(head) => Some(self.begin(head)),
            Due::Finish | Due::BreakOff(_) => Some(match self.inflate(true, content) {
                Ok(true) => Event::Progress,
                Ok(false) => self.end_message(),
                Err(flaw) => self.give_up(flaw),
            }),
        }
    }

    /// A header is there: its message begins, goes on, or breaks another off.
    fn begin(&mut self, head: FrameHead) -> Event {
        self.due = Due::Nothing;
        let flaws = self.flaws_of(&head);
        match &mut self.message {
            Some(open) if head.opcode == 0 => {
                open.told.frames += 1;
                flaws.into_iter().for_each(|flaw| open.told.add(flaw));
                Event::Progress
            }
            Some(_) if !head.is_control() => {
                self.due = Due::BreakOff(Some(head));
                Event::Progress
            }
            _ => self.open(&head, flaws),
        }
    }

    fn open(&mut self, head: &FrameHead, flaws: Vec<Flaw>) -> Event {
        let mut told = Told::new(head, flaws);
        if self.is_closed {
            told.add(Flaw::AfterClose);
        }
        let is_coded = head.reserved & RSV1 != 0 && head.opcode != 0 && !head.is_control();
        let mut inflates = false;
        match &mut self.inflater {
            Some(inflater) if is_coded => {
                told.compressed = true;
                inflates = inflater.begin();
            }
            _ => {}
        }
        if is_coded && !inflates && (told.compressed || self.unknown_extension) {
            told.add(Flaw::NotInflated);
        }
        let is_whole = (head.is_final || head.is_control()) && !inflates;
        let length = (is_whole && !head.is_out_of_range()).then_some(head.length);
        let open = Open::new(told, inflates);
        let lane = if head.is_control() { Lane::Control } else { Lane::Data };
        match lane {
            Lane::Control => self.control = Some(open),
            Lane::Data => self.message = Some(open),
        }
        Event::Begun(lane, length)
    }

    /// What is wrong with a frame by itself, and in its place.
    fn flaws_of(&self, head: &FrameHead) -> Vec<Flaw> {
        let is_first = head.opcode != 0;
        let meaning = match &self.inflater {
            _ if self.unknown_extension => 0b111,
            Some(_) if is_first && !head.is_control() => RSV1,
            _ => 0,
        };
        let is_masked = head.mask.is_some();
        [
            (head.reserved & !meaning != 0, Flaw::ReservedBits),
            (kind_of(head.opcode) == MessageKind::Reserved, Flaw::UnknownOpcode),
            (head.is_padded, Flaw::LengthNotMinimal),
            (head.is_out_of_range(), Flaw::LengthOutOfRange),
            (head.is_control() && !head.is_final, Flaw::ControlFragmented),
            (head.is_control() && head.length > CONTROL_BYTES_MAX, Flaw::ControlTooLong),
            (self.direction == Direction::Sent && !is_masked, Flaw::Unmasked),
            (self.direction == Direction::Received && is_masked, Flaw::Masked),
            (!is_first && self.message.is_none(), Flaw::ContinuationWithoutStart),
        ]
        .into_iter()
        .filter_map(|(is_so, flaw)| is_so.then_some(flaw))
        .collect()
    }

    fn read_payload(
        &mut self,
        payload: &[u8],
        content: &mut impl FnMut(Lane, &[u8]),
    ) -> (usize, Event) {
        let mut room = [0; UNMASK_STEP_BYTES];
        let (lane, open) = match (&mut self.control, &mut self.message) {
            (Some(open), _) => (Lane::Control, open),
            (None, Some(open)) => (Lane::Data, open),
            (None, None) => unreachable!("a header comes before its payload"),
        };
        let inflater = self.inflater.as_mut().filter(|_| open.inflates);
        let bound = inflater.as_ref().map_or(usize::MAX, |inflater| inflater.room());
        let plain = self.frames.plain(&payload[..payload.len().min(bound)], &mut room);
        let length = plain.len();
        open.told.wire_bytes += length as u64;
        match inflater {
            Some(inflater) => inflater.gather(plain),
            None => open.read(plain, &mut |piece| content(lane, piece)),
        }
        self.frames.advance(length);
        let event = match self.inflate(false, content) {
            Ok(_) => Event::Progress,
            Err(flaw) => self.give_up(flaw),
        };
        (length, event)
    }

    /// Takes a step of inflating the message under way; `false` when there is nothing to do.
    fn inflate(
        &mut self,
        at_end: bool,
        content: &mut impl FnMut(Lane, &[u8]),
    ) -> Result<bool, Flaw> {
        let (Some(inflater), Some(open)) = (&mut self.inflater, &mut self.message) else {
            return Ok(false);
        };
        if !open.inflates {
            return Ok(false);
        }
        let mut out = [0; INFLATE_STEP_BYTES];
        let mut step = inflater.step(at_end, &mut out)?;
        if step == Step::Done && matches!(self.due, Due::Finish) {
            step = inflater.finish(&mut out)?;
        }
        let Step::Given(length) = step else { return Ok(false) };
        open.show(&out[..length], &mut |piece| content(Lane::Data, piece));
        Ok(true)
    }

    fn end_frame(&mut self, head: &FrameHead, content: &mut impl FnMut(Lane, &[u8])) -> Event {
        if let Some(mut open) = self.control.take() {
            open.show_code(&mut |piece| content(Lane::Control, piece));
            self.is_closed |= open.told.kind == MessageKind::Close;
            return Event::Ended(Lane::Control, open.ended());
        }
        if head.is_final {
            self.due = Due::Finish;
        }
        Event::Progress
    }

    /// The message under way is over, well or not, and nothing of it is left to inflate.
    fn end_message(&mut self) -> Event {
        let due = std::mem::replace(&mut self.due, Due::Nothing);
        let mut open = self.message.take().expect("a message is under way");
        if let Some(inflater) = self.inflater.as_mut().filter(|_| open.inflates) {
            inflater.end();
        }
        let Due::BreakOff(head) = due else { return Event::Ended(Lane::Data, open.ended()) };
        if let Some(head) = head {
            open.told.add(Flaw::Interrupted);
            self.due = Due::Head(head);
        }
        Event::Ended(Lane::Data, open.broken_off())
    }

    /// The message under way cannot be inflated further: what it has given is told as one, the
    /// rest, as it is on the wire, as another.
    fn give_up(&mut self, flaw: Flaw) -> Event {
        let rest = self.inflater.as_mut().map(Inflater::give_up).unwrap_or_default();
        let mut open = self.message.take().expect("a message is under way");
        open.told.add(flaw);
        open.told.wire_bytes -= rest.len() as u64;
        if !rest.is_empty() || matches!(self.due, Due::Nothing) {
            self.message = Some(open.rest(rest));
        } else if let Due::BreakOff(Some(head)) = self.due {
            self.due = Due::Head(head);
        } else {
            self.due = Due::Nothing;
        }
        Event::Ended(Lane::Data, open.broken_off())
    }
}

#[cfg(test)]
mod tests;
