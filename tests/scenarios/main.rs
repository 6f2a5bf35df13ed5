//! Scenarios: the built `agent-gate` from outside, against our own origin, with real clients.
//!
//! | module | what it tells |
//! | --- | --- |
//! | [`origin_alone`] | the origin without a gate: what the rest stands on |
//! | [`curl`] | with and without proxy variables: CONNECT, absolute form, transparent 443 and 80 |
//! | [`git`] | clone and push over https |
//! | [`wget`] | with and without proxy variables, over GnuTLS |
//! | [`java`] | Java's HttpClient, which offers h2 and h2c |
//! | [`packages`] | pip download, npm install and cargo fetch |
//! | [`python`] | requests, httpx and aiohttp |
//! | [`node`] | Node's fetch, and undici |
//! | [`framing`] | every way in which HTTP/1.1 says where a message ends, and what comes before and after |
//! | [`differential`] | 500 exchanges made up from a seed: sent directly and through the gate, they arrive the same |
//! | [`odd_requests`] | pipelined, byte by byte, very long, and what could be smuggled |
//! | [`odd_answers`] | answers that only some clients understand: with a gate, the same ones do |
//! | [`websocket`] | between websockets, aiohttp and ws: messages as both ends and the journal have them |
//! | [`websocket_frames`] | odd, cut, endless and broken frames, bombs, a killed gate |
//! | [`streams`] | server-sent events arrive one by one |
//! | [`codings`] | gzip, deflate, br and zstd, sound and flawed: passed as they are, read decoded |
//! | [`big_bodies`] | a gigabyte each way while the gate's memory stays flat |
//! | [`policy`] | denylist, allowlist, passthrough, and addresses the gate does not dial |
//! | [`limits`] | time and number: what each limit ends, what it leaves alone, and what the record says |
//! | [`crowds`] | slow, stuck and idle clients by the thousand, and the one client that does not notice |
//! | [`adversarial_origin`] | an origin that cuts, resets, floods and lies at every place, and what is left of it |
//! | [`upstream`] | TLS with origins and its sessions, client certificates, connections used again |
//! | [`upstream_proxy`] | a company's proxy on the way: tunnels, absolute form, credentials, failures |
//! | [`policy`] | denylist, allowlist, names that disagree, and addresses the gate does not dial |
//! | [`passthrough`] | hosts that pass unread, and clients that should have been told so |
//! | [`habits`] | what real clients do at a proxy's door that no standard asks of them |
//! | [`faults`] | names, certificates, and either side gone in mid-body |
//! | [`command`] | the jailed command's exit code, signals, input, output, folder and environment |
//! | [`terminal`] | job control, Ctrl-C and window size in a shell on a pseudo-terminal |
//! | [`settings`] | settings and lists that cannot be used, ports that are taken |
//! | [`disk`] | a read-only home and a full disk |
//! | [`no_namespaces`] | what remains where no user namespace can be made |
//! | [`gate_life`] | one gate for many runs: start races, stale sockets, linger, runs that die |
//! | [`killed_gate`] | `kill -9` of the gate in the middle of 200 concurrent requests |
//! | [`reindex`] | the index from the journal alone |
//! | [`walls`] | what a jailed command cannot see or reach |
//! | [`views`] | tail, dashboard, demo, version |
//! | [`doctor`] | what is wrong is found and named, with its cure |
//! | [`proxy`] | `agent-gate proxy` for commands started otherwise |
//!
//! A scenario tells its steps in prose at its top and stands on [`support`]: an origin server that
//! remembers every byte, and a bench with a home folder and at most one gate. Nothing here measures
//! time, reaches the internet, or touches the real home folder.
#![allow(clippy::unwrap_used)]

mod adversarial_origin;
mod big_bodies;
mod codings;
mod command;
mod crowds;
mod curl;
mod differential;
mod disk;
mod doctor;
mod faults;
mod framing;
mod gate_life;
mod git;
mod habits;
mod java;
mod killed_gate;
mod limits;
mod no_namespaces;
mod node;
mod odd_answers;
mod odd_requests;
mod origin_alone;
mod packages;
mod passthrough;
mod policy;
mod proxy;
mod python;
mod reindex;
mod settings;
mod streams;
mod support;
mod terminal;
mod upstream;
mod upstream_proxy;
mod views;
mod walls;
mod websocket;
mod websocket_frames;
mod wget;
