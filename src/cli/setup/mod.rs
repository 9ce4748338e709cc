//! `dpm setup`: writes a package client's own configuration to point at dpm, and takes it back exactly.
//!
//! What was there before is remembered in a [`Handover`] before anything is changed. Taking back restores the file
//! byte for byte; when somebody changed it since, only the lines that are ours are taken out.

mod clients;
mod containers;
mod files;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::Serialize;
use url::Url;

use crate::config::{Client, Handover, Machine, replace};

use clients::{Pointed, client_file, our_url, overrides, stated_index, take_out, trusted_host};
use files::{NEW_FILE_MODE, absolute, load, missing_dirs, read, sha256, shown, write_error};

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
    /// What is left to do, and to know.
    pub notes: Vec<String>,
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

/// What a client is to be pointed at.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where dpm is.
    pub url: Url,
    /// Hosts of the registries that it stands for.
    pub hosts: Vec<String>,
    /// The file to write, where it is not the usual one.
    pub file: Option<PathBuf>,
}

/// Reads the client's configuration and says what pointing it at dpm would change.
///
/// pip: `$PIP_CONFIG_FILE`, else `$XDG_CONFIG_HOME/pip/pip.conf`, else `~/.pip/pip.conf` if only that exists.
/// uv: `$UV_CONFIG_FILE`, else `$XDG_CONFIG_HOME/uv/uv.toml`. Of containers' clients the system's file for root, else
/// the user's: `daemon.json`, `registries.conf.d/dpm.conf`, `certs.d/_default/hosts.toml`. Changes nothing.
pub fn plan(client: Client, target: &Target, machine: &Machine) -> Result<Plan, SetupError> {
    let index_url = our_url(client, &target.url)?;
    let trusted_host = trusted_host(&target.url);
    let file = match &target.file {
        Some(file) => absolute(file.clone())?,
        None => client_file(client, machine)?,
    };
    let memory = Handover::path(machine, client).ok_or(SetupError::NoHome)?;
    let remembered = load(&memory)?;
    if let Some(other) = remembered.as_ref().filter(|handover| handover.file != file) {
        return Err(SetupError::OtherFile { client, file: other.file.clone() });
    }
    let now = read(&file)?;
    let text = now.as_deref().unwrap_or_default();
    let mut warnings = overrides(client, machine);
    let pointed = match containers::is(client) {
        false => clients::point(client, text, &index_url, trusted_host.as_deref(), &file),
        true => {
            warnings.extend(containers::warnings(client, &file, machine));
            let hosts = match client {
                Client::Podman => {
                    let (hosts, said) = containers::unclaimed(&target.hosts, &file, machine);
                    warnings.extend(said);
                    hosts
                }
                _ => Vec::new(),
            };
            // A mirror is added, not replaced: one that we wrote for another address goes first.
            let moved = remembered.as_ref().filter(|handover| handover.index_url != index_url);
            let text = moved.map(|handover| take_out(handover, text)).transpose()?;
            let text = text.as_deref().or(now.as_deref()).unwrap_or_default();
            containers::point(client, text, &index_url, trusted_host.as_deref(), &hosts)
        }
    };
    let Pointed { then, before: index_now, warnings: more } =
        pointed.map_err(|text| SetupError::Unreadable { client, file: file.clone(), text })?;
    warnings.extend(more);
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
            notes: containers::notes(self.handover.client, &self.handover.index_url),
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
        return Ok(Report {
            client,
            file,
            action: Action::Nothing,
            before: None,
            after: None,
            warnings,
            notes: Vec::new(),
        });
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
        // That docker has to read it anew holds for the way back, too.
        notes: containers::notes(client, &handover.index_url).into_iter().take(1).collect(),
    })
}

/// Why a client's configuration was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No home to find or remember anything in.
    #[error("neither $HOME nor the XDG directories are set: there is no user configuration")]
    NoHome,
    /// The base URL is none.
    #[error("the URL of a dpm is http(s)://HOST:PORT without query")]
    BadUrl,
    /// A registry is known by its host alone.
    #[error("{client} knows registries by host and port: the URL of dpm is http(s)://HOST:PORT and no more")]
    NotPlain {
        /// The client.
        client: Client,
    },
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
mod tests;
