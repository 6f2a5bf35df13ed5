//! An accepted connection: what its listener and its first bytes make of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use agent_gate_store::record::RefusedBy;
use agent_gate_store::{HostName, Id, Timestamp};
use monoio::net::TcpStream;

use super::answer::refusal_detail;
use super::dns_server;
use super::door::{Door, Target};
use super::exchanges;
use super::flow::{Flow, FlowControl};
use super::run::Run;
use super::stream::Stream;
use super::tunnel;
use super::worker::Worker;
use crate::policy::Verdict;
use crate::proto::head::RequestHead;

/// How a listener's connections begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// With a request to a proxy.
    Proxy,
    /// As if with the origin, at the address the client dialled.
    Transparent,
    /// With a DNS question.
    Dns,
}

/// Serves one connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    run: Arc<Run>,
    entrance: Entrance,
    stream: TcpStream,
    client: SocketAddr,
) {
    // Without it, a first answer waits 40 ms for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let stream = Stream::new(stream);
    let control = Rc::new(FlowControl::new(run.id, stream.handle().clone()));
    let flow = Flow {
        id: Id::new(),
        worker,
        run,
        client: canonical(client),
        opened_at: Timestamp::now(),
        opened: Instant::now(),
        control,
    };
    flow.worker.flows.borrow_mut().insert(flow.id, flow.control.clone());
    match entrance {
        Entrance::Proxy => serve_proxy(&flow, stream).await,
        Entrance::Transparent => {
            let target = dialled(&flow.run, canonical(local));
            open(&flow, target, stream).await;
        }
        Entrance::Dns => dns_server::serve_tcp(&flow, stream).await,
    }
    flow.worker.flows.borrow_mut().remove(&flow.id);
}

/// Whom a connection is for, as far as that is known before its first byte.
pub(super) fn target_of(run: &Run, entrance: Entrance, stream: &TcpStream) -> Target {
    match stream.local_addr() {
        Ok(local) if entrance == Entrance::Transparent => dialled(run, canonical(local)),
        _ => Target { host: exchanges::unknown_host(), port: 80 },
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The client believes it talks to the origin: the address it dialled says to which.
fn dialled(run: &Run, address: SocketAddr) -> Target {
    let host = run.names.name_of(address.ip()).unwrap_or_else(|| HostName::from(address.ip()));
    Target { host, port: address.port() }
}

/// Opens a tunnel to `target`, or ends the connection where nothing can be said.
async fn open(flow: &Flow, target: Target, stream: Stream) {
    match tunnel::verdict_for(flow, &target) {
        Verdict::Refuse(by) => refuse_silently(flow, &target, by, stream).await,
        verdict => tunnel::open(flow, target, verdict == Verdict::PassThrough, stream).await,
    }
}

/// On a transparent connection a refusal can be told in clear-text HTTP only; the tunnel reads
/// such a request and refuses it by itself, so only TLS is left without a word.
async fn refuse_silently(flow: &Flow, target: &Target, by: RefusedBy, mut stream: Stream) {
    let first = flow.control.alarm.until(flow.handshake_due(), async {
        while stream.reader.data().is_empty() && matches!(stream.reader.fill().await, Ok(true)) {}
    });
    let speaks_tls = first.await.is_none() || stream.reader.data().first() == Some(&22);
    if speaks_tls || stream.reader.data().is_empty() {
        flow.record_refused(target, None, by, &refusal_detail(by, target, "")).await;
        return stream.handle().abort();
    }
    let door = Door { target: Some(target.clone()), tls: None };
    exchanges::serve(flow, &door, &mut stream).await;
}

/// The client talks to a proxy: CONNECT, or requests in absolute form.
async fn serve_proxy(flow: &Flow, mut stream: Stream) {
    let door = Door { target: None, tls: None };
    let (target, length) = match peek_connect(flow, &mut stream).await {
        First::Connect(target, length) => (target, length),
        First::Other => return exchanges::serve(flow, &door, &mut stream).await,
        First::Half => return exchanges::give_up_head(flow, &door, &mut stream).await,
        First::Nothing => return,
    };
    stream.reader.consume(length);
    match target {
        Ok(target) => connect_to(flow, target, stream).await,
        Err(authority) => {
            let target = Target { host: exchanges::unknown_host(), port: 443 };
            let detail = format!("malformed CONNECT target {authority:?}: HOST:PORT is wanted");
            let request = Some(format!("CONNECT {authority}"));
            flow.record_refused(&target, request, RefusedBy::BadRequest, &detail).await;
            exchanges::give(RefusedBy::BadRequest, &target, &detail, &mut stream).await;
        }
    }
}

/// What a proxy's client begins with.
enum First {
    /// CONNECT: its target, or what should have been one, and the head's length.
    Connect(Result<Target, String>, usize),
    /// Any other request, or what is none.
    Other,
    /// A head that did not come to its end in time.
    Half,
    /// Nothing at all in time.
    Nothing,
}

/// Reads a CONNECT head without consuming it.
async fn peek_connect(flow: &Flow, stream: &mut Stream) -> First {
    let alarm = &flow.control.alarm;
    if alarm.until(flow.handshake_due(), stream.reader.fill()).await.is_none() {
        return First::Nothing;
    }
    let limits = &flow.worker.shared.limits;
    let due = Instant::now() + limits.head_time_max;
    loop {
        match RequestHead::parse(stream.reader.data()) {
            Ok(Some((head, length)))
                if head.is_method("CONNECT") && exchanges::is_within(&head, limits) =>
            {
                let authority = head.target().into_owned();
                let target = Target::parse(&authority, None).ok_or(authority);
                return First::Connect(target, length);
            }
            Ok(Some(_)) | Err(_) => return First::Other,
            Ok(None) if stream.reader.data().len() > limits.head_bytes_max => return First::Other,
            Ok(None) => {
                let next_line = exchanges::next_line(&mut stream.reader, limits.head_bytes_max);
                match alarm.until(due, next_line).await {
                    Some(true) => {}
                    Some(false) => return First::Other,
                    None => return First::Half,
                }
            }
        }
    }
}

/// Whatever fields CONNECT carries, `Connection: close` among them, the tunnel stays open.
async fn connect_to(flow: &Flow, target: Target, mut stream: Stream) {
    let verdict = tunnel::verdict_for(flow, &target);
    if let Verdict::Refuse(by) = verdict {
        let detail = refusal_detail(by, &target, "");
        let request = Some(format!("CONNECT {}:{}", target.host.as_str(), target.port));
        flow.record_refused(&target, request, by, &detail).await;
        return exchanges::give(by, &target, &detail, &mut stream).await;
    }
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
    if stream.writer.stage(ESTABLISHED).is_err() || stream.writer.flush().await.is_err() {
        return; // the client is gone; nothing was asked of anyone
    }
    tunnel::open(flow, target, verdict == Verdict::PassThrough, stream).await;
}
