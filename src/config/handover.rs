//! What `dpm setup` remembers of a client's own configuration, so that it can be given back.
//!
//! The learner reads it too: a client that points at us says here where it pointed before.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Machine;

/// A package client whose configuration dpm can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// pip.
    Pip,
    /// uv.
    Uv,
    /// docker's daemon.
    Docker,
    /// podman, and with it skopeo, buildah and cri-o.
    Podman,
    /// containerd.
    Containerd,
}

/// What was done to one client's file. Kept in `$XDG_STATE_HOME/dpm/setup/<client>.json`, readable by its user only.
///
/// Has no `Debug`: a client's file may hold passwords.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The client.
    pub client: Client,
    /// The file itself, symlinks followed.
    pub file: PathBuf,
    /// The URL that we wrote: of an index; of dpm itself for a client of containers.
    pub index_url: String,
    /// The host that we called trusted, if we had to.
    pub trusted_host: Option<String>,
    /// SHA-256 (hex) of the file as we wrote it.
    pub wrote_sha256: String,
    /// The file's text before us; `None` when there was none.
    pub previous: Option<String>,
    /// The index URL that it stated, with its userinfo.
    pub previous_index: Option<String>,
    /// Permission bits of the file before us.
    pub mode: Option<u32>,
    /// Directories that we made, outermost first.
    pub made_dirs: Vec<PathBuf>,
    /// Somebody changed the file between two of our writes: only our own lines may be taken out.
    pub edited: bool,
}

impl Client {
    /// All of them.
    pub const ALL: [Client; 5] = [Self::Pip, Self::Uv, Self::Docker, Self::Podman, Self::Containerd];

    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Uv => "uv",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
        }
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Client {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|client| client.name() == name).ok_or_else(|| {
            format!(
                "{name:?} is no client that dpm can set up; there are {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}

impl Handover {
    /// Where the memory of a client is kept; `None` without a home.
    pub fn path(machine: &Machine, client: Client) -> Option<PathBuf> {
        Some(machine.state_home()?.join("dpm/setup").join(format!("{client}.json")))
    }

    /// What is remembered; `None` when nothing is.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Remembers: on disk when this returns.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        super::replace(path, &serde_json::to_string_pretty(self)?, 0o600)
    }
}
