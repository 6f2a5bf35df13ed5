//! Git over https through the gate: the origin serves a bare repository by git's own CGI program.
//!
//! 1. The test makes a bare repository with one commit.
//! 2. Inside a run: clone it, commit a file of 200 KB, push it back.
//! 3. The bare repository has the new commit, and every exchange of the two commands is on disk byte
//!    for byte.

use crate::support::bench::{Bench, finish};
use crate::support::journal::compare;

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
}

fn make_repository(bench: &Bench) {
    let bare = bench.origin.repository("project.git");
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
