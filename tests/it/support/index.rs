//! Projects with one file each, on an upstream.

use dpm::base::Sha256;

use super::{Upstream, random_bytes};

/// A project with one file.
#[derive(Clone, Debug)]
pub struct Project {
    pub name: String,
    pub content: Vec<u8>,
    pub sha256: Sha256,
}

impl Project {
    /// Puts a project with a file of `length` bytes that belong to `seed` on the upstream.
    pub fn publish(upstream: &Upstream, seed: u64, length: usize) -> Self {
        let content = random_bytes(seed, length);
        let project = Self { name: format!("p{seed}"), sha256: Sha256::of(&content), content };
        upstream.file(&project.origin(), "application/octet-stream", project.content.clone());
        project.list(upstream);
        project
    }

    /// Puts its page on the upstream.
    pub fn list(&self, upstream: &Upstream) {
        let Self { name, content, sha256 } = self;
        let (file, url, size) = (self.filename(), upstream.url(&self.origin()), content.len());
        let page = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"{name}","files":[{{"filename":"{file}","url":"{url}","hashes":{{"sha256":"{sha256}"}},"size":{size}}}]}}"#
        );
        upstream.file(&format!("/simple/{name}/"), "application/vnd.pypi.simple.v1+json", page);
    }

    pub fn filename(&self) -> String {
        format!("{}-1.0.tar.gz", self.name)
    }

    /// Its file's path on the upstream.
    pub fn origin(&self) -> String {
        format!("/f/{}", self.filename())
    }

    /// Its page's path on a node.
    pub fn page(&self) -> String {
        format!("/pypi/simple/{}/", self.name)
    }

    /// Its file's path on a node.
    pub fn file(&self) -> String {
        format!("/pypi/files/{}/sha256-{}/{}", self.name, self.sha256, self.filename())
    }

    /// As the command line names it.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }
}
