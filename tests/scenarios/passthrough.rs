//! Hosts that pass unread: what is known of them is on disk, and a name that is not on the list does
//! not come along. And the other way round: a client that should have been let pass leaves a record
//! that says so, with the line that cures it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::bench::Bench;
use crate::support::{PATIENCE, tunnel, wait_for};

/// An origin of one connection that is none of HTTP's: what `serve` makes of it.
fn origin(serve: impl FnOnce(TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        serve(stream);
    });
    (port, thread)
}

fn only_tunnel(bench: &Bench) -> Value {
    let tunnels = wait_for("a tunnel in the journal", || {
        let tunnels = bench.journal().of_type("tunnel");
        (!tunnels.is_empty()).then_some(tunnels)
    });
    assert_eq!(tunnels.len(), 1, "{tunnels:#?}");
    tunnels[0].clone()
}

/// A host that pins its certificate passes unread: the client sees the origin's own certificate, and
/// the record has the bytes each way and no exchange.
#[test]
fn a_pinned_host() {
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "pinned.test\n");
    let ca = bench.origin.ca_pem();
    let ca = ca.to_str().unwrap();
    for way in [&["--http1.1"][..], &["--noproxy", "*"]] {
        let fixed = ["curl", "-sSf", "-o", "/dev/null", "--cacert", ca];
        let argv = [&fixed, &["https://pinned.test/bytes?n=100000"][..], way].concat();
        bench.run(&argv).ok();
    }
    let tunnels = wait_for("two tunnels in the journal", || {
        let tunnels = bench.journal().of_type("tunnel");
        (tunnels.len() == 2).then_some(tunnels)
    });
    for tunnel in tunnels {
        assert_eq!(tunnel["host"], "pinned.test", "{tunnel}");
        assert_eq!(tunnel["sni"], "pinned.test", "{tunnel}");
        assert_eq!(tunnel["passthrough"], true, "{tunnel}");
        assert_eq!(tunnel["flags"], Value::Null, "{tunnel}");
        let address = format!("127.0.0.1:{}", bench.origin.https_port);
        assert_eq!(tunnel["address"], address, "{tunnel}");
        // curl does not wait for the origin's goodbye, which may find it gone.
        let outcome = tunnel["outcome"].as_str().unwrap();
        assert!(matches!(outcome, "complete" | "cut_by_client"), "{tunnel}");
        assert!(tunnel["received"].as_u64() > Some(100_000), "{tunnel}");
        assert!(tunnel["sent"].as_u64() > Some(100), "{tunnel}");
        assert!(tunnel["duration_us"].as_u64() > Some(0), "{tunnel}");
    }
    assert!(bench.journal().exchanges().is_empty());
}

/// The list names hosts, so a hello for another host does not pass by way of one of them: it is read,
/// or refused, as the strictest list says of both.
#[test]
fn a_hello_for_another_host() {
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "pinned.test\nalso.test\n");
    bench.write_setting("denylist.txt", "denied.test\n");
    let to_pinned = |host: &str| {
        let (way, url) = (format!("{host}:443:pinned.test:443"), format!("https://{host}/?{host}"));
        let argv = ["curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "--connect-to"];
        bench.run(&[&argv[..], &[&way, &url]].concat())
    };
    assert_eq!(to_pinned("denied.test").text(), "403");
    let refused = bench.journal().of_type("refused");
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert_eq!(refused[0]["host"], "denied.test", "{refused:#?}");
    assert_eq!(refused[0]["flags"], json!(["host_mismatch"]), "{refused:#?}");
    assert!(bench.origin.seen().is_empty());

    assert_eq!(to_pinned("read.test").text(), "200");
    let request = bench.journal().only("/?read.test").request;
    assert_eq!(request["host"], "pinned.test", "{request}");
    assert_eq!(request["tls"]["sni"], "read.test", "{request}");
    assert_eq!(request["flags"], json!(["host_mismatch"]), "{request}");
    assert_eq!(bench.origin.only("/?read.test").sni.as_deref(), Some("read.test"));
    assert!(bench.journal().of_type("tunnel").is_empty());

    // Both are on the list: it passes, and what is odd is told.
    let ca = bench.origin.ca_pem();
    let argv = ["curl", "-sSf", "--cacert", ca.to_str().unwrap(), "https://also.test/"];
    bench.run(&[&argv[..], &["--connect-to", "also.test:443:pinned.test:443"]].concat()).ok();
    let tunnel = only_tunnel(&bench);
    assert_eq!(tunnel["host"], "pinned.test", "{tunnel}");
    assert_eq!(tunnel["sni"], "also.test", "{tunnel}");
    assert_eq!(tunnel["flags"], json!(["host_mismatch"]), "{tunnel}");
}

/// Some origins speak first (SMTP, SSH): their word is not held back for a hello that never comes.
#[test]
fn an_origin_that_speaks_first() {
    const SCRIPT: &str = r#"
s, _ = tunnel("mail.test:2525")
print(s.recv(100).decode())
s.sendall(b"QUIT\r\n")
print(to_end(s).decode())
"#;
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "mail.test:2525\n");
    let (port, thread) = origin(|mut stream| {
        stream.write_all(b"220 ready").unwrap();
        let mut said = [0; 6];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"QUIT\r\n");
        stream.write_all(b"221 bye").unwrap();
    });
    let rule = format!("mail.test:2525:127.0.0.1:{port}");
    let said = tunnel::start(&bench, &["--resolve", &rule], SCRIPT).finish().ok().text();
    assert_eq!(said, "220 ready\n221 bye\n");
    thread.join().unwrap();
    let tunnel = only_tunnel(&bench);
    assert_eq!((&tunnel["sent"], &tunnel["received"]), (&json!(6), &json!(16)), "{tunnel}");
    assert_eq!(tunnel["sni"], Value::Null, "{tunnel}");
}

/// A client's word that is not TLS is handed on at once; so is a hello, when it is whole, and not
/// before; and an end.
#[test]
fn a_client_that_speaks_first() {
    const SCRIPT: &str = r#"
s, _ = tunnel("ssh.test:2222")
s.sendall(b"SSH-2.0-x\r\n")
print(s.recv(100).decode().strip())
s.close()
s, _ = tunnel("slow.test:2223")
hello = hello("slow.test")
for byte in hello: s.sendall(bytes([byte]))
print(int(s.recv(100)) == len(hello))
s.close()
s, _ = tunnel("silent.test:2224")
s.shutdown(socket.SHUT_WR)
print(to_end(s).decode())
"#;
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "ssh.test\nslow.test\nsilent.test\n");
    let echo = |mut stream: TcpStream| {
        let mut said = [0; 11];
        stream.read_exact(&mut said).unwrap();
        stream.write_all(&said).unwrap();
    };
    let count_first = |mut stream: TcpStream| {
        let mut said = [0; 65536];
        let first = stream.read(&mut said).unwrap();
        stream.write_all(first.to_string().as_bytes()).unwrap();
    };
    let answer_end = |mut stream: TcpStream| {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client's end is handed on");
        stream.write_all(b"answered").unwrap();
    };
    let (ports, threads): (Vec<_>, Vec<_>) =
        [origin(echo), origin(count_first), origin(answer_end)].into_iter().unzip();
    let rules: Vec<_> = ["ssh.test:2222", "slow.test:2223", "silent.test:2224"]
        .iter()
        .zip(ports)
        .map(|(host, port)| format!("{host}:127.0.0.1:{port}"))
        .collect();
    let options: Vec<_> = rules.iter().flat_map(|rule| ["--resolve", rule.as_str()]).collect();
    let said = tunnel::start(&bench, &options, SCRIPT).finish().ok().text();
    assert_eq!(said, "SSH-2.0-x\nTrue\nanswered\n");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let tunnels = bench.journal().of_type("tunnel");
    let names: Vec<_> = tunnels.iter().map(|t| (&t["host"], &t["sni"])).collect();
    assert_eq!(names.len(), 3, "{tunnels:#?}");
    assert!(names.contains(&(&json!("slow.test"), &json!("slow.test"))), "{tunnels:#?}");
}

/// Half a hello is not handed on: who knows whom its other half names.
#[test]
fn half_a_hello() {
    const SCRIPT: &str = r#"
s, _ = tunnel("pinned.test:443")
s.sendall(hello("pinned.test")[:100])
s.shutdown(socket.SHUT_WR)
print(to_end(s))
"#;
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "pinned.test\n");
    tunnel::run(&bench, SCRIPT);
    let tunnel = only_tunnel(&bench);
    assert_eq!(tunnel["outcome"], "cut_by_client", "{tunnel}");
    assert_eq!((&tunnel["sent"], &tunnel["received"]), (&json!(0), &json!(0)), "{tunnel}");
    assert!(tunnel["error"].as_str().unwrap().contains("hello"), "{tunnel}");
}

/// A client that pins says so by an alert. The record names the line that lets the host pass, and
/// that line does.
#[test]
fn a_client_that_rejects_our_certificate() {
    let bench = Bench::new();
    let ca = bench.origin.ca_pem();
    let argv = ["curl", "-sS", "--cacert", ca.to_str().unwrap(), "https://pinned.test/"];
    assert_eq!(bench.run(&argv).code(), Some(60));
    let tunnel = only_tunnel(&bench);
    assert_eq!(tunnel["outcome"], "client_tls_failed", "{tunnel}");
    assert_eq!(tunnel["flags"], json!(["client_distrust"]), "{tunnel}");
    assert_eq!(tunnel["sni"], "pinned.test", "{tunnel}");
    let said = tunnel["error"].as_str().unwrap();
    assert!(said.contains("pins the origin's certificate"), "{said}");
    let line = said.split('"').nth(1).expect("a line to add");
    bench.write_setting("passthrough.txt", &format!("{line}\n"));
    wait_for("the line to be in force", || bench.run(&argv).status.success().then_some(()));
}

/// A client that finishes TLS and closes has opened a connection in advance, or does not accept the
/// certificate. Once says nothing, twice and never otherwise does, and after a request it is plain.
#[test]
fn a_client_that_closes_after_the_handshake() {
    const SCRIPT: &str = r#"
def unused(host): tls(tunnel(host + ":443")[0], host).close()
for _ in range(2): unused("pinned.test")
unused("once.test")
get(tls(tunnel("used.test:443")[0], "used.test"), "/", "used.test")
for _ in range(3): unused("used.test")
"#;
    let bench = Bench::new();
    tunnel::run(&bench, SCRIPT);
    let tunnels = bench.journal().of_type("tunnel");
    let of = |host: &str| -> Vec<_> {
        let of_host = tunnels.iter().filter(|t| t["host"] == host);
        of_host
            .map(|t| {
                let said = t["error"].as_str().unwrap_or_default();
                let cured = said.contains(&format!("a line \"{host}\" in passthrough.txt"));
                (t["outcome"].as_str().unwrap(), t["flags"] == json!(["client_distrust"]), cured)
            })
            .collect()
    };
    let early = "client_closed_early";
    assert_eq!(of("pinned.test"), [(early, false, false), (early, true, true)], "{tunnels:#?}");
    assert_eq!(of("once.test"), [(early, false, false)], "{tunnels:#?}");
    assert_eq!(of("used.test"), [("complete", false, false); 3], "{tunnels:#?}");
}
