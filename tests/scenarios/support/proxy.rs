//! A company's proxy, as it might stand between the gate and the network: tunnels by CONNECT,
//! requests in absolute form, over TLS if it is told to, with credentials, and with faults.
//!
//! It knows every name: port 443 of any host is the origin's TLS port, 80 its other one. Hosts
//! below `forbidden.test` it refuses with a page, and tunnels to port 80 it can be told to refuse.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::origin::{Fields, Origin, value};

/// How a proxy behaves.
#[derive(Default)]
pub(crate) struct Manners {
    /// TLS with the client, by this configuration.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// `user:password`, without which nothing passes.
    pub(crate) credentials: Option<&'static str>,
    /// What it writes instead of any answer; then it closes.
    pub(crate) instead: Option<&'static str>,
    /// Whether it tunnels to port 443 alone, as many do.
    pub(crate) tunnels_to_443_alone: bool,
}

/// A request to the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
}

/// The running proxy; dropped, it closes every connection and joins its threads.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    manners: Manners,
    /// The origin's ports, for 443 and 80.
    origin: (u16, u16),
    asked: Mutex<Vec<Asked>>,
    stopping: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    pub(crate) fn start(origin: &Origin, manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            manners,
            origin: (origin.https_port, origin.http_port),
            asked: Mutex::default(),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
            threads: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &for_thread));
        Self { port, shared, acceptor: Some(acceptor) }
    }

    /// `127.0.0.1:port`
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL, without credentials.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// All requests to it so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The same, as `METHOD target`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.target)).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        drop(self.acceptor.take().map(JoinHandle::join));
        for socket in &*self.shared.open.lock().unwrap() {
            drop(socket.shutdown(Shutdown::Both));
        }
        for thread in std::mem::take(&mut *self.shared.threads.lock().unwrap()) {
            drop(thread.join());
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let for_thread = Arc::clone(shared);
        let thread = std::thread::spawn(move || {
            let client = for_thread.keep(&socket);
            // Whoever breaks off is done; the test looks at what the gate makes of it.
            drop(serve(socket, &for_thread));
            drop(client.shutdown(Shutdown::Both));
        });
        shared.threads.lock().unwrap().push(thread);
    }
}

impl Shared {
    /// Remembers a socket, so that a test that is over does not wait for its end; another handle
    /// of it, since the one remembered keeps it open.
    fn keep(&self, socket: &TcpStream) -> TcpStream {
        socket.set_nodelay(true).unwrap();
        self.open.lock().unwrap().push(socket.try_clone().unwrap());
        socket.try_clone().unwrap()
    }
}

/// The client's side of a connection.
enum Client {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Client {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// One piece; empty at the end.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; 16 << 10];
        let length = match self {
            Self::Clear(socket) => socket.read(&mut piece)?,
            Self::Tls(stream) => stream.read(&mut piece)?,
        };
        piece.truncate(length);
        Ok(piece)
    }

    /// Whether there is something to read that the socket does not tell of.
    fn has_decrypted(&mut self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(stream) => stream
                .conn
                .process_new_packets()
                .is_ok_and(|state| state.plaintext_bytes_to_read() > 0),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Says goodbye and waits for the client to do so.
    fn close(mut self) -> io::Result<()> {
        if let Self::Tls(stream) = &mut self {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.socket().shutdown(Shutdown::Write)?;
        while !self.read()?.is_empty() {}
        Ok(())
    }
}

/// One connection, from its first request on.
fn serve(socket: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut client = match &shared.manners.tls {
        None => Client::Clear(socket),
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).unwrap();
            Client::Tls(Box::new(StreamOwned::new(connection, socket)))
        }
    };
    let mut requests = Requests::default();
    let head = loop {
        if let Some(instead) = shared.manners.instead
            && !requests.bytes.is_empty()
        {
            client.write(instead.as_bytes())?;
            return client.close();
        }
        if let Some(head) = requests.next_head() {
            break head;
        }
        let piece = client.read()?;
        if piece.is_empty() {
            return Ok(());
        }
        requests.bytes.extend(piece);
    };
    shared.asked.lock().unwrap().push(head.asked.clone());
    if let Some(refusal) = refusal(&head.asked, &shared.manners) {
        client.write(refusal.as_bytes())?;
        return client.close();
    }
    let origin = connect(&head.asked, shared)?;
    let end = origin.try_clone()?;
    let result = carry(client, &head, requests, origin, shared);
    drop(end.shutdown(Shutdown::Both));
    result
}

fn carry(
    mut client: Client,
    head: &Head,
    mut requests: Requests,
    mut origin: TcpStream,
    shared: &Shared,
) -> io::Result<()> {
    if head.asked.method == "CONNECT" {
        client.write(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        origin.write_all(&requests.bytes)?;
        return relay(client, origin, |bytes| bytes);
    }
    origin.write_all(&requests.begin(head))?;
    origin.write_all(&requests.next(shared))?;
    relay(client, origin, move |bytes| {
        requests.bytes.extend(bytes);
        requests.next(shared)
    })
}

/// What the proxy says instead of doing what it was asked for.
fn refusal(asked: &Asked, manners: &Manners) -> Option<String> {
    let page = |status: &str, fields: &str, page: &str| {
        let length = page.len();
        format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{page}")
    };
    if let Some(credentials) = manners.credentials {
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        if value(&asked.fields, "proxy-authorization") != Some(&format!("Basic {encoded}")) {
            let fields = "Proxy-Authenticate: Basic realm=\"corp\"\r\n";
            return Some(page("407 Proxy Authentication Required", fields, "who are you"));
        }
    }
    let host = host_and_port(asked).0;
    if host.ends_with("forbidden.test") {
        let html = "<html><style>p { color: red }</style><p>Blocked by\n policy 7</p></html>";
        return Some(page("403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0\r\n", html));
    }
    let tunnel = asked.method == "CONNECT" && !asked.target.ends_with(":443");
    (manners.tunnels_to_443_alone && tunnel).then(|| page("403 Forbidden", "", "only to 443"))
}

fn host_and_port(asked: &Asked) -> (String, u16) {
    let authority = match asked.target.strip_prefix("http://") {
        Some(rest) => rest.split('/').next().expect("one piece at least"),
        None => &asked.target,
    };
    match authority.rsplit_once(':') {
        Some((host, port)) => (host.to_owned(), port.parse().unwrap()),
        None => (authority.to_owned(), 80),
    }
}

fn connect(asked: &Asked, shared: &Shared) -> io::Result<TcpStream> {
    let port = match host_and_port(asked).1 {
        443 => shared.origin.0,
        80 => shared.origin.1,
        other => other,
    };
    let origin = TcpStream::connect(("127.0.0.1", port))?;
    shared.keep(&origin);
    Ok(origin)
}

/// Copies both ways until both sides have ended.
fn relay(
    mut client: Client,
    mut origin: TcpStream,
    mut upward: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> io::Result<()> {
    let mut client_ended = false;
    loop {
        let (client_ready, origin_ready) = ready(&mut client, &origin, client_ended)?;
        if client_ready {
            let piece = client.read()?;
            if piece.is_empty() {
                client_ended = true;
                origin.shutdown(Shutdown::Write)?;
            }
            origin.write_all(&upward(piece))?;
        }
        if origin_ready {
            let mut piece = vec![0; 16 << 10];
            let length = origin.read(&mut piece)?;
            if length == 0 {
                return client.close();
            }
            client.write(&piece[..length])?;
        }
    }
}

/// Waits for either side; which have something to read, or their end.
fn ready(client: &mut Client, origin: &TcpStream, client_ended: bool) -> io::Result<(bool, bool)> {
    if client.has_decrypted() {
        return Ok((true, false));
    }
    let wanted = if client_ended { PollFlags::empty() } else { PollFlags::POLLIN };
    let mut fds = [
        PollFd::new(client.socket().as_fd(), wanted),
        PollFd::new(origin.as_fd(), PollFlags::POLLIN),
    ];
    poll(&mut fds, PollTimeout::NONE)?;
    let [client, origin] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    if client_ended && !client.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok((!client.is_empty(), !origin.is_empty()))
}

/// What a client sends, as requests that come one after the other.
#[derive(Default)]
struct Requests {
    /// What came and is not passed on.
    bytes: Vec<u8>,
    /// Bytes of the present body that are to come.
    body: u64,
}

struct Head {
    asked: Asked,
    version: String,
}

impl Requests {
    /// Takes a head, if a whole one is there.
    fn next_head(&mut self) -> Option<Head> {
        let end = self.bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
        let head: Vec<u8> = self.bytes.drain(..end).collect();
        let text = String::from_utf8(head).expect("scenarios send UTF-8");
        let mut lines = text.trim_end().split("\r\n");
        let start: Vec<_> = lines.next().expect("a start line").split(' ').collect();
        let [method, target, version] = start[..] else { panic!("start line {start:?}") };
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            (name.to_owned(), value.to_owned())
        };
        let fields = lines.map(field).collect();
        let asked = Asked { method: method.to_owned(), target: target.to_owned(), fields };
        Some(Head { asked, version: version.to_owned() })
    }

    /// A head as the origin gets it; its body follows.
    fn begin(&mut self, head: &Head) -> Vec<u8> {
        let Asked { method, target, fields } = &head.asked;
        let length = value(fields, "content-length").map(|length| length.parse().unwrap());
        self.body = length.unwrap_or(0);
        let rest = target.strip_prefix("http://").expect("absolute form");
        let path = rest.find('/').map_or("*", |at| &rest[at..]);
        let mut bytes = format!("{method} {path} {}\r\n", head.version);
        for (name, value) in
            fields.iter().filter(|it| !it.0.eq_ignore_ascii_case("proxy-authorization"))
        {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        bytes.into_bytes()
    }

    /// All that can be passed on.
    fn next(&mut self, shared: &Shared) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let length = self.bytes.len().min(usize::try_from(self.body).unwrap());
            out.extend(self.bytes.drain(..length));
            self.body -= length as u64;
            if self.body > 0 {
                return out;
            }
            let Some(head) = self.next_head() else { return out };
            shared.asked.lock().unwrap().push(head.asked.clone());
            out.extend(self.begin(&head));
        }
    }
}
