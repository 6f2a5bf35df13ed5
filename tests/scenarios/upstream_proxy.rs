//! A company's proxy on the way out, told by the user's environment, the settings or an option.
//!
//! The gate goes through it as a client would: tunnels for TLS, absolute form for clear text, with
//! the credentials of the proxy's URL, which appear nowhere else. What fails at the proxy is told as
//! the proxy's failure. The jailed command knows nothing of it.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::bench::{Bench, Output, Started, finish, free_port};
use crate::support::journal::compare;
use crate::support::origin::value;
use crate::support::processes;
use crate::support::proxy::{Manners, Proxy};
use crate::support::python::interpreter;
use crate::support::staying_client::{self, finish_when_recorded};
use crate::support::wait_for;

/// `agent-gate run` that trusts the origin and finds nobody by itself.
fn command(
    bench: &Bench,
    environment: &[(&str, &str)],
    options: &[&str],
    argv: &[&str],
) -> Command {
    let mut command = bench.agent_gate(&["run"]);
    command.envs(environment.iter().copied());
    command.arg("--upstream-ca").arg(bench.origin.ca_pem());
    command.args(options).arg("--").args(argv);
    command
}

fn run(bench: &Bench, environment: &[(&str, &str)], argv: &[&str]) -> Output {
    finish(command(bench, environment, &[], argv))
}

fn start(bench: &Bench, manners: Manners) -> Proxy {
    Proxy::start(&bench.origin, manners)
}

/// No file below `folder` has any of `secrets` in it.
fn check_secrets(folder: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_secrets(&path, secrets);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for secret in secrets {
                let found = memchr::memmem::find(&bytes, secret.as_bytes());
                assert!(found.is_none(), "{secret} is in {path:?}");
            }
        }
    }
}

/// The password as written in the URL, as meant, and as sent.
const SECRETS: [&str; 3] = ["open%40sesame", "open@sesame", "bWU6b3BlbkBzZXNhbWU="];

fn guarded() -> Manners {
    Manners { credentials: Some("me:open@sesame"), ..Manners::default() }
}

fn guarded_url(proxy: &Proxy) -> String {
    format!("http://me:open%40sesame@{}", proxy.authority())
}

/// TLS goes through a tunnel, with the credentials; the record says so without them.
#[test]
fn tls_by_connect() {
    let bench = Bench::new();
    let proxy = start(&bench, guarded());
    let url = guarded_url(&proxy);
    let script = "curl -sS --data-raw 'a body' https://api.test/echo?1 &&
                  curl -sS --noproxy '*' https://api.test/echo?2 -d 'by no variable'";
    let output = run(&bench, &[("HTTPS_PROXY", &url)], &["sh", "-c", script]).ok();
    assert_eq!(output.text(), "a bodyby no variable");
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for asked in asked {
        assert_eq!((&*asked.method, &*asked.target), ("CONNECT", "api.test:443"));
        assert_eq!(value(&asked.fields, "host"), Some("api.test:443"));
        let credentials = value(&asked.fields, "proxy-authorization");
        assert_eq!(credentials, Some("Basic bWU6b3BlbkBzZXNhbWU="));
    }
    for exchange in bench.journal().ended(2) {
        assert_eq!(exchange.request["via"], proxy.authority()[..], "{}", exchange.request);
        assert_eq!(exchange.request["address"], proxy.authority()[..], "{}", exchange.request);
    }
    assert_eq!(bench.origin.seen()[0].sni.as_deref(), Some("api.test"));
    bench.stop_gate();
    check_secrets(&bench.data_dir(), &SECRETS);
}

/// Clear text goes in absolute form, for many proxies tunnel to port 443 alone; the record has what
/// the client sent, and two requests share a connection.
#[test]
fn clear_text_in_absolute_form() {
    let bench = Bench::new();
    let proxy = start(&bench, Manners { tunnels_to_443_alone: true, ..guarded() });
    let url = guarded_url(&proxy);
    let script = "curl -sS -H 'X-Odd-CASE: 1' -d one http://plain.test/echo?1 -d two &&
                  curl -sS --noproxy '*' http://plain.test/echo?2 http://plain.test/echo?3";
    run(&bench, &[("http_proxy", &url)], &["sh", "-c", script]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 3);
    assert_eq!(
        proxy.lines(),
        [
            "POST http://plain.test/echo?1",
            "GET http://plain.test/echo?2",
            "GET http://plain.test/echo?3"
        ]
    );
    let exchanges = bench.journal().ended(3);
    let target = |n: usize| exchanges[n].request["head"]["target"].as_str().unwrap();
    assert_eq!(target(0), "http://plain.test/echo?1", "as the client has sent it");
    assert_eq!(target(1), "/echo?2", "as the client has sent it");
    assert_eq!(exchanges[1].request["via"], proxy.authority()[..]);
    let seen = bench.origin.seen();
    assert_eq!(seen[1].connection, seen[2].connection, "one connection for both");
    bench.stop_gate();
    check_secrets(&bench.data_dir(), &SECRETS);
}

/// A WebSocket in clear text asks for a tunnel, as its clients do; so does what passes unread.
#[test]
fn what_is_no_request_by_itself_goes_through_a_tunnel() {
    const SCRIPT: &str = r#"
import socket
s = socket.create_connection(("ws.test", 80))
s.sendall(b"GET /upgrade HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
got = b""
while b"\r\n\r\n" not in got: got += s.recv(1000)
assert got.startswith(b"HTTP/1.1 101 "), got
s.sendall(b"hello")
assert s.recv(5) == b"hello"
"#;
    let bench = Bench::new();
    bench.write_setting("passthrough.txt", "pinned.test\n");
    let proxy = start(&bench, Manners::default());
    let environment = [("ALL_PROXY", &*proxy.url())];
    run(&bench, &environment, &[interpreter(), "-c", SCRIPT]).ok();
    let ca = bench.origin.ca_pem();
    let curl = ["curl", "-sSf", "--cacert", ca.to_str().unwrap(), "https://pinned.test/"];
    run(&bench, &environment, &curl).ok();
    assert_eq!(proxy.lines(), ["CONNECT ws.test:80", "CONNECT pinned.test:443"]);
    let tunnel = bench.journal().wait_for("tunnel", |t| t["host"] == "pinned.test");
    assert_eq!(tunnel["via"], proxy.authority()[..], "{tunnel}");
    assert_eq!(tunnel["passthrough"], true, "{tunnel}");
    assert!(tunnel["received"].as_u64() > Some(1000), "{tunnel}");
}

/// The proxy is spoken to over TLS: TLS with the origin is then inside TLS with the proxy.
#[test]
fn a_proxy_over_tls() {
    let bench = Bench::new();
    let proxy = start(&bench, Manners { tls: Some(bench.origin.server_config()), ..guarded() });
    let url = format!("https://me:open%40sesame@proxy.test:{}", proxy.port);
    let rule = format!("proxy.test:{0}:127.0.0.1:{0}", proxy.port);
    let body = crate::support::content::Noise::bytes(3, 100_000);
    std::fs::write(bench.work().join("body"), body).unwrap();
    let script = "set -e
        curl -sSf --data-binary @body https://inner.test/echo | cmp - body
        curl -sSf --data-binary @body http://plain.test/echo | cmp - body
        curl -sSf -N 'https://inner.test/sse?n=5' 'https://inner.test/bytes?n=300000&frame=chunked' \
            'https://inner.test/bytes?n=9999&frame=close' -o /dev/null -o /dev/null -o /dev/null";
    let environment = [("https_proxy", &*url), ("http_proxy", &url)];
    let options = ["--resolve", &rule];
    finish(command(&bench, &environment, &options, &["sh", "-c", script])).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 5);
    let lines = proxy.lines();
    assert!(lines.contains(&"CONNECT inner.test:443".to_owned()), "{lines:?}");
    assert!(lines.contains(&"POST http://plain.test/echo".to_owned()), "{lines:?}");
    let via = format!("proxy.test:{}", proxy.port);
    let exchanges = bench.journal().ended(5);
    assert!(exchanges.iter().all(|e| e.request["via"] == via[..]));

    // Its certificate is checked, even where those of origins are not.
    let url = format!("https://elsewhere.test:{}", proxy.port);
    let rule = format!("elsewhere.test:{0}:127.0.0.1:{0}", proxy.port);
    let options = ["--upstream-insecure-skip-verify", "--resolve", &rule];
    let curl = ["curl", "-sS", "https://inner.test/?unproved"];
    finish(command(&bench, &[("https_proxy", &url)], &options, &curl));
    let error = failure(&bench, "/?unproved");
    assert!(error.contains("TLS with it failed: its certificate is for another name"), "{error}");
}

/// requests in Python, which reads its own variables: the gate's.
#[test]
fn python_through_both() {
    const SCRIPT: &str = r#"
import requests
with requests.Session() as s:
    assert s.post("https://api.test/echo", data=b"secure").content == b"secure"
    assert s.post("http://api.test/echo", data=b"clear").content == b"clear"
"#;
    let bench = Bench::new();
    let proxy = start(&bench, guarded());
    let url = guarded_url(&proxy);
    run(&bench, &[("ALL_PROXY", &url)], &[interpreter(), "-c", SCRIPT]).ok();
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);
    assert_eq!(proxy.lines(), ["CONNECT api.test:443", "POST http://api.test/echo"]);
}

/// What the jailed command can see of it, by environment and network, in both modes.
#[test]
fn the_jailed_command_knows_nothing_of_it() {
    let bench = Bench::new();
    let proxy = start(&bench, guarded());
    let url = guarded_url(&proxy);
    let environment = [
        ("https_proxy", &*url),
        ("HTTPS_PROXY", &url),
        ("http_proxy", &url),
        ("HTTP_PROXY", &url),
        ("All_Proxy", &url),
        ("NO_PROXY", "nowhere.test"),
        ("npm_config_https_proxy", &url),
    ];
    for mode in ["airtight", "permissive"] {
        let output = finish(command(&bench, &environment, &["--mode", mode], &["env"])).ok();
        let port = proxy.port.to_string();
        for word in SECRETS.iter().copied().chain([&*port, "nowhere.test"]) {
            assert!(!output.text().contains(word), "{mode}: {word} is in\n{}", output.text());
        }
    }
    let script = format!("curl -s --noproxy '*' http://{}/ ; test $? -ne 0", proxy.authority());
    run(&bench, &environment, &["sh", "-c", &script]).ok();
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

/// An address given by hand, and whom `NO_PROXY` names, are reached without; so is this machine.
#[test]
fn who_is_reached_without() {
    let bench = Bench::new();
    let proxy = start(&bench, Manners::default());
    let url = proxy.url();
    let mut by_hand = bench.run_command(&[], &["curl", "-sSf", "https://by-hand.test/"]);
    by_hand.env("HTTPS_PROXY", &url);
    finish(by_hand).ok();
    let local = format!("http://127.0.0.1:{}/?local", bench.origin.http_port);
    bench.write_setting("allowlist.txt", &format!("127.0.0.1:{}\n", bench.origin.http_port));
    let gate = format!("http://127.0.0.1:{}", bench.proxy_port);
    let curl = ["curl", "-sSf", "--noproxy", "", "-x", &gate, &local];
    run(&bench, &[("ALL_PROXY", &url)], &curl).ok();
    assert_eq!(bench.journal().only("/?local").request.get("via"), None);
    assert_eq!(compare(&bench.journal(), &bench.origin), 2);

    // A name that is looked up here is not asked of the proxy, and this one cannot be found.
    for no_proxy in ["direct.invalid", ".invalid", "*", "other.test, *.invalid"] {
        let environment = [("HTTPS_PROXY", &*url), ("NO_PROXY", no_proxy)];
        let target = format!("/?{}", no_proxy.len());
        let url = format!("https://sub.direct.invalid{target}");
        run(&bench, &environment, &["curl", "-sS", "-o", "/dev/null", &url]).ok();
        assert_eq!(bench.journal().only(&target).outcome(), "name_unknown", "{no_proxy}");
    }
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
    let environment = [("HTTPS_PROXY", &*url), ("NO_PROXY", "direct.test,<local>")];
    let output = run(&bench, &environment, &["curl", "-sSf", "https://other.invalid/"]).ok();
    assert_eq!(proxy.lines(), ["CONNECT other.invalid:443"]);
    assert!(output.own_lines().iter().any(|line| line.contains("<local>")), "{output:?}");
}

/// The settings before the environment, the option before both.
#[test]
fn settings_and_option() {
    let bench = Bench::new();
    let (file, typed, environment) =
        (start(&bench, Manners::default()), start(&bench, Manners::default()), free_port());
    let environment = format!("http://127.0.0.1:{environment}");
    let environment = [("HTTPS_PROXY", &*environment)];
    let ports =
        format!("[ports]\nproxy = {}\ndashboard = {}\n", bench.proxy_port, bench.dashboard_port);
    let upstream = format!("[upstream]\nproxy = \"{}\"\nno_proxy = [\"a.invalid\"]\n", file.url());
    bench.write_setting("config.toml", &format!("{ports}{upstream}"));
    let curl = |host: &str| ["curl".to_owned(), "-sS".to_owned(), format!("https://{host}/")];
    let go = |options: &[&str], host: &str| {
        let argv = curl(host);
        let argv: Vec<_> = argv.iter().map(|it| &**it).collect();
        finish(command(&bench, &environment, options, &argv)).ok()
    };
    go(&[], "one.test");
    go(&["--upstream-proxy", &typed.url()], "two.test");
    go(&["--upstream-proxy", "none"], "three.invalid");
    go(&[], "a.invalid");
    assert_eq!(file.lines(), ["CONNECT one.test:443"]);
    assert_eq!(typed.lines(), ["CONNECT two.test:443"]);
    let switched_off = format!("{ports}[upstream]\nproxy_from_environment = false\n");
    bench.write_setting("config.toml", &switched_off);
    go(&[], "four.invalid");
    let outcomes: Vec<_> =
        bench.journal().ended(5).iter().map(|e| e.outcome().to_owned()).collect();
    let unknown = "name_unknown";
    assert_eq!(outcomes, ["complete", "complete", unknown, unknown, unknown]);
}

/// The one exchange that the proxy has failed: its words.
fn failure(bench: &Bench, target: &str) -> String {
    let exchange = bench.journal().only(target);
    let answer = exchange.answer();
    assert_eq!(exchange.outcome(), "proxy_failed", "{answer}");
    assert_eq!(exchange.status(), Some(502), "{answer}");
    assert_eq!(answer["by_gate"], true, "{answer}");
    assert!(exchange.request["via"].is_string(), "{}", exchange.request);
    let body: Value = serde_json::from_slice(&exchange.response_body()).unwrap();
    let error = answer["error"].as_str().expect("words").to_owned();
    assert!(body["error"]["message"].as_str().unwrap().contains(&error), "{body}");
    assert_eq!(body["error"]["code"], "proxy_failed", "{body}");
    error
}

/// Each way in which a proxy lets nothing through, in words that name it and what set it.
#[test]
fn a_proxys_failures_are_told_as_its_own() {
    let bench = Bench::new();
    let instead = |text| Manners { instead: Some(text), ..Manners::default() };
    let closed = free_port();
    let cases = [
        (guarded(), "http://", "https://a.test", "wants credentials (407 Proxy Authentication"),
        (guarded(), "http://", "http://a.test", "write them into all_proxy"),
        (
            guarded(),
            "http://me:wr0ng!@",
            "https://a.test",
            "does not accept user and password of all",
        ),
        (
            guarded(),
            "http://me:wr0ng!@",
            "http://a.test",
            "does not accept user and password of all",
        ),
        (
            Manners::default(),
            "http://",
            "https://forbidden.test",
            "refuses: 403 Forbidden (ERR_ACCESS_DENIED 0): Blocked by policy 7",
        ),
        (instead("HTTP/1.1 503 Busy\r\n\r\n"), "http://", "https://a.test", "refuses: 503 Busy"),
        (
            instead("220 smtp.test ESMTP\r\n"),
            "http://",
            "https://a.test",
            "does not answer in HTTP",
        ),
        (instead(""), "http://", "https://a.test", "closed the connection instead of answering"),
        (
            Manners { tls: Some(bench.origin.server_config()), ..Manners::default() },
            "http://",
            "https://a.test",
            "its URL begins with https://",
        ),
        (
            instead("HTTP/1.1 400 X\r\n\r\n"),
            "https://",
            "https://a.test",
            "it does not answer in TLS",
        ),
    ];
    for (n, (manners, scheme, origin, words)) in cases.into_iter().enumerate() {
        let proxy = start(&bench, manners);
        let url = format!("{scheme}{}", proxy.authority());
        let target = format!("/?{n}");
        let curl = ["curl", "-sS", "-w", "%{http_code}", &format!("{origin}{target}")];
        let output = run(&bench, &[("all_proxy", &url)], &curl).ok();
        assert!(output.text().ends_with("502"), "{output:?}");
        let error = failure(&bench, &target);
        let name = format!("the upstream proxy {} (all_proxy)", proxy.authority());
        assert!(error.starts_with(&name) && error.contains(words), "{words:?} is not in {error}");
    }
    let url = format!("http://127.0.0.1:{closed}");
    run(&bench, &[("all_proxy", &url)], &["curl", "-sS", "https://a.test/?closed"]).ok();
    assert!(failure(&bench, "/?closed").contains("cannot be connected to"));
    let url = "http://nowhere.invalid:3128";
    run(&bench, &[("all_proxy", url)], &["curl", "-sS", "https://a.test/?unknown"]).ok();
    assert!(failure(&bench, "/?unknown").contains("cannot resolve nowhere.invalid"));
    assert!(bench.origin.seen().is_empty(), "something came through");
    bench.stop_gate();
    check_secrets(&bench.data_dir(), &["wr0ng!"]);
}

/// A page of the proxy's that the client asked for in clear text is the client's to read.
#[test]
fn a_refusal_in_clear_text_is_handed_on() {
    let bench = Bench::new();
    let proxy = start(&bench, Manners::default());
    let curl = ["curl", "-sS", "-w", "%{http_code}", "http://forbidden.test/"];
    let output = run(&bench, &[("all_proxy", &proxy.url())], &curl).ok();
    assert!(output.text().contains("policy 7") && output.text().ends_with("403"), "{output:?}");
    let exchange = &bench.journal().ended(1)[0];
    assert_eq!((exchange.outcome(), exchange.status()), ("complete", Some(403)));
    assert_eq!(exchange.request["via"], proxy.authority()[..]);
}

/// Addresses that the gate does not dial are not asked of the proxy either, which may stand where
/// they mean something.
#[test]
fn refused_addresses_stay_refused() {
    let bench = Bench::new();
    let proxy = start(&bench, Manners::default());
    let gate = format!("http://127.0.0.1:{}", bench.proxy_port);
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "http://[fe80::1]/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://100.100.100.200/",
    ] {
        let curl = ["curl", "-gsSk", "--noproxy", "", "-x", &gate, "-o", "/dev/null", url];
        let curl = [&curl[..], &["-w", "%{http_code}"]].concat();
        let output = run(&bench, &[("all_proxy", &proxy.url())], &curl);
        assert!(output.text().ends_with("403"), "{url}: {output:?}");
    }
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

/// Another kind of proxy is refused at the start, by its setting's name and without its password.
#[test]
fn what_is_no_such_proxy_is_refused_at_the_start() {
    let bench = Bench::new();
    let socks = "socks5://me:open%40sesame@127.0.0.1:1";
    let output = run(&bench, &[("ALL_PROXY", socks)], &["echo", "started"]).exits(125);
    check_refusal(&output, &["ALL_PROXY", "socks5://", "--upstream-proxy"]);
    let typed = ["--upstream-proxy", socks];
    let output = finish(command(&bench, &[], &typed, &["echo", "started"])).exits(125);
    check_refusal(&output, &["--upstream-proxy", "socks5://"]);
    let typed = ["--upstream-proxy", "http://me:open%40sesame@proxy.test:x"];
    let output = finish(command(&bench, &[], &typed, &["echo", "started"])).exits(125);
    check_refusal(&output, &["--upstream-proxy", "port"]);
    bench.write_setting("config.toml", &format!("[upstream]\nproxy = \"{socks}\"\n"));
    let output = run(&bench, &[], &["echo", "started"]).exits(125);
    check_refusal(&output, &["config.toml:2", "socks5://"]);
}

fn check_refusal(output: &Output, parts: &[&str]) {
    assert_eq!(output.text(), "", "{output:?}");
    let lines = output.own_lines();
    assert_eq!(lines.len(), 1, "{output:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part:?} is not in {output:?}");
    }
    assert!(!output.stderr.contains("sesame"), "{output:?}");
}

/// `agent-gate proxy` goes through it too; its recorded command line has no password. Whoever has
/// exported its own address for other tools is served without going round.
#[test]
fn the_foreground_proxy_and_its_own_address() {
    let bench = Bench::new();
    let company = start(&bench, guarded());
    let mut gate = bench.agent_gate(&["proxy", "--upstream-proxy", &guarded_url(&company)]);
    gate.arg("--upstream-ca").arg(bench.origin.ca_pem());
    let gate = Started::new(gate);
    wait_for("the proxy's own run", || bench.journal().of_type("run").pop());
    let own = format!("http://127.0.0.1:{}", bench.proxy_port);
    let mut curl = bench.command("curl");
    curl.args(["-sSfk", "-x", &own, "https://outside.test/?outside"]);
    finish(curl).ok();
    assert_eq!(company.lines(), ["CONNECT outside.test:443"]);

    let mut inside = bench.run_command(&[], &["curl", "-sSf", "http://inside.test:8080/?inside"]);
    inside.env("http_proxy", &own).env("HTTPS_PROXY", &own);
    finish(inside);
    let inside = bench.journal().only("/?inside");
    assert_eq!(
        inside.outcome(),
        "name_unknown",
        "not by the gate's own proxy: {}",
        inside.answer()
    );
    let option = finish(command(&bench, &[], &["--upstream-proxy", &own], &["true"])).exits(125);
    check_refusal(&option, &["--upstream-proxy", "own proxy"]);

    processes::signal(gate.pid(), Signal::SIGTERM);
    let output = gate.finish();
    assert!(!output.stderr.contains("sesame"), "{output:?}");
    let run = &bench.journal().of_type("run")[0];
    assert!(run["argv"].to_string().contains(&company.url()), "{run}");
    check_secrets(&bench.data_dir(), &SECRETS);
}

/// Connections through one proxy do not serve a run that goes through another, or directly.
#[test]
fn runs_with_different_proxies_share_nothing() {
    let bench = Bench::new();
    one_worker(&bench);
    let proxies = [start(&bench, Manners::default()), start(&bench, Manners::default())];
    let get = |options: &[&str]| {
        let run = command(&bench, &[], options, &[]);
        finish_when_recorded(&bench, run, &staying_client::get("shared.test"), 1);
    };
    for proxy in &proxies {
        for _ in 0..2 {
            get(&["--upstream-proxy", &proxy.url()]);
        }
        assert_eq!(proxy.lines(), ["CONNECT shared.test:443"], "the second run uses it again");
    }
    assert_eq!(bench.origin.connections(), 2);
    bench.run(&["curl", "-sSf", "https://shared.test/"]).ok();
    assert_eq!(bench.origin.connections(), 3, "directly");
}

/// So that a connection which may be shared is found.
fn one_worker(bench: &Bench) {
    let path = bench.config_dir().join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("[gate]\n", "[gate]\nworkers = 1\n");
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
