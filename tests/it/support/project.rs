//! Projects as an upstream publishes them.

use std::io::Write as _;

use dpm::base::Sha256;
use serde_json::{Value, json};

use super::upstream::{File, Upstream};

/// A project with one file.
#[derive(Clone, Debug)]
pub struct Project {
    pub name: String,
    pub filename: String,
    pub bytes: Vec<u8>,
    pub sha256: Sha256,
}

impl Project {
    /// `name` with one wheel of `size` bytes.
    pub fn new(name: &str, size: usize) -> Self {
        Self::of(name, bytes(size))
    }

    /// `name` with one wheel of these bytes.
    pub fn of(name: &str, bytes: Vec<u8>) -> Self {
        let filename = format!("{}-1.0-py3-none-any.whl", name.replace('-', "_"));
        Self { name: name.to_owned(), filename, sha256: Sha256::of(&bytes), bytes }
    }

    /// Path of its page, at the upstream below `/simple/`.
    pub fn page_path(&self) -> String {
        format!("/simple/{}/", self.name)
    }

    /// Path of its file at the upstream.
    pub fn file_path(&self) -> String {
        format!("/f/{}", self.filename)
    }

    /// Path of its page at dpm.
    pub fn page(&self) -> String {
        format!("/pypi/simple/{}/", self.name)
    }

    /// Path of its file at dpm.
    pub fn file(&self) -> String {
        format!("/pypi/files/{}/sha256-{}/{}", self.name, self.sha256, self.filename)
    }

    /// The entry of its file: name, address, hash, size.
    pub fn entry(&self, upstream: &Upstream) -> Value {
        json!({
            "filename": self.filename, "url": upstream.url(&self.file_path()),
            "hashes": {"sha256": self.sha256.hex()}, "size": self.bytes.len(),
        })
    }

    /// A page with these entries.
    pub fn page_of(&self, files: &[Value]) -> String {
        json!({"meta": {"api-version": "1.1"}, "name": self.name, "files": files}).to_string()
    }

    /// Publishes the page with these entries.
    pub fn list(&self, upstream: &Upstream, files: &[Value]) {
        upstream.serve(&self.page_path(), File::json(self.page_of(files)));
    }

    /// Publishes page and file.
    pub fn publish(self, upstream: &Upstream) -> Self {
        self.list(upstream, &[self.entry(upstream)]);
        upstream.serve(&self.file_path(), File::new(self.bytes.clone()));
        self
    }
}

/// Bytes that do not repeat in any block.
pub fn bytes(size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size + 8);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

/// A wheel with this metadata.
pub fn wheel(dist_info: &str, metadata: &str) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in [("demo/__init__.py", ""), (&format!("{dist_info}/METADATA"), metadata)] {
        zip.start_file(name, options).expect("a member");
        zip.write_all(content.as_bytes()).expect("a member");
    }
    zip.finish().expect("an archive").into_inner()
}

/// A wheel that pip installs: a module with random bytes beside it.
pub fn installable(name: &str, needs: &[&str], size: usize) -> Vec<u8> {
    let info = format!("{name}-1.0.dist-info");
    let needs: String = needs.iter().map(|need| format!("Requires-Dist: {need}\n")).collect();
    let files = [
        (format!("{name}/__init__.py"), b"".to_vec()),
        (format!("{name}/data"), bytes(size)),
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}").into(),
        ),
        (format!("{info}/WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec()),
    ];
    // pip asks for the names alone.
    let record: String = files.iter().map(|(name, _)| format!("{name},,\n")).collect();
    let record = (format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n").into_bytes());
    let options = zip::write::SimpleFileOptions::default();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files.into_iter().chain([record]) {
        zip.start_file(name, options).expect("a member");
        zip.write_all(&content).expect("a member");
    }
    zip.finish().expect("an archive").into_inner()
}
