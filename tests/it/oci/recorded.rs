//! The requests of clients that cannot run here, sent as they send them.

use dpm::base::Sha256;

use super::image::{HERE, Image};
use crate::support::{Answer, request};

/// A client whose requests are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// docker's daemon with `registry-mirrors`.
    DockerMirror,
    /// containerd with a mirror of docker.io.
    ContainerdNs,
}

/// One of its requests.
#[derive(Debug)]
pub struct Sent {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Recorded {
    /// Its pull of an index by tag, from the first request to the last, against this `host:port`.
    ///
    /// Whatever it would check is checked: status, length, digest, and that a manifest's type is told.
    #[track_caller]
    pub fn pull(self, host: &str, name: &str, tag: &str, image: &Image) -> Vec<(Sent, Answer)> {
        let mut done = Vec::new();
        for sent in self.requests(name, tag, image) {
            let headers: Vec<_> = sent.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let answer = request(&sent.method, &format!("http://{host}{}", sent.path), &headers);
            check(&sent, &answer, image);
            done.push((sent, answer));
        }
        done
    }

    fn requests(self, name: &str, tag: &str, image: &Image) -> Vec<Sent> {
        let text = match self {
            Self::DockerMirror => include_str!("../../fixtures/oci/docker-mirror.http"),
            Self::ContainerdNs => include_str!("../../fixtures/oci/containerd-ns.http"),
        };
        let own = &image.manifests[usize::from(HERE == "arm64")].0;
        let layer = image.first_layer();
        let mut text = text.to_owned();
        for (word, value) in [
            ("name", name),
            ("tag", tag),
            ("root", &image.root.digest),
            ("manifest", &own.digest),
            ("config", &image.unpacked().config),
            ("layer", &layer),
        ] {
            text = text.replace(&format!("{{{word}}}"), value);
        }
        text.split("\n###\n").map(parse).collect()
    }
}

fn parse(block: &str) -> Sent {
    let mut lines = block.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (method, path) = lines.next().and_then(|line| line.split_once(' ')).expect("a request line");
    let headers = lines
        .map(|line| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).expect("a header"))
        .collect();
    Sent { method: method.into(), path: path.into(), headers }
}

#[track_caller]
fn check(sent: &Sent, answer: &Answer, image: &Image) {
    let range = sent.headers.iter().find(|(name, _)| name == "Range");
    let line = format!("{} {}", sent.method, sent.path);
    assert_eq!(answer.status, if range.is_some() { 206 } else { 200 }, "{line}: {}", answer.text());
    let path = sent.path.split('?').next().expect("a path");
    let (rest, reference) = path.rsplit_once('/').expect("a path");
    if sent.method == "HEAD" {
        assert_eq!(answer.header("docker-content-digest"), image.root.digest, "{line}");
        assert_eq!(answer.header("content-length"), image.root.size.to_string(), "{line}");
        assert_eq!(answer.header("content-type"), image.root.media_type, "{line}");
        return;
    }
    if let Some((_, range)) = range {
        let (whole, first) = (&image.blobs[reference], range_start(range));
        assert!(answer.body == whole[first..], "{line}");
        let told = format!("bytes {first}-{}/{}", whole.len() - 1, whole.len());
        assert_eq!(answer.header("content-range"), told, "{line}");
    } else if reference.starts_with("sha256:") {
        assert_eq!(format!("sha256:{}", Sha256::of(&answer.body)), reference, "{line}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{line}");
    }
    if rest.ends_with("/manifests") {
        let known = image.manifests.iter().find(|(descriptor, _)| descriptor.digest == reference);
        assert_eq!(answer.header("content-type"), known.expect("a manifest").0.media_type, "{line}");
    }
}

/// `bytes=1000-`.
fn range_start(range: &str) -> usize {
    range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a number")
}
