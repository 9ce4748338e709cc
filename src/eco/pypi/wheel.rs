//! The metadata inside a wheel, for indexes that do not serve it beside (PEP 658).

use std::io::{self, Read, Seek};

use crate::base::limits;

use super::archive::{Member, ZipError, members, read_member};
use super::name::fold;

/// The bytes of `METADATA` in the wheel's own `*.dist-info` (binary distribution format; as pip finds it).
///
/// `filename` is the wheel's name: its project and version choose the directory. At most
/// [`limits::METADATA_BYTES`] are unpacked, whatever the archive claims. Reads the end of the file, the archive's
/// directory and the one member.
pub fn wheel_metadata<R: Read + Seek>(mut reader: R, filename: &str) -> Result<Vec<u8>, WheelError> {
    let (project, version) = project_and_version(filename).ok_or(WheelError::Name)?;
    let found = members(&mut reader, MAX_CANDIDATES, |name| dist_info(name).is_some())?;
    let member = choose(&found, project, version)?;
    Ok(read_member(&mut reader, member, limits::METADATA_BYTES)?)
}

fn project_and_version(filename: &str) -> Option<(&str, &str)> {
    let mut parts = filename.strip_suffix(".whl")?.split('-');
    let (project, version) = (parts.next()?, parts.next()?);
    let tags = parts.count();
    (!project.is_empty() && !version.is_empty() && (3..=4).contains(&tags)).then_some((project, version))
}

/// `a-1` of `a-1.dist-info/METADATA`.
fn dist_info(member: &str) -> Option<&str> {
    member.strip_suffix(".dist-info/METADATA").filter(|directory| !directory.contains('/'))
}

/// pip takes a single directory that starts with the project's name, its version be as it may. Of several, which pip
/// refuses, the one that is exactly the wheel's.
fn choose<'a>(found: &'a [Member], project: &str, version: &str) -> Result<&'a Member, WheelError> {
    let project = fold(project);
    let own = format!("{project}-{}", fold(version));
    let of_project = |m: &&Member| fold(dist_info(&m.name).unwrap_or_default()).starts_with(&project);
    let is_own = |m: &&Member| dist_info(&m.name).is_some_and(|d| fold(d) == own);
    // Python's zipfile lets the last member of a name win.
    let Some(last) = found.iter().rev().find(of_project) else { return Err(WheelError::NoMetadata) };
    if found.iter().all(|m| m.name == last.name) {
        return Ok(last);
    }
    found.iter().rev().find(is_own).ok_or(WheelError::Ambiguous)
}

/// Members that may be the metadata: there is one in every sound wheel.
const MAX_CANDIDATES: usize = 64;

/// Why a wheel's metadata cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// Not named as a wheel.
    #[error("the file is not named as a wheel")]
    Name,
    /// No `dist-info` of this project with `METADATA`.
    #[error("the wheel has no METADATA of its project")]
    NoMetadata,
    /// Several `dist-info`, none exactly of this project and version.
    #[error("the wheel has several METADATA and none is clearly its own")]
    Ambiguous,
    /// Over [`limits::METADATA_BYTES`], or with a directory of absurd size.
    #[error("the wheel's METADATA or directory is too large")]
    TooLarge,
    /// Not a ZIP archive, or a damaged one.
    #[error("the wheel is not a sound archive: {0}")]
    Broken(&'static str),
    /// A ZIP feature that wheels do not use.
    #[error("the wheel's METADATA cannot be read: {0}")]
    Unsupported(&'static str),
    /// The reader failed: another try may not.
    #[error("cannot read the wheel")]
    Io(#[source] io::Error),
}

impl From<ZipError> for WheelError {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => Self::Io(error),
            ZipError::Broken(why) => Self::Broken(why),
            ZipError::Unsupported(why) => Self::Unsupported(why),
            ZipError::TooLarge => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::CompressionMethod::{self, Deflated, Stored};
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::base::mutate::mutations;

    const WHEEL: &str = "Foo.Bar-1.0-py3-none-any.whl";

    fn wheel(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in members {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[track_caller]
    fn check(filename: &str, archive: &[u8], want: Result<&[u8], &str>) {
        match (wheel_metadata(Cursor::new(archive), filename), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => assert!(format!("{got:?}").starts_with(want), "{got:?}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }

    #[test]
    fn finds_its_own() {
        let own: (&str, &[u8]) = ("foo_bar-1.0.dist-info/METADATA", b"Name: foo");
        let code: (&str, &[u8]) = ("foo/__init__.py", b"1");
        for method in [Stored, Deflated] {
            check(WHEEL, &wheel(method, &[code, own]), Ok(own.1));
        }
        let mut zip64 = ZipWriter::new(Cursor::new(Vec::new()));
        zip64.start_file(own.0, SimpleFileOptions::default().large_file(true)).unwrap();
        zip64.write_all(own.1).unwrap();
        check(WHEEL, &zip64.finish().unwrap().into_inner(), Ok(own.1));
        let one = |name| wheel(Stored, &[code, (name, b"x")]);
        check(WHEEL, &one("FOO-BAR-1.0.dist-info/METADATA"), Ok(b"x"));
        check(WHEEL, &one("foo_bar-1.0.0.dist-info/METADATA"), Ok(b"x"));
        check(WHEEL, &one("other-1.0.dist-info/METADATA"), Err("NoMetadata"));
        check(WHEEL, &one("sub/foo_bar-1.0.dist-info/METADATA"), Err("NoMetadata"));
        check(WHEEL, &one("foo_bar-1.0.dist-info/METADATA.txt"), Err("NoMetadata"));
        check(WHEEL, &wheel(Stored, &[]), Err("NoMetadata"));
        check(WHEEL, &wheel(Stored, &[own, ("x-2.dist-info/METADATA", b"x")]), Ok(own.1));
        let others = [("foo_bar-2.dist-info/METADATA", &b"x"[..]), ("foo_bar-3.dist-info/METADATA", b"x")];
        check(WHEEL, &wheel(Stored, &others), Err("Ambiguous"));
    }

    #[test]
    fn names() {
        let archive = wheel(Deflated, &[("a-1.dist-info/METADATA", b"x")]);
        check("a-1-2-py3-none-any.whl", &archive, Ok(b"x"));
        for name in ["a-1.tar.gz", "a.whl", "a-1-py3.whl", "-1-py3-none-any.whl", "", "../a-1-py3-none-any"] {
            check(name, &archive, Err("Name"));
        }
    }

    #[test]
    fn prefix_and_damage() {
        let archive = wheel(Deflated, &[("foo_bar-1.0.dist-info/METADATA", b"Name: foo")]);
        check(WHEEL, &[b"#!/bin/sh\n", archive.as_slice()].concat(), Ok(b"Name: foo"));
        check(WHEEL, b"", Err("Broken"));
        check(WHEEL, b"PK\x05\x06", Err("Broken"));
        check(WHEEL, &archive[..archive.len() - 23], Err("Broken"));
        let mut wrong = archive.clone();
        let end = wrong.len() - 22;
        wrong[end + 12..end + 16].fill(0xff);
        check(WHEEL, &wrong, Err("TooLarge"));
        let mut wrong = archive;
        let at = wrong.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        wrong[at + 16] ^= 1;
        check(WHEEL, &wrong, Err("Broken"));
    }

    #[test]
    fn bombs() {
        let content = vec![b' '; limits::METADATA_BYTES as usize + 1];
        let mut archive = wheel(Deflated, &[("foo_bar-1.0.dist-info/METADATA", &content)]);
        assert!(archive.len() < 64 << 10);
        check(WHEEL, &archive, Err("TooLarge"));
        // The same with a lie about its size.
        let at = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        archive[at + 24..at + 28].copy_from_slice(&10u32.to_le_bytes());
        check(WHEEL, &archive, Err("TooLarge"));
        check(
            WHEEL,
            &wheel(Deflated, &[("foo_bar-1.0.dist-info/METADATA", &content[1..])]),
            Ok(&content[1..]),
        );
    }

    #[test]
    fn mutated_wheels_never_panic() {
        let archive = wheel(Deflated, &[("a", b"1"), ("foo_bar-1.0.dist-info/METADATA", b"Name: foo")]);
        mutations(&[&archive], 20_000, |bytes| drop(wheel_metadata(Cursor::new(bytes), WHEEL)));
    }
}
