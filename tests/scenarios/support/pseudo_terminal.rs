//! A shell with job control on a pseudo-terminal, typed into and read by a test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::pty::openpty;

use super::bench::Bench;
use super::wait_for;

/// An interactive shell in the bench's environment.
pub(crate) struct Shell {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    read_until: usize,
    device: PathBuf,
    child: Child,
}

impl Shell {
    pub(crate) fn start(bench: &Bench) -> Self {
        let pair = openpty(None, None).unwrap();
        let (master, slave) = (File::from(pair.master), File::from(pair.slave));
        let device = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
        // A session of its own with the terminal as its controlling one, as a login would have.
        // Whatever ignores Ctrl-C around the tests (`nohup`, a job in the background) would be inherited.
        let mut command = bench.command("env");
        command.args([
            "--default-signal",
            "setsid",
            "--ctty",
            "bash",
            "--norc",
            "--noprofile",
            "--noediting",
            "-i",
        ]);
        command.env("PS1", "ready> ");
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        // The command's copies of the terminal are closed here, or its end would never show.
        drop(command);
        let screen = Arc::new(Mutex::new(String::new()));
        read_into(master.try_clone().unwrap(), Arc::clone(&screen));
        let mut shell = Self { keyboard: master, screen, read_until: 0, device, child };
        shell.expect("ready> ");
        shell
    }

    /// Types this; control characters are what the keys would send.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this appears behind what was expected last; returns what stood before it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(text, || {
                seen = self.screen.lock().unwrap()[self.read_until..].to_owned();
                seen.find(text)
            })
        }));
        let at = found.unwrap_or_else(|_| panic!("{text:?} did not appear in {seen:?}"));
        self.read_until += at + text.len();
        seen[..at].to_owned()
    }

    /// Gives the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(&self.device);
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        assert!(stty.status().unwrap().success());
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // SIGKILL ends the session's leader, and the kernel hangs up on the rest.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_into(mut master: File, screen: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        // The last writer's end shows as an error (EIO) on Linux.
        while let Ok(n @ 1..) = master.read(&mut piece) {
            screen.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    });
}
