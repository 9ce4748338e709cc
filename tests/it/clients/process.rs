//! Child processes: real clients and whole dpms, each with a home of its own and a limit on its time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::network::Machine;

/// Longest that a client may take: pip installs the locked set in 20 s on two busy cores.
const CLIENT_TIME: Duration = Duration::from_secs(300);

/// Longest until a server listens, and until it has stopped.
pub const SERVER_TIME: Duration = Duration::from_secs(60);

/// Where `tests/counterparts.sh` installs.
pub fn counterparts() -> PathBuf {
    let target = option_env!("CARGO_TARGET_DIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    Path::new(target).join("counterparts")
}

/// A counterpart's program. Fails the test when it is not installed.
pub fn counterpart(name: &str, program: &str) -> PathBuf {
    let path = counterparts().join(name).join("bin").join(program);
    assert!(path.exists(), "{} is not there: run tests/counterparts.sh", path.display());
    path
}

/// A user of this machine with a new home. Left where it is when the test fails.
pub struct Home {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
    outputs: AtomicUsize,
}

impl Home {
    /// A home with what the machine's user has told pip and uv, so that there is the same to learn.
    pub fn new() -> Self {
        let home = Self::bare();
        for file in [".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml"] {
            let theirs = std::env::home_dir().expect("a home").join(file);
            if let Ok(text) = std::fs::read_to_string(theirs) {
                home.write(file, &text);
            }
        }
        home
    }

    /// A home with nothing in it.
    pub fn bare() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { path: dir.path().to_owned(), dir: Some(dir), outputs: AtomicUsize::new(0) }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn read(&self, relative: &str) -> Option<String> {
        std::fs::read_to_string(self.path(relative)).ok()
    }

    /// A client of this user that is told nothing but by its arguments and the home's files.
    pub fn client(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program.as_ref());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if (text.starts_with("PIP_") || text.starts_with("UV_")) && !text.contains("CERT") {
                command.env_remove(name);
            }
        }
        command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("UV_PYTHON_DOWNLOADS", "never");
        command
    }

    /// dpm as this user starts it: it sees the machine's environment, and a pip on its path. Without a swarm, for this
    /// machine's network is not the tests'.
    pub fn dpm(&self) -> Command {
        let mut dpm = self.command(env!("CARGO_BIN_EXE_dpm").as_ref());
        dpm.env("DPM_SWARM", "off");
        dpm
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.path).current_dir(&self.path).stdin(Stdio::null());
        for name in
            ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "DPM_CONFIG", "DPM_DATA", "DPM_UPSTREAM", "DPM_LISTEN"]
        {
            command.env_remove(name);
        }
        // The system's own user keeps data in a system place, which tests have no business in.
        command.env("XDG_DATA_HOME", self.path("data"));
        let bin = counterpart("pip", "pip");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            [bin.parent().expect("a folder").to_owned()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(path).expect("a path"));
        command
    }

    /// Runs a command to its good end and gives what it printed.
    pub fn run(&self, command: &mut Command) -> String {
        let (status, text) = self.try_run(command);
        assert!(status.success(), "{command:?}\n{status}\n{text}");
        text
    }

    /// Runs a command to its end and gives what it printed, errors included.
    pub fn try_run(&self, command: &mut Command) -> (ExitStatus, String) {
        let file = self.path(&format!("output-{}", self.outputs.fetch_add(1, Relaxed)));
        let out = File::create(&file).expect("a file");
        command.stdout(out.try_clone().expect("a file")).stderr(out);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let status = wait(&mut child, CLIENT_TIME);
        let text = String::from_utf8_lossy(&std::fs::read(&file).expect("its output")).into_owned();
        let Some(status) = status else {
            child.kill().expect("it can be ended");
            child.wait().expect("it ends");
            panic!("{command:?} took longer than {CLIENT_TIME:?}\n{text}");
        };
        (status, text)
    }

    /// The indexes that dpm learns here.
    pub fn learned(&self) -> Vec<String> {
        let text = self.run(self.dpm().args(["config", "check", "--json"]));
        // Remarks of the log may stand before it.
        let json = &text[text.find('{').unwrap_or_else(|| panic!("no JSON: {text}"))..];
        let check: Value = serde_json::from_str(json).expect("JSON");
        let indexes = check["pypi"].as_array().expect("indexes").iter();
        indexes.map(|index| index["url"].as_str().expect("a URL").to_owned()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("what happened is in {}", dir.keep().display());
        }
    }
}

/// Where a dpm runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// On this machine.
    Here,
    /// In a network of its own that has loopback and nothing else.
    CutOff,
    /// On a machine of a test's own network.
    Machine,
}

/// A `dpm serve` as a child. Stopped, and its end looked at, when dropped.
pub struct Dpm<'a> {
    home: &'a Home,
    child: Child,
    address: String,
    log: PathBuf,
    net: Net,
    /// The words before a command that is to run where it runs.
    enter: Vec<OsString>,
}

impl<'a> Dpm<'a> {
    /// Starts it, on a free port unless the arguments say otherwise, and waits until it listens.
    pub fn serve(home: &'a Home, args: &[&str]) -> Self {
        Self::serve_in(Net::Here, home, args)
    }

    pub fn serve_in(net: Net, home: &'a Home, args: &[&str]) -> Self {
        let mut dpm = home.dpm();
        dpm.arg("serve").arg("--data").arg(home.path("dpm"));
        if !args.contains(&"--listen") {
            dpm.args(["--listen", "127.0.0.1:0"]);
        }
        dpm.args(args);
        Self::start(net, home, dpm, Vec::new())
    }

    /// Starts `dpm serve` on a machine of its own, with a swarm and these arguments only.
    pub fn serve_at(machine: &Machine, home: &'a Home, args: &[&str]) -> Self {
        let mut dpm = home.dpm();
        dpm.env_remove("DPM_SWARM").env("DPM_DATA", home.path("dpm")).arg("serve").args(args);
        Self::start(Net::Machine, home, dpm, machine.enter())
    }

    fn start(net: Net, home: &'a Home, dpm: Command, mut enter: Vec<OsString>) -> Self {
        let mut command = match net {
            Net::Here => dpm,
            Net::Machine => prefixed(&enter, &dpm),
            Net::CutOff => {
                let mut script: Vec<OsString> = match rustix::process::geteuid().is_root() {
                    true => vec!["unshare".into(), "-n".into()],
                    false => vec!["unshare".into(), "-Urn".into()],
                };
                // Each program takes the place of the one before: the child's id is dpm's in the end.
                script.extend(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"].map(OsString::from));
                prefixed(&script, &dpm)
            }
        };
        let log = home.path(&format!("log-{}", home.outputs.fetch_add(1, Relaxed)));
        let file = File::create(&log).expect("a log");
        let mut child =
            command.stdout(Stdio::null()).stderr(file).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let address = until("it listens", || {
            let text = std::fs::read_to_string(&log).expect("its log");
            if let Some(status) = child.try_wait().expect("a child") {
                panic!("{command:?} ended with {status}\n{text}");
            }
            let (_, rest) = text.split_once("clients: http://")?;
            Some(rest.split_once('/')?.0.to_owned())
        });
        if net == Net::CutOff {
            enter = ["nsenter", "--target", &child.id().to_string(), "--net"].map(OsString::from).into();
            if !rustix::process::geteuid().is_root() {
                enter.extend(["--user", "--preserve-credentials"].map(OsString::from));
            }
        }
        Self { home, child, address, log, net, enter }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The index that clients are told.
    pub fn index(&self) -> String {
        format!("{}/pypi/simple/", self.url())
    }

    /// The command, run where this dpm can be reached.
    pub fn near(&self, command: Command) -> Command {
        match self.net {
            Net::Here => command,
            Net::CutOff | Net::Machine => prefixed(&self.enter, &command),
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be ended");
        self.child.wait().expect("it ends");
        // It has nothing more to say, and no good end.
        std::mem::forget(self);
    }

    pub fn status(&self) -> Value {
        let text = self.order(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// What a command of dpm says of this node.
    pub fn order(&self, words: &[&str]) -> String {
        let mut dpm = self.home.dpm();
        dpm.args(words).arg("--data").arg(self.home.path("dpm"));
        self.home.run(&mut dpm)
    }

    /// Bytes of artifacts that came from upstreams since it started.
    pub fn upstream_bytes(&self) -> u64 {
        self.status()["upstream_bytes"].as_u64().expect("a number")
    }

    /// What it has logged, everything up to this call included.
    pub fn log(&self) -> String {
        // Lines are written in batches, in order: this request's comes last.
        let mark = format!("/mark-{}", self.home.outputs.fetch_add(1, Relaxed));
        if self.net == Net::Here {
            crate::support::get(&format!("{}{mark}", self.url()));
        }
        until("the log is written", || {
            let text = std::fs::read_to_string(&self.log).expect("its log");
            (self.net != Net::Here || text.contains(&mark)).then_some(text)
        })
    }

    /// The most memory that it has had, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.child.try_wait().expect("a child").is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, Signal::TERM).expect("it can be told to stop");
        }
        let status = wait(&mut self.child, SERVER_TIME);
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if status.is_none() {
            self.child.kill().expect("it can be ended");
            self.child.wait().expect("it ends");
        }
        if !std::thread::panicking() {
            assert!(status.is_some_and(|status| status.success()), "dpm ended with {status:?}\n{log}");
            assert!(!log.contains("a task panicked"), "{log}");
        }
    }
}

impl Drop for Dpm<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The command behind other words, with its environment and folder.
pub fn prefixed(words: &[OsString], command: &Command) -> Command {
    let mut all = Command::new(&words[0]);
    all.args(&words[1..]).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => all.env(name, value),
            None => all.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        all.current_dir(folder);
    }
    all
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// Waits for something to be there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SERVER_TIME;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {SERVER_TIME:?} until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().expect("a child") {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            status => return status,
        }
    }
}
