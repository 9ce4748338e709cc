//! Nodes far from each other: each is on a network of its own, and what they have in common is the internet, where an
//! index and a homeserver are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::commands::Node;
use super::synapse::{Account, PASSWORD, Synapse};
use super::tunnel::Tunnel;
use crate::clients::process::{Home, counterpart, prefixed};
use crate::clients::tool::{Tree, tree};
use crate::support::network::{Machine, Network};
use crate::support::process::{arguments, asked};
use crate::support::{Answer, File, Process, Project, Upstream, get, installable};

/// Longer than a word takes through a homeserver on a busy machine, with the pauses between a node's events.
const LEARNING: Duration = Duration::from_secs(60);

/// Where they all are.
pub struct World(Network);

impl World {
    /// `None` where namespaces are not allowed, which is known.
    pub fn start() -> Option<Self> {
        Network::start().map(Self)
    }

    /// A machine that has nothing yet.
    pub fn machine(&self) -> Machine {
        self.0.elsewhere()
    }

    /// An index without packages.
    pub fn index(&self) -> Index {
        let (machine, upstream) = (self.machine(), Upstream::start());
        let at = SocketAddr::from((machine.address(), 8000));
        let door = Tunnel::from(&machine, at, upstream.host().parse().expect("its address"));
        Index { door: Some(door), at, machine, upstream }
    }

    /// Where nodes reach a homeserver.
    pub fn homeserver(&self, synapse: &Synapse) -> Homeserver {
        let machine = self.machine();
        let at = SocketAddr::from((machine.address(), 8008));
        let door = synapse.url().strip_prefix("http://").and_then(|url| url.parse().ok());
        Homeserver { door: Tunnel::from(&machine, at, door.expect("an address")), _machine: machine }
    }

    /// A node in front of that index, with these lines in its `dpm.toml`.
    pub fn node(&self, index: &Index, settings: &str) -> Member {
        let machine = self.machine();
        let node = Node { dir: tempfile::tempdir().expect("a folder"), process: None };
        let (settings, upstream) = (settings.to_owned(), index.url());
        let mut member = Member {
            node,
            door: None,
            inside: String::new(),
            machine,
            upstream,
            settings,
            home: Home::bare(),
        };
        member.revive();
        member
    }
}

/// A homeserver as the world sees it.
pub struct Homeserver {
    door: Tunnel,
    _machine: Machine,
}

impl Homeserver {
    pub fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }
}

/// A package index.
pub struct Index {
    door: Option<Tunnel>,
    at: SocketAddr,
    machine: Machine,
    pub upstream: Upstream,
}

impl Index {
    pub fn url(&self) -> String {
        format!("http://{}/simple/", self.at)
    }

    /// Publishes a package that pip can install, with so many bytes in it, and that needs these.
    pub fn publish(&self, name: &str, needs: &[&str], size: usize) -> Project {
        let project = Project::of(name, installable(name, needs, size));
        let mut entry = project.entry(&self.upstream);
        entry["url"] = format!("http://{}{}", self.at, project.file_path()).into();
        entry["requires-python"] = ">=3.6".into();
        project.list(&self.upstream, &[entry]);
        self.upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
        project
    }

    /// Its cable is out: after a few seconds the router says of it that it cannot be reached.
    pub fn unplug(&self) {
        self.machine.unplug();
    }

    /// Nothing listens there any more: who connects is refused.
    pub fn close(&mut self) {
        self.door = None;
    }
}

/// A node in the world, and a user with pip beside it.
pub struct Member {
    /// Ends first.
    pub node: Node,
    door: Option<Tunnel>,
    /// Where its clients find it, on its machine.
    inside: String,
    pub machine: Machine,
    upstream: String,
    settings: String,
    home: Home,
}

impl Member {
    /// Starts it, or starts it again on what it had.
    pub fn revive(&mut self) {
        let mut command = self.machine.command(env!("CARGO_BIN_EXE_dpm"));
        command.args(arguments(&self.node.data(), &self.upstream, &self.settings)).env("DPM_SWARM", "on");
        let mut process = Process::spawn(command);
        let at = process.url.strip_prefix("http://").expect("an address").parse().expect("an address");
        let door = Tunnel::to(&self.machine, at);
        self.inside = std::mem::replace(&mut process.url, format!("http://{}", door.address));
        (self.door, self.node.process) = (Some(door), Some(process));
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.node.process.take().expect("it runs").kill();
    }

    pub fn login(&self, homeserver: &Homeserver, account: &Account) {
        let file = self.node.file("password", PASSWORD);
        let file = file.to_str().expect("UTF-8");
        let words =
            ["login", "--homeserver", &homeserver.url(), "--user", &account.name, "--password-file", file];
        assert_eq!(self.node.says(&words), format!("logged in as {}\n", account.user));
    }

    /// What a client is answered.
    pub fn get(&self, path: &str) -> Answer {
        get(&self.node.process.as_ref().expect("it runs").url(path))
    }

    /// What a command says of it.
    pub fn order(&self, words: &[&str]) -> Value {
        let data = self.node.data();
        asked(&[words, &["--data", data.to_str().expect("UTF-8")]].concat())
    }

    /// How many answers came from there: `miss`, `peer`, `room`, …
    pub fn answers(&self, cache: &str) -> u64 {
        self.order(&["status"])["answers"][cache]["answers"].as_u64().unwrap_or(0)
    }

    /// What it knows of a room.
    pub fn show(&self, room: &str) -> Value {
        self.node.json(&["show", room])
    }

    /// Waits until it knows that somebody's node has so many files of a room.
    #[track_caller]
    pub fn learns(&self, room: &str, of: &Account, files: u64) {
        let (begun, mut shown) = (Instant::now(), Value::Null);
        while begun.elapsed() < LEARNING {
            shown = self.show(room);
            if row(&shown, of).is_some_and(|row| row["known"] == true && row["files"] == files) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("waited in vain until {files} files of {} are known: {shown:#}", of.user);
    }

    /// Puts a file where pip finds it by its name.
    pub fn write(&self, name: &str, text: &str) {
        self.home.write(name, text);
    }

    /// Installs with pip into a folder of that name; gives every file.
    pub fn pip(&self, packages: &[&str], folder: &str) -> Tree {
        let text = self.try_pip(packages, folder);
        text.unwrap_or_else(|text| panic!("{packages:?} cannot be installed:\n{text}"))
    }

    /// The same, or what pip says instead.
    pub fn try_pip(&self, packages: &[&str], folder: &str) -> Result<Tree, String> {
        let mut pip = self.home.client(counterpart("pip", "pip"));
        pip.args(["install", "--no-cache-dir", "--no-compile", "--retries", "0", "--target", folder]);
        pip.arg("--index-url").arg(format!("{}/pypi/simple/", self.inside)).args(packages);
        let (status, text) = self.home.try_run(&mut prefixed(&self.machine.enter(), &pip));
        status.success().then(|| tree(&self.home.path(folder))).ok_or(text)
    }
}

/// What `dpm room show` says of somebody's node.
pub fn row<'v>(shown: &'v Value, of: &Account) -> Option<&'v Value> {
    shown["members"].as_array()?.iter().find(|row| row["user"] == of.user.as_str())
}

/// Lines of a `requirements.txt` that takes exactly these.
pub fn locked(projects: &[&Project]) -> String {
    let line = |p: &&Project| format!("{}==1.0 --hash=sha256:{}\n", p.name, p.sha256);
    projects.iter().map(line).collect()
}
