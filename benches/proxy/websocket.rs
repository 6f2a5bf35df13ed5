//! WebSockets: one side that sends texts of 200 bytes, one that sends them back.

use std::io;
use std::time::{Duration, Instant};

use crate::http::Messages;

/// Bytes of a text: too many for a length of one byte, as most messages are.
pub(crate) const TEXT_BYTES: usize = 200;

/// A final text frame with a length of two bytes (RFC 6455, section 5.2); what a client adds to it.
const HEAD: [u8; 4] = [0x81, 126, 0, TEXT_BYTES.to_le_bytes()[0]];
const MASKED: u8 = 0x80;
const KEY: [u8; 4] = [0x3c, 0x91, 0x07, 0xe5];

/// The fields by which both sides change over.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

/// Sends a text and waits until it is back; how long that took.
pub(crate) async fn echo(messages: &mut Messages, number: u64) -> io::Result<Duration> {
    let text = format!("{number:0TEXT_BYTES$}");
    let [first, length, rest @ ..] = HEAD;
    let mut frame = vec![first, length | MASKED];
    frame.extend(rest);
    frame.extend(KEY);
    frame.extend(text.bytes().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    let sent = Instant::now();
    messages.stream.writer.write(&frame).await?;
    let came = messages
        .exactly(HEAD.len() + TEXT_BYTES, |frame| frame[HEAD.len()..] == *text.as_bytes())
        .await?;
    let took = sent.elapsed();
    if came { Ok(took) } else { Err(io::Error::other("another text came back")) }
}

/// Sends every text back, until the client ends.
pub(crate) async fn serve(messages: &mut Messages) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}Sec-WebSocket-Accept: any\r\n\r\n");
    messages.stream.writer.write(head.as_bytes()).await?;
    let head_bytes = HEAD.len() + KEY.len();
    loop {
        let unmask = |frame: &[u8]| {
            let text = frame[head_bytes..].iter().zip(KEY.iter().cycle());
            HEAD.iter().copied().chain(text.map(|(byte, key)| byte ^ key)).collect::<Vec<_>>()
        };
        match messages.exactly(head_bytes + TEXT_BYTES, unmask).await {
            Ok(frame) => messages.stream.writer.write(&frame).await?,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
