//! A home that cannot be written and a disk that fills up: nothing passes that is not recorded, the
//! message says what is wrong, and with space everything goes on.

use std::path::Path;

use crate::support::as_user::with_own_mounts;
use crate::support::bench::{AGENT_GATE, Bench, finish};
use crate::support::journal::{Journal, compare};

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

fn check_copy(bench: &Bench, copy: &Path) {
    let journal = Journal::of(copy);
    journal.check_chain();
    assert_eq!(compare(&journal, &bench.origin), 2);
}
