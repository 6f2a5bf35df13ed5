//! The way through an upstream proxy: connected to it, TLS with it if it wants that, and a tunnel
//! to the origin if the request needs one.

use std::net::SocketAddr;
use std::time::Duration;

use agent_gate_store::record::Outcome;
use monoio::time::timeout;

use super::connect::connect_any;
use super::door::Target;
use super::flow::Flow;
use super::stream::Stream;
use super::upstream::{DialError, DialTimes, addresses_of, secure};
use crate::UpstreamProxy;
use crate::limits::PROXY_REASON_TIME_MAX;
use crate::proto::connect_answer::{ConnectAnswer, Progress};
use crate::upstream_proxy::authority;

/// A connection to the proxy itself, secured if it is an `https://` one. Its address is not asked
/// policy about: the user named it.
pub(super) async fn connect(
    flow: &Flow,
    proxy: &UpstreamProxy,
    times: &mut DialTimes,
) -> Result<(SocketAddr, Stream), DialError> {
    let place = Target { host: proxy.host().clone(), port: proxy.port() };
    let addresses = match flow.run.resolved_by_hand(&place.host, place.port) {
        Some(address) => vec![address],
        None => {
            let found = addresses_of(&flow.worker, &place, times).await;
            found.map_err(|why| failed(proxy, &why))?
        }
    };
    let (address, stream) = connect_any(&addresses, flow.worker.shared.limits.connect_time_max)
        .await
        .map_err(|error| failed(proxy, &format!("cannot be connected to: {error}")))?;
    let mut stream = Stream::new(stream);
    flow.control.set_upstream(Some(stream.handle().clone()));
    if proxy.is_tls() {
        secure(&mut stream, flow.run.tls.for_proxy(), &place.host)
            .await
            .map_err(|why| failed(proxy, &format!("TLS with it failed: {why}")))?;
    }
    Ok((address, stream))
}

/// Turns a connection to the proxy into one to `target`; the proxy has so much time to answer.
pub(super) async fn open_tunnel(
    stream: &mut Stream,
    proxy: &UpstreamProxy,
    target: &Target,
    within: Duration,
) -> Result<(), DialError> {
    let failed = |what: &str| failed(proxy, what);
    let asked = stream.writer.stage(&request(proxy, target));
    let asked = match asked {
        Ok(()) => stream.writer.flush().await,
        error => error,
    };
    asked.map_err(|error| failed(&format!("does not take a request: {error}")))?;
    let mut answer = ConnectAnswer::default();
    let head = timeout(within, read(stream, &mut answer, Progress::Head)).await;
    let progress = head
        .map_err(|_| failed(&format!("has not answered in {} s", within.as_secs_f32())))?
        .map_err(|what| failed(&what))?;
    if progress == Progress::Open {
        stream.begin_anew();
        return Ok(());
    }
    // Whatever comes of its reason, or does not: it has refused.
    let _ = timeout(PROXY_REASON_TIME_MAX, read(stream, &mut answer, Progress::Reason)).await;
    let words = answer.refusal().map(|(head, reason)| proxy.words_for(head, &reason));
    Err(DialError::Failed { outcome: Outcome::ProxyFailed, detail: words.unwrap_or_default() })
}

/// RFC 9112, section 3.2.3.
fn request(proxy: &UpstreamProxy, target: &Target) -> Vec<u8> {
    let authority = authority(&target.host, target.port);
    let credentials = proxy
        .authorization()
        .map(|value| format!("Proxy-Authorization: {value}\r\n"))
        .unwrap_or_default();
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n").into_bytes()
}

/// Reads for as long as the answer is at `place`.
async fn read(
    stream: &mut Stream,
    answer: &mut ConnectAnswer,
    place: Progress,
) -> Result<Progress, String> {
    loop {
        let data = stream.reader.data();
        let (length, progress) = answer.read(data).map_err(|error| not_http(data, &error))?;
        stream.reader.consume(length);
        if progress != place {
            return Ok(progress);
        }
        match stream.reader.fill().await {
            Ok(true) => {}
            Ok(false) => return Err("closed the connection instead of answering".to_owned()),
            Err(error) => return Err(format!("broke the connection off: {error}")),
        }
    }
}

fn not_http(data: &[u8], error: &str) -> String {
    let hint = match data {
        // An alert or a handshake record (RFC 8446, section 5.1).
        [0x15 | 0x16, 3, ..] => "; it seems to speak TLS, so its URL begins with https://",
        _ => "",
    };
    format!("does not answer in HTTP ({error}){hint}")
}

fn failed(proxy: &UpstreamProxy, what: &str) -> DialError {
    let detail = proxy.redact(&format!("{} {what}", proxy.name()));
    DialError::Failed { outcome: Outcome::ProxyFailed, detail }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use agent_gate_store::HostName;
    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;

    /// A proxy that answers one CONNECT with `answer` and then waits for the end; what it was sent.
    fn proxy_that_says(answer: &'static str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://user:sesame@{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the gate lets go.
            let _ = stream.read(&mut byte);
            String::from_utf8(asked).unwrap()
        });
        (url, serving)
    }

    /// Asks it for a tunnel: what arrived behind the answer, or why there is none; and what it was
    /// sent.
    fn ask(answer: &'static str, within: Duration) -> (Result<String, String>, String) {
        let (url, serving) = proxy_that_says(answer);
        let proxy = UpstreamProxy::parse(&url, "HTTPS_PROXY").unwrap();
        let target = Target { host: HostName::parse("a.example").unwrap(), port: 443 };
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().unwrap();
        let result = runtime.block_on(async {
            let address = SocketAddr::new(proxy.host().ip().unwrap(), proxy.port());
            let mut stream = Stream::new(connect_any(&[address], within).await.unwrap().1);
            match open_tunnel(&mut stream, &proxy, &target, within).await {
                Ok(()) => Ok(String::from_utf8_lossy(stream.reader.data()).into_owned()),
                Err(DialError::Failed { outcome, detail }) => {
                    assert_eq!(outcome, Outcome::ProxyFailed);
                    Err(detail)
                }
                Err(DialError::Refused { .. }) => panic!("policy was not asked"),
            }
        });
        (result, serving.join().unwrap())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_tunnel_keeps_what_came_behind_the_answer() {
        let (result, asked) = ask("HTTP/1.1 200 OK\r\nVia: x\r\n\r\nserver first", LONG);
        assert_eq!(result.unwrap(), "server first");
        assert_eq!(
            asked,
            "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\
             Proxy-Authorization: Basic dXNlcjpzZXNhbWU=\r\n\r\n"
        );
    }

    #[test]
    fn failures_are_told_in_words_and_without_secrets() {
        for (answer, words) in [
            ("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", "does not accept user and password"),
            ("HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\nsesame", "refuses: 403 No: ***"),
            ("\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{28}", "its URL begins with https://"),
            ("220 smtp ready\r\n", "does not answer in HTTP"),
        ] {
            let error = ask(answer, LONG).0.unwrap_err();
            assert!(error.contains(words), "{answer:?}: {error}");
            assert!(error.contains("(HTTPS_PROXY)"), "{answer:?}: {error}");
            assert!(!error.contains("sesame") && !error.contains("dXNlcj"), "{error}");
        }
    }

    #[test]
    fn silence_ends() {
        let error = ask("", Duration::from_millis(30)).0.unwrap_err();
        assert!(error.contains("has not answered in 0.03 s"), "{error}");
        let error = ask("HTTP/1.1 200", Duration::from_millis(30)).0.unwrap_err();
        assert!(error.contains("has not answered"), "{error}");
    }

    /// A refusal's page may never end; what has come of it is quoted.
    #[test]
    fn a_reason_that_does_not_end_is_cut() {
        let error = ask("HTTP/1.1 503 Busy\r\n\r\nnot now", LONG).0.unwrap_err();
        assert!(error.ends_with("refuses: 503 Busy: not now"), "{error}");
    }
}
