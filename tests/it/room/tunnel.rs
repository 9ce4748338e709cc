//! Ways for bytes between this process and a machine of a test's network: sockets in the file system know no networks.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::lan::role::Role;
use crate::support::network::Machine;

/// A way to a machine, or from it. Closed when dropped.
pub struct Tunnel {
    _role: Role,
    _dir: tempfile::TempDir,
    /// Where it begins.
    pub address: SocketAddr,
}

impl Tunnel {
    /// From a port of this process to what listens on that machine.
    pub fn to(machine: &Machine, address: SocketAddr) -> Self {
        let (dir, path) = socket();
        let role = play(machine, End::Path(path.clone()), End::Port(address));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        carry(End::Path(path), move || Ok(Box::new(listener.accept()?.0)));
        Self { _role: role, _dir: dir, address }
    }

    /// From an address of that machine to what listens in this process.
    pub fn from(machine: &Machine, address: SocketAddr, to: SocketAddr) -> Self {
        let (dir, path) = socket();
        let listener = UnixListener::bind(&path).expect("a socket");
        carry(End::Port(to), move || Ok(Box::new(listener.accept()?.0)));
        let role = play(machine, End::Port(address), End::Path(path));
        Self { _role: role, _dir: dir, address }
    }
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    (dir, path)
}

/// The half of it that is over there; it listens when this returns.
fn play(machine: &Machine, from: End, to: End) -> Role {
    let role = Role::play(machine, "tunnel", &[("FROM", from.text()), ("TO", to.text())]);
    role.hear("that it listens", |line| (line == "listens").then_some(()));
    role
}

/// Not a test: what [`play`] starts.
pub fn plays(said: impl FnOnce()) {
    let end = |name| End::parse(&std::env::var(name).expect("an end"));
    let to = end("TO");
    match end("FROM") {
        End::Port(at) => {
            let listener = TcpListener::bind(at).expect("an address of this machine");
            carry(to, move || Ok(Box::new(listener.accept()?.0)));
        }
        End::Path(at) => {
            let listener = UnixListener::bind(at).expect("a socket");
            carry(to, move || Ok(Box::new(listener.accept()?.0)));
        }
    }
    said();
}

/// Where half a tunnel begins or ends.
#[derive(Clone)]
enum End {
    Path(PathBuf),
    Port(SocketAddr),
}

impl End {
    fn text(&self) -> String {
        match self {
            Self::Path(path) => path.to_str().expect("UTF-8").to_owned(),
            Self::Port(address) => address.to_string(),
        }
    }

    fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Path(Path::new(text).to_owned()), Self::Port)
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Path(path) => Box::new(UnixStream::connect(path)?),
            Self::Port(address) => Box::new(TcpStream::connect(address)?),
        })
    }
}

/// Joins whoever comes with a new connection to that end, for as long as the process lives.
fn carry(to: End, mut come: impl FnMut() -> io::Result<Box<dyn Stream>> + Send + 'static) {
    std::thread::spawn(move || {
        while let Ok(near) = come() {
            let to = to.clone();
            // Whoever cannot be led on sees the connection end.
            std::thread::spawn(move || join(near, to.connect()?));
        }
    });
}

fn join(near: Box<dyn Stream>, far: Box<dyn Stream>) -> io::Result<()> {
    let (mut from, mut to) = (far.again()?, near.again()?);
    std::thread::spawn(move || pour(&mut *from, &mut *to));
    let (mut from, mut to) = (near, far);
    pour(&mut *from, &mut *to);
    Ok(())
}

/// Until one side ends, which the other is told.
fn pour(from: &mut dyn Stream, to: &mut dyn Stream) {
    // Errors are ends.
    let _ = io::copy(from, to);
    let _ = to.end();
}

trait Stream: Read + Write + Send {
    fn again(&self) -> io::Result<Box<dyn Stream>>;
    fn end(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn again(&self) -> io::Result<Box<dyn Stream>> {
        // What is handed on in pieces would wait 40 ms for receipts.
        self.set_nodelay(true)?;
        Ok(Box::new(self.try_clone()?))
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for UnixStream {
    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.try_clone()?))
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
