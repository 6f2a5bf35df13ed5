//! What is hidden, what is laid over, what root must not write.

use std::fs;

use crate::Scenario;
use crate::run::AUTHORITY;
use crate::support::{Caller, Home};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("files::the_gates_folders_are_empty", the_gates_folders_are_empty),
    ("files::masks_stay_where_they_are", masks_stay_where_they_are),
    ("files::missing_folders_are_masked_too", missing_folders_are_masked_too),
    ("files::a_nested_namespace_sees_no_more", a_nested_namespace_sees_no_more),
    ("files::the_trust_folder_is_filled", the_trust_folder_is_filled),
    ("files::the_systems_bundle_holds_our_ca", the_systems_bundle_holds_our_ca),
    ("files::java_reads_our_trust_store", java_reads_our_trust_store),
    ("files::the_host_keeps_its_own", the_host_keeps_its_own),
    ("files::the_working_folder_is_entered_by_path", the_working_folder_is_entered_by_path),
    ("files::a_hidden_working_folder_is_an_error", a_hidden_working_folder_is_an_error),
    ("files::kernel_settings_are_read_only", kernel_settings_are_read_only),
    ("files::raw_disks_are_gone_for_root", raw_disks_are_gone_for_root),
    ("files::devices_that_programs_need_work", devices_that_programs_need_work),
];

fn the_gates_folders_are_empty(caller: Caller) {
    let answer = Home::new(caller).script(
        "ls -A ~/.config/agent-gate ~/.local/share/agent-gate | tr '\\n' ' '
         touch ~/.config/agent-gate/allowlist.txt 2>/dev/null || echo sealed",
    );
    let out = answer.ok();
    assert!(!out.contains("allowlist") && !out.contains("journal"), "{out}");
    assert!(out.contains("trust") && out.contains("sealed"), "{out}");
}

/// Neither can a mask be moved away, nor the folders above it, so that others could be put there.
fn masks_stay_where_they_are(caller: Caller) {
    let home = Home::new(caller);
    let answer = home.script(
        "cd ~
         mv .config/agent-gate .config/other && echo moved
         mv .config other && echo moved
         mv .local/share .local/other && echo moved
         mv .local other && echo moved
         rm -rf .config 2>/dev/null && echo removed
         umount .config/agent-gate && echo unmounted
         touch .config/mine .local/share/mine && mv project project2 && mv project2 project && echo usable",
    );
    assert_eq!(answer.ok(), "usable");
    assert!(home.path().join(".config/mine").exists());
}

fn missing_folders_are_masked_too(caller: Caller) {
    let home = Home::new(caller);
    let missing = home.path().join("later/agent-gate");
    let hidden = format!("hidden={}", missing.display());
    let script =
        "mkdir -p ~/later/agent-gate; touch ~/later/agent-gate/allowlist.txt || echo sealed";
    let output = home.command(&[&hidden], &["sh", "-c", script]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("sealed"), "{output:?}");
    assert_eq!(fs::read_dir(missing).unwrap().count(), 0);
}

fn a_nested_namespace_sees_no_more(caller: Caller) {
    let answer = Home::new(caller).script(
        "unshare --user --map-root-user --mount bash -c '
            umount ~/.config/agent-gate && echo unmounted
            umount /etc/resolv.conf && echo unmounted
            mount --bind -o rw / /mnt && echo bound
            mkdir ~/project/up ~/project/by
            mount -t overlay -o lowerdir=$HOME,upperdir=$HOME/project/up,workdir=$HOME/project/by o /mnt
            ls -A /mnt/.config/agent-gate
            mount --rbind / /mnt; umount /mnt$HOME/.config/agent-gate && echo unmounted
            ls -A /mnt$HOME/.config/agent-gate
            mount -t proc proc /proc
            ls -A ~/.config/agent-gate /proc/1/root$HOME/.config/agent-gate
         ' 2>/dev/null; chmod -R u+rwx ~/project; echo over",
    );
    let out = answer.ok();
    assert!(
        !out.contains("allowlist") && !out.contains("unmounted") && !out.contains("bound"),
        "{out}"
    );
    assert!(out.ends_with("over"));
}

fn the_trust_folder_is_filled(caller: Caller) {
    let home = Home::new(caller);
    let answer = home.script(
        "cd ~/.local/share/agent-gate/trust; ls; cat ca.pem; head -c4 truststore.jks | od -An -tx1
         rm -f ca.pem 2>/dev/null || echo sealed",
    );
    let out = answer.ok();
    assert!(out.starts_with("bundle.pem\nca.pem\n"), "{out}");
    assert!(out.contains(AUTHORITY), "{out}");
    assert!(out.ends_with("fe ed fe ed\nsealed"), "{out}");
    assert!(!home.trust().exists());
}

fn the_systems_bundle_holds_our_ca(caller: Caller) {
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let Ok(before) = fs::read_to_string(bundle) else { return };
    let inside = Home::new(caller).script(&format!("cat {bundle}")).ok();
    assert!(inside.contains("MA9hZ2VudC1nYXRlIHRlc3Q="));
    let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    assert_eq!(count(&inside), count(&before) + 1);
}

/// With a real certificate, where openssl and Java are installed.
fn java_reads_our_trust_store(caller: Caller) {
    let home = Home::new(caller);
    let mut made = home.prepare_shell(
        "command -v keytool && test -e /etc/ssl/certs/java/cacerts && openssl req -x509 -nodes \
         -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -keyout ~/key -out ~/ca.pem -subj /CN=ours",
    );
    if !made.output().is_ok_and(|output| output.status.success()) {
        return;
    }
    let authority = format!("authority={}", home.path().join("ca.pem").display());
    // The password makes Java check the digest over the whole store.
    let script = "keytool -list -v -keystore /etc/ssl/certs/java/cacerts -storepass changeit";
    let listed = home.command(&[&authority], &["sh", "-c", script]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("Owner: CN=ours"), "{listed}");
    assert!(listed.matches("trustedCertEntry").count() > 1, "{listed}");
}

fn the_host_keeps_its_own(caller: Caller) {
    let (bundle, resolver) = ("/etc/ssl/certs/ca-certificates.crt", "/etc/resolv.conf");
    let read = || (fs::read(bundle).ok(), fs::read(resolver).ok(), mounts());
    let before = read();
    let home = Home::new(caller);
    home.script("true").ok();
    let after = read();
    assert!(before == after, "something changed outside");
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().matches("agent-gate").count()
}

fn the_working_folder_is_entered_by_path(caller: Caller) {
    let home = Home::new(caller);
    let answer = home.script("pwd -P; cat file.txt; ls ../.config/agent-gate | wc -l").ok();
    assert_eq!(answer, format!("{}/project\nhere\n0", home.path().display()));
}

fn a_hidden_working_folder_is_an_error(caller: Caller) {
    let home = Home::new(caller);
    let cwd = format!("cwd={}", home.path().join(".local/share/agent-gate/journal").display());
    let output = home.command(&[&cwd], &["true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot enter the working folder"), "{said}");
}

fn kernel_settings_are_read_only(caller: Caller) {
    let answer = Home::new(caller).script(
        "for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/net/ipv4/ip_forward \
            /sys/kernel/uevent_helper /sys/fs/cgroup/*/release_agent; do
            [ -e $file ] && (echo x >$file) 2>/dev/null && echo $file
         done; echo over",
    );
    assert_eq!(answer.ok(), "over");
}

fn raw_disks_are_gone_for_root(caller: Caller) {
    let home = Home::new(caller);
    let out = home
        .script("find /dev -type b | head -n1 | while read -r d; do head -c1 $d || true; done")
        .ok();
    assert_eq!(out, "");
    if caller == Caller::Root {
        let found = home.script("find /dev -type b; ls /dev/mem /dev/kmsg 2>/dev/null; true").ok();
        assert_eq!(found, "");
    }
}

fn devices_that_programs_need_work(caller: Caller) {
    let answer = Home::new(caller).script(
        "echo x >/dev/null && head -c4 /dev/urandom | wc -c && head -c2 /dev/zero | wc -c
         echo y | cat /dev/stdin; (echo z >/dev/fd/1) | cat; touch /dev/shm/jail-test-$$ && rm /dev/shm/jail-test-$$
         script -qc 'tty >/dev/null && echo pty' /dev/null",
    );
    let out = answer.ok().replace('\r', "");
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["4", "2", "y", "z", "pty"]);
}
