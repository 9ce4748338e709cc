//! A real registry on loopback, as an origin: Debian's docker-registry behind a door that counts.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::fake::manifest_path;
use super::image::Image;
use super::tokens::{PASSWORD, Tokens, USER};
use super::tools::Tools;
use crate::clients::process::{Home, counterpart, until};
use crate::support::Upstream;
use crate::support::upstream::{ANY, Asked};

/// Who may have what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody, everything.
    Open,
    /// [`USER`] with [`PASSWORD`], in every request.
    Basic,
    /// Who brings a token of [`Tokens`].
    Token,
}

/// [`USER`] and [`PASSWORD`] as `htpasswd -B` writes them, at the least cost that bcrypt has.
const HTPASSWD: &str = "ada:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

/// Longest token lifetime that a test needs.
const LIFETIME_SECONDS: u64 = 300;

/// A running registry. It listens on a socket file, so that no two tests want one port.
pub struct Registry {
    child: Child,
    auth: Auth,
    /// Counts what clients ask. A path of it may be given another answer.
    pub door: Upstream,
    /// Where pushes go: bytes as they come, nothing counted.
    back_door: String,
    pub tokens: Option<Tokens>,
}

impl Registry {
    /// Starts one that keeps its things in this home.
    pub fn start(home: &Home, auth: Auth) -> Self {
        let folder = home.path("registry");
        std::fs::create_dir_all(folder.join("storage")).expect("a folder");
        let socket = folder.join("socket");
        let tokens = (auth == Auth::Token).then(|| Tokens::start(LIFETIME_SECONDS));
        let access = match auth {
            Auth::Open => "{}".to_owned(),
            Auth::Basic => {
                std::fs::write(folder.join("htpasswd"), HTPASSWD).expect("a file");
                format!(
                    r#"{{"htpasswd": {{"realm": "test", "path": "{}"}}}}"#,
                    folder.join("htpasswd").display()
                )
            }
            Auth::Token => tokens.as_ref().expect("a token server").settings(&folder),
        };
        let config = folder.join("config.yml");
        // JSON is YAML.
        let settings = format!(
            "version: 0.1\nlog: {{level: info}}\nauth: {access}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n\
             http: {{net: unix, addr: \"{}\", secret: none}}\n",
            folder.join("storage").display(),
            socket.display()
        );
        std::fs::write(&config, settings).expect("a file");

        let log = folder.join("log");
        let file = File::create(&log).expect("a log");
        let mut server = home.client(counterpart("oci", "docker-registry"));
        server.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none").stdin(Stdio::null());
        server.process_group(0).stdout(file.try_clone().expect("a log")).stderr(file);
        let mut child = server.spawn().expect("docker-registry starts");
        until("the registry listens", || {
            if let Some(status) = child.try_wait().expect("a child") {
                panic!(
                    "the registry ended with {status}\n{}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            UnixStream::connect(&socket).ok()
        });
        let door = Upstream::start();
        let behind = socket.clone();
        door.route(ANY, move |asked, out| hand_on(&behind, asked, out));
        Self { child, auth, door, back_door: back_door(socket), tokens }
    }

    /// `host:port` for clients.
    pub fn host(&self) -> String {
        self.door.host()
    }

    /// Who may pull, and push.
    pub fn login(&self) -> Option<(&'static str, &'static str)> {
        (self.auth != Auth::Open).then_some((USER, PASSWORD))
    }

    /// Pushes an image with skopeo, as `team/app:tag`.
    pub fn push(&self, tools: &Tools<'_>, image: &Image, reference: &str) {
        tools.push(image, &format!("{}/{reference}", self.back_door), self.login());
    }

    /// Puts the root of an image there whose other parts are there already, byte for byte. Of an open registry.
    pub fn put(&self, name: &str, tag: &str, image: &Image) {
        let mut registry = TcpStream::connect(&self.back_door).expect("the registry");
        let (path, root) = (manifest_path(name, tag), &image.root);
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.back_door, root.media_type, root.size
        );
        registry.write_all(&[head.as_bytes(), image.root_bytes()].concat()).expect("it listens");
        let mut answer = String::new();
        registry.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }

    /// How often a path was asked for with this method.
    pub fn hits(&self, method: &str, path: &str) -> usize {
        self.door.asked(path).iter().filter(|asked| asked.method == method).count()
    }

    /// Ends it as a crash would. The door stays, with nobody behind it.
    pub fn kill(&mut self) {
        // Fails when it is gone already, which is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One question, one connection: an answer is over when the registry closes it.
fn hand_on(socket: &Path, asked: &Asked, out: &mut TcpStream) -> std::io::Result<()> {
    let mut registry = UnixStream::connect(socket)?;
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.path);
    for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    registry.write_all(head.as_bytes())?;
    std::io::copy(&mut registry, out)?;
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

/// A port whose bytes go to the socket file and back.
fn back_door(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // Whoever comes after its end is turned away by the closed connection.
            let Ok(mut registry) = UnixStream::connect(&socket) else { continue };
            let (mut to, mut from) = match (registry.try_clone(), client.try_clone()) {
                (Ok(to), Ok(from)) => (to, from),
                _ => continue,
            };
            std::thread::spawn(move || {
                pass(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                pass(&mut registry, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    address
}

/// Copies until either side is gone: that ends the connection, and is the whole message.
fn pass(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to);
}
