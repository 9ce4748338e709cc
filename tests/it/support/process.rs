//! A whole node as a process of its own: what is killed, runs out of disk, or is asked on its command line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// How long a node may take to start, stop, or answer an order. Generous: machines are shared.
const LIMIT: Duration = Duration::from_secs(60);

/// A `dpm serve` that answers. Killed when dropped.
pub struct Process {
    child: Child,
    pub url: String,
    /// What it has said, for a failure's message.
    log: Arc<Mutex<Vec<String>>>,
}

/// `dpm` with these arguments and nothing of this machine's settings, without a swarm unless they name one.
pub fn dpm<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpm"));
    command.args(args);
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    // What a test has set itself stays.
    let set: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let kept = std::env::vars_os()
        .filter(|(name, _)| matches!(name.to_str(), Some("PATH" | "TMPDIR" | "LLVM_PROFILE_FILE")));
    // A home without settings, and no system-wide ones: there is no such variable, so the config is always named.
    let kept: Vec<_> = kept.collect();
    command.env_clear().envs(kept).env("HOME", "/nonexistent").env("DPM_SWARM", "off").envs(set);
    command.stdin(Stdio::null());
}

/// Runs `dpm` to its end.
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> Output {
    end(dpm(args))
}

/// Runs a command to its end, within the limit.
pub fn end(command: Command) -> Output {
    end_within(command, LIMIT)
}

/// The same, with a limit of its own.
pub fn end_within(mut command: Command, limit: Duration) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let (sender, receiver) = mpsc::sync_channel(1);
    let id = child.id();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(limit) {
        Ok(output) => output.expect("its output"),
        Err(_) => {
            signal(id, "KILL");
            panic!("it did not end within {limit:?}");
        }
    }
}

/// Runs `dpm` and gives what it prints; fails the test unless it exits with 0.
pub fn said<S: AsRef<OsStr>>(args: &[S]) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}: {out}{err}", args.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    out
}

/// Runs `dpm … --json` and gives what it prints.
pub fn asked<S: AsRef<OsStr>>(args: &[S]) -> serde_json::Value {
    let mut all: Vec<_> = args.iter().map(AsRef::as_ref).collect();
    all.push(OsStr::new("--json"));
    serde_json::from_str(&said(&all)).expect("JSON")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends a signal to a process of ours.
pub fn signal(id: u32, name: &str) {
    let done = Command::new("kill").args([format!("-{name}"), id.to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill -{name}");
}

impl Process {
    /// A node on this data folder in front of the index at `upstream`, with these lines in its `dpm.toml`.
    pub fn start(data: &Path, upstream: &str, settings: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpm"));
        command.args(arguments(data, upstream, settings));
        Self::spawn(command)
    }

    /// The same with a swarm. It looks for others, so this is for networks that a test made.
    pub fn with_swarm(data: &Path, upstream: &str, settings: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpm"));
        command.args(arguments(data, upstream, settings)).env("DPM_SWARM", "on");
        Self::spawn(command)
    }

    /// Starts `command`, which ends in [`arguments`], and waits until it answers.
    pub fn spawn(mut command: Command) -> Self {
        clean(&mut command);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the node is started");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::sync_channel(1);
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let theirs = log.clone();
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                if let Some((_, at)) = line.split_once("clients: ") {
                    let url = at.split("/pypi/").next().expect("an address").to_owned();
                    // Said once; a test that has given up no longer listens.
                    let _ = sender.try_send(url);
                }
                theirs.lock().unwrap().push(line);
            }
        });
        match receiver.recv_timeout(LIMIT) {
            Ok(url) => Self { child, url, log },
            Err(_) => {
                let _ = child.kill();
                panic!("the node did not start:\n{}", log.lock().unwrap().join("\n"));
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A value of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = super::get(&self.url("/metrics")).text();
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().expect("a number")
    }

    /// The most memory that it has had, in bytes.
    #[allow(dead_code, reason = "benches/rooms.rs has no use for it")]
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Ends it as a power cut would end the process.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }

    /// Asks it to stop; gives how long that took.
    pub fn stop(mut self) -> Duration {
        let begun = Instant::now();
        signal(self.id(), "TERM");
        while begun.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                assert!(status.success(), "{status}");
                return begun.elapsed();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the node did not stop within {LIMIT:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            let tail = &log[log.len().saturating_sub(40)..];
            eprintln!("{} said last:\n{}", self.url, tail.join("\n"));
        }
        // Ended already, or ended now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `dpm serve` is started with; its `dpm.toml` lies beside the data folder.
pub fn arguments(data: &Path, upstream: &str, settings: &str) -> Vec<PathBuf> {
    let config = data.with_extension("toml");
    std::fs::write(&config, settings).expect("a dpm.toml");
    let words = ["serve".into(), "--listen".into(), "127.0.0.1:0".into(), "--upstream".into()];
    let mut all: Vec<PathBuf> = words.into();
    all.push(format!("pypi={upstream}").into());
    all.extend(["--data".into(), data.to_owned(), "--config".into(), config]);
    all
}
