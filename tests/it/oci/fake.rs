//! A registry of our own that does wrong what it is told to do wrong, and lists referrers as version 1.1 has it.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::image::{Image, OCI_INDEX};
use super::tokens::{SERVICE, Tokens};
use crate::support::upstream::{self, ANY, Asked};
use crate::support::{Fault, File, Upstream};

type Check = Arc<dyn Fn(&str) -> bool + Send + Sync>;
type Faults = Arc<dyn Fn(usize) -> Option<Fault> + Send + Sync>;

/// Whom it answers.
#[derive(Clone)]
struct Gate {
    /// Said with 401.
    challenge: String,
    /// Whether this `Authorization` will do.
    allows: Check,
}

#[derive(Default)]
struct Content {
    gate: Option<Gate>,
    /// By path, without a query.
    files: HashMap<String, File>,
    /// What goes wrong with the n-th answer for a path.
    faults: HashMap<String, Faults>,
    counts: HashMap<String, Arc<AtomicUsize>>,
    /// Tags, by name.
    tags: BTreeMap<String, Vec<String>>,
    /// Rows, by the subject's path below `/referrers/`.
    referrers: HashMap<String, Vec<Value>>,
}

/// A registry in this process. `server` counts what it is asked; a path that is given an answer there has that one.
pub struct FakeRegistry {
    pub server: Upstream,
    content: Arc<Mutex<Content>>,
}

impl FakeRegistry {
    pub fn start() -> Self {
        let (server, content) = (Upstream::start(), Arc::<Mutex<Content>>::default());
        let theirs = content.clone();
        server.route(ANY, move |asked, out| attend(asked, out, &theirs));
        content.lock().unwrap().files.insert("/v2/".into(), File::json("{}"));
        Self { server, content }
    }

    pub fn host(&self) -> String {
        self.server.host()
    }

    /// Puts an image there under a name and tag; gives the paths of its blobs.
    pub fn put(&self, name: &str, tag: &str, image: &Image) -> Vec<String> {
        let mut content = self.content.lock().unwrap();
        for (descriptor, bytes) in &image.manifests {
            let file = File { content_type: descriptor.media_type, ..File::new(bytes.clone()) }
                .header("Docker-Content-Digest", &descriptor.digest);
            content.files.insert(manifest_path(name, &descriptor.digest), file.clone());
            if *descriptor == image.root {
                content.files.insert(manifest_path(name, tag), file);
            }
        }
        let tags = content.tags.entry(name.into()).or_default();
        tags.retain(|known| known != tag);
        tags.push(tag.into());
        tags.sort();
        let mut paths = Vec::new();
        for (digest, bytes) in &image.blobs {
            let file = File::new(bytes.clone()).header("Docker-Content-Digest", digest);
            content.files.insert(blob_path(name, digest), file);
            paths.push(blob_path(name, digest));
        }
        paths
    }

    /// Puts something there that is about another manifest: by digest, and in the list of referrers.
    pub fn put_about(&self, name: &str, subject: &str, image: &Image) {
        self.put(name, &image.root.digest.replace(':', "-"), image);
        let mut content = self.content.lock().unwrap();
        let path = format!("/v2/{name}/referrers/{subject}");
        content.referrers.entry(path).or_default().push(image.referrer());
    }

    /// The same path, other bytes: a registry that lies, or has moved a tag without saying so.
    pub fn lie(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let mut content = self.content.lock().unwrap();
        let file = content.files.get_mut(path).unwrap_or_else(|| panic!("nothing at {path}"));
        file.bytes = bytes.into().into();
    }

    /// What goes wrong with the n-th answer for a path, from 0. Its bytes are what they were.
    pub fn faulty(&self, path: &str, fault: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static) {
        self.content.lock().unwrap().faults.insert(path.into(), Arc::new(fault));
    }

    /// Sends whoever asks for a path elsewhere: 307, as registries do with blobs.
    pub fn redirect(&self, path: &str, to: &str) {
        let (to, content) = (to.to_owned(), self.content.clone());
        self.server.route(path, move |asked, out| {
            if let Some(challenge) = refusal(&content, asked) {
                return say_no(out, &challenge);
            }
            write!(out, "HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
        });
    }

    /// From now on, only with a token of this server.
    pub fn ask_for_tokens(&self, tokens: &Tokens) {
        let (realm, known) = (tokens.realm(), tokens.checker());
        self.gate(&bearer(&realm), move |said| said.strip_prefix("Bearer ").is_some_and(&known));
    }

    /// From now on, 401 with this challenge unless `allows` likes the `Authorization`.
    pub fn gate(&self, challenge: &str, allows: impl Fn(&str) -> bool + Send + Sync + 'static) {
        let gate = Gate { challenge: challenge.into(), allows: Arc::new(allows) };
        self.content.lock().unwrap().gate = Some(gate);
    }
}

/// A challenge that names this token server.
pub fn bearer(realm: &str) -> String {
    format!(r#"Bearer realm="{realm}",service="{SERVICE}""#)
}

pub fn manifest_path(name: &str, reference: &str) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

pub fn blob_path(name: &str, digest: &str) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// The challenge, where one is due. A token's scope is named as registries do.
fn refusal(content: &Mutex<Content>, asked: &Asked) -> Option<String> {
    let gate = content.lock().unwrap().gate.clone()?;
    if (gate.allows)(asked.header("authorization")) {
        return None;
    }
    let name = asked.path.strip_prefix("/v2/").and_then(|rest| {
        let at =
            ["/manifests/", "/blobs/", "/tags/", "/referrers/"].iter().find_map(|word| rest.rfind(word))?;
        Some(&rest[..at])
    });
    Some(match name {
        Some(name) if gate.challenge.starts_with("Bearer") => {
            format!(r#"{},scope="repository:{name}:pull""#, gate.challenge)
        }
        _ => gate.challenge,
    })
}

fn attend(asked: &Asked, out: &mut TcpStream, content: &Mutex<Content>) -> std::io::Result<()> {
    if let Some(challenge) = refusal(content, asked) {
        return say_no(out, &challenge);
    }
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let (file, fault) = {
        let mut content = content.lock().unwrap();
        let count = content.counts.entry(path.into()).or_default().clone();
        let fault = content.faults.get(path).cloned();
        (look(&content, path, query), fault.and_then(|fault| fault(count.fetch_add(1, Ordering::Relaxed))))
    };
    match file {
        Some(file) => upstream::answer(&file, asked, out, fault),
        None => {
            let code = if path.contains("/blobs/") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
            say(out, asked, "404 Not Found", code)
        }
    }
}

fn look(content: &Content, path: &str, query: &str) -> Option<File> {
    let asked: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    if let Some(name) = path.strip_prefix("/v2/").and_then(|rest| rest.strip_suffix("/tags/list")) {
        let all = content.tags.get(name)?;
        let last = asked.get("last").map_or("", String::as_str);
        let most = asked.get("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let tags: Vec<_> = all.iter().filter(|tag| tag.as_str() > last).take(most).collect();
        let file = File {
            content_type: "application/json",
            ..File::json(json!({"name": name, "tags": tags}).to_string())
        };
        return Some(match tags.last().filter(|tag| ***tag != all[all.len() - 1]) {
            Some(tag) => {
                file.header("Link", &format!("</v2/{name}/tags/list?n={most}&last={tag}>; rel=\"next\""))
            }
            None => file,
        });
    }
    if path.contains("/referrers/") {
        let rows = content.referrers.get(path).map_or(&[][..], Vec::as_slice).iter();
        let wanted = asked.get("artifactType");
        let rows: Vec<_> =
            rows.filter(|row| wanted.is_none_or(|wanted| row["artifactType"] == **wanted)).collect();
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).to_string();
        let file = File { content_type: OCI_INDEX, ..File::new(index) };
        return Some(if wanted.is_some() {
            file.header("OCI-Filters-Applied", "artifactType")
        } else {
            file
        });
    }
    content.files.get(path).cloned()
}

fn say_no(out: &mut TcpStream, challenge: &str) -> std::io::Result<()> {
    let head = format!("www-authenticate: {challenge}\r\n");
    let body = errors("UNAUTHORIZED");
    let length = body.len();
    write!(out, "HTTP/1.1 401 Unauthorized\r\n{head}content-length: {length}\r\n\r\n{body}")
}

fn say(out: &mut TcpStream, asked: &Asked, status: &str, code: &str) -> std::io::Result<()> {
    let body = errors(code);
    let length = body.len();
    let shown = if asked.method == "HEAD" { "" } else { &body };
    write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{shown}"
    )
}

fn errors(code: &str) -> String {
    json!({"errors": [{"code": code, "message": "no"}]}).to_string()
}
