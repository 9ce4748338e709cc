//! The machine as its user sees it: environment, usual places, programs.
//!
//! Carried as a value so that nothing here depends on the process's own environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

/// The machine as its user sees it.
///
/// Has no `Debug`: an environment holds secrets.
#[derive(Clone)]
pub struct Machine {
    /// The environment.
    pub vars: BTreeMap<OsString, OsString>,
    /// What `/etc` and `/var` are under: `/` but in tests.
    pub root: PathBuf,
    /// Whether we run as the system's own user, so that system places are the right ones.
    pub superuser: bool,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            root: PathBuf::from("/"),
            superuser: rustix::process::geteuid().is_root(),
        }
    }

    /// A variable, if it is set, not empty, and UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(OsStr::new(name))?.to_str().map(str::trim).filter(|value| !value.is_empty())
    }

    /// A variable that names a path, if it is set and not empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.vars.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A path under [`Machine::root`].
    pub fn at(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// `$HOME`.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub fn config_home(&self) -> Option<PathBuf> {
        self.xdg("XDG_CONFIG_HOME", ".config")
    }

    /// `$XDG_DATA_HOME`, else `~/.local/share`.
    pub fn data_home(&self) -> Option<PathBuf> {
        self.xdg("XDG_DATA_HOME", ".local/share")
    }

    /// `$XDG_STATE_HOME`, else `~/.local/state`.
    pub fn state_home(&self) -> Option<PathBuf> {
        self.xdg("XDG_STATE_HOME", ".local/state")
    }

    /// The XDG base directory specification: a relative path is invalid and is ignored.
    fn xdg(&self, name: &str, under_home: &str) -> Option<PathBuf> {
        self.path(name).filter(|path| path.is_absolute()).or_else(|| Some(self.home()?.join(under_home)))
    }

    /// Where a program is on `$PATH`. Relative entries are passed over: what runs must not depend on where we stand.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(self.vars.get(OsStr::new("PATH"))?)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(program))
            .find(is_program)
    }

    /// What a program writes to its standard output, within [`RUN_TIME`] and 1 MiB.
    ///
    /// `changes` are made to the environment: a value sets, `None` removes. Blocks.
    pub fn run(
        &self,
        program: &Path,
        args: &[&str],
        changes: &[(&str, Option<&str>)],
    ) -> Result<String, RunError> {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.vars);
        for (name, value) in changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Its own group, so that what it starts can be ended with it (`pip` is often a shell script).
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(RunError::Start)?;
        let output = collect(&mut child, Instant::now() + RUN_TIME);
        if !matches!(output, Ok(_) | Err(RunError::Failed))
            && let Some(group) = Pid::from_raw(child.id() as i32)
        {
            // It may have ended by itself in this moment: then there is nothing to end.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            child.wait().map_err(RunError::Start)?;
        }
        String::from_utf8(output?).map_err(|_| RunError::NotText)
    }
}

/// Reads without blocking, so that neither a silent child nor a grandchild that keeps the pipe can hold us.
fn collect(child: &mut Child, deadline: Instant) -> Result<Vec<u8>, RunError> {
    let mut stdout = child.stdout.take().expect("piped above");
    let flags = rustix::fs::fcntl_getfl(&stdout).map_err(|e| RunError::Start(e.into()))?;
    rustix::fs::fcntl_setfl(&stdout, flags | OFlags::NONBLOCK).map_err(|e| RunError::Start(e.into()))?;
    let mut output = Vec::new();
    let mut part = [0; 16 << 10];
    let mut open = true;
    loop {
        if open {
            match stdout.read(&mut part) {
                Ok(0) => open = false,
                Ok(n) if output.len() + n > RUN_BYTES => return Err(RunError::TooMuch),
                Ok(n) => {
                    output.extend_from_slice(&part[..n]);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(RunError::Start(e)),
            }
        }
        if !open && let Some(status) = child.try_wait().map_err(RunError::Start)? {
            return if status.success() { Ok(output) } else { Err(RunError::Failed) };
        }
        if Instant::now() >= deadline {
            return Err(RunError::Time);
        }
        std::thread::sleep(RUN_POLL);
    }
}

/// Longest that a client may take: `pip` needs 0.3 to 0.5 s here, ten times that on a small board with a cold disk.
pub const RUN_TIME: Duration = Duration::from_secs(10);
/// Most that a client may write: `pip install --help` is 20 kB.
const RUN_BYTES: usize = 1 << 20;
/// Small against the 300 ms that a client takes.
const RUN_POLL: Duration = Duration::from_millis(3);

/// Why a program gave no output.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It cannot be started, or the pipe to it broke.
    #[error("cannot run it")]
    Start(#[source] std::io::Error),
    /// It ended with an exit code that is not zero.
    #[error("it failed")]
    Failed,
    /// It did not end in time.
    #[error("it took longer than {} s", RUN_TIME.as_secs())]
    Time,
    /// It wrote too much.
    #[error("it wrote more than {RUN_BYTES} bytes")]
    TooMuch,
    /// It wrote something else than UTF-8.
    #[error("it wrote no text")]
    NotText,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<String, RunError> {
        Machine::here().run(Path::new("/bin/sh"), &["-c", script], &[("A", Some("b")), ("HOME", None)])
    }

    #[test]
    fn runs_within_bounds() {
        assert_eq!(sh("printf '%s' \"$A${HOME-none}\"").unwrap(), "bnone");
        assert_eq!(sh("cat").unwrap(), "", "standard input is empty");
        assert!(matches!(sh("echo no; exit 3"), Err(RunError::Failed)));
        assert!(matches!(sh("yes | head -c 2000000; sleep 100"), Err(RunError::TooMuch)));
        assert!(matches!(sh(r"printf '\377'"), Err(RunError::NotText)));
    }

    #[test]
    fn a_relative_path_entry_runs_nothing() {
        let mut machine = Machine::here();
        machine.vars.insert("PATH".into(), "bin:.".into());
        assert_eq!(machine.find("sh"), None);
        machine.vars.insert("PATH".into(), "bin:/bin".into());
        assert_eq!(machine.find("sh"), Some("/bin/sh".into()));
    }
}
