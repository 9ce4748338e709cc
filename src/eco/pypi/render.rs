//! A project's page as clients get it, JSON (PEP 691, 700) or HTML (PEP 503), from the one stored form.
//!
//! Links to files lead to us and are relative. What upstream alone may say with its own URLs stays: `tracks` and
//! `alternate-locations` (PEP 708 compares them between indexes). Any other unknown key is passed on as it was,
//! unless it names a host that serves this project's files: then it is left out, for it would lead clients past us.

use std::collections::HashSet;
use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::want::file_link;
use super::{CoreMetadata, File, Form, Part, Project, Yanked};

/// Renders a project's page with all links turned to us.
///
/// A wheel without metadata upstream is listed as having some, without a digest: dpm takes it out of the wheel. A
/// signature is not announced, for dpm does not serve `.asc` files.
pub fn render(project: &Project, form: Form) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + 600 * project.files.len());
    match form {
        Form::Json => json(project, Links::Own, &mut out),
        Form::Html | Form::LegacyHtml => html(project, &mut out),
    }
    out
}

/// Where the links of rendered JSON lead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// To us, for clients.
    Own,
    /// To upstream, and nothing added or left out, for the store.
    Upstream,
}

pub(super) fn json(project: &Project, links: Links, out: &mut Vec<u8>) {
    let hosts = Hosts::of(project, links);
    out.extend(b"{\"meta\":{");
    if links == Links::Own || project.meta.contains_key("api-version") {
        json_pair(out, "api-version", project.meta.get("api-version").unwrap_or(&Value::from("1.0")));
    }
    for (key, value) in &project.meta {
        if key != "api-version" && (key == "tracks" || !hosts.in_value(value)) {
            json_pair(out, key, value);
        }
    }
    out.push(b'}');
    json_pair(out, "name", project.name.as_str());
    out.extend(b",\"files\":[");
    for (i, file) in project.files.iter().enumerate() {
        out.extend(if i == 0 { "{" } else { ",{" }.as_bytes());
        json_file(project, file, links, &hosts, out);
        out.push(b'}');
    }
    out.push(b']');
    if let Some(versions) = &project.versions {
        json_pair(out, "versions", versions);
    }
    for (key, value) in &project.extra {
        if matches!(key.as_str(), "alternate-locations" | "project-status") || !hosts.in_value(value) {
            json_pair(out, key, value);
        }
    }
    out.push(b'}');
}

fn json_file(project: &Project, file: &File, links: Links, hosts: &Hosts<'_>, out: &mut Vec<u8>) {
    let own = (links == Links::Own).then(|| file_link(&project.name, file, Part::Whole));
    json_pair(out, "filename", &file.filename);
    json_pair(out, "url", own.as_deref().unwrap_or(file.url.as_str()));
    out.extend(b",\"hashes\":{");
    for digest in &file.digests {
        json_pair(out, digest.algorithm().name(), &digest.hex());
    }
    for (name, hash) in &file.other_hashes {
        if !hosts.in_value(hash) {
            json_pair(out, name, hash);
        }
    }
    out.push(b'}');
    if let Some(requires) = &file.requires_python {
        json_pair(out, "requires-python", requires);
    }
    if let Some(size) = file.size {
        json_pair(out, "size", &size);
    }
    if let Some(time) = &file.upload_time {
        json_pair(out, "upload-time", time);
    }
    match &file.yanked {
        Yanked::No => json_pair(out, "yanked", &false),
        Yanked::Yes(reason) if reason.is_empty() => json_pair(out, "yanked", &true),
        Yanked::Yes(reason) => json_pair(out, "yanked", reason),
    }
    let metadata = if own.is_some() { offered_metadata(file) } else { file.core_metadata };
    let keys: &[&str] =
        if own.is_some() { &["core-metadata", "dist-info-metadata"] } else { &["core-metadata"] };
    for key in keys {
        match metadata {
            CoreMetadata::No => {}
            CoreMetadata::Yes => json_pair(out, key, &true),
            CoreMetadata::Digest(d) => json_pair(out, key, &Single(d.algorithm().name(), &d.hex())),
        }
    }
    match file.gpg_sig {
        Some(true) if own.is_some() => {}
        Some(signed) => json_pair(out, "gpg-sig", &signed),
        None => {}
    }
    match (&file.provenance, &own) {
        (Some(_), Some(own)) => json_pair(out, "provenance", &format!("{own}{}", Part::Provenance.suffix())),
        (Some(url), None) => json_pair(out, "provenance", url.as_str()),
        (None, _) => {}
    }
    for (key, value) in &file.extra {
        if !hosts.in_value(value) {
            json_pair(out, key, value);
        }
    }
}

fn html(project: &Project, out: &mut Vec<u8>) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    out.extend(b"<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n");
    html_meta(
        out,
        "pypi:repository-version",
        text(project.meta.get("api-version")).as_deref().unwrap_or("1.0"),
    );
    if let Some(status) = project.extra.get("project-status") {
        // An object in JSON (PEP 792); some indexes write the bare word.
        if let Some(word) = text(status.get("status")).or_else(|| text(Some(status))) {
            html_meta(out, "pypi:project-status", &word);
        }
        if let Some(reason) = text(status.get("reason")) {
            html_meta(out, "pypi:project-status-reason", &reason);
        }
    }
    let lists = [
        ("pypi:tracks", project.meta.get("tracks")),
        ("pypi:alternate-locations", project.extra.get("alternate-locations")),
    ];
    for (name, list) in lists {
        for url in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            html_meta(out, name, url);
        }
    }
    let name = project.name.as_str();
    let _ = write!(out, "<title>Links for {name}</title>\n</head>\n<body>\n<h1>Links for {name}</h1>\n");
    for file in &project.files {
        html_file(project, file, out);
    }
    out.extend(b"</body>\n</html>\n");
}

fn html_file(project: &Project, file: &File, out: &mut Vec<u8>) {
    let link = file_link(&project.name, file, Part::Whole);
    out.extend(b"<a href=\"");
    out.extend_from_slice(link.as_bytes());
    if let Some(digest) = file.best_digest() {
        let _ = write!(out, "#{}={}", digest.algorithm(), digest.hex());
    }
    out.push(b'"');
    if let Some(requires) = &file.requires_python {
        html_attribute(out, "data-requires-python", requires);
    }
    if let Yanked::Yes(reason) = &file.yanked {
        html_attribute(out, "data-yanked", reason);
    }
    let metadata = match offered_metadata(file) {
        CoreMetadata::No => None,
        CoreMetadata::Yes => Some("true".to_owned()),
        CoreMetadata::Digest(d) => Some(format!("{}={}", d.algorithm(), d.hex())),
    };
    if let Some(metadata) = metadata {
        html_attribute(out, "data-core-metadata", &metadata);
        html_attribute(out, "data-dist-info-metadata", &metadata);
    }
    if file.gpg_sig == Some(false) {
        html_attribute(out, "data-gpg-sig", "false");
    }
    if file.provenance.is_some() {
        html_attribute(out, "data-provenance", &format!("{link}{}", Part::Provenance.suffix()));
    }
    out.push(b'>');
    html_escape(out, &file.filename);
    out.extend(b"</a><br>\n");
}

fn offered_metadata(file: &File) -> CoreMetadata {
    match file.core_metadata {
        CoreMetadata::No if file.filename.ends_with(".whl") => CoreMetadata::Yes,
        stated => stated,
    }
}

/// Hosts that must not be found in what we pass on unread.
struct Hosts<'a>(HashSet<&'a str>);

impl<'a> Hosts<'a> {
    fn of(project: &'a Project, links: Links) -> Self {
        if links == Links::Upstream {
            return Self(HashSet::new());
        }
        let urls =
            project.files.iter().flat_map(|file| [Some(&file.url), file.provenance.as_ref()]).flatten();
        Self(urls.filter_map(|url| url.host_str()).collect())
    }

    fn in_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.in_text(text),
            Value::Array(values) => values.iter().any(|v| self.in_value(v)),
            Value::Object(map) => map.iter().any(|(key, v)| self.in_text(key) || self.in_value(v)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn in_text(&self, text: &str) -> bool {
        // Only text that could be a link: a project may well be named in prose by the host's first label.
        if self.0.is_empty() || !text.contains("//") {
            return false;
        }
        let text = text.to_ascii_lowercase();
        self.0.iter().any(|host| text.contains(host))
    }
}

#[derive(Clone, Copy)]
struct Single<'a>(&'a str, &'a str);

impl Serialize for Single<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map([(self.0, self.1)])
    }
}

/// Writes `"key":value`, after a comma unless an object was just opened.
pub(super) fn json_pair<T: Serialize + ?Sized>(out: &mut Vec<u8>, key: &str, value: &T) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    json_value(out, key);
    out.push(b':');
    json_value(out, value);
}

pub(super) fn json_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("strings, numbers and JSON values go into memory");
}

/// Text or an attribute's value.
pub(super) fn html_escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend_from_slice(match rest.as_bytes()[at] {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'"' => b"&quot;",
            _ => b"&#x27;",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest.as_bytes());
}

fn html_attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    html_escape(out, value);
    out.push(b'"');
}

pub(super) fn html_meta(out: &mut Vec<u8>, name: &str, content: &str) {
    out.extend(b"<meta");
    html_attribute(out, "name", name);
    html_attribute(out, "content", content);
    out.extend(b">\n");
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::super::project::tests::{file_named, idna, page_url};
    use super::*;

    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn project(body: &str) -> Project {
        parse(Some("application/json"), body.as_bytes(), &page_url(), &idna()).unwrap()
    }

    fn full() -> Project {
        project(&format!(
            r#"{{"meta":{{"api-version":"1.4","_last-serial":9,"tracks":["https:\/\/files.example.org\/t\/"]}},
            "name":"idna","versions":["1","2"],"project-status":{{"status":"archived","reason":"a \"<b>\""}},
            "alternate-locations":["https://other.example.org/simple/idna/"],
            "leak":{{"a":["HTTPS:\/\/FILES.EXAMPLE.ORG\/x"]}},"kept":[1],
            "files":[{{"filename":"i-1+x.whl","url":"https:\/\/files.example.org\/a\/i.whl","size":3,
              "hashes":{{"md5":"{}","sha256":"{SHA}","b3":"q"}},"requires-python":">=3.8,<4","yanked":"\"bad\" & <old>",
              "upload-time":"2024-01-01T00:00:00Z","core-metadata":{{"sha256":"{SHA}"}},"gpg-sig":true,
              "provenance":"https://files.example.org/p","mirror":"https://files.example.org/m","new":{{"k":1}}}},
             {{"filename":"i-2.whl","url":"i-2.whl","hashes":{{}}}},
             {{"filename":"i-2.tar.gz","url":"i-2.tar.gz","hashes":{{}},"yanked":true,"gpg-sig":false}}]}}"#,
            &SHA[..32]
        ))
    }

    #[test]
    fn json_page() {
        let page: Value = serde_json::from_slice(&render(&full(), Form::Json)).unwrap();
        let sha = format!(r#"{{"sha256":"{SHA}"}}"#);
        let link = format!("../../files/idna/sha256-{SHA}/i-1%2Bx.whl");
        let want = format!(
            r#"{{"meta":{{"api-version":"1.4","_last-serial":9,"tracks":["https://files.example.org/t/"]}},
            "name":"idna","files":[
            {{"filename":"i-1+x.whl","url":"{link}","hashes":{{"md5":"{}","sha256":"{SHA}","b3":"q"}},
              "requires-python":">=3.8,<4","size":3,"upload-time":"2024-01-01T00:00:00Z","yanked":"\"bad\" & <old>",
              "core-metadata":{sha},"dist-info-metadata":{sha},"provenance":"{link}.provenance","new":{{"k":1}}}},
            {{"filename":"i-2.whl","url":"../../files/idna/-/i-2.whl","hashes":{{}},"yanked":false,
              "core-metadata":true,"dist-info-metadata":true}},
            {{"filename":"i-2.tar.gz","url":"../../files/idna/-/i-2.tar.gz","hashes":{{}},"yanked":true,"gpg-sig":false}}],
            "versions":["1","2"],"project-status":{{"status":"archived","reason":"a \"<b>\""}},
            "alternate-locations":["https://other.example.org/simple/idna/"],"kept":[1]}}"#,
            &SHA[..32]
        );
        assert_eq!(page, serde_json::from_str::<Value>(&want).unwrap());
    }

    #[test]
    fn html_page() {
        let page = String::from_utf8(render(&full(), Form::LegacyHtml)).unwrap();
        let link = format!("../../files/idna/sha256-{SHA}/i-1%2Bx.whl");
        for line in [
            r#"<meta name="pypi:repository-version" content="1.4">"#,
            r#"<meta name="pypi:project-status" content="archived">"#,
            r#"<meta name="pypi:project-status-reason" content="a &quot;&lt;b&gt;&quot;">"#,
            r#"<meta name="pypi:alternate-locations" content="https://other.example.org/simple/idna/">"#,
            &format!(
                r#"<a href="{link}#sha256={SHA}" data-requires-python="&gt;=3.8,&lt;4" data-yanked="&quot;bad&quot; &amp; &lt;old&gt;" data-core-metadata="sha256={SHA}" data-dist-info-metadata="sha256={SHA}" data-provenance="{link}.provenance">i-1+x.whl</a><br>"#
            ),
            r#"<a href="../../files/idna/-/i-2.whl" data-core-metadata="true" data-dist-info-metadata="true">i-2.whl</a><br>"#,
            r#"<a href="../../files/idna/-/i-2.tar.gz" data-yanked="" data-gpg-sig="false">i-2.tar.gz</a><br>"#,
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\nnot in\n{page}");
        }
        assert_eq!(render(&full(), Form::Html), page.as_bytes());
    }

    #[test]
    fn no_upstream_host_leaks() {
        let mut full = full();
        full.meta.remove("tracks");
        full.extra.remove("alternate-locations");
        for form in [Form::Json, Form::Html, Form::LegacyHtml] {
            let page = String::from_utf8(render(&full, form)).unwrap().to_lowercase();
            for leak in ["example.org", "http:", "https:", "\\/", "%2f%2f"] {
                assert!(!page.contains(leak), "{leak} in {page}");
            }
        }
    }

    #[test]
    fn hostile_names_are_escaped() {
        let mut project = project(r#"{"files":[]}"#);
        project.files.push(file_named(r#"a"><script>alert('1')<!--"#));
        let page = String::from_utf8(render(&project, Form::Html)).unwrap();
        assert!(page.contains("a&quot;&gt;&lt;script&gt;alert(&#x27;1&#x27;)&lt;!--</a>"), "{page}");
        assert_eq!(page.matches("<a ").count(), 1);
    }

    #[test]
    fn both_forms_say_the_same() {
        let full = full();
        let own = page_url();
        let json = parse(Some(Form::Json.content_type()), &render(&full, Form::Json), &own, &idna()).unwrap();
        let html =
            parse(Some(Form::LegacyHtml.content_type()), &render(&full, Form::Html), &own, &idna()).unwrap();
        assert_eq!(json.files.len(), html.files.len());
        for (json, html) in json.files.iter().zip(&html.files) {
            assert_eq!((&json.filename, &json.url), (&html.filename, &html.url));
            assert_eq!(json.best_digest(), html.best_digest());
            assert_eq!((&json.requires_python, &json.yanked), (&html.requires_python, &html.yanked));
            assert_eq!((json.core_metadata, json.gpg_sig), (html.core_metadata, html.gpg_sig));
            assert_eq!(json.provenance, html.provenance);
        }
        for key in ["project-status", "alternate-locations"] {
            assert_eq!(json.extra[key], html.extra[key]);
        }
        assert_eq!(json.meta["tracks"], html.meta["tracks"]);
    }

    #[test]
    fn stored_form_keeps_everything() {
        let full = full();
        assert_eq!(Project::from_stored(&full.to_stored()).unwrap(), full);
        for other in
            ["", "dpm-pypi 2 0 idna\n{}", "dpm-pypi 1 0 -\n{}", "dpm-pypi 1 x idna\n{\"files\":[]}", "{}"]
        {
            assert!(Project::from_stored(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn stored_form_of_version_1() {
        let stored = "dpm-pypi 1 2 idna\n{\"meta\":{},\"name\":\"idna\",\"files\":[{\"filename\":\"a.zip\",\
                      \"url\":\"https://files.example.org/a.zip\",\"hashes\":{},\"yanked\":false}]}";
        let project = Project::from_stored(stored.as_bytes()).unwrap();
        assert_eq!((project.skipped, project.files[0].url.path()), (2, "/a.zip"));
        assert_eq!(project.to_stored(), stored.as_bytes());
    }
}
