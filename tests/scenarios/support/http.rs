//! A client of one request for the pages of the dashboard, with every field line under control.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::PATIENCE;

/// An answer, read to the end of its connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// `GET path` from a port of the loopback, with these field lines (each ending in CRLF).
pub(crate) fn get(port: u16, path: &str, fields: &str) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The same with the host that a browser would name.
pub(crate) fn get_page(port: u16, path: &str) -> Answer {
    get(port, path, &format!("Host: 127.0.0.1:{port}\r\n"))
}
