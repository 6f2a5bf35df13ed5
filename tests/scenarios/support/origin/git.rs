//! Git's smart HTTP, by git's own CGI program over bare repositories in a temporary folder.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::answer::Answer;
use super::log::Seen;

pub(super) fn serve(seen: &Seen, answer: &mut Answer<'_>, folder: &Path) -> io::Result<()> {
    let output = run_cgi(seen, folder)?;
    let end = output.windows(4).position(|w| w == b"\r\n\r\n").expect("a CGI head");
    let head = String::from_utf8(output[..end].to_vec()).unwrap();
    let mut status = 200;
    let mut fields = Vec::new();
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ").expect("a CGI field");
        if name == "Status" {
            status = value[..3].parse().unwrap();
        } else {
            fields.push((name, value));
        }
    }
    fields.push(("Transfer-Encoding", "chunked"));
    answer.head(status, &fields)?;
    for piece in output[end + 4..].chunks(8000) {
        answer.chunk(piece)?;
    }
    answer.last_chunk(&[])
}

fn run_cgi(seen: &Seen, folder: &Path) -> io::Result<Vec<u8>> {
    let body = seen.body.whole().expect("a small repository");
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The client is the same user as the owner; who it is does not matter here.
        .env("REMOTE_USER", "scenario")
        .env("REQUEST_METHOD", &seen.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    for (field, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = seen.field(field) {
            command.env(variable, value);
        }
    }
    let mut cgi = command.spawn()?;
    let mut stdin = cgi.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(body));
        cgi.wait_with_output().map(|output| output.stdout)
    })
}
