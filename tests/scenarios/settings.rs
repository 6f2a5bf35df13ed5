//! Settings and lists that cannot be used are refused by file and line, and ports that are taken or
//! not ours to take are dealt with.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::bench::{Bench, finish};
use crate::support::http::get_page;

/// `run` refuses: 125, the jailed command never started, one line that names all of `parts`.
fn refuses(bench: &Bench, parts: &[&str]) {
    let output = bench.run_sh("echo started").exits(125);
    assert_eq!(output.text(), "", "{output:?}");
    let lines = output.own_lines();
    assert_eq!(lines.len(), 1, "one line: {output:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
    }
}

#[test]
fn a_setting_that_is_not_understood() {
    let bench = Bench::new();
    bench.write_setting("config.toml", "[ports]\nproxy = 1234\n\n[gate]\nlingre_seconds = 3\n");
    refuses(&bench, &["config.toml:5", "lingre_seconds"]);
    bench.write_setting("config.toml", "[ports]\nproxy = no\n");
    refuses(&bench, &["config.toml:2"]);
}

/// A folder in the file's place cannot be read by root either.
#[test]
fn a_settings_file_that_cannot_be_read() {
    let bench = Bench::new();
    std::fs::remove_file(bench.config_dir().join("config.toml")).unwrap();
    std::fs::create_dir(bench.config_dir().join("config.toml")).unwrap();
    refuses(&bench, &["config.toml"]);
}

#[test]
fn a_list_that_is_not_understood() {
    for list in ["allowlist.txt", "denylist.txt", "passthrough.txt"] {
        let bench = Bench::new();
        bench.write_setting(list, "# a comment\nfine.test\nnot a host\n");
        refuses(&bench, &[&format!("{list}:3")]);
    }
}

#[test]
fn a_ca_file_that_cannot_be_read() {
    let bench = Bench::new();
    let output = bench.run_with(&["--upstream-ca", "/nowhere/ca.pem"], &["true"]).exits(125);
    assert!(output.own_lines()[0].contains("/nowhere/ca.pem"), "{output:?}");
    std::fs::write(bench.work().join("empty.pem"), "nothing\n").unwrap();
    let output = bench.run_with(&["--upstream-ca", "empty.pem"], &["true"]).exits(125);
    assert!(output.own_lines()[0].contains("empty.pem"), "{output:?}");
}

/// The dashboard takes the next free port and says which.
#[test]
fn the_dashboards_port_is_taken() {
    let bench = Bench::new();
    let _taken = TcpListener::bind(("127.0.0.1", bench.dashboard_port)).unwrap();
    let output = bench.run(&["true"]).ok();
    let line = output.own_lines()[0].to_owned();
    let (_, port) = line.rsplit_once(':').expect("an address");
    let port: u16 = port.trim_end_matches('/').parse().unwrap();
    assert_ne!(port, bench.dashboard_port);
    assert_eq!(get_page(port, "/").status, 200);
}

#[test]
fn only_loopback_is_listened_on() {
    let bench = Bench::new();
    for address in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
        let output = finish(bench.agent_gate(&["proxy", "--addr", address])).exits(125);
        assert!(output.stderr.contains("loopback"), "{output:?}");
    }
}

#[test]
fn the_proxys_port_is_taken() {
    let bench = Bench::new();
    let _taken = TcpListener::bind(("127.0.0.1", bench.proxy_port)).unwrap();
    let output = finish(bench.agent_gate(&["proxy"])).exits(125);
    assert!(output.stderr.contains(&bench.proxy_port.to_string()), "{output:?}");
}

/// What is on disk is the user's alone; a key that others may read is no key any more.
#[test]
fn modes_on_disk() {
    let bench = Bench::new();
    bench.run_sh("curl -sSf 'https://mode.test/bytes?n=3000000' -o /dev/null").ok();
    bench.journal().ended(1);
    let keys = check_modes(&bench.data_dir());
    assert_eq!(keys, 1, "one private key");
    bench.stop_gate();
    let key = std::fs::read_dir(bench.data_dir().join("ca"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_str().unwrap().contains("key"))
        .expect("a key");
    std::fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    refuses(&bench, &[key.file_name().unwrap().to_str().unwrap()]);
}

/// Folders 0700, files 0600; returns how many files hold a private key.
fn check_modes(folder: &std::path::Path) -> usize {
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder), 0o700, "{folder:?}");
    let mut keys = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            keys += check_modes(&entry.path());
        } else {
            let path = entry.path();
            // The jailed command's own trust store is there for it to read.
            if !path.components().any(|c| c.as_os_str() == "trust") {
                assert_eq!(mode(&path), 0o600, "{path:?}");
            }
            if entry.file_type().unwrap().is_file() {
                let bytes = std::fs::read(&path).unwrap();
                keys += usize::from(String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"));
            }
        }
    }
    keys
}
