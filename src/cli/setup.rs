//! `dpm setup`: writes a package client's own user configuration to point at dpm, and takes it back exactly.
//!
//! What was there before is remembered in a [`Handover`] before anything is changed. Taking back restores the file
//! byte for byte; when somebody changed it since, only the lines that are ours are taken out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use url::Url;

use crate::base::Sha256;
use crate::config::{Client, Handover, Machine, PipConf, UvToml, is_loopback, replace, without_userinfo};

/// What [`apply`] would do.
///
/// Has no `Debug`: a client's file may hold passwords.
#[derive(Clone)]
pub struct Plan {
    handover: Handover,
    /// Where the handover is kept.
    memory: PathBuf,
    /// The file's text now and then.
    now: Option<String>,
    then: String,
    index_now: Option<String>,
    warnings: Vec<String>,
}

/// What was done, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The client.
    pub client: Client,
    /// Its configuration file, symlinks followed.
    pub file: PathBuf,
    /// What happened to the file.
    pub action: Action,
    /// The index that the file stated before, without userinfo.
    pub before: Option<String>,
    /// The index that it states now, without userinfo.
    pub after: Option<String>,
    /// What keeps the client from doing as the file says.
    pub warnings: Vec<String>,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// There was none, now there is.
    Created,
    /// It was changed.
    Changed,
    /// It was right already.
    Unchanged,
    /// Its bytes are those from before dpm.
    Restored,
    /// There was none before dpm, and there is none now.
    Removed,
    /// It was changed by somebody else since: only our lines were taken out.
    TakenOut,
    /// There was nothing of ours in it.
    Nothing,
}

/// Reads the client's user configuration and says what pointing it at the dpm at `base_url` would change.
///
/// pip: `$PIP_CONFIG_FILE`, else `$XDG_CONFIG_HOME/pip/pip.conf`, else `~/.pip/pip.conf` if only that exists.
/// uv: `$UV_CONFIG_FILE`, else `$XDG_CONFIG_HOME/uv/uv.toml`. Changes nothing.
pub fn plan(client: Client, base_url: &Url, machine: &Machine) -> Result<Plan, SetupError> {
    let index_url = index_url(base_url)?;
    let trusted_host = trusted_host(base_url);
    let file = client_file(client, machine)?;
    let memory = Handover::path(machine, client).ok_or(SetupError::NoHome)?;
    let remembered = load(&memory)?;
    if let Some(other) = remembered.as_ref().filter(|handover| handover.file != file) {
        return Err(SetupError::OtherFile { client, file: other.file.clone() });
    }
    let now = read(&file)?;
    let text = now.as_deref().unwrap_or_default();
    let unreadable = |text| SetupError::Unreadable { client, file: file.clone(), text };
    let mut warnings = overrides(client, machine);
    let (then, index_now) = match client {
        Client::Pip => {
            let mut conf = PipConf::parse(text).map_err(unreadable)?;
            let index_now = conf.index_url().map(str::to_owned);
            for section in ["global", "install"] {
                if conf.value(section, "extra-index-url").is_some_and(|urls| !urls.is_empty()) {
                    warnings.push(format!(
                        "{} has [{section}] extra-index-url: pip asks that index directly, past dpm and past the \
                         names that dpm keeps for an index of yours; move it into dpm.toml",
                        file.display()
                    ));
                }
            }
            conf.point_at(&index_url, trusted_host.as_deref());
            (conf.text(), index_now)
        }
        Client::Uv => {
            let mut conf = UvToml::parse(text).map_err(unreadable)?;
            let index_now = conf.default_url().map(str::to_owned);
            if !conf.other_urls().is_empty() {
                warnings.push(format!(
                    "{} has further indexes: uv asks them first and directly, past dpm; move them into dpm.toml",
                    file.display()
                ));
            }
            conf.point_at(&index_url, trusted_host.as_deref());
            (conf.text(), index_now)
        }
    };
    let wrote_sha256 = sha256(&then);
    let handover = match remembered {
        Some(first) => Handover {
            edited: first.edited || !(now == first.previous || sha256(text) == first.wrote_sha256),
            index_url,
            trusted_host,
            wrote_sha256,
            ..first
        },
        None => Handover {
            client,
            mode: file.metadata().ok().map(|meta| meta.permissions().mode() & 0o7777),
            made_dirs: missing_dirs(&file),
            file,
            index_url,
            trusted_host,
            wrote_sha256,
            previous: now.clone(),
            previous_index: index_now.clone(),
            edited: false,
        },
    };
    Ok(Plan { handover, memory, now, then, index_now, warnings })
}

impl Plan {
    /// What [`apply`] would report.
    pub fn report(&self) -> Report {
        let action = match &self.now {
            None => Action::Created,
            Some(now) if *now == self.then => Action::Unchanged,
            Some(_) => Action::Changed,
        };
        Report {
            client: self.handover.client,
            file: self.handover.file.clone(),
            action,
            before: self.index_now.as_deref().map(shown),
            after: Some(self.handover.index_url.clone()),
            warnings: self.warnings.clone(),
        }
    }
}

/// Does what was planned. Doing it twice is doing it once, and keeps the first backup.
///
/// The backup is on disk before the file changes, and the file changes in one step.
pub fn apply(plan: &Plan) -> Result<Report, SetupError> {
    let file = &plan.handover.file;
    if read(file)? != plan.now {
        return Err(SetupError::Raced { file: file.clone() });
    }
    let report = plan.report();
    plan.handover.save(&plan.memory).map_err(|source| write_error(&plan.memory, source))?;
    if report.action != Action::Unchanged {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).map_err(|source| write_error(dir, source))?;
        }
        let mode = plan.handover.mode.unwrap_or(NEW_FILE_MODE);
        replace(file, &plan.then, mode).map_err(|source| write_error(file, source))?;
    }
    Ok(report)
}

/// Gives the client its configuration back. Doing it twice is doing it once.
pub fn undo(client: Client, machine: &Machine) -> Result<Report, SetupError> {
    let memory = Handover::path(machine, client).ok_or(SetupError::NoHome)?;
    let Some(handover) = load(&memory)? else {
        let file = client_file(client, machine)?;
        let warnings = overrides(client, machine);
        return Ok(Report { client, file, action: Action::Nothing, before: None, after: None, warnings });
    };
    let file = handover.file.clone();
    let now = read(&file)?;
    let untouched = now.as_deref().is_none_or(|now| sha256(now) == handover.wrote_sha256) && !handover.edited;
    let (action, then) = if now == handover.previous {
        (Action::Nothing, now.clone())
    } else if untouched {
        let action = if handover.previous.is_some() { Action::Restored } else { Action::Removed };
        (action, handover.previous.clone())
    } else if let Some(text) = &now {
        let then = take_out(&handover, text)?;
        let action = if then == *text { Action::Nothing } else { Action::TakenOut };
        // Nothing but our lines was left of a file that was not there.
        (action, Some(then).filter(|then| handover.previous.is_some() || !then.trim().is_empty()))
    } else {
        // Somebody wrote into it and then deleted it: that was no oversight.
        (Action::Nothing, None)
    };
    if now != then {
        match &then {
            Some(text) => {
                let mode = file.metadata().map(|meta| meta.permissions().mode()).ok();
                let mode = mode.or(handover.mode).unwrap_or(NEW_FILE_MODE);
                replace(&file, text, mode).map_err(|source| write_error(&file, source))?;
            }
            None => fs::remove_file(&file).map_err(|source| write_error(&file, source))?,
        }
    }
    if then.is_none() {
        // Innermost first; one that holds something else by now stays.
        let _ = handover.made_dirs.iter().rev().try_for_each(fs::remove_dir);
    }
    fs::remove_file(&memory).map_err(|source| write_error(&memory, source))?;
    let index = |text: &Option<String>| stated_index(client, text.as_deref().unwrap_or_default());
    Ok(Report {
        client,
        action,
        before: index(&now),
        after: index(&then),
        file,
        warnings: overrides(client, machine),
    })
}

/// The text without our lines, or where they are if somebody wove their own into them.
fn take_out(handover: &Handover, text: &str) -> Result<String, SetupError> {
    let previous = handover.previous.as_deref().unwrap_or_default();
    let (url, host) = (&handover.index_url, handover.trusted_host.as_deref());
    let then = match handover.client {
        Client::Pip => PipConf::parse(text).and_then(|mut conf| {
            conf.take_out(url, host, &PipConf::parse(previous)?);
            Ok(conf.text())
        }),
        Client::Uv => UvToml::parse(text).and_then(|mut conf| {
            conf.take_out(url, host, &UvToml::parse(previous)?);
            Ok(conf.text())
        }),
    };
    match then {
        Ok(then) if previous.contains(url.as_str()) || !then.contains(url.as_str()) => Ok(then),
        _ => {
            let ours = text.lines().enumerate().filter(|(_, line)| line.contains(url.as_str()));
            let lines: Vec<String> =
                ours.map(|(at, line)| format!("  {}: {}", at + 1, line.trim())).collect();
            Err(SetupError::Edited { file: handover.file.clone(), lines: lines.join("\n") })
        }
    }
}

fn stated_index(client: Client, text: &str) -> Option<String> {
    match client {
        Client::Pip => PipConf::parse(text).ok()?.index_url().map(shown),
        Client::Uv => UvToml::parse(text).ok()?.default_url().map(shown),
    }
}

/// The URL that a client is given: the simple API of the dpm at this base.
fn index_url(base_url: &Url) -> Result<String, SetupError> {
    if !matches!(base_url.scheme(), "http" | "https")
        || base_url.query().is_some()
        || base_url.fragment().is_some()
    {
        return Err(SetupError::BadUrl);
    }
    Ok(format!("{}/pypi/simple/", base_url.as_str().trim_end_matches('/')))
}

/// The host to call trusted: pip and uv trust https, and plain http to this very machine.
fn trusted_host(base_url: &Url) -> Option<String> {
    if base_url.scheme() == "https" || is_loopback(base_url) {
        return None;
    }
    let host = base_url.host_str()?;
    Some(base_url.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
}

fn client_file(client: Client, machine: &Machine) -> Result<PathBuf, SetupError> {
    let config = || machine.config_home().ok_or(SetupError::NoHome);
    let variable = match client {
        Client::Pip => "PIP_CONFIG_FILE",
        Client::Uv => "UV_CONFIG_FILE",
    };
    let named = match (machine.path(variable), client) {
        (Some(null), _) if null == Path::new("/dev/null") => {
            return Err(SetupError::Disabled { client, variable });
        }
        (Some(file), _) => file,
        (None, Client::Uv) => config()?.join("uv/uv.toml"),
        (None, Client::Pip) => {
            let file = config()?.join("pip/pip.conf");
            let legacy = machine.home().map(|home| home.join(".pip/pip.conf"));
            legacy.filter(|legacy| legacy.exists() && !file.exists()).unwrap_or(file)
        }
    };
    let named = std::path::absolute(&named).map_err(|source| SetupError::Read { file: named, source })?;
    Ok(followed(named))
}

/// The file behind a symlink, also when it is not there yet: the link must stay a link.
fn followed(path: PathBuf) -> PathBuf {
    match fs::canonicalize(&path) {
        Ok(real) => real,
        Err(_) => match (fs::read_link(&path), path.parent()) {
            (Ok(target), Some(dir)) => dir.join(target),
            _ => path,
        },
    }
}

/// What outweighs the file that we write.
fn overrides(client: Client, machine: &Machine) -> Vec<String> {
    let names: &[&str] = match client {
        Client::Pip => &["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"],
        Client::Uv => &["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_CONFIG"],
    };
    let mut warnings: Vec<String> = names
        .iter()
        .filter(|name| machine.var(name).is_some())
        .map(|name| format!("${name} is set and outweighs the file in this environment"))
        .collect();
    if client == Client::Pip
        && let Some(file) = machine.path("VIRTUAL_ENV").map(|dir| dir.join("pip.conf"))
        && fs::read_to_string(&file).is_ok_and(|text| text.contains("index-url"))
    {
        warnings.push(format!("{} states an index too and outweighs the user's file", file.display()));
    }
    warnings
}

/// The directories that must be made for a file, outermost first.
fn missing_dirs(file: &Path) -> Vec<PathBuf> {
    let dirs = file.ancestors().skip(1).take_while(|dir| !dir.exists());
    let mut missing: Vec<PathBuf> = dirs.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

fn load(memory: &Path) -> Result<Option<Handover>, SetupError> {
    Handover::load(memory).map_err(|source| SetupError::Read { file: memory.into(), source })
}

fn read(file: &Path) -> Result<Option<String>, SetupError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SetupError::Read { file: file.into(), source }),
    }
}

fn sha256(text: &str) -> String {
    Sha256::of(text.as_bytes()).hex()
}

fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "(no URL)".into(), |url| without_userinfo(&url).to_string())
}

fn write_error(file: &Path, source: io::Error) -> SetupError {
    SetupError::Write { file: file.into(), source }
}

/// A new configuration file holds no secret.
const NEW_FILE_MODE: u32 = 0o644;

/// Why a client's configuration was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No home to find or remember anything in.
    #[error("neither $HOME nor the XDG directories are set: there is no user configuration")]
    NoHome,
    /// The base URL is none.
    #[error("the URL of a dpm is http(s)://HOST:PORT without query")]
    BadUrl,
    /// The user switched configuration files off.
    #[error("${variable} is /dev/null: {client} reads no configuration file")]
    Disabled {
        /// The client.
        client: Client,
        /// The variable that says so.
        variable: &'static str,
    },
    /// Another file of this client is set up already.
    #[error("{client} is set up already in {}; undo that first: dpm setup {client} --undo", file.display())]
    OtherFile {
        /// The client.
        client: Client,
        /// The file that is set up.
        file: PathBuf,
    },
    /// The client itself would not read the file.
    #[error("{client} itself cannot read {}: {text}", file.display())]
    Unreadable {
        /// The client.
        client: Client,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// The file changed while we looked.
    #[error("{} changed in between; try again", file.display())]
    Raced {
        /// The file.
        file: PathBuf,
    },
    /// The file was changed so that our lines cannot be taken out alone.
    #[error("{} was changed since; remove what points at dpm by hand:\n{lines}", file.display())]
    Edited {
        /// The file.
        file: PathBuf,
        /// The lines with their numbers.
        lines: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:3142/pypi/simple/";

    struct Home {
        dir: tempfile::TempDir,
        machine: Machine,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            // The temporary directory may itself be behind a symlink.
            let home = fs::canonicalize(dir.path()).unwrap();
            let vars = [("HOME".into(), home.clone().into())].into();
            Self { dir, machine: Machine { vars, root: home, superuser: false } }
        }

        fn path(&self, relative: &str) -> PathBuf {
            fs::canonicalize(self.dir.path()).unwrap().join(relative)
        }

        fn write(&self, relative: &str, text: &str) {
            let path = self.path(relative);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, relative: &str) -> Option<String> {
            fs::read_to_string(self.path(relative)).ok()
        }

        fn apply_at(&self, client: Client, base: &str) -> Report {
            apply(&plan(client, &Url::parse(base).unwrap(), &self.machine).unwrap()).unwrap()
        }

        fn apply(&self, client: Client) -> Report {
            self.apply_at(client, "http://127.0.0.1:3142")
        }

        fn undo(&self, client: Client) -> Report {
            undo(client, &self.machine).unwrap()
        }

        fn entries(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(self.dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    const PIP: &str = ".config/pip/pip.conf";
    const UV: &str = ".config/uv/uv.toml";

    #[test]
    fn there_and_back() {
        let cases = [
            (Client::Pip, PIP, None),
            (Client::Pip, PIP, Some("")),
            (Client::Pip, PIP, Some("# mine\n[install]\nuser = no")),
            (Client::Pip, PIP, Some("[global]\r\n  timeout = 1\r\n")),
            (
                Client::Pip,
                PIP,
                Some("[global]\nindex-url =\n  https://me:hunter2@a.example.org/s\nindex-url = b\n"),
            ),
            (Client::Pip, ".pip/pip.conf", Some("[global]\nindex-url = https://a.example.org/s\n")),
            (Client::Uv, UV, None),
            (Client::Uv, UV, Some("# mine\r\noffline = true\r\n")),
            (Client::Uv, UV, Some("[[index]]\nurl = 'https://a.example.org/s'\ndefault = true # x")),
        ];
        for (client, file, text) in cases {
            for base in ["http://127.0.0.1:3142", "http://dpm.example.org:3142/sub/"] {
                let home = Home::new();
                if let Some(text) = text {
                    home.write(file, text);
                    fs::set_permissions(home.path(file), fs::Permissions::from_mode(0o640)).unwrap();
                }
                let first = home.apply_at(client, base);
                let want = if text.is_some() { Action::Changed } else { Action::Created };
                assert_eq!((first.action, &first.file), (want, &home.path(file)), "{text:?}");
                assert!(!format!("{first:?}").contains("hunter2"), "{first:?}");
                let after = home.read(file).unwrap();
                let trusted = after.contains("trusted-host") || after.contains("allow-insecure-host");
                assert_eq!(trusted, base.contains("dpm"), "{after}");

                let second = home.apply_at(client, base);
                assert_eq!((second.action, home.read(file).unwrap()), (Action::Unchanged, after));
                let back = home.undo(client);
                assert_eq!(home.read(file).as_deref(), text, "{client}");
                assert_eq!(back.action, if text.is_some() { Action::Restored } else { Action::Removed });
                if text.is_some() {
                    let mode = home.path(file).metadata().unwrap().permissions().mode();
                    assert_eq!(mode & 0o777, 0o640);
                } else {
                    assert_eq!(home.entries(), [".local"], "the directories that we made are gone");
                }
                assert_eq!(home.undo(client).action, Action::Nothing, "twice");
                assert_eq!(home.read(file).as_deref(), text);
            }
        }
    }

    #[test]
    fn edited_since() {
        let cases = [
            (Client::Pip, PIP, None, "\n[freeze]\ntimeout = 10\n", Some("\n[freeze]\ntimeout = 10\n")),
            (
                Client::Pip,
                PIP,
                Some("[global]\nindex-url = a\n"),
                "cert = c\n",
                Some("[global]\nindex-url = a\ncert = c\n"),
            ),
            (Client::Uv, UV, None, "name = \"x\"\n[pip]\nstrict = true\n", Some("[pip]\nstrict = true\n")),
            (
                Client::Uv,
                UV,
                Some("offline = true\n"),
                "\n[pip]\nstrict = true\n",
                Some("offline = true\n\n[pip]\nstrict = true\n"),
            ),
        ];
        for (client, file, text, added, want) in cases {
            let home = Home::new();
            if let Some(text) = text {
                home.write(file, text);
            }
            home.apply(client);
            home.write(file, &format!("{}{added}", home.read(file).unwrap()));
            // Applying again must not make us forget that somebody else wrote here.
            assert_eq!(home.apply(client).action, Action::Unchanged);
            assert_eq!(home.undo(client).action, Action::TakenOut);
            assert_eq!(
                home.read(file).as_deref().map(str::trim_start),
                want.map(str::trim_start),
                "{client}"
            );
        }
    }

    #[test]
    fn edits_that_leave_nothing_or_too_much() {
        // The user pointed pip elsewhere meanwhile: theirs stays.
        let home = Home::new();
        home.apply(Client::Pip);
        home.write(PIP, "[global]\nindex-url = https://b.example.org/\n");
        assert_eq!(home.undo(Client::Pip).action, Action::Nothing);
        assert_eq!(home.read(PIP).unwrap(), "[global]\nindex-url = https://b.example.org/\n");

        // Ours is woven into something of theirs: said, not touched.
        let home = Home::new();
        home.apply(Client::Pip);
        let text = format!("[global]\nextra-index-url = {URL} https://b.example.org/\n");
        home.write(PIP, &text);
        let refused = undo(Client::Pip, &home.machine).unwrap_err().to_string();
        assert!(refused.contains(&format!("  2: extra-index-url = {URL}")), "{refused}");
        assert_eq!(home.read(PIP).unwrap(), text);

        // The user put the old text back by hand, or deleted the file.
        let home = Home::new();
        home.write(PIP, "[global]\n");
        home.apply(Client::Pip);
        home.write(PIP, "[global]\n");
        assert_eq!(home.undo(Client::Pip).action, Action::Nothing);
        home.apply(Client::Pip);
        fs::remove_file(home.path(PIP)).unwrap();
        assert_eq!(home.undo(Client::Pip).action, Action::Restored);
        assert_eq!(home.read(PIP).unwrap(), "[global]\n");
    }

    #[test]
    fn symlinks_stay() {
        let home = Home::new();
        home.write("dotfiles/pip.conf", "[global]\n");
        fs::create_dir_all(home.path(".config/pip")).unwrap();
        std::os::unix::fs::symlink("../../dotfiles/pip.conf", home.path(PIP)).unwrap();
        assert_eq!(home.apply(Client::Pip).file, home.path("dotfiles/pip.conf"));
        assert!(home.path(PIP).is_symlink());
        home.undo(Client::Pip);
        assert!(home.path(PIP).is_symlink());
        assert_eq!(home.read(PIP).unwrap(), "[global]\n");
    }

    #[test]
    fn warnings_and_refusals() {
        let base = Url::parse("http://127.0.0.1:3142").unwrap();
        let mut home = Home::new();
        home.write(PIP, "[global]\nextra-index-url = https://b.example.org/\n");
        home.write(UV, "[[index]]\nurl = 'https://b.example.org/'\n");
        home.machine.vars.insert("PIP_INDEX_URL".into(), "x".into());
        home.machine.vars.insert("UV_DEFAULT_INDEX".into(), "x".into());
        for (client, words) in [
            (Client::Pip, ["$PIP_INDEX_URL", "extra-index-url"]),
            (Client::Uv, ["$UV_DEFAULT_INDEX", "further"]),
        ] {
            let warnings = plan(client, &base, &home.machine).unwrap().report().warnings;
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings.iter().zip(words).all(|(warning, word)| warning.contains(word)), "{warnings:?}");
        }
        let planned = plan(Client::Pip, &base, &home.machine).unwrap();
        home.write(PIP, "[a]\n[a]\n");
        assert!(matches!(apply(&planned), Err(SetupError::Raced { .. })));
        assert!(matches!(plan(Client::Pip, &base, &home.machine), Err(SetupError::Unreadable { .. })));
        home.machine.vars.insert("PIP_CONFIG_FILE".into(), "/dev/null".into());
        assert!(matches!(plan(Client::Pip, &base, &home.machine), Err(SetupError::Disabled { .. })));
        home.apply(Client::Uv);
        home.machine.vars.insert("UV_CONFIG_FILE".into(), home.path("other.toml").into());
        assert!(matches!(plan(Client::Uv, &base, &home.machine), Err(SetupError::OtherFile { .. })));
    }

    /// With the machine's own pip, where there is one.
    #[test]
    fn real_pip_agrees() {
        let here = Machine::here();
        let Some(pip) = here.find("pip").filter(|pip| here.run(pip, &["--version"], &[]).is_ok()) else {
            eprintln!("there is no pip here");
            return;
        };
        let home = Home::new();
        home.write(PIP, "[global]\n   timeout = 7\n   index-url: https://a.example.org/s\n# end");
        let text = home.read(PIP);
        let mut machine = here.clone();
        let of_pip = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with("PIP_");
        machine.vars.retain(|name, _| of_pip(name));
        machine.vars.insert("XDG_CONFIG_HOME".into(), home.path(".config").into());
        let ask = |key| machine.run(&pip, &["config", "get", key], &[]).unwrap().trim().to_owned();
        assert_eq!(ask("global.index-url"), "https://a.example.org/s");
        home.apply_at(Client::Pip, "http://dpm.example.org:3142");
        assert_eq!(ask("global.index-url"), "http://dpm.example.org:3142/pypi/simple/");
        assert_eq!(ask("global.trusted-host"), "dpm.example.org:3142");
        assert_eq!(ask("global.timeout"), "7");
        home.undo(Client::Pip);
        assert_eq!(home.read(PIP), text);
        assert_eq!(ask("global.index-url"), "https://a.example.org/s");
    }
}
