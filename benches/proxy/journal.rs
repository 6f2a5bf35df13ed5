//! Whether the gate kept what passed: its journal against what the load sent and got.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use agent_gate_store::Layout;
use agent_gate_store::journal::{Day, Line, Lines};
use agent_gate_store::record::{Body, Direction, Hash, Kept, Outcome, Record};
use anyhow::{Result, bail, ensure};

/// Responses are recorded just after the client has them; this is how long they may take.
const RECORD_TIME_MAX: Duration = Duration::from_secs(20);

/// What the load saw pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Exchanges.
    pub(crate) exchanges: u64,
    /// Messages of WebSockets, both ways.
    pub(crate) messages: u64,
    /// Bytes of request bodies and of messages to the origin.
    pub(crate) sent: u64,
    /// Bytes of response bodies and of messages from the origin.
    pub(crate) received: u64,
}

/// A gate's journal, read once from front to back.
pub(crate) struct Journal {
    layout: Layout,
    body_bytes_max: u64,
    place: Option<(Day, u64)>,
}

impl Journal {
    pub(crate) fn of(data_dir: &Path, body_bytes_max: u64) -> Self {
        Self { layout: Layout::new(data_dir.to_owned()), body_bytes_max, place: None }
    }

    /// Waits until the journal tells of everything that passed since the last call, and of
    /// nothing else: whole exchanges, bodies as long and with the hash that their records say.
    pub(crate) fn check(&mut self, passed: Passed) -> Result<()> {
        let deadline = Instant::now() + RECORD_TIME_MAX;
        let (mut requests, mut responses) = (0, 0);
        let mut found = Passed::default();
        while requests < passed.exchanges || responses < passed.exchanges {
            let mut lines = Lines::from(&self.layout, self.place)?;
            while let Some(line) = lines.next_line()? {
                self.pass(&line);
                self.count(&line, &mut found, &mut requests, &mut responses)?;
            }
            if Instant::now() > deadline {
                bail!("of {passed:?} the journal has {requests} requests, {responses} responses");
            }
            sleep(Duration::from_millis(5));
        }
        ensure!(requests == responses, "{requests} requests, {responses} responses");
        found.exchanges = requests;
        ensure!(found == passed, "the journal has {found:?} of {passed:?}");
        Ok(())
    }

    /// Waits until the journal tells of tunnels that passed unread with at least so many bytes; and
    /// of nothing that was read.
    pub(crate) fn check_passed_through(&mut self, passed: Passed) -> Result<()> {
        let deadline = Instant::now() + RECORD_TIME_MAX;
        let mut received = 0;
        while received < passed.received {
            let mut lines = Lines::from(&self.layout, self.place)?;
            while let Some(line) = lines.next_line()? {
                self.pass(&line);
                match line.record(&self.layout)? {
                    Record::Tunnel(tunnel) if tunnel.passthrough => {
                        ensure!(tunnel.outcome == Outcome::Complete, "cut: {:?}", tunnel.error);
                        received += tunnel.transferred.received;
                    }
                    Record::Run(_) => {}
                    other => bail!("unexpected: {other:?}"),
                }
            }
            if Instant::now() > deadline {
                bail!("of {passed:?} the journal has tunnels of {received} bytes");
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The next look begins behind this line.
    fn pass(&mut self, line: &Line) {
        let place = line.position.offset + line.position.length + 1;
        self.place = Some((line.position.day, place));
    }

    fn count(
        &self,
        line: &Line,
        found: &mut Passed,
        requests: &mut u64,
        responses: &mut u64,
    ) -> Result<()> {
        match line.record(&self.layout)? {
            Record::Request(request) => {
                ensure!(request.complete, "a request was cut: {request:?}");
                *requests += 1;
                found.sent += self.length(&request.body)?;
            }
            Record::Response(response) => {
                let Some(head) = &response.head else { bail!("no answer: {response:?}") };
                ensure!(matches!(head.status, 101 | 200), "answered with {head:?}");
                ensure!(response.outcome == Outcome::Complete, "cut: {:?}", response.error);
                *responses += 1;
                found.received += self.length(&response.body)?;
            }
            Record::Message(message) => {
                ensure!(message.complete && message.flaws.is_empty(), "broken: {message:?}");
                found.messages += 1;
                match message.direction {
                    Direction::Sent => found.sent += self.length(&message.body)?,
                    Direction::Received => found.received += self.length(&message.body)?,
                }
            }
            Record::Run(_) => {}
            other => bail!("unexpected: {other:?}"),
        }
        Ok(())
    }

    /// The length of a body, once it is known to be on disk as far as the bound says.
    fn length(&self, body: &Body<'_>) -> Result<u64> {
        let kept = match &body.kept {
            Kept::Inline(bytes) => {
                let whole = bytes.len() as u64 == body.bytes;
                let hash = Hash(*blake3::hash(bytes).as_bytes());
                ensure!(!whole || hash == body.blake3, "a body's hash is not its record's");
                bytes.len() as u64
            }
            Kept::File { bytes, blake3 } => {
                let path = self.layout.bodies_dir().join(blake3.to_string());
                ensure!(std::fs::metadata(path)?.len() == *bytes, "a side file's length is wrong");
                *bytes
            }
        };
        let expected = body.bytes.min(self.body_bytes_max);
        ensure!(kept == expected, "{kept} bytes kept where {expected} were to be");
        Ok(body.bytes)
    }
}
