//! Git over https through the gate: the origin serves a bare repository by git's own CGI program.
//!
//! 1. The test makes a bare repository with one commit.
//! 2. Inside a run: clone it, commit a file of 200 KB, push it back.
//! 3. The bare repository has the new commit, and every exchange of the two commands is on disk byte
//!    for byte.
//!
//! Then what is sent only when there is much to say: a pack in chunks, and a negotiation that git
//! codes with gzip.

use std::path::Path;

use crate::support::bench::{Bench, finish};
use crate::support::journal::compare;
use crate::support::origin::Seen;
use crate::support::tools::need;

#[test]
fn clone_and_push() {
    let bench = Bench::new();
    make_repository(&bench);
    bench
        .run_sh(
            "set -eu
             git clone -q https://git.test/project.git
             cd project
             test \"$(cat first)\" = 'from the start'
             head -c 200000 /dev/urandom >noise
             git add noise
             git -c user.name=T -c user.email=t@t commit -qm second
             git push -q origin HEAD:main",
        )
        .ok();
    let mut log = bench.command("git");
    log.args(["log", "--format=%s", "main"]).current_dir(bench.origin.repository("project.git"));
    assert_eq!(finish(log).ok().text(), "second\nfirst\n");
    let compared = compare(&bench.journal(), &bench.origin);
    assert!(compared >= 4, "refs and packs of a clone and a push, yet {compared} exchanges");
    let seen = bench.origin.seen();
    assert!(seen.iter().any(|s| s.field("git-protocol") == Some("version=2")), "{seen:#?}");
}

/// A pack above git's buffer of a megabyte goes out in chunks, after a small request that asks
/// whether it may.
#[test]
fn a_large_push() {
    let bench = Bench::new();
    make_repository(&bench);
    bench
        .run_sh(
            "set -eu
             git clone -q https://git.test/project.git
             cd project
             head -c 3000000 /dev/urandom >noise
             git add noise
             git -c user.name=T -c user.email=t@t commit -qm large
             git push -q origin HEAD:main",
        )
        .ok();
    let chunked = |s: &Seen| {
        s.path().ends_with("/git-receive-pack")
            && s.field("transfer-encoding") == Some("chunked")
            && s.body.bytes > 3_000_000
    };
    assert!(bench.origin.settled().iter().any(chunked), "{:#?}", bench.origin.seen());
    compare(&bench.journal(), &bench.origin);
    let bare = bench.origin.repository("project.git");
    let mut check = bench.command("git");
    check.args(["fsck", "--strict"]).current_dir(bare);
    finish(check).ok();
}

/// Forty branches to ask for are more than a kilobyte of request, which git codes with gzip.
#[test]
fn a_clone_that_asks_for_much() {
    let bench = Bench::new();
    make_repository(&bench);
    let bare = bench.origin.repository("project.git");
    let mut branches = bench.command("sh");
    branches.arg("-euc").arg(
        "cd seed
         for n in $(seq 40); do
             git checkout -q -b branch-$n main
             git -c user.name=T -c user.email=t@t commit -q --allow-empty -m $n
         done
         git push -q \"$1\" --all",
    );
    branches.arg("sh").arg(&bare);
    finish(branches).ok();
    bench.run_sh("git clone -q --mirror https://git.test/project.git").ok();
    let coded = |s: &Seen| s.field("content-encoding") == Some("gzip");
    assert!(bench.origin.settled().iter().any(coded), "{:#?}", bench.origin.seen());
    compare(&bench.journal(), &bench.origin);
    let heads = |folder: &Path| {
        let mut list = bench.command("git");
        list.args(["for-each-ref"]).current_dir(folder);
        finish(list).ok().text()
    };
    assert_eq!(heads(&bench.work().join("project.git")), heads(&bare));
}

fn make_repository(bench: &Bench) {
    let bare = bench.origin.repository("project.git");
    need("git", "git");
    let mut make = bench.command("sh");
    make.arg("-euc").arg(
        "git init -q --bare -b main \"$1\"
         git -C \"$1\" config http.receivepack true
         git init -q -b main seed
         cd seed
         echo 'from the start' >first
         git add first
         git -c user.name=T -c user.email=t@t commit -qm first
         git push -q \"$1\" main",
    );
    make.arg("sh").arg(bare);
    finish(make).ok();
}
