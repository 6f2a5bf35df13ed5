//! What a jailed command cannot see or reach: the gate's files, its key, its control socket, the
//! host's loopback, and any way out but the gate. Each is tried from inside.

use crate::support::bench::{Bench, Started, finish};
use crate::support::python::interpreter;
use crate::support::wait_for;

#[test]
fn the_gates_files_are_hidden() {
    let bench = Bench::new();
    bench.write_setting("denylist.txt", "secret-policy.test\n");
    bench.run(&["true"]).ok();
    let script = format!(
        "cd /
         ls -A '{data}' '{config}' 2>/dev/null | grep -v ':$' | grep -v '^$'
         cat '{data}'/ca/* '{data}'/journal/* '{config}'/* 2>/dev/null
         echo x 2>/dev/null >'{config}/allowlist.txt'
         rm -rf '{data}/journal' 2>/dev/null
         exit 0",
        data = bench.data_dir().display(),
        config = bench.config_dir().display(),
    );
    let output = bench.run_sh(&script);
    let text = output.text();
    // The CA's certificate and the merged bundle may be anywhere; the key and the rest must not.
    for hidden in ["PRIVATE KEY", "secret-policy", "\"type\":\"run\"", "control.sock", "index.db"] {
        assert!(!text.contains(hidden), "{hidden} is visible inside: {output:?}");
    }
    assert!(!bench.config_dir().join("allowlist.txt").exists(), "policy written from inside");
    assert_eq!(bench.journal().of_type("run").len(), 2, "the journal is gone");
}

/// Nothing else in the file system or in `/proc` gives the key or the control socket away.
#[test]
fn no_other_way_to_the_gate() {
    let bench = Bench::new();
    let socket = bench.data_dir().join("control.sock");
    const SCRIPT: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1]); print("control socket reached")
except OSError: pass
s.close()
# Only the jail's own processes are there.
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: words = open(f"/proc/{pid}/cmdline").read().split("\0")
    except OSError: continue
    if "__gate" in words: print("the gate is visible", pid)
# Nothing was inherited but the three standard files.
for fd in os.listdir("/proc/self/fd"):
    try: target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError: continue
    if int(fd) > 2: print("descriptor", fd, target)
status = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
    if int(status[name], 16): print(name, status[name])
if status["NoNewPrivs"] != "1": print("new privileges")
for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NODE_EXTRA_CA_CERTS",
             "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"):
    if not os.environ.get(name): print("not set:", name)
"#;
    // A descriptor that the caller happens to have open.
    let mut command = bench.command("sh");
    command.args(["-c", "exec 9</etc/hostname; exec \"$@\"", "sh"]);
    command.arg(crate::support::bench::AGENT_GATE).args(["run", "--"]);
    command.args([interpreter(), "-c", SCRIPT]).arg(socket);
    assert_eq!(finish(command).ok().text(), "");
}

/// No network but the gate: the host's loopback, its names and other ports are not there.
#[test]
fn no_network_but_the_gate() {
    const SCRIPT: &str = r#"
import socket, struct, sys
def tcp(address, port, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(30)
        try: s.connect((address, port)); return "connected"
        except OSError as e: return e.strerror or type(e).__name__
for port in sys.argv[1:]:
    print("host loopback:", tcp("127.0.0.1", int(port)))
print("another port:", tcp("203.0.113.5", 9999))
print("another port, v6:", tcp("2001:db8::5", 9999, socket.AF_INET6))
print("web port:", tcp("203.0.113.5", 443))
query = struct.pack(">6H", 0x1234, 0x100, 1, 0, 0, 0) + b"\x07example\x04test\0" + struct.pack(">2H", 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(30)
s.sendto(query, ("8.8.8.8", 53))
answer = s.recvfrom(600)[0]
print("dns:", answer[:2] == query[:2], struct.unpack(">H", answer[6:8])[0], len(answer[-4:]))
t = socket.create_connection(("8.8.4.4", 53), 30)
t.sendall(struct.pack(">H", len(query)) + query)
print("dns over tcp:", t.makefile("rb").read(4)[2:] == query[:2])
print("same name, same address:", socket.gethostbyname("example.test") == socket.gethostbyname("EXAMPLE.test"))
s.sendto(b"x" * 1200, ("203.0.113.5", 443))
s.settimeout(0.5)
try: s.recv(100); print("QUIC answered")
except OSError: print("quic: silence")
"#;
    let bench = Bench::new();
    let http = bench.origin.http_port.to_string();
    let dashboard = bench.dashboard_port.to_string();
    let output = bench.run(&[interpreter(), "-c", SCRIPT, &http, &dashboard]).ok();
    let expected = "host loopback: Connection refused\n\
        host loopback: Connection refused\n\
        another port: Connection refused\n\
        another port, v6: Connection refused\n\
        web port: connected\n\
        dns: True 1 4\n\
        dns over tcp: True\n\
        same name, same address: True\n\
        quic: silence\n";
    assert_eq!(output.text(), expected, "{output:?}");
    assert_eq!(bench.origin.connections(), 0);
}

/// Two runs at once do not see each other, neither their processes nor their ports.
#[test]
fn runs_do_not_see_each_other() {
    let bench = Bench::new();
    let script = "echo up >up; while [ ! -e done ]; do sleep 0.05; done";
    let first = Started::new(bench.run_command(&[], &["sh", "-c", script]));
    wait_for("the first run", || bench.work().join("up").exists().then_some(()));
    let output = bench.run_sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").ok();
    std::fs::write(bench.work().join("done"), "").unwrap();
    first.finish().ok();
    assert!(!output.text().contains("-e done"), "{output:?}");
}
