//! Every address is the gate's, none is the world's.

use std::net::TcpListener;

use crate::Scenario;
use crate::support::{Caller, Home};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ("network::any_address_reaches_the_gate", any_address_reaches_the_gate),
    ("network::names_are_asked_of_the_gate", names_are_asked_of_the_gate),
    ("network::other_ports_are_refused", other_ports_are_refused),
    ("network::the_hosts_loopback_is_out_of_reach", the_hosts_loopback_is_out_of_reach),
    ("network::there_is_no_other_interface", there_is_no_other_interface),
    ("network::a_server_inside_is_reached_from_inside", a_server_inside_is_reached),
    ("network::reserved_ports_are_not_for_the_command", reserved_ports_are_not_for_it),
];

fn any_address_reaches_the_gate(caller: Caller) {
    let home = Home::new(caller);
    let script = |host: &str, port: u16| format!("exec 3<>/dev/tcp/{host}/{port}; cat <&3");
    let cases = [
        ("203.0.113.7", 443, "transparent 203.0.113.7:443"),
        ("8.8.8.8", 80, "transparent 8.8.8.8:80"),
        ("203.0.113.7", 18888, "proxy 203.0.113.7:18888"),
        ("127.0.0.1", 18888, "proxy 127.0.0.1:18888"),
        ("192.0.2.53", 53, "dns 192.0.2.53:53"),
    ];
    for (host, port, wanted) in cases {
        assert_eq!(home.script(&script(host, port)).ok(), wanted);
    }
    if has_ipv6() {
        let cases = [
            ("2001:db8::1", 443, "transparent [2001:db8::1]:443"),
            ("::1", 18888, "proxy [::1]:18888"),
        ];
        for (host, port, wanted) in cases {
            assert_eq!(home.script(&script(host, port)).ok(), wanted);
        }
    }
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

fn names_are_asked_of_the_gate(caller: Caller) {
    let home = Home::new(caller);
    let answer = home.script(
        "read -r word server </etc/resolv.conf; echo $word
         exec 3<>/dev/udp/$server/53; echo query >&3; head -n1 <&3",
    );
    assert_eq!(answer.ok(), "nameserver\ndns");
}

fn other_ports_are_refused(caller: Caller) {
    let answer = Home::new(caller).script("exec 3<>/dev/tcp/203.0.113.7/22");
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("refused"), "{answer:?}");
}

fn the_hosts_loopback_is_out_of_reach(caller: Caller) {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let answer = Home::new(caller).script(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
    assert!(answer.err.contains("refused"), "{answer:?}");
}

fn there_is_no_other_interface(caller: Caller) {
    let interfaces = Home::new(caller).script("tail -n +3 /proc/net/dev | cut -d: -f1").ok();
    let strange: Vec<_> = interfaces.split_whitespace().filter(|it| is_wired(it)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// A new network namespace may come with unused tunnel devices of modules that the host has loaded.
fn is_wired(interface: &str) -> bool {
    let unused = ["lo", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0"];
    !unused.contains(&interface) && !["ip6tnl0", "ip6gre0"].contains(&interface)
}

fn a_server_inside_is_reached(caller: Caller) {
    let script = "python3 -c '
import socket, threading
server = socket.create_server((\"127.0.0.1\", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b\"inside\")).start()
print(socket.create_connection(server.getsockname()).recv(9).decode())'";
    if std::process::Command::new("python3").arg("-V").output().is_ok() {
        let answer = Home::new(caller).script(script);
        // A python3 of some other user's (pyenv) may be out of the caller's reach.
        if answer.code != Some(126) && answer.code != Some(127) {
            assert_eq!(answer.ok(), "inside");
        }
    }
}

fn reserved_ports_are_not_for_it(caller: Caller) {
    let answer = Home::new(caller).script(
        "perl -MSocket -e '
        socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(81, INADDR_ANY)) or print $!'",
    );
    if answer.code != Some(127) {
        assert_eq!(answer.ok(), "Permission denied");
    }
}
