//! What lock files name, as a room's scope: read here, where the files are, and not by the node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::daemon::RoomOrder;
use crate::eco::lock::{self, LOCK_BYTES, LockKind};
use crate::wire::room::{Pattern, Scope};

/// What was taken from lock files and from the command line.
#[derive(Default)]
pub(super) struct Taken {
    patterns: BTreeSet<Pattern>,
    files: Vec<File>,
}

struct File {
    path: PathBuf,
    /// Packages by their ecosystem.
    packages: BTreeMap<String, u64>,
    passed_over: Vec<(String, &'static str)>,
}

impl Taken {
    /// Reads these files and patterns.
    pub(super) fn of(files: &[PathBuf], patterns: &[String]) -> Result<Self> {
        let mut taken = Self::default();
        for path in files {
            taken.read(path).with_context(|| format!("read {}", path.display()))?;
        }
        for text in patterns {
            let pattern = Pattern::parse(text).map_err(|e| anyhow!("{text}: {e}"))?;
            taken.patterns.insert(pattern);
        }
        Scope::default().extend(taken.patterns.iter().cloned())?;
        Ok(taken)
    }

    fn read(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(kind) = LockKind::of(&name) else {
            bail!(
                "this is no lock file that dpm knows by its name: uv.lock, poetry.lock, requirements*.txt, \
                 package-lock.json, npm-shrinkwrap.json, Cargo.lock, images.txt (an image a line)"
            );
        };
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LOCK_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let locked = lock::parse(kind, &bytes)?;
        let mut packages = BTreeMap::new();
        for purl in locked.packages.keys() {
            *packages.entry(purl.kind().to_owned()).or_default() += 1;
            self.patterns.insert(Pattern::from(purl));
        }
        self.files.push(File { path: path.to_owned(), packages, passed_over: locked.passed_over });
        Ok(())
    }

    /// As the node takes them.
    pub(super) fn lines(&self) -> String {
        self.patterns.iter().fold(String::new(), |lines, pattern| lines + pattern.as_str() + "\n")
    }

    /// Adds to an outcome what was read.
    pub(super) fn report(&self, order: &RoomOrder, outcome: &mut Value) {
        if !self.files.is_empty() {
            let files = self.files.iter().map(|file| {
                let over = file.passed_over.iter();
                let over: Vec<_> = over.map(|(name, why)| json!({"name": name, "why": why})).collect();
                json!({"file": file.path, "packages": file.packages, "passed_over": over})
            });
            outcome["from"] = files.collect();
        }
        if matches!(order, RoomOrder::Create { .. }) {
            outcome["packages"] = self.patterns.len().into();
        }
    }
}
