//! An accepted connection: what its listener and its first bytes make of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use agent_gate_store::record::RefusedBy;
use agent_gate_store::{HostName, Id, Timestamp};
use monoio::net::TcpStream;

use super::answer::Refusal;
use super::dns_server;
use super::door::{Door, Target};
use super::exchanges;
use super::flow::{Flow, FlowControl};
use super::run::Run;
use super::stream::Stream;
use super::tunnel;
use super::worker::Worker;
use crate::proto::connect::{self, Connect};

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
    // Boxed, since it is handed on from one to the next, and each would keep room for it.
    let stream = Box::new(Stream::new(stream));
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
            tunnel::open(&flow, target, stream).await;
        }
        Entrance::Dns => dns_server::serve_tcp(&flow, *stream).await,
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
    by_name(run, Target { host: HostName::from(address.ip()), port: address.port() })
}

/// An address that we told for a name stands for that name, whoever goes to it: also a client that
/// looks names up and then asks the proxy for the address.
fn by_name(run: &Run, target: Target) -> Target {
    let named = target.host.ip().and_then(|ip| run.names.name_of(ip));
    Target { host: named.unwrap_or(target.host), port: target.port }
}

/// The client talks to a proxy: CONNECT, or requests in absolute form.
async fn serve_proxy(flow: &Flow, mut stream: Box<Stream>) {
    let door = Door { target: None, tls: None, refused: None };
    let (target, length) = match peek_connect(flow, &mut stream).await {
        First::Connect(target, length) => (target, length),
        First::Other => return exchanges::serve(flow, &door, &mut stream).await,
        First::Half => return Box::pin(exchanges::give_up_head(flow, &door, &mut stream)).await,
        First::Nothing => return,
    };
    stream.reader.consume(length);
    match target {
        Ok(target) => connect_to(flow, by_name(&flow.run, target), stream).await,
        Err(authority) => {
            let target = Target { host: exchanges::unknown_host(), port: 443 };
            let detail = format!("malformed CONNECT target {authority:?}: HOST:PORT is wanted");
            let refusal = Refusal::of(RefusedBy::BadRequest, &target, detail);
            flow.record_refused(&refusal, None, None).await;
            Box::pin(exchanges::give(&refusal, None, &mut stream)).await;
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
        match connect::read(stream.reader.data()) {
            Connect::Head { authority, length, fields }
                if length <= limits.head_bytes_max && fields <= limits.fields_max =>
            {
                let target = Target::parse(authority, None).ok_or(authority.to_owned());
                return First::Connect(target, length);
            }
            Connect::Malformed => return First::Connect(Err(String::new()), 0),
            Connect::Head { .. } | Connect::Other => return First::Other,
            Connect::Partial if stream.reader.data().len() > limits.head_bytes_max => {
                return First::Other;
            }
            Connect::Partial => {
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

/// Whatever the lists say, the tunnel is opened: what they refuse is told inside, where an agent
/// reads it. Whatever fields CONNECT carries, `Connection: close` among them, it stays open.
async fn connect_to(flow: &Flow, target: Target, mut stream: Box<Stream>) {
    const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
    if stream.writer.stage(ESTABLISHED).is_ok() {
        // A client that is gone already is found so by who reads next.
        let _ = stream.writer.flush().await;
    }
    tunnel::open(flow, target, stream).await;
}
