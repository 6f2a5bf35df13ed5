//! The control socket's protocol: what `run` and the gate say to each other, and its framing.
//!
//! The socket is a stream at `control.sock` in the data folder (0600). A message is its length as
//! four bytes, little endian, then so many bytes of JSON. Descriptors ride on a message's first
//! byte (SCM_RIGHTS). The client speaks first and each [`Request`] gets one [`Reply`]:
//!
//! ```text
//! client                                gate
//! hello {version, config_dir}       →
//!                                   ←   hello {version, authority_pem, dashboard}
//! attach {argv, …, listeners} + fds →
//!                                   ←   attached {run, proxy_port}
//!         … the command runs; if either side hangs up, the other ends the run …
//! detach {status}                   →
//!                                   ←   detached {exchanges}
//! ```
//!
//! `status` may be asked after hello, and is answered by what the gate has to do just then.
//! [`Reply::Refused`] may stand in for any answer and ends the conversation. A client whose
//! connection closes before the answer to hello has met a gate that was ending, and starts over.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use agent_gate_store::Id;
use agent_gate_store::record::Mode;
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::sys;

/// Both ends are the same program; another version may mean other messages.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A message holds at most a command line (the kernel's bound is about 2 MiB) escaped as JSON.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// The kernel's own bound (`SCM_MAX_FD`): whatever comes fits, so none is cut off and leaks.
const DESCRIPTORS_MAX: usize = 253;

/// What a client asks for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Who is there; always first.
    Hello {
        /// The client's version.
        version: String,
        /// Where the client's settings and lists are; a gate serves one such folder.
        config_dir: PathBuf,
    },
    /// A run begins.
    Attach(Box<Attach>),
    /// How much there is to do just now. May be asked again and again, before anything else.
    Status,
    /// The run that attached by this connection is over.
    Detach {
        /// As a shell would say it.
        status: i32,
    },
    /// End, if nobody else needs this gate.
    Yield,
}

/// What the gate answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// To hello.
    Hello(Hello),
    /// To attach: the run is recorded and its listeners are served.
    Attached {
        /// The new run's id.
        run: Id,
        /// The loopback port of the run's proxy, when the client handed in no listeners.
        proxy_port: Option<u16>,
    },
    /// To status.
    Status(Status),
    /// To detach: all of the run is on disk.
    Detached {
        /// Exchanges seen.
        exchanges: u64,
    },
    /// To yield: the gate is ending.
    Yielding,
    /// The gate will not, and why; it hangs up.
    Refused {
        /// In words for the user.
        reason: String,
    },
}

/// What a client needs to know of the gate before it builds a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The gate's version.
    pub(crate) version: String,
    /// The CA's certificate, without its key.
    pub(crate) authority_pem: String,
    /// Where the pages are.
    pub(crate) dashboard: std::net::SocketAddr,
}

/// What the gate has to do, and may have to do, just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Client connections that are open.
    pub(crate) connections: usize,
    /// How many may be: as the settings say, or as far as descriptors go.
    pub(crate) connections_max: usize,
    /// And of one run.
    pub(crate) connections_per_run_max: usize,
}

/// A run, as `agent-gate run` knows it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// The command line, lossily as text.
    pub(crate) argv: Vec<String>,
    /// Where it was started.
    pub(crate) cwd: String,
    /// The command's short name.
    pub(crate) agent: String,
    /// Process id of the client.
    pub(crate) pid: u32,
    /// How confined the command is.
    pub(crate) mode: Mode,
    /// Why it is less than was asked for.
    pub(crate) weaker: Option<String>,
    /// How its origins are reached.
    pub(crate) upstream: Upstream,
    /// What the descriptors are, in their order. Empty: the gate makes a loopback proxy.
    pub(crate) listeners: Vec<ListenerKind>,
}

/// A command's short name: the file name of what is started.
pub(crate) fn agent_name(argv: &[String]) -> String {
    let program = argv.first().map_or("", String::as_str);
    let name = std::path::Path::new(program).file_name().map(|name| name.to_string_lossy());
    name.map_or_else(|| program.to_owned(), std::borrow::Cow::into_owned)
}

/// How origins of one run are reached and checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upstream {
    /// Refuse every host that the allowlist does not name.
    pub(crate) enforce_allowlist: bool,
    /// Certificates trusted besides the system's, each as DER in base64.
    pub(crate) cas: Vec<String>,
    /// Do not check certificates at all.
    pub(crate) insecure: bool,
    /// `HOST:PORT:ADDR[:PORT]` rules in order.
    pub(crate) resolve: Vec<String>,
    /// The proxies on the way.
    pub(crate) proxies: Proxies,
    /// Who the gate says it is, to whom.
    pub(crate) client_certificates: Vec<ClientCertificate>,
}

/// The proxies between the gate and the network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proxies {
    /// For TLS and for what is passed through unread.
    pub(crate) https: Option<Proxy>,
    /// For clear text.
    pub(crate) http: Option<Proxy>,
    /// Who is reached without.
    pub(crate) no_proxy: Vec<String>,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proxy {
    /// Its URL, credentials included.
    pub(crate) url: Secret,
    /// What named it, for messages.
    pub(crate) setting: String,
    /// Whether that was a variable of the environment.
    pub(crate) from_environment: bool,
}

/// A client certificate, as files, which the gate reads itself: a private key is no message, and
/// both ends are the same user's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientCertificate {
    /// The origins that may see it, as in a host list.
    pub(crate) hosts: Vec<String>,
    /// PEM, the certificate itself first.
    pub(crate) certificate: PathBuf,
    /// PEM.
    pub(crate) key: PathBuf,
}

/// How connections of a listening socket begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListenerKind {
    /// With the proxy protocol.
    Proxy,
    /// As if with the origin.
    Transparent,
    /// With a DNS query over TCP.
    DnsTcp,
    /// UDP: each datagram is a DNS query.
    DnsUdp,
}

/// Why a message did not come or go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The other end hung up.
    #[error("the other end hung up")]
    Closed,
    /// It is there, but silent.
    #[error("no answer in time")]
    Silent,
    /// Its message is larger than any of ours.
    #[error("message of {0} bytes")]
    TooLong(u64),
    /// Its message is not one of ours.
    #[error("message not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    /// The socket failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

/// One end of a control connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Speaks over this stream.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// The stream, to be watched for a hang-up.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// How long [`Self::receive`] waits; `None` for ever.
    pub(crate) fn wait_at_most(&self, timeout: Option<Duration>) -> Result<(), Error> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Sends one message with these descriptors.
    pub(crate) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let frame = frame(message)?;
        let sent = self.send_first(&frame, descriptors)?;
        Ok((&self.stream).write_all(&frame[sent..])?)
    }

    /// Receives one message and what descriptors came with it.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), Error> {
        let mut length = [0; 4];
        let (read, descriptors) = self.receive_first(&mut length)?;
        (&self.stream).read_exact(&mut length[read..])?;
        let length = u32::from_le_bytes(length);
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::TooLong(length.into()));
        }
        let mut body = Vec::new();
        (&self.stream).take(length.into()).read_to_end(&mut body)?;
        if body.len() as u64 != u64::from(length) {
            return Err(Error::Closed);
        }
        Ok((serde_json::from_slice(&body)?, descriptors))
    }

    /// The first bytes carry the descriptors; on a stream they may be fewer than the whole.
    fn send_first(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Error> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let controls = if raw.is_empty() { &[][..] } else { &rights[..] };
        retry_interrupted(|| {
            let slices = [IoSlice::new(frame)];
            let socket = self.stream.as_raw_fd();
            sendmsg::<()>(socket, &slices, controls, MsgFlags::MSG_NOSIGNAL, None)
        })
    }

    fn receive_first(&self, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Error> {
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let (read, descriptors) = retry_interrupted(|| {
            let mut slices = [IoSliceMut::new(bytes)];
            let socket = self.stream.as_raw_fd();
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(socket, &mut slices, Some(&mut space), flags)?;
            Ok((message.bytes, sys::take_descriptors(&message)?))
        })?;
        if read == 0 { Err(Error::Closed) } else { Ok((read, descriptors)) }
    }
}

fn frame(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len() - 4;
    match u32::try_from(body) {
        Ok(length) if length <= MESSAGE_BYTES_MAX => {
            frame[..4].copy_from_slice(&length.to_le_bytes());
            Ok(frame)
        }
        _ => Err(Error::TooLong(body as u64)),
    }
}

fn retry_interrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Error> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(|errno| io::Error::from(errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    fn pair() -> (Connection, Connection) {
        let (a, b) = UnixStream::pair().unwrap();
        (Connection::new(a), Connection::new(b))
    }

    fn hello() -> Request {
        Request::Hello { version: VERSION.into(), config_dir: "/c".into() }
    }

    fn attach(argument: String) -> Request {
        Request::Attach(Box::new(Attach {
            argv: vec!["x".into(), argument],
            cwd: "/".into(),
            agent: "x".into(),
            pid: 7,
            mode: Mode::Airtight,
            weaker: None,
            upstream: Upstream { resolve: vec!["*:443:127.0.0.1".into()], ..Upstream::default() },
            listeners: vec![ListenerKind::Proxy, ListenerKind::Transparent],
        }))
    }

    #[test]
    fn messages_arrive_as_sent_and_one_by_one() {
        let (here, there) = pair();
        here.send(&hello(), &[]).unwrap();
        here.send(&Request::Detach { status: 137 }, &[]).unwrap();
        assert_eq!(there.receive::<Request>().unwrap().0, hello());
        assert_eq!(there.receive::<Request>().unwrap().0, Request::Detach { status: 137 });
    }

    #[test]
    fn descriptors_come_with_their_message_alone() {
        let (here, there) = pair();
        let sockets: Vec<_> =
            (0..10).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        here.send(&hello(), &[]).unwrap();
        here.send(&attach("y".into()), &borrowed).unwrap();
        here.send(&Request::Yield, &[]).unwrap();
        assert!(there.receive::<Request>().unwrap().1.is_empty());
        let (message, arrived) = there.receive::<Request>().unwrap();
        assert_eq!(message, attach("y".into()));
        for (arrived, sent) in arrived.into_iter().zip(&sockets) {
            let arrived = TcpListener::from(arrived);
            assert_eq!(arrived.local_addr().unwrap(), sent.local_addr().unwrap());
        }
        assert!(there.receive::<Request>().unwrap().1.is_empty());
    }

    #[test]
    fn a_message_larger_than_the_socket_buffer_passes() {
        let (here, there) = pair();
        let long = "é\n".repeat(1 << 20);
        let sent = attach(long.clone());
        let sender = thread::spawn(move || here.send(&sent, &[]));
        assert_eq!(there.receive::<Request>().unwrap().0, attach(long));
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn broken_messages_are_told_apart() {
        fn receive(bytes: &[u8]) -> Error {
            let (mut raw, there) = UnixStream::pair().unwrap();
            raw.write_all(bytes).unwrap();
            drop(raw);
            Connection::new(there).receive::<Request>().unwrap_err()
        }
        assert!(matches!(receive(b""), Error::Closed));
        assert!(matches!(receive(b"\x05\x00"), Error::Closed));
        assert!(matches!(receive(b"\x05\x00\x00\x00{"), Error::Closed));
        assert!(matches!(receive(b"\xff\xff\xff\xff{}"), Error::TooLong(_)));
        assert!(matches!(receive(b"\x02\x00\x00\x00{}"), Error::NotUnderstood(_)));
        assert!(matches!(receive(b"\x02\x00\x00\x00\xff\xff"), Error::NotUnderstood(_)));
        assert!(matches!(
            receive(b"\x10\x00\x00\x00{\"type\":\"root\"}\n"),
            Error::NotUnderstood(_)
        ));
    }

    #[test]
    fn silence_is_bounded() {
        let (_here, there) = pair();
        there.wait_at_most(Some(Duration::from_millis(1))).unwrap();
        assert!(matches!(there.receive::<Request>().unwrap_err(), Error::Silent));
    }
}
