//! Who the command is and what it may do.

use crate::Scenario;
use crate::support::{Caller, Home};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("privileges::user_and_group_are_kept", user_and_group_are_kept),
    ("privileges::no_capability_is_left", no_capability_is_left),
    ("privileges::the_first_process_is_closed", the_first_process_is_closed),
    ("privileges::the_host_has_no_processes_here", the_host_has_no_processes_here),
];

fn user_and_group_are_kept(caller: Caller) {
    let out = Home::new(caller)
        .script("id -u; id -g; stat -c %u ~/project; cat /proc/self/setgroups")
        .ok();
    let id = caller.id();
    assert_eq!(out, format!("{id}\n{id}\n{id}\ndeny"));
}

fn no_capability_is_left(caller: Caller) {
    let home = Home::new(caller);
    let out = home.script("grep -E '^(Cap|NoNewPrivs)' /proc/self/status").ok();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(out.contains(&format!("{set}:\t0000000000000000")), "{out}");
    }
    assert!(out.contains("NoNewPrivs:\t1"), "{out}");
    let refused = home.script("mount -t tmpfs none /mnt || chroot / true || echo refused").ok();
    assert_eq!(refused, "refused");
}

fn the_first_process_is_closed(caller: Caller) {
    let answer = Home::new(caller).script(
        "for file in environ maps root cwd fd/0 ns/user ns/net mem; do
            head -c1 /proc/1/$file >/dev/null 2>&1 && echo $file
            readlink /proc/1/$file
         done
         kill -9 1; kill -STOP 1; kill -TERM 1; echo over",
    );
    assert_eq!(answer.ok(), "over");
}

fn the_host_has_no_processes_here(caller: Caller) {
    let out = Home::new(caller).script("echo $$; ls /proc | grep -c '^[0-9]'").ok();
    let numbers: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers[0], 2);
    assert!(numbers[1] < 8, "{numbers:?}");
}
