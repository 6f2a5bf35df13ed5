//! A home that cannot be written and a disk that fills up: nothing passes that is not recorded, the
//! message says what is wrong, and with space everything goes on.

use std::path::Path;

use crate::support::as_user::with_own_mounts;
use crate::support::bench::{AGENT_GATE, Bench, finish};
use crate::support::journal::{Journal, compare};
use crate::support::python::interpreter;

/// What a script inside the namespace calls the run of this bench.
fn run_function(bench: &Bench) -> String {
    let options: Vec<_> = bench.upstream().iter().map(|o| format!("'{o}'")).collect();
    format!("gate() {{ '{AGENT_GATE}' run {} -- \"$@\"; }}\n", options.join(" "))
}

#[test]
fn a_read_only_home() {
    let bench = Bench::new();
    let script = format!(
        "{}mount --bind \"$HOME\" \"$HOME\"
         mount -o remount,bind,ro \"$HOME\"
         gate echo started",
        run_function(&bench)
    );
    let output = finish(with_own_mounts(&bench, &script)).exits(125);
    assert_eq!(output.text(), "", "{output:?}");
    let line = output.own_lines()[0];
    assert!(line.contains(bench.data_dir().to_str().unwrap()), "{line}");
    assert!(line.to_ascii_lowercase().contains("read-only"), "{line}");
}

/// 1. The data folder is a small file system. A first request passes.
/// 2. The file system is filled. A request with a body that no longer fits must fail in words, and
///    must not reach the origin as complete.
/// 3. The filling is removed. Soon a run passes again, and the journal is whole.
#[test]
fn a_full_disk() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data_dir()).unwrap();
    std::fs::write(bench.work().join("body"), vec![b'x'; 300_000]).unwrap();
    let script = format!(
        "{}data='{data}'
         mount -t tmpfs -o size=24m,mode=700 none \"$data\"
         gate curl -sSf -o /dev/null https://full.test/?before
         dd if=/dev/zero of=\"$data/filler\" bs=64k status=none 2>/dev/null || true
         echo during:
         gate curl -sS -w '%{{http_code}}' --data-binary @body https://full.test/upload?during 2>during || true
         echo; cat during >&2
         rm \"$data/filler\"
         tries=0
         until gate curl -sSf -o /dev/null https://full.test/?after; do
             tries=$((tries + 1)); test $tries -lt 20; sleep 0.5
         done
         echo \"after: $tries\"
         sleep 1
         cp -r \"$data\" copy",
        run_function(&bench),
        data = bench.data_dir().display(),
    );
    let output = finish(with_own_mounts(&bench, &script)).ok();
    let text = output.text();
    assert!(!text.contains("200"), "it passed with a full disk: {output:?}");
    let said = format!("{text}{}", output.stderr).to_ascii_lowercase();
    assert!(said.contains("no space left") || said.contains("disk"), "{output:?}");
    assert!(text.contains("after: "), "it does not recover: {output:?}");
    let seen = bench.origin.settled();
    assert!(!seen.iter().any(|s| s.target.contains("during")), "{seen:#?}");
    check_copy(&bench, &bench.work().join("copy"));
}

/// Runs in the jail: an open WebSocket, and a message that no longer fits on the disk.
const WEBSOCKET: &str = r#"
import os, socket, time
def connect():
    return socket.create_connection(("full.test", 80))
def say(s, text):
    s.sendall(b"\x81\xff" + len(text).to_bytes(8, "big") + b"\0\0\0\0" + text)
s = connect()
s.sendall(b"GET /ws?name=full HTTP/1.1\r\nHost: full.test\r\nConnection: Upgrade\r\n"
          b"Upgrade: websocket\r\n\r\n")
head = b""
while not head.endswith(b"\r\n\r\n"): head += s.recv(65536)
say(s, b"before")
open("opened", "w").close()
while not os.path.exists("filled"): time.sleep(0.01)
say(s, b"d" * 300000)
# A request on another connection tells that recording has stopped.
other = connect()
other.sendall(b"POST /upload?during HTTP/1.1\r\nHost: full.test\r\nContent-Length: 300000\r\n\r\n"
              + b"d" * 300000)
with open("status", "wb") as status:
    status.write(other.recv(12, socket.MSG_WAITALL))
os.rename("status", "answered")
while not os.path.exists("emptied"): time.sleep(0.01)
say(s, b"after")
s.close()
"#;

/// While nothing can be recorded, no message passes whole; with space the WebSocket goes on, and
/// nothing is lost or told twice.
#[test]
fn a_websocket_on_a_full_disk() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.data_dir()).unwrap();
    std::fs::write(bench.work().join("websocket.py"), WEBSOCKET).unwrap();
    let script = format!(
        "{}data='{data}'
         wait_for() {{ tries=0; until test -e $1; do tries=$((tries + 1)); test $tries -lt 6000; sleep 0.01; done; }}
         mount -t tmpfs -o size=24m,mode=700 none \"$data\"
         gate '{python}' websocket.py &
         wait_for opened
         dd if=/dev/zero of=\"$data/filler\" bs=64k status=none 2>/dev/null || true
         touch filled
         wait_for answered
         curl -sSf --noproxy '*' -o received 'http://127.0.0.1:{port}/ws/received?name=full'
         rm \"$data/filler\"
         touch emptied
         wait $!
         sleep 1
         cp -r \"$data\" copy",
        run_function(&bench),
        data = bench.data_dir().display(),
        python = interpreter(),
        port = bench.origin.http_port,
    );
    finish(with_own_mounts(&bench, &script)).ok();
    let file = |name| std::fs::read_to_string(bench.work().join(name)).unwrap();
    assert_eq!(file("answered"), "HTTP/1.1 503");
    // Each message has a header of 14 bytes. Of the second one, what came before its end may pass.
    let came: usize = file("received").parse().unwrap();
    assert!((20..20 + 14 + 300_000).contains(&came), "{came} bytes passed with a full disk");
    assert_eq!(bench.origin.received_in_all("full").len(), 3 * 14 + 6 + 300_000 + 5);
    let journal = Journal::of(&bench.work().join("copy"));
    journal.check_chain();
    let told: Vec<_> =
        journal.of_type("message").iter().map(|m| m["body"]["bytes"].clone()).collect();
    assert_eq!(told, [6, 300_000, 5]);
}

fn check_copy(bench: &Bench, copy: &Path) {
    let journal = Journal::of(copy);
    journal.check_chain();
    assert_eq!(compare(&journal, &bench.origin), 2);
}
