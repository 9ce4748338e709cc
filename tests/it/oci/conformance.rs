//! The pull and discovery parts of the OCI distribution specification 1.1, as a table.
//!
//! After the specification and what its own conformance suite asks for; that suite is a Go program with modules that
//! no package archive here has. Each function takes any registry, so the tests of this file hold it against
//! docker-registry and the fake one first.

use std::collections::BTreeSet;

use serde_json::Value;

use super::image::{Descriptor, Image, OCI_INDEX};
use super::registry::{Auth, Registry};
use super::tools::Tools;
use crate::clients::process::Home;
use crate::oci::fake::{FakeRegistry, blob_path, manifest_path};
use crate::support::{Answer, attempt};

/// The codes that an error may have (specification, "Error Codes").
const CODES: &[&str] = &[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// Nothing has it.
const NO_DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A registry, and what was pushed there.
pub struct Target<'a> {
    /// `host:port`.
    pub host: &'a str,
    pub name: &'a str,
    pub tag: &'a str,
    pub image: &'a Image,
    /// Rows that it is known to get wrong, and must, or they are to be struck off.
    pub wrong: &'static [&'static str],
}

/// A request, and what must come of it.
struct Case<'a> {
    what: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    status: &'static [u16],
    body: Body<'a>,
}

/// What an answer must carry.
enum Body<'a> {
    Anything,
    Manifest(&'a Descriptor, &'a [u8]),
    Blob(&'a str, &'a [u8]),
    /// These bytes of it, from and to, the end not included.
    Part(&'a [u8], usize, usize),
    /// An error as the specification words it.
    Error,
}

/// Whatever a client that pulls may ask for: everything that is there, and what is not.
#[track_caller]
pub fn pull(target: &Target<'_>) {
    let image = target.image;
    let mut cases = vec![case("the API is there", "GET", "/v2/".into(), &[200], Body::Anything)];
    for (descriptor, bytes) in &image.manifests {
        let mut references = vec![("a manifest by digest", descriptor.digest.as_str())];
        if *descriptor == image.root {
            references.push(("a manifest by tag", target.tag));
        }
        for (what, reference) in references {
            for method in ["HEAD", "GET"] {
                let mut case = case(
                    what,
                    method,
                    manifest_path(target.name, reference),
                    &[200],
                    Body::Manifest(descriptor, bytes),
                );
                case.headers.push(("accept", descriptor.media_type.into()));
                cases.push(case);
            }
        }
    }
    for (digest, bytes) in &image.blobs {
        let path = || blob_path(target.name, digest);
        for method in ["HEAD", "GET"] {
            cases.push(case("a blob", method, path(), &[200], Body::Blob(digest, bytes)));
        }
        let size = bytes.len();
        for (what, range, first, end) in [
            ("the first bytes", "bytes=0-1".to_owned(), 0, 2),
            ("all but the first byte", "bytes=1-".to_owned(), 1, size),
            ("the last byte", "bytes=-1".to_owned(), size - 1, size),
            ("past the end, cut there", format!("bytes=1-{}", size + 10), 1, size),
        ] {
            let mut case = case(what, "GET", path(), &[206], Body::Part(bytes, first, end));
            case.headers.push(("range", range));
            cases.push(case);
        }
        let mut case = case("a range behind the end", "GET", path(), &[416], Body::Anything);
        case.headers.push(("range", format!("bytes={size}-")));
        cases.push(case);
    }
    for (what, path, status) in [
        ("no such blob", blob_path(target.name, NO_DIGEST), &[404][..]),
        ("no such tag", manifest_path(target.name, "no-such-tag"), &[404]),
        ("no such manifest", manifest_path(target.name, NO_DIGEST), &[404]),
        ("no such name", manifest_path("no/such/name", "latest"), &[404]),
        ("no digest of a blob", blob_path(target.name, "sha256:totallywrong"), &[400, 404]),
        ("no digest of a manifest", manifest_path(target.name, "sha256:totallywrong"), &[400, 404]),
        ("no name", manifest_path("Not/A/Name", "latest"), &[400, 404]),
    ] {
        cases.push(case(what, "HEAD", path.clone(), status, Body::Anything));
        cases.push(case(what, "GET", path, status, Body::Error));
    }
    hold(target, &cases);
}

/// The list of tags: all of them, in order, and by pages (`n`, `last`, `Link`).
#[track_caller]
pub fn tags(target: &Target<'_>, all: &[&str]) {
    assert_eq!(listed(target, "").0, all);
    let half = all.len() / 2;
    let (first, link) = listed(target, &format!("?n={half}"));
    assert_eq!(first, all[..half], "the first page");
    let next = link.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(url, _)| url);
    let next = next.unwrap_or_else(|| panic!("no next page in {link:?}"));
    assert!(link.ends_with("rel=\"next\""), "{link}");
    // It may be relative, or name the host that was asked.
    let query = next.split_once('?').expect("a query").1;
    assert!(!next.starts_with("http") || next.contains(target.host), "{next}");
    let (second, _) = listed(target, &format!("?{query}"));
    assert_eq!(second, all[half..(2 * half).min(all.len())], "the next page");
    assert_eq!(listed(target, &format!("?last={}", all[half - 1])).0, all[half..], "all after one");
}

/// The list of what is about a manifest (1.1), with and without a filter.
#[track_caller]
pub fn referrers(target: &Target<'_>, subject: &str, about: &[&Image]) {
    let list = |digest: &str, query: &str| {
        let path = format!("/v2/{}/referrers/{digest}{query}", target.name);
        let answer = ask(target, "GET", &path, &[]).expect("an answer");
        assert_eq!((answer.status, answer.header("content-type")), (200, OCI_INDEX), "{path}");
        (answer.json()["manifests"].as_array().expect("rows").clone(), answer)
    };
    assert_eq!(list(NO_DIGEST, "").0, Vec::<Value>::new(), "of what is not there: an empty list");
    let rows: Vec<_> = about.iter().map(|image| image.referrer()).collect();
    assert_eq!(list(subject, "").0, rows);
    let kind = rows[0]["artifactType"].as_str().expect("a type");
    let (filtered, answer) = list(subject, &format!("?artifactType={kind}"));
    // A registry may leave the filter to the client; then it must not say that it has applied it.
    match answer.header("oci-filters-applied") {
        "" => assert_eq!(filtered, rows),
        applied => {
            assert_eq!(applied, "artifactType");
            let wanted: Vec<_> = rows.iter().filter(|row| row["artifactType"] == kind).cloned().collect();
            assert_eq!(filtered, wanted);
        }
    }
}

fn listed(target: &Target<'_>, query: &str) -> (Vec<String>, String) {
    let path = format!("/v2/{}/tags/list{query}", target.name);
    let answer = ask(target, "GET", &path, &[]).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let list = answer.json();
    assert_eq!(list["name"], target.name, "{path}");
    let tags = list["tags"].as_array().expect("tags").iter();
    let tags = tags.map(|tag| tag.as_str().expect("a tag").to_owned()).collect();
    (tags, answer.header("link").to_owned())
}

fn case<'a>(
    what: &'static str,
    method: &'static str,
    path: String,
    status: &'static [u16],
    body: Body<'a>,
) -> Case<'a> {
    Case { what, method, path, headers: Vec::new(), status, body }
}

/// Asks for every row, and fails with all that are wrong and should not be, and with those that should.
#[track_caller]
fn hold(target: &Target<'_>, cases: &[Case<'_>]) {
    let (mut wrong, mut excused) = (Vec::new(), BTreeSet::new());
    for case in cases {
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let found = ask(target, case.method, &case.path, &headers).and_then(|answer| case.judge(&answer));
        match found {
            Ok(()) => {}
            Err(_) if target.wrong.contains(&case.what) => drop(excused.insert(case.what)),
            Err(why) => {
                wrong.push(format!("{}: {} {} {headers:?}: {why}", case.what, case.method, case.path))
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(excused, target.wrong.iter().copied().collect(), "known to be wrong");
}

fn ask(target: &Target<'_>, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let answer = attempt(method, &format!("http://{}{path}", target.host), headers)?;
    match &answer.broken {
        // docker-registry announces the blob's length with 416, and sends a short text.
        Some(why) if answer.status < 300 => Err(format!("broke off: {why}")),
        _ => Ok(answer),
    }
}

impl Case<'_> {
    fn judge(&self, answer: &Answer) -> Result<(), String> {
        if !self.status.contains(&answer.status) {
            return Err(format!("status {}, not {:?}: {}", answer.status, self.status, answer.text()));
        }
        let same = |what: &str, found: &str, wanted: &str| match found == wanted {
            true => Ok(()),
            false => Err(format!("{what} is {found:?}, not {wanted:?}")),
        };
        let whole = |bytes: &[u8]| {
            same("content-length", answer.header("content-length"), &bytes.len().to_string())?;
            match self.method == "HEAD" || answer.body == bytes {
                true => Ok(()),
                false => {
                    Err(format!("{} bytes, not the {} that were pushed", answer.body.len(), bytes.len()))
                }
            }
        };
        match &self.body {
            Body::Anything => Ok(()),
            Body::Manifest(descriptor, bytes) => {
                same("content-type", answer.header("content-type"), descriptor.media_type)?;
                same("docker-content-digest", answer.header("docker-content-digest"), &descriptor.digest)?;
                whole(bytes)
            }
            Body::Blob(digest, bytes) => {
                same("docker-content-digest", answer.header("docker-content-digest"), digest)?;
                whole(bytes)
            }
            Body::Part(bytes, first, end) => {
                let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
                same("content-range", answer.header("content-range"), &range)?;
                match answer.body == bytes[*first..*end] {
                    true => Ok(()),
                    false => Err("other bytes".into()),
                }
            }
            Body::Error => {
                let body: Value =
                    serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
                let code = body["errors"][0]["code"].as_str().ok_or_else(|| format!("no code in {body}"))?;
                match CODES.contains(&code) {
                    true => Ok(()),
                    false => Err(format!("{code} is none of the specification's codes")),
                }
            }
        }
    }
}

#[test]
fn docker_registry_conforms() {
    let home = Home::bare();
    let (tools, registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    for (tag, image) in samples() {
        registry.push(&tools, &image, &format!("team/app:{tag}"));
        // Version 2.8 answers the one with 500, the other with a plain page.
        let wrong = &["no digest of a manifest", "no name"];
        pull(&Target { host: &registry.host(), name: "team/app", tag, image: &image, wrong });
    }
}

#[test]
fn the_fake_registry_conforms() {
    let registry = FakeRegistry::start();
    let host = registry.host();
    let samples = samples();
    for (tag, image) in &samples {
        registry.put("team/app", tag, image);
        pull(&Target { host: &host, name: "team/app", tag, image, wrong: &[] });
    }
    let names: Vec<_> = samples.iter().map(|(tag, _)| *tag).collect();
    let (tag, image) = &samples[0];
    let target = Target { host: &host, name: "team/app", tag, image, wrong: &[] };
    tags(&target, &names);
    let subject = &image.root;
    let about = [
        Image::about(subject, "application/vnd.example.signature", "signed"),
        Image::about(subject, "application/vnd.example.parts", "parts"),
    ];
    for image in &about {
        registry.put_about("team/app", &subject.digest, image);
    }
    referrers(&target, &subject.digest, &about.each_ref());
}

/// One of each kind, by tags in order.
fn samples() -> Vec<(&'static str, Image)> {
    let image = Image::new(1, &[3000, 70_000]);
    let about = Image::about(&image.root, "application/vnd.example.signature", "signed");
    vec![
        ("chart", Image::chart("demo")),
        ("docker", Image::docker(2, &[3000])),
        ("image", image),
        ("index", Image::index(3, &[5000])),
        ("large", Image::large(4)),
        ("signature", about),
    ]
}
