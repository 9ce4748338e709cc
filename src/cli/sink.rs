//! Where `get` and `export` write: to the terminal, or into a file that nobody sees before it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// Where bytes are written.
pub(super) enum Sink {
    Terminal(io::Stdout),
    /// Without a name until it is whole: however this program ends, nothing of it is left.
    Unnamed(File, PathBuf),
    /// Where the file system knows no such files.
    Named {
        file: File,
        path: PathBuf,
        kept: bool,
    },
}

impl Sink {
    /// A file that will be in this folder.
    pub(super) fn file(folder: &Path) -> Result<Self> {
        if let Some(file) = unnamed(folder) {
            return Ok(Self::Unnamed(file, folder.to_owned()));
        }
        let sink = Self::named(folder)?;
        if let Self::Named { path, .. } = &sink {
            let path = path.clone();
            // Another handler can only be one that ends us well; without any the file stays when somebody presses Ctrl-C.
            let _ = ctrlc::set_handler(move || {
                let _ = std::fs::remove_file(&path);
                std::process::exit(INTERRUPTED);
            });
        }
        Ok(sink)
    }

    fn named(folder: &Path) -> Result<Self> {
        let path = part(folder);
        let file = File::options().write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("write into {}", folder.display()))?;
        Ok(Self::Named { file, path, kept: false })
    }

    /// Gives the file its name, in the place of another that has it.
    pub(super) fn keep(&mut self, to: &Path) -> Result<()> {
        let what = || format!("write {}", to.display());
        match self {
            Self::Terminal(_) => {}
            Self::Unnamed(file, folder) => {
                file.sync_all().with_context(what)?;
                match link(file, to) {
                    Err(rustix::io::Errno::EXIST) => {
                        // A link takes nobody's place, a renamed file does.
                        let part = part(folder);
                        link(file, &part).with_context(what)?;
                        std::fs::rename(&part, to).inspect_err(|_| drop(std::fs::remove_file(&part)))
                    }
                    linked => linked.map_err(io::Error::from),
                }
                .with_context(what)?;
            }
            Self::Named { file, path, kept } => {
                file.sync_all().with_context(what)?;
                std::fs::rename(path, to).with_context(what)?;
                *kept = true;
            }
        }
        Ok(())
    }
}

/// The name of a file that is not whole.
fn part(folder: &Path) -> PathBuf {
    folder.join(format!(".dpm-{}.part", std::process::id()))
}

/// A file without a name, if one can be had there and can be named later.
fn unnamed(folder: &Path) -> Option<File> {
    let file = rustix::fs::open(
        folder,
        OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
        // As any new file: the umask takes its part.
        Mode::from_raw_mode(0o666),
    );
    let file = File::from(file.ok()?);
    Path::new(&in_proc(&file)).exists().then_some(file)
}

fn link(file: &File, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::linkat(CWD, in_proc(file), CWD, to, AtFlags::SYMLINK_FOLLOW)
}

/// The one name that such a file has, which needs no privilege (open(2), "O_TMPFILE").
fn in_proc(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What shells say of a program that SIGINT ended.
pub(super) const INTERRUPTED: i32 = 130;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(out) => out.write(bytes),
            Self::Unnamed(file, _) | Self::Named { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Terminal(out) => out.flush(),
            Self::Unnamed(file, _) | Self::Named { file, .. } => file.flush(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::Named { path, kept: false, .. } = self {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let to = dir.path().join("file");
        for make in [Sink::file, Sink::named] {
            let mut dropped = make(dir.path()).unwrap();
            dropped.write_all(b"half").unwrap();
            drop(dropped);
            assert!(names().is_empty());
            // New, and in the place of another.
            for bytes in ["one", "two"] {
                let mut sink = make(dir.path()).unwrap();
                sink.write_all(bytes.as_bytes()).unwrap();
                sink.keep(&to).unwrap();
                drop(sink);
                assert_eq!(
                    (std::fs::read_to_string(&to).unwrap().as_str(), names()),
                    (bytes, vec!["file".into()])
                );
            }
            let mut sink = make(dir.path()).unwrap();
            assert!(sink.keep(&dir.path().join("no/file")).is_err());
            drop(sink);
            assert_eq!(names(), ["file"]);
            std::fs::remove_file(&to).unwrap();
        }
        assert!(Sink::file(&dir.path().join("no")).is_err());
    }
}
