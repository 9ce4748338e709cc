//! A real devpi on loopback, as an upstream.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::process::{Home, counterpart, free_port, until};

/// A running devpi with `root/pypi`, a mirror, and `root/stage`, which has one wheel that is nowhere else.
pub struct Devpi {
    child: Child,
    port: u16,
}

impl Devpi {
    /// Starts one that mirrors the index at this URL; `project` is what its stage has, in version 1.0.
    pub fn start(home: &Home, mirrored: &str, project: &str) -> Self {
        let folder = home.path("devpi");
        let mut init = home.client(counterpart("devpi", "devpi-init"));
        home.run(init.args(["--no-root-pypi", "--serverdir"]).arg(&folder));

        let port = free_port();
        let log = home.path("devpi.log");
        let file = File::create(&log).expect("a log");
        let mut server = home.client(counterpart("devpi", "devpi-server"));
        server.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--serverdir"]).arg(&folder);
        // Its own group, so that whatever it starts ends with it.
        server.process_group(0).stdout(file.try_clone().expect("a log")).stderr(file);
        let mut devpi = Self { child: server.spawn().expect("devpi starts"), port };
        until("devpi listens", || {
            if let Some(status) = devpi.child.try_wait().expect("a child") {
                panic!("devpi ended with {status}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        let mut python = home.client(counterpart("devpi", "python"));
        python.args(["-c", include_str!("devpi.py"), &format!("http://127.0.0.1:{port}"), mirrored, project]);
        // On loopback, whatever proxy leads outside.
        home.run(python.env("no_proxy", "127.0.0.1").stdin(Stdio::null()));
        devpi
    }

    /// The simple page of one of its indexes.
    pub fn index(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}/+simple/", self.port)
    }

    /// Ends it as a crash would.
    pub fn kill(self) {}
}

impl Drop for Devpi {
    fn drop(&mut self) {
        // Fails when it is gone already, which is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
