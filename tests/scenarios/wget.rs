//! wget through the gate: GnuTLS, no ALPN, and no variable by which it could be told whom to trust,
//! so that the system's bundle has to say it.

use crate::support::bench::Bench;
use crate::support::content::Noise;
use crate::support::journal::compare;
use crate::support::tools::need;

/// Three requests, by the variables or past them: a download in chunks, an upload, a question by
/// HEAD; and one in clear text.
fn four_requests(options: &str) {
    need("wget", "wget");
    let bench = Bench::new();
    let (up, work) = (Noise::bytes(5, 2_000_000), bench.work());
    std::fs::write(work.join("up"), &up).unwrap();
    let script = format!(
        "set -eu
         fetch() {{ wget -nv {options} \"$@\"; }}
         fetch -O down 'https://wget.test/bytes?n=3000000&seed=4&frame=chunked'
         fetch -O back --post-file=up 'https://wget.test/echo?up'
         fetch --spider 'https://wget.test/bytes?n=5000'
         fetch -O clear 'http://wget.test/?clear'"
    );
    bench.run_sh(&script).ok();
    let file = |name| std::fs::read(work.join(name)).unwrap();
    assert!(file("down") == Noise::bytes(4, 3_000_000), "the download came changed");
    assert!(file("back") == up, "the upload came back changed");
    assert_eq!(file("clear"), b"hello from the origin\n");
    assert_eq!(bench.origin.only("/bytes?n=5000").method, "HEAD");
    assert_eq!(compare(&bench.journal(), &bench.origin), 4);
}

#[test]
fn with_the_proxy_variables() {
    four_requests("");
}

#[test]
fn without_the_proxy_variables() {
    four_requests("--no-proxy");
}
