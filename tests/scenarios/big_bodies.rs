//! A gigabyte each way while the gate's memory stays flat.
//!
//! 1. A first, small transfer brings the gate to its working size.
//! 2. One gigabyte is downloaded, then one uploaded, each with a known length; the test hashes the
//!    download as it arrives, the origin the upload.
//! 3. The journal has length and hash of both; what it kept of the bodies is no more than the bound.
//! 4. The gate's peak of resident memory has grown by less than 64 MiB.
//!
//! `AGENT_GATE_TEST_BIG_MIB` sets another size.

use std::io::Read;

use crate::support::bench::{Bench, Settings, Started};
use crate::support::content::Content;
use crate::support::processes::status_kib;
use crate::support::wait_for;

/// How much the gate may grow, in KiB: far below either body, well above what buffers and a queue of
/// records need.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// What is kept of a body, so that the test's disk stays small.
const KEPT_BYTES_MAX: u64 = 1 << 20;

#[test]
fn a_gigabyte_each_way() {
    let bench = Bench::with(Settings { body_bytes_max: KEPT_BYTES_MAX, ..Settings::default() });
    bench.run_sh("curl -sSf -o small 'https://big.test/bytes?n=20000000'").ok();
    let gate = bench.running_gate();
    let before = status_kib(gate, "VmHWM");

    let bytes = big_bytes();
    download(&bench, bytes);
    upload(&bench, bytes);

    let growth = status_kib(gate, "VmHWM").saturating_sub(before);
    crate::support::bench::tell(&format!("{bytes} bytes each way: the gate grew {growth} KiB"));
    assert!(growth < GROWTH_KIB_MAX, "grew by {growth} KiB from {before} KiB");
}

fn big_bytes() -> u64 {
    std::env::var("AGENT_GATE_TEST_BIG_MIB")
        .map_or(1 << 30, |mib| mib.parse::<u64>().unwrap() << 20)
}

fn download(bench: &Bench, bytes: u64) {
    let target = format!("/bytes?n={bytes}&seed=8");
    let url = format!("https://big.test{target}");
    let mut run = Started::with_stdout_left(bench.run_command(&[], &["curl", "-sSf", &url]));
    let mut stdout = run.child.stdout.take().expect("a pipe");
    let mut arrived = Content::default();
    let mut piece = vec![0; 256 << 10];
    loop {
        match stdout.read(&mut piece).unwrap() {
            0 => break,
            n => arrived.push(&piece[..n]),
        }
    }
    run.finish().ok();
    let sent = bench.origin.only(&target).sent.expect("an answer").body;
    assert_eq!((arrived.bytes, arrived.blake3()), (bytes, sent.blake3()), "the download changed");
    let exchange = bench.journal().only(&target);
    check(&exchange.answer()["body"], &sent, exchange.response_body().len());
}

fn upload(bench: &Bench, bytes: u64) {
    // A file without blocks: it takes no disk, and its zeros are as good to count as any bytes.
    let file = std::fs::File::create(bench.work().join("zeros")).unwrap();
    file.set_len(bytes).unwrap();
    let output = bench.run_sh("curl -sSf -X POST -T zeros https://big.test/upload").ok();
    let seen = bench.origin.only("/upload");
    assert_eq!(seen.body.bytes, bytes, "{output:?}");
    assert!(output.text().contains(&seen.body.blake3()), "{output:?}");
    let exchange = bench.journal().only("/upload");
    check(&exchange.request["body"], &seen.body, exchange.request_body().len());
}

fn check(recorded: &serde_json::Value, content: &Content, kept: usize) {
    assert_eq!(recorded["bytes"], content.bytes);
    assert_eq!(recorded["blake3"], content.blake3()[..]);
    assert!(kept as u64 <= KEPT_BYTES_MAX, "kept {kept} bytes");
    assert!(kept > 0, "kept nothing");
}

/// A client that does not read holds back the origin, not the gate's memory: after the first
/// megabyte it waits, and the test lets it go on once the origin no longer gets anything out.
#[test]
fn a_client_that_does_not_read() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf -o small 'https://big.test/bytes?n=20000000'").ok();
    let gate = bench.running_gate();
    let before = status_kib(gate, "VmHWM");
    let url = "https://big.test/bytes?n=300000000&seed=9";
    let mut run = Started::with_stdout_left(bench.run_command(&[], &["curl", "-sSf", url]));
    let mut stdout = run.child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut vec![0; 1 << 20]).unwrap();
    let mut sent = 0;
    wait_for("the origin to be held back", || {
        let now = bench.origin.bytes_sent();
        let held = now == sent;
        sent = now;
        std::thread::sleep(std::time::Duration::from_millis(200));
        held.then_some(())
    });
    assert!(sent < 20_000_000 + (64 << 20), "{sent} bytes went out to a client that does not read");
    let growth = status_kib(gate, "VmHWM").saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "grew by {growth} KiB from {before} KiB");
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    run.finish().ok();
    bench.journal().only("/bytes?n=300000000&seed=9");
}
