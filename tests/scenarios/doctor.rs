//! `doctor`: what is wrong is found and named, with what to do about it; what is well is left alone.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::as_user;
use crate::support::bench::{AGENT_GATE, Bench, Output, finish};

/// What `doctor --json` says; its exit code says the same as its `ok`.
fn doctor(bench: &Bench) -> Value {
    report(&finish(bench.agent_gate(&["doctor", "--json"])))
}

fn report(output: &Output) -> Value {
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let code = if report["ok"] == true { 0 } else { 1 };
    assert_eq!(output.code(), Some(code), "{output:?}");
    report
}

fn check<'r>(report: &'r Value, what: &str) -> &'r Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|c| c["what"] == what).unwrap_or_else(|| panic!("no {what}: {report}"))
}

/// The one thing that is wrong, which must name all of `parts` and a cure.
#[track_caller]
fn wrong(report: &Value, what: &str, parts: &[&str]) {
    assert_eq!(report["ok"], false, "{report}");
    let wrong: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|c| c["state"] == "wrong").collect();
    assert_eq!(wrong.len(), 1, "{report}");
    assert_eq!(wrong[0]["what"], what, "{report}");
    assert!(wrong[0]["do"].is_string(), "{report}");
    for part in parts {
        assert!(wrong[0]["found"].as_str().unwrap().contains(part), "{part:?}: {report}");
    }
}

/// Before the first run and after it, and with a gate that runs; looking makes nothing.
#[test]
fn all_is_well() {
    let bench = Bench::new();
    let report = doctor(&bench);
    assert_eq!(report["ok"], true, "{report}");
    for what in ["settings", "denylist.txt", "data folder", "CA", "jail", "driver", "gate", "disk"]
    {
        assert_ne!(check(&report, what)["state"], "wrong", "{report}");
    }
    assert!(!bench.data_dir().exists(), "it has made the data folder");
    assert!(bench.gate().is_none(), "it has started a gate");

    let held = bench.hold_a_run();
    let report = doctor(&bench);
    assert_eq!(report["ok"], true, "{report}");
    let page = format!("http://127.0.0.1:{}/", bench.dashboard_port);
    assert!(check(&report, "gate")["found"].as_str().unwrap().contains(&page), "{report}");
    let ca = check(&report, "CA")["found"].as_str().unwrap();
    assert!(ca.contains("cert.pem, valid until 20"), "{report}");
    held.finish().ok();

    let text = finish(bench.agent_gate(&["doctor"])).ok().text();
    assert!(
        text.lines().all(|line| line.starts_with("ok ")
            || line.starts_with("note ")
            || line.trim_start().starts_with("-> ")),
        "{text}"
    );
}

#[test]
fn settings_and_lists_that_are_not_understood() {
    let bench = Bench::new();
    let settings = std::fs::read_to_string(bench.config_dir().join("config.toml")).unwrap();
    bench.write_setting("config.toml", "[gate]\nlingre_seconds = 3\n");
    wrong(&doctor(&bench), "settings", &["config.toml:2", "lingre_seconds"]);
    bench.write_setting("config.toml", &settings);
    for list in ["allowlist.txt", "denylist.txt", "passthrough.txt"] {
        bench.write_setting(list, "fine.test\n\nhttps://fine.test\n");
        wrong(&doctor(&bench), list, &[&format!("{list}:3"), "without a scheme"]);
        bench.write_setting(list, "fine.test\n");
    }
    let text = {
        bench.write_setting("denylist.txt", "not a host\n");
        finish(bench.agent_gate(&["doctor"])).exits(1).text()
    };
    let line = text.lines().find(|line| line.starts_with("WRONG")).expect("what is wrong");
    assert!(line.contains("denylist.txt:1: "), "{text}");
    assert!(text.contains("-> correct the line"), "{text}");
}

#[test]
fn folders_and_keys_that_others_may_read() {
    let bench = Bench::new();
    bench.run(&["true"]).ok();
    bench.stop_gate();
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let key = bench.data_dir().join("ca/key.pem");
    set(&key, 0o644);
    wrong(&doctor(&bench), "CA", &["key.pem", "0644"]);
    set(&key, 0o600);
    set(&bench.data_dir(), 0o755);
    wrong(&doctor(&bench), "data folder", &["0755"]);
    set(&bench.data_dir(), 0o700);
    assert_eq!(doctor(&bench)["ok"], true);
}

/// A file stands where the data folder should be.
#[test]
fn a_data_folder_that_cannot_be_made() {
    let bench = Bench::new();
    std::fs::write(bench.home().join(".local"), "").unwrap();
    let report = doctor(&bench);
    assert_eq!(check(&report, "data folder")["state"], "wrong", "{report}");
}

/// Where no user namespace can be made, runs are permissive: that is worth exit code 1.
#[test]
fn no_jail() {
    let bench = Bench::new();
    let script = format!("{AGENT_GATE} doctor --json");
    let report = report(&finish(as_user::without_user_namespaces(&bench, &script)));
    wrong(&report, "jail", &["namespaces", "max_user_namespaces"]);
}
