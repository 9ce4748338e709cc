//! pip and uv as their users call them.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use dpm::base::Sha256;

use super::process::{Dpm, Home, counterpart};

/// A real client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Pip,
    Uv,
}

/// Where a client goes: past every dpm, or through one.
#[derive(Clone, Copy)]
pub enum Way<'a> {
    Direct(&'a str),
    Through(&'a Dpm<'a>),
}

/// Files of an installation, by path below it, with the digests of their bytes.
pub type Tree = BTreeMap<String, String>;

impl Tool {
    /// Installs a lock into a new folder, without any cache of the client's own.
    pub fn install(self, home: &Home, lock: &Path, way: Way<'_>, folder: &str) -> Tree {
        let into = home.path(folder);
        let index = way.index();
        let mut command = match self {
            Tool::Pip => {
                let mut pip = home.client(counterpart("pip", "pip"));
                pip.args(["install", "--no-cache-dir", "--no-compile", "--quiet", "--index-url", &index]);
                pip
            }
            Tool::Uv => {
                let mut uv = home.client(counterpart("uv", "uv"));
                uv.args(["pip", "install", "--no-cache", "--link-mode", "copy", "--default-index", &index]);
                uv.arg("--python").arg(counterpart("pip", "python"));
                uv
            }
        };
        command
            .args(["--require-hashes", "--only-binary", ":all:", "--target"])
            .arg(&into)
            .arg("-r")
            .arg(lock);
        home.run(&mut way.near(command));
        tree(&into)
    }
}

impl Way<'_> {
    fn index(self) -> String {
        match self {
            Self::Direct(url) => url.to_owned(),
            Self::Through(dpm) => dpm.index(),
        }
    }

    fn near(self, command: std::process::Command) -> std::process::Command {
        match self {
            Self::Direct(_) => command,
            Self::Through(dpm) => dpm.near(command),
        }
    }
}

/// Locks these requirements with hashes, through dpm; gives how many packages that makes.
pub fn lock(home: &Home, dpm: &Dpm<'_>, requirements: &[&str], file: &str) -> usize {
    home.write("requirements.in", &requirements.join("\n"));
    let mut uv = home.client(counterpart("uv", "uv"));
    uv.args(["pip", "compile", "--quiet", "--no-cache", "--generate-hashes", "--only-binary", ":all:"]);
    uv.args(["--no-header", "--no-annotate", "--default-index", &dpm.index(), "--python"]);
    uv.arg(counterpart("pip", "python")).args(["requirements.in", "-o", file]);
    home.run(&mut dpm.near(uv));
    home.read(file).expect("a lock").lines().filter(|line| line.contains("==")).count()
}

/// The SHA-256 digests in a lock.
pub fn hashes(lock: &str) -> HashSet<String> {
    lock.split("--hash=sha256:").skip(1).map(|rest| rest[..64].to_owned()).collect()
}

/// Every file below a folder, but those that say when, by whom and from where it was installed.
pub fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
            let told = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", ".lock"];
            if !told.contains(&name) && !name.ends_with(".pyc") {
                let below = path.strip_prefix(folder).expect("below").to_str().expect("UTF-8").to_owned();
                found.insert(below, digest(&path));
            }
        }
    }
    found
}

/// The SHA-256 of a file, as in a lock.
pub fn digest(path: &Path) -> String {
    Sha256::of(&std::fs::read(path).expect("a file")).to_string()
}
