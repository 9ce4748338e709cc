//! What stands between a node and its homeserver: counts what is asked, and answers instead when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long it holds what it does not answer.
const HOLD: Duration = Duration::from_secs(120);

/// What is answered instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status line, this content type and this body.
    Says(&'static str, &'static str, &'static str),
    /// Nothing.
    Silence,
    /// The connection ends.
    Cut,
    /// What it really says, so much later.
    Late(Duration),
}

/// What a proxy says whose homeserver is gone.
pub const BAD_GATEWAY: Fault = Fault::Says("502 Bad Gateway", "text/html", "<html>bad gateway</html>");

/// What a hotel's network says to everything.
pub const GARBAGE: Fault = Fault::Says("200 OK", "text/html", "<html>welcome to our network</html>");

type Rule = Arc<dyn Fn(&str, &str) -> Option<Fault> + Send + Sync>;

/// A reverse proxy, one thread a connection, one request a connection.
pub struct Door {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<(Instant, String, String)>>,
}

impl Door {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { to, rule: Mutex::new(Arc::new(|_, _| None)), asked: Mutex::default() });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = theirs.clone();
                // An error is a client that went away, or a homeserver that was killed.
                std::thread::spawn(move || attend(&socket, &shared));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on `rule` says, of a method and a path, what is answered instead.
    pub fn rule(&self, rule: impl Fn(&str, &str) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Arc::new(rule);
    }

    /// Everything is answered so.
    pub fn all(&self, fault: Fault) {
        self.rule(move |_, _| Some(fault));
    }

    /// Everything goes through.
    pub fn open(&self) {
        self.rule(|_, _| None);
    }

    /// When what was asked whose path has this in it.
    pub fn asked(&self, part: &str) -> Vec<Instant> {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|(_, _, path)| path.contains(part)).map(|(at, _, _)| *at).collect()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }
}

fn attend(client: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (Vec::new(), 0);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if !lower.starts_with("connection:") {
            head.push(line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    shared.asked.lock().unwrap().push((Instant::now(), method.into(), path.into()));
    let rule = shared.rule.lock().unwrap().clone();
    let mut out = client.try_clone()?;
    match rule(method, path) {
        Some(Fault::Cut) => return client.shutdown(Shutdown::Both),
        Some(Fault::Silence) => {
            // Until the other side gives up.
            client.set_read_timeout(Some(HOLD))?;
            let _ = reader.read(&mut [0]);
            return Ok(());
        }
        Some(Fault::Says(status, kind, body)) => {
            let length = body.len();
            return write!(
                out,
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
                 connection: close\r\n\r\n{body}"
            );
        }
        Some(Fault::Late(pause)) => std::thread::sleep(pause),
        None => {}
    }
    let server = TcpStream::connect(shared.to)?;
    let mut to = server.try_clone()?;
    to.write_all(format!("{first}{}connection: close\r\n\r\n", head.concat()).as_bytes())?;
    to.write_all(&body)?;
    // A client that goes away ends the homeserver's side, too.
    let (theirs, ours) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut &theirs, &mut std::io::sink());
        let _ = ours.shutdown(Shutdown::Both);
    });
    let copied = std::io::copy(&mut &server, &mut out);
    client.shutdown(Shutdown::Both)?;
    copied.map(|_| ())
}
