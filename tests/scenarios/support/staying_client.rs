//! A client that stays until the gate has recorded what it did. One that leaves at once may be taken
//! for one that has nothing more to say, which the origin is told, and the connection to it is lost.

use std::process::Command;

use super::bench::{Bench, Started};
use super::python::interpreter;

/// Comes behind a Python script whose connections are to stay open meanwhile.
pub(crate) const STAY: &str = "
import os, time
while not os.path.exists('recorded'): time.sleep(0.01)
";

/// Lets `run` (a command without its argv) start a client that runs `script` and then stays until
/// `exchanges` more are recorded; what it printed.
pub(crate) fn finish_when_recorded(
    bench: &Bench,
    mut run: Command,
    script: &str,
    exchanges: usize,
) -> String {
    let before = bench.journal().exchanges().len();
    let recorded = bench.work().join("recorded");
    run.args([interpreter(), "-c", &format!("{script}{STAY}")]);
    let run = Started::new(run);
    bench.journal().ended(before + exchanges);
    std::fs::write(&recorded, "").unwrap();
    let output = run.finish().ok();
    std::fs::remove_file(recorded).unwrap();
    output.text()
}

/// A script for one GET over TLS.
pub(crate) fn get(host: &str) -> String {
    format!(
        "import http.client\nc = http.client.HTTPSConnection('{host}')\nc.request('GET', '/')\n\
         assert c.getresponse().read()\n"
    )
}
