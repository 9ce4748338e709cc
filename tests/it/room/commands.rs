//! `dpm room …` with whole nodes, as people and scripts meet it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::synapse::{Account, Limits, PASSWORD, Synapse, authority};
use crate::clients::process::counterpart;
use crate::support::{Process, process, until};
use process::{asked, dpm, end, run, said, text};

/// A node that has nothing to do but rooms.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub process: Option<Process>,
}

impl Node {
    pub fn start() -> Self {
        let mut node = Self { dir: tempfile::tempdir().unwrap(), process: None };
        node.revive();
        node
    }

    /// In front of this index.
    pub fn before(index: &str) -> Self {
        let mut node = Self { dir: tempfile::tempdir().unwrap(), process: None };
        node.process = Some(Process::start(&node.data(), index, ""));
        node
    }

    fn revive(&mut self) {
        self.process = Some(Process::start(&self.data(), "http://127.0.0.1:1/simple/", ""));
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn words<'a>(&self, words: &[&'a str]) -> Vec<std::borrow::Cow<'a, str>> {
        let mut all = vec!["room".into()];
        all.extend(words.iter().map(|w| (*w).into()));
        all.extend(["--data".into(), self.data().to_str().unwrap().to_owned().into()]);
        all
    }

    pub fn says(&self, words: &[&str]) -> String {
        said(&self.words(words).iter().map(|w| &**w).collect::<Vec<_>>())
    }

    pub fn json(&self, words: &[&str]) -> Value {
        asked(&self.words(words).iter().map(|w| &**w).collect::<Vec<_>>())
    }

    /// What it says when it fails.
    pub fn fails(&self, words: &[&str]) -> String {
        let output = run(&self.words(words).iter().map(|w| &**w).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        text(&output.stderr)
    }

    pub fn login(&self, synapse: &Synapse, account: &Account) {
        let file = self.file("password", &format!("{PASSWORD}\n"));
        let file = file.to_str().unwrap();
        let words =
            ["login", "--homeserver", &synapse.url(), "--user", &account.name, "--password-file", file];
        assert_eq!(self.says(&words), format!("logged in as {}\n", account.user));
    }

    pub fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    pub fn is(&self, connection: &str) -> bool {
        self.json(&["list"])["connection"] == connection
    }
}

#[test]
fn a_project_in_a_room() {
    let synapse = Synapse::start(Limits::Raised);
    let (ada, bob) = (synapse.account("ada"), synapse.account("bob"));
    let (node, other) = (Node::start(), Node::start());
    assert_eq!(node.json(&["list"])["user"], Value::Null);
    assert!(node.says(&["list"]).contains("nobody is logged in"));
    assert!(node.fails(&["create", "project"]).contains("`dpm room login`"));
    node.login(&synapse, &ada);
    let token = other.file("token", &bob.token);
    let words =
        ["login", "--homeserver", &synapse.url(), "--user", "bob", "--token-file", token.to_str().unwrap()];
    assert_eq!(other.json(&words)["user"], bob.user.as_str());

    let made = node.json(&["create", "a project", "--encrypted"])["room"].as_str().unwrap().to_owned();
    assert_eq!(other.says(&["join", &made]), format!("joined {made}\n"));
    let listed = other.json(&["list"]);
    assert_eq!(listed["connection"], "online");
    assert_eq!(listed["homeserver"], format!("{}/", synapse.url()));
    let room = &listed["rooms"][0];
    assert_eq!(room["room"], made.as_str());
    assert_eq!(
        (&room["name"], &room["members"], &room["encrypted"]),
        (&"a project".into(), &2.into(), &true.into())
    );
    assert!(other.says(&["list"]).contains("a project  2 members  encrypted"), "{}", other.says(&["list"]));
    assert!(other.fails(&["join", "nonsense"]).contains("no room id"));
    assert!(other.fails(&["leave", "!elsewhere"]).contains("not in the room"));

    // A whole node that was killed goes on where it was.
    let mut node = node;
    node.process.take().unwrap().kill();
    assert!(node.fails(&["list"]).contains("no node runs on"));
    node.revive();
    until("it is online again", || node.is("online"));
    assert_eq!(node.json(&["list"])["rooms"][0]["room"], made.as_str());

    assert_eq!(other.says(&["leave", &made]), format!("left {made}\n"));
    assert_eq!(other.json(&["list"])["rooms"], Value::Array(vec![]));
    assert_eq!(other.says(&["logout"]), "logged out\n");
    assert!(!other.data().join("room").exists());
    assert!(other.fails(&["logout"]).contains("`dpm room login`"));
    assert!(node.process.take().unwrap().stop() < Duration::from_secs(8));
}

#[test]
fn secrets_come_from_files_and_the_environment_and_from_nowhere_else() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let node = Node::start();
    let url = synapse.url();
    let login = |more: &[&'static str]| {
        let words = ["login", "--homeserver", &url, "--user", "ada"].map(str::to_owned);
        let words: Vec<_> = words.into_iter().chain(more.iter().map(|w| (*w).to_owned())).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut command = dpm::<&str>(&[]);
        command.args(node.words(&words).iter().map(|w| w.to_string()));
        command
    };
    let output = end(login(&[]));
    assert!(text(&output.stderr).contains("DPM_ROOM_PASSWORD"), "{}", text(&output.stderr));
    let output = end(login(&["--password", "x"]));
    assert!(!output.status.success(), "there is no such flag");
    let empty = node.file("empty", "\n");
    assert!(
        node.fails(&[
            "login",
            "--homeserver",
            &url,
            "--user",
            "ada",
            "--token-file",
            empty.to_str().unwrap()
        ])
        .contains("holds no secret")
    );
    let mut wrong = login(&[]);
    wrong.env("DPM_ROOM_PASSWORD", "wrong horse");
    let output = end(wrong);
    let (code, error) = (output.status.code(), text(&output.stderr));
    assert!(code == Some(2) && error.contains("refuses") && !error.contains("horse"), "{error}");
    let mut right = login(&[]);
    right.env("DPM_ROOM_TOKEN", &ada.token);
    let output = end(right);
    assert!(output.status.success(), "{}", text(&output.stderr));
    until("it is online", || node.is("online"));

    assert_eq!(node.says(&["logout"]), "logged out\n");
    let mut right = login(&[]);
    right.env("DPM_ROOM_PASSWORD", PASSWORD);
    let output = end(right);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(out == format!("logged in as {}\n", ada.user) && !error.contains(PASSWORD), "{out}{error}");
    until("it is online", || node.is("online"));

    assert_eq!(node.says(&["logout"]), "logged out\n");
    let typed =
        [("^C", ""), ("", "no password was given"), ("wrong horse", "refuses"), (PASSWORD, "logged in")];
    for (typed, want) in typed {
        let words = login(&[]);
        let mut typist = Command::new(counterpart("pip", "python"));
        typist.args(["-c", TYPIST, typed]).arg(words.get_program()).args(words.get_args());
        typist.stdin(Stdio::null()).env_clear();
        typist.envs(words.get_envs().filter_map(|(name, value)| Some((name, value?))));
        typist.env("PATH", std::env::var_os("PATH").unwrap());
        let output = end(typist);
        let (shown, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{shown}{error}");
        assert!(shown.starts_with("password of ada: \r\n") && shown.contains(want), "{typed:?}: {shown}");
        assert!(!shown.contains("horse"), "{shown}");
    }
    until("it is online", || node.is("online"));
}

/// Runs a command on a terminal, types a line as soon as it is asked for one, or interrupts it, and prints what the
/// terminal has shown. Fails if the terminal is left silent.
const TYPIST: &str = r#"
import os, pty, signal, subprocess, sys, termios
ours, theirs = pty.openpty()
command = subprocess.Popen(sys.argv[2:], stdin=theirs, stdout=theirs, stderr=theirs)
shown = b""
while not shown.endswith(b": "):
    shown += os.read(ours, 1024)
if sys.argv[1] == "^C":
    command.send_signal(signal.SIGINT)
else:
    os.write(ours, sys.argv[1].encode() + b"\n")
command.wait()
if not termios.tcgetattr(theirs)[3] & termios.ECHO:
    sys.exit("the terminal is left silent")
os.close(theirs)
try:
    while more := os.read(ours, 1024):
        shown += more
except OSError:
    pass
sys.stdout.buffer.write(shown)
"#;

/// Whom the machine trusts is trusted, and nobody else.
#[test]
fn a_homeserver_with_tls() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let stranger = Node::start();
    let token = stranger.file("token", &ada.token);
    let url = synapse.tls();
    let words = ["login", "--homeserver", &url, "--user", "ada", "--token-file", token.to_str().unwrap()];
    let error = stranger.fails(&words);
    assert!(error.contains("cannot connect") && error.contains("certificate"), "{error}");
    assert!(!error.contains(&ada.token), "{error}");

    let mut trusting = Node { dir: tempfile::tempdir().unwrap(), process: None };
    let mut command = dpm(&process::arguments(&trusting.data(), "http://127.0.0.1:1/simple/", ""));
    command.env("SSL_CERT_FILE", authority());
    trusting.process = Some(Process::spawn(command));
    assert_eq!(trusting.json(&words)["user"], ada.user.as_str());
    until("it is online", || trusting.is("online"));
    assert!(trusting.json(&["create", "with TLS"])["room"].is_string());
}

/// Whenever a node is killed, its next start goes on, or says what to do.
#[test]
fn a_node_killed_at_any_moment_of_a_login_starts_again() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut restored = 0;
    for pause in [0, 5, 10, 20, 30, 50, 80, 120, 200, 400] {
        let mut node = Node::start();
        let file = node.file("password", PASSWORD);
        let url = synapse.url();
        let words =
            ["login", "--homeserver", &url, "--user", "ada", "--password-file", file.to_str().unwrap()];
        let mut command = dpm::<&str>(&[]);
        command.args(node.words(&words).iter().map(|w| w.to_string()));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut login = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        node.process.take().unwrap().kill();
        login.wait().unwrap();
        let has_session = node.data().join("room/session").exists();
        node.revive();
        if has_session {
            until("it is online", || node.is("online"));
            restored += 1;
        } else {
            assert_eq!(node.json(&["list"])["user"], Value::Null);
            node.login(&synapse, &ada);
            until("it is online", || node.is("online"));
        }
        let made = node.json(&["create", "after"])["room"].clone();
        assert!(made.is_string(), "{made}");
        assert!(is_owners(&node.data().join("room")));
    }
    assert!(restored > 0, "some logins came through");
}

fn is_owners(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o077 == 0
}
