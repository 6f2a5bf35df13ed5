//! The way to origins: TLS of either version, sessions that are resumed, certificates by which the
//! gate says who it is, which connections are used again for whom, and what is sent a second time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use rustls::ProtocolVersion;

use crate::support::as_user::with_own_mounts;
use crate::support::bench::{AGENT_GATE, Bench, finish};
use crate::support::journal::compare;
use crate::support::origin::Handshake;
use crate::support::staying_client::{self, finish_when_recorded};

/// Handshakes for hosts whose name ends in `name`.
fn handshakes(bench: &Bench, name: &str) -> Vec<Handshake> {
    let mut all = bench.origin.handshakes();
    all.retain(|it| it.sni.as_deref().is_some_and(|sni| sni.ends_with(name)));
    all
}

/// Adds to the settings of the bench.
fn add_settings(bench: &Bench, text: &str) {
    let path = bench.config_dir().join("config.toml");
    let before = std::fs::read_to_string(path).unwrap();
    bench.write_setting("config.toml", &format!("{before}{text}"));
}

/// So that a connection that may be used again is found.
fn one_worker(bench: &Bench) {
    let path = bench.config_dir().join("config.toml");
    let text = std::fs::read_to_string(path).unwrap();
    bench.write_setting("config.toml", &text.replace("[gate]\n", "[gate]\nworkers = 1\n"));
}

/// Whichever version the origin insists on; by name with SNI, by address without.
#[test]
fn tls_of_either_version_by_name_and_by_address() {
    let bench = Bench::new();
    for (host, version) in [
        ("tls12.test", ProtocolVersion::TLSv1_2),
        ("tls13.test", ProtocolVersion::TLSv1_3),
        ("both.test", ProtocolVersion::TLSv1_3),
    ] {
        bench.run(&["curl", "-sSf", &format!("https://{host}/")]).ok();
        let handshakes = handshakes(&bench, host);
        assert_eq!(handshakes.len(), 1, "{handshakes:?}");
        assert_eq!(handshakes[0].version, version, "{host}");
        assert_eq!(handshakes[0].sni.as_deref(), Some(host));
        assert_eq!(handshakes[0].alpn.as_deref(), Some(&b"http/1.1"[..]));
    }
    bench.run(&["curl", "-sSf", "--noproxy", "*", "https://203.0.113.7/"]).ok();
    let last = bench.origin.handshakes().pop().unwrap();
    assert_eq!(last.sni, None, "an address is no name (RFC 6066, section 3)");
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
}

/// What is wrong with an origin's certificate is said in words.
#[test]
fn a_certificate_that_will_not_do() {
    let bench = Bench::new();
    for (host, words) in [
        ("expired.test", "its certificate has expired"),
        ("elsewhere.test", "its certificate is for another name"),
    ] {
        let url = format!("https://{host}/?{host}");
        let output = bench.run(&["curl", "-sS", "-w", "%{http_code}", &url]).ok();
        assert!(output.text().ends_with("502") && output.text().contains(words), "{output:?}");
        let exchange = bench.journal().only(&format!("/?{host}"));
        assert_eq!(exchange.outcome(), "origin_tls_failed", "{}", exchange.answer());
        let error = exchange.answer()["error"].as_str().unwrap();
        assert!(
            error.starts_with(&format!("TLS with {host}: ")) && error.contains(words),
            "{error}"
        );
    }
    assert!(bench.origin.seen().is_empty());
}

/// New connections of a run resume the sessions of the ones before, whichever worker they are on;
/// another run begins with its own.
#[test]
fn sessions_are_resumed_within_a_run() {
    let bench = Bench::new();
    let path = bench.config_dir().join("config.toml");
    let text = std::fs::read_to_string(path).unwrap();
    bench.write_setting("config.toml", &text.replace("[gate]\n", "[gate]\nworkers = 4\n"));
    let script = "for host in tls12.again.test tls13.again.test; do for n in 1 2 3 4 5 6 7 8; do
        curl -sSf -H 'Connection: close' https://$host/?$n || exit 1; done; done";
    for _ in 0..2 {
        bench.run_sh(script).ok();
    }
    for host in ["tls12.again.test", "tls13.again.test"] {
        let resumed: Vec<_> = handshakes(&bench, host).iter().map(|it| it.resumed).collect();
        let one_run = [false, true, true, true, true, true, true, true];
        assert_eq!(resumed, [one_run, one_run].concat(), "{host}");
    }
}

/// Only the origins that the settings name see the certificate; one that wants it from anybody else
/// is told of in words.
#[test]
fn a_client_certificate_for_its_hosts_alone() {
    let bench = Bench::new();
    let (certificate, key, der) = bench.origin.client_certificate("me.test");
    // Relative paths begin at the settings.
    std::fs::copy(&certificate, bench.config_dir().join("me.pem")).unwrap();
    let (hosts, key) = ("[\"members.test\", \"*.corp.test\"]", key.display());
    add_settings(
        &bench,
        &format!(
            "[[upstream.client_certificate]]\nhosts = {hosts}\ncertificate = \"me.pem\"\n\
             key = \"{key}\"\n"
        ),
    );
    for (host, shown) in [
        ("members.test", true),
        ("members.corp.test", true),
        ("guests.corp.test", true),
        ("guests.test", false),
    ] {
        bench.run(&["curl", "-sSf", &format!("https://{host}/")]).ok();
        let seen = &handshakes(&bench, host).pop().unwrap().client_certificate;
        assert_eq!(seen.as_deref(), shown.then_some(&der[..]), "{host}");
    }
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
    // With TLS 1.3 the origin says so after the handshake.
    bench.run(&["curl", "-sS", "https://members.other.test/?stranger"]).ok();
    let exchange = bench.journal().only("/?stranger");
    assert_eq!(exchange.status(), Some(502));
    assert_eq!(exchange.outcome(), "origin_tls_failed", "{}", exchange.answer());
    let error = exchange.answer()["error"].as_str().unwrap();
    assert!(error.contains("[[upstream.client_certificate]]"), "{error}");
    bench.stop_gate();
    let secret = std::fs::read_to_string(bench.root().join("origin/me.test.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap().to_owned();
    let log = std::fs::read_to_string(bench.data_dir().join("gate.log")).unwrap();
    assert!(!log.contains(&secret));
}

/// Files that are no identity keep the run from starting, by name.
#[test]
fn client_certificates_are_checked_at_the_start() {
    let bench = Bench::new();
    let (certificate, key, _) = bench.origin.client_certificate("me.test");
    let (_, other, _) = bench.origin.client_certificate("other.test");
    let before = std::fs::read_to_string(bench.config_dir().join("config.toml")).unwrap();
    for (certificate, key, parts) in [
        ("/nowhere/me.pem", key.to_str().unwrap(), ["/nowhere/me.pem", "No such file"]),
        (certificate.to_str().unwrap(), "absent.key", ["agent-gate/absent.key", "No such file"]),
        (
            certificate.to_str().unwrap(),
            other.to_str().unwrap(),
            ["other.test.key", "not the certificate's"],
        ),
        (key.to_str().unwrap(), key.to_str().unwrap(), ["me.test.key", "no certificate"]),
    ] {
        let text = format!(
            "{before}[[upstream.client_certificate]]\nhosts = [\"a.test\"]\n\
             certificate = \"{certificate}\"\nkey = \"{key}\"\n"
        );
        bench.write_setting("config.toml", &text);
        let output = bench.run(&["echo", "started"]).exits(125);
        assert_eq!(output.text(), "", "{output:?}");
        for part in parts {
            assert!(output.own_lines()[0].contains(part), "{part:?} is not in {output:?}");
        }
    }
}

/// A connection serves later runs that are alike, and none that trusts other authorities or is
/// somebody else.
#[test]
fn runs_share_connections_only_when_they_are_alike() {
    let bench = Bench::new();
    one_worker(&bench);
    let get = |options: &[&str]| {
        let run = bench.run_command(options, &[]);
        finish_when_recorded(&bench, run, &staying_client::get("guests.test"), 1);
        bench.origin.connections()
    };
    assert_eq!([get(&[]), get(&[])], [1, 1], "alike");
    let insecure = ["--upstream-insecure-skip-verify"];
    assert_eq!([get(&insecure), get(&insecure)], [2, 2], "another trust");
    let rule = ["--resolve", "elsewhere.test:443:127.0.0.1"];
    assert_eq!(get(&rule), 3, "another way to find origins");

    let settings = |name: &str| {
        let (certificate, key, der) = bench.origin.client_certificate(name);
        std::fs::rename(certificate, bench.config_dir().join("me.pem")).unwrap();
        std::fs::rename(key, bench.config_dir().join("me.key")).unwrap();
        der
    };
    let first = settings("first.test");
    add_settings(
        &bench,
        "[[upstream.client_certificate]]\nhosts = [\"guests.test\"]\ncertificate = \"me.pem\"\n\
         key = \"me.key\"\n",
    );
    assert_eq!([get(&[]), get(&[])], [4, 4], "another identity");
    // The same files, and other ones in them.
    let second = settings("second.test");
    assert_eq!([get(&[]), get(&[])], [5, 5], "yet another identity");
    let shown: Vec<_> =
        bench.origin.handshakes().into_iter().map(|it| it.client_certificate).collect();
    assert_eq!(shown, [None, None, None, Some(first), Some(second)]);
    assert_eq!(compare(&bench.journal(), &bench.origin), 9);
}

/// An origin in clear text that answers the first request of a connection and closes it under the
/// second.
struct Impatient {
    port: u16,
    /// Methods as they came; `-` before one that found the connection closing.
    seen: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Impatient {
    /// `together`: how many first requests have to be there before any is answered.
    fn start(together: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let for_thread = Arc::clone(&seen);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&for_thread);
                std::thread::spawn(move || serve_impatiently(&socket, &seen, together));
            }
        });
        Self { port, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.0.lock().unwrap().clone()
    }
}

fn serve_impatiently(
    socket: &TcpStream,
    seen: &(Mutex<Vec<String>>, Condvar),
    together: usize,
) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let method = read_request(&mut reader)?;
    let mut all = seen.0.lock().unwrap();
    all.push(method);
    seen.1.notify_all();
    while all.len() < together {
        all = seen.1.wait(all).unwrap();
    }
    drop(all);
    (&*socket).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").ok()?;
    let method = read_request(&mut reader)?;
    seen.0.lock().unwrap().push(format!("-{method}"));
    Some(())
}

/// The method of a request of known length; `None` at the end.
fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "\r\n") {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    lines[0].split(' ').next().map(str::to_owned)
}

/// A Python script in a run that finds the impatient origin as `reuse.test`.
fn run_with(bench: &Bench, origin: &Impatient, script: &str, exchanges: usize) -> String {
    let rule = format!("reuse.test:80:127.0.0.1:{}", origin.port);
    let run = bench.agent_gate(&["run", "--resolve", &rule, "--"]);
    finish_when_recorded(bench, run, script, exchanges)
}

/// A GET whose connection the origin closes just as it is used again is sent again, once; the client
/// has its answer.
#[test]
fn a_get_on_a_closing_connection_is_sent_again() {
    const SCRIPT: &str = r#"
import http.client
c = http.client.HTTPConnection("reuse.test")
for n in range(2):
    c.request("GET", f"/?{n}")
    r = c.getresponse()
    print(r.status, r.read())
"#;
    let bench = Bench::new();
    let origin = Impatient::start(1);
    assert_eq!(run_with(&bench, &origin, SCRIPT, 2), "200 b'ok\\n'\n200 b'ok\\n'\n");
    assert_eq!(origin.seen(), ["GET", "-GET", "GET"]);
    let exchanges = bench.journal().ended(2);
    assert_eq!(exchanges.len(), 2, "one record for what was sent twice");
    assert!(exchanges.iter().all(|e| e.outcome() == "complete"), "{}", bench.journal().summary());
}

/// Several idle connections may be closing; a request is sent twice at most.
#[test]
fn a_get_is_sent_twice_at_most() {
    const SCRIPT: &str = r#"
import http.client, threading
clients = []
def get():
    c = http.client.HTTPConnection("reuse.test")
    clients.append(c)
    c.request("GET", "/")
    print(c.getresponse().status)
threads = [threading.Thread(target=get) for _ in range(3)]
for t in threads: t.start()
for t in threads: t.join()
"#;
    let bench = Bench::new();
    one_worker(&bench);
    let origin = Impatient::start(3);
    assert_eq!(run_with(&bench, &origin, SCRIPT, 3), "200\n200\n200\n");
    // A run that is alike finds the three connections.
    let one = "import http.client\nc = http.client.HTTPConnection('reuse.test')\n\
               c.request('GET', '/')\nprint(c.getresponse().status)\n";
    assert_eq!(run_with(&bench, &origin, one, 1), "200\n");
    assert_eq!(origin.seen(), ["GET", "GET", "GET", "-GET", "GET"]);
}

/// A POST may have been carried out: the client sees the connection close, as it would without a
/// gate, and decides.
#[test]
fn a_post_on_a_closing_connection_is_not_sent_again() {
    const SCRIPT: &str = r#"
import http.client
c = http.client.HTTPConnection("reuse.test")
c.request("GET", "/")
c.getresponse().read()
c.request("POST", "/order", b"one of them")
try: print(c.getresponse().status)
except (http.client.RemoteDisconnected, ConnectionResetError): print("closed")
"#;
    let bench = Bench::new();
    let origin = Impatient::start(1);
    assert_eq!(run_with(&bench, &origin, SCRIPT, 2), "closed\n");
    assert_eq!(origin.seen(), ["GET", "-POST"]);
    let post = bench.journal().only("/order");
    assert_eq!(post.outcome(), "cut_by_origin", "{}", post.answer());
    assert_eq!(post.request["complete"], true, "{}", post.request);
    assert_eq!(post.request_body(), b"one of them");
}

/// That a name was unknown a moment ago is not remembered: the origin may be up by now.
#[test]
fn an_unknown_name_is_looked_up_again() {
    let bench = Bench::new();
    bench.write_setting("allowlist.txt", "late.test\n");
    let port = bench.origin.http_port;
    let curl = format!("curl -sS -o /dev/null -w '%{{http_code}}\\n' http://late.test:{port}/?");
    let inside = format!("{curl}early; echo '127.0.0.1 late.test' >>hosts; {curl}late");
    let script = format!(
        "cp /etc/hosts hosts; mount --bind hosts /etc/hosts; {AGENT_GATE} run -- sh -c \"{inside}\""
    );
    let output = finish(with_own_mounts(&bench, &script)).ok();
    assert_eq!(output.text(), "502\n200\n", "{output:?}");
    assert_eq!(bench.journal().only("/?early").outcome(), "name_unknown");
    assert_eq!(compare(&bench.journal(), &bench.origin), 1);
}
