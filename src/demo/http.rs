//! As much HTTP/1.1 as the demo's two ends need between themselves: a head, then a body by
//! content-length or in chunks. The gate in between speaks all of it.

use std::io::{self, BufRead, Read};

/// A head of ours is a few hundred bytes.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// The lines of a message's head, without the empty one.
pub(super) fn head(stream: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut limited = stream.take(HEAD_BYTES_MAX);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// The value of a field, if it is there.
pub(super) fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A body whose length the head says.
pub(super) fn sized_body(head: &[String], stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let length = field(head, "content-length").and_then(|value| value.parse().ok());
    let length: usize = length.ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The next chunk of a chunked body; none at its end.
pub(super) fn chunk(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = line(stream)?;
    let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; size];
    stream.read_exact(&mut bytes)?;
    line(stream)?;
    Ok((size > 0).then_some(bytes))
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.take(HEAD_BYTES_MAX).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_to_their_end() {
        let mut stream = &b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"[..];
        let start = head(&mut stream).unwrap();
        assert_eq!(start[0], "POST / HTTP/1.1");
        assert_eq!(sized_body(&start, &mut stream).unwrap(), b"hi");
        let mut stream = &b"5\r\nhello\r\n0\r\n\r\n"[..];
        assert_eq!(chunk(&mut stream).unwrap().unwrap(), b"hello");
        assert!(chunk(&mut stream).unwrap().is_none());
        assert!(head(&mut &b"GET"[..]).is_err());
    }
}
