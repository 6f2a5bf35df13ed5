//! A client that speaks to the proxy by hand: every byte of CONNECT and of TLS under control.

use super::bench::{Bench, Output, Started};
use super::python::interpreter;

/// What each script begins with. `tunnel` sends a CONNECT head and gives the socket and the answer;
/// `tls` does a handshake; `get` is one request with its whole answer; `to_end` reads what comes.
const PRELUDE: &str = r#"
import os, socket, ssl, struct, sys, time
port = int(sys.argv[1])
def connect():
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(60)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
def head_of(s):
    head = b""
    while not head.endswith(b"\r\n\r\n") and (more := s.recv(1)): head += more
    return head
def tunnel(authority, rest=" HTTP/1.1\r\n\r\n"):
    s = connect()
    s.sendall(f"CONNECT {authority}{rest}".encode())
    return s, head_of(s)
def context(trusting=True, alpn=None):
    c = ssl.create_default_context()
    if not trusting: c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if alpn: c.set_alpn_protocols(alpn)
    return c
def tls(s, name, **how): return context(**how).wrap_socket(s, server_hostname=name)
def hello(name):
    inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = context().wrap_bio(inbound, outbound, server_hostname=name)
    try: o.do_handshake()
    except ssl.SSLWantReadError: pass
    return outbound.read()
def get(s, target, host):
    s.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = head_of(s).decode()
    length = [l.split(":")[1] for l in head.split("\r\n") if l.lower().startswith("content-length:")]
    body = b""
    while len(body) < int(length[0]): body += s.recv(65536)
    return head.split("\r\n")[0]
def to_end(s):
    got = b""
    try:
        while more := s.recv(65536): got += more
    except ConnectionResetError: got += b"RESET"
    return got
def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
"#;

/// Runs a script in the jail to its end, which must be a good one.
pub(crate) fn run(bench: &Bench, script: &str) -> Output {
    start(bench, &[], script).finish().ok()
}

/// The same, with options of `run`, and under way.
pub(crate) fn start(bench: &Bench, options: &[&str], script: &str) -> Started {
    let script = format!("{PRELUDE}{script}");
    let port = bench.proxy_port.to_string();
    Started::new(bench.run_command(options, &[interpreter(), "-c", &script, &port]))
}
