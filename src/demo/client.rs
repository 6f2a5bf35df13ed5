//! The demo's agent, which runs inside the jail: it asks, does what the tool call says, asks again,
//! and shows the answer as it comes. It ignores the proxy variables, as many tools do, unless told.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::{HOST, PATIENCE, http, script};
use crate::cli::DemoClientOptions;
use crate::exit_code::Exit;
use crate::terminal::{self, clean};

/// Has the conversation.
///
/// # Errors
/// Whatever went wrong in it.
pub(crate) fn run(options: &DemoClientOptions) -> anyhow::Result<Exit> {
    let trust = trust()?;
    terminal::print(&format!("  user      {}", script::QUESTION))?;
    let mut messages = vec![json!({"role": "user", "content": script::QUESTION})];
    let asked = ask(options, &trust, &messages)?;
    let call = asked.tool_use.context("the answer has no tool call")?;
    let path = call["input"]["path"].as_str().context("a tool call without a path")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    terminal::print(&format!("  tool      read_file {path} -> {:?}", clean(text.trim_end())))?;
    messages.push(json!({
        "role": "assistant", "content": [{"type": "text", "text": asked.text}, call]
    }));
    messages.push(json!({
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": text}]
    }));
    let last = ask(options, &trust, &messages)?;
    ensure!(last.tool_use.is_none(), "the answer has a second tool call");
    Ok(Exit::Success)
}

/// What one answer said.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    tool_use: Option<Value>,
    /// The tool's input as far as it has come.
    input: String,
}

fn ask(
    options: &DemoClientOptions,
    trust: &Arc<ClientConfig>,
    messages: &[Value],
) -> anyhow::Result<Answer> {
    let tcp = if options.by_proxy { through_proxy()? } else { directly()? };
    tcp.set_read_timeout(Some(PATIENCE))?;
    let tls = ClientConnection::new(Arc::clone(trust), ServerName::try_from(HOST)?)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, tcp));
    let body = script::request(messages).to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
         Anthropic-Version: 2023-06-01\r\nX-Api-Key: demo-key-that-never-was-one\r\n\
         Content-Length: {}\r\n\r\n",
        script::PATH,
        body.len()
    );
    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).context(TO_ORIGIN)?;
    stream.get_mut().flush().context(TO_ORIGIN)?;
    let head = http::head(&mut stream).context(TO_ORIGIN)?;
    if !head[0].contains(" 200 ") {
        let said = http::sized_body(&head, &mut stream).unwrap_or_default();
        bail!("{}: {}", head[0], String::from_utf8_lossy(&said));
    }
    let events = BufReader::new(Chunks { stream: &mut stream, left: io::Cursor::default() });
    listen(events)
}

const TO_ORIGIN: &str = "the exchange with the origin";

/// By name, as if there were no gate: inside the jail every name is answered by the gate.
fn directly() -> anyhow::Result<TcpStream> {
    TcpStream::connect((HOST, 443)).with_context(|| format!("cannot connect to {HOST}"))
}

/// By a CONNECT to the proxy that the environment names.
fn through_proxy() -> anyhow::Result<TcpStream> {
    let proxy = std::env::var("HTTPS_PROXY").context("HTTPS_PROXY")?;
    let address = proxy.trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).with_context(|| format!("proxy {proxy}"))?;
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    (&stream).write_all(head.as_bytes())?;
    // One byte at a time: what follows the head is TLS, and not ours to read here.
    let answer = http::head(&mut BufReader::with_capacity(1, &stream))?;
    ensure!(answer[0].contains(" 200"), "the proxy said {}", answer[0]);
    Ok(stream)
}

/// The gate's CA among the system's, where well-behaved tools look.
fn trust() -> anyhow::Result<Arc<ClientConfig>> {
    let bundle = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).context("SSL_CERT_FILE")?;
    let pem = std::fs::read(&bundle).with_context(|| bundle.display().to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Reads the events of an answer and shows its text word by word.
fn listen(events: impl BufRead) -> anyhow::Result<Answer> {
    let mut answer = Answer::default();
    let mut out = io::stdout().lock();
    write!(out, "  assistant ")?;
    for line in events.lines() {
        let line = line.context(TO_ORIGIN)?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data).context("an event that is not JSON")?;
        if let Some(word) = answer.take(&event) {
            write!(out, "{}", clean(word))?;
            out.flush()?;
        }
    }
    writeln!(out)?;
    Ok(answer)
}

impl Answer {
    /// Takes an event in; text to show, if it has some.
    fn take<'a>(&mut self, event: &'a Value) -> Option<&'a str> {
        match event["type"].as_str()? {
            "content_block_start" if event["content_block"]["type"] == "tool_use" => {
                self.tool_use = Some(event["content_block"].clone());
            }
            "content_block_delta" => {
                if let Some(piece) = event["delta"]["partial_json"].as_str() {
                    self.input.push_str(piece);
                }
                let word = event["delta"]["text"].as_str()?;
                self.text.push_str(word);
                return Some(word);
            }
            "message_stop" => {
                if let Some(call) = &mut self.tool_use {
                    call["input"] = serde_json::from_str(&self.input).unwrap_or_default();
                }
            }
            _ => {}
        }
        None
    }
}

/// The content of a chunked body.
struct Chunks<'a, S> {
    stream: &'a mut S,
    left: io::Cursor<Vec<u8>>,
}

impl<S: BufRead> Read for Chunks<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.left.read(into)?;
        if read > 0 {
            return Ok(read);
        }
        match http::chunk(self.stream)? {
            Some(chunk) => {
                self.left = io::Cursor::new(chunk);
                self.left.read(into)
            }
            None => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripted_answer_is_understood() {
        let events = script::answer(&script::request(&[])).concat();
        let answer = listen(events.as_bytes()).unwrap();
        assert_eq!(answer.text, "I will read the file.");
        assert_eq!(answer.tool_use.unwrap()["input"]["path"], script::FILE);
    }
}
