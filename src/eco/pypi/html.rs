//! Reads PEP 503 HTML.

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use serde_json::{Map, Value};
use url::Url;

use crate::base::Digest;

use super::super::path::percent_decode;
use super::project::{MAX_FILES, check_version, link, weed};
use super::{CoreMetadata, File, IndexError, Project, ProjectName, Yanked};

/// Reads upstream's page. An anchor whose link ends with a slash leads to another page and is no file.
pub(super) fn parse(body: &[u8], page_url: &Url, name: &ProjectName) -> Result<Project, IndexError> {
    let page = Page::read(body, MAX_FILES);
    if page.overflow {
        return Err(IndexError::TooMany(MAX_FILES));
    }
    let base = page.base.as_deref().and_then(|raw| link(Some(page_url), raw));
    let base = base.as_ref().unwrap_or(page_url);
    let (meta, extra) = metas(&page.metas)?;
    let mut skipped = 0;
    let mut files = Vec::with_capacity(page.anchors.len());
    for anchor in &page.anchors {
        match file(anchor, base) {
            Anchored::File(file) => files.push(*file),
            Anchored::Page => {}
            Anchored::Hostile => skipped += 1,
        }
    }
    skipped += weed(&mut files);
    Ok(Project { name: name.clone(), files, versions: None, meta, extra, skipped })
}

/// The elements of an index page that say anything.
#[derive(Default)]
pub(super) struct Page {
    base: Option<String>,
    metas: Vec<(String, String)>,
    pub(super) anchors: Vec<Anchor>,
    /// There were more anchors than allowed.
    pub(super) overflow: bool,
}

/// An `<a href>`.
#[derive(Default)]
pub(super) struct Anchor {
    pub(super) text: String,
    attributes: Vec<(String, String)>,
}

impl Anchor {
    /// The first attribute of that name, entities decoded.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl Page {
    pub(super) fn read(body: &[u8], max_anchors: usize) -> Self {
        let mut scan = Scan { max_anchors, ..Scan::default() };
        let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<()> {
            scan.take(event);
            None
        });
        // What stands in <script> or <title> is no element.
        emitter.naively_switch_states(true);
        Tokenizer::new_with_emitter(body, emitter).for_each(drop);
        scan.page
    }

    /// Versions as `<meta name="pypi:repository-version">` state them (PEP 629).
    pub(super) fn check_version(&self) -> Result<(), IndexError> {
        metas(&self.metas).map(drop)
    }
}

#[derive(Default)]
struct Scan {
    page: Page,
    max_anchors: usize,
    element: Option<Element>,
    attributes: Vec<(String, String)>,
    in_anchor: bool,
}

#[derive(Clone, Copy)]
enum Element {
    A,
    Base,
    Meta,
}

impl Scan {
    fn take(&mut self, event: CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.attributes.clear();
                self.element = match name {
                    b"a" => Some(Element::A),
                    b"base" => Some(Element::Base),
                    b"meta" => Some(Element::Meta),
                    _ => None,
                };
            }
            CallbackEvent::AttributeName { name } if self.element.is_some() => {
                if self.attributes.len() == MAX_ATTRIBUTES {
                    self.element = None;
                } else {
                    self.attributes.push((text(name), String::new()));
                }
            }
            CallbackEvent::AttributeValue { value } if self.element.is_some() => {
                if let Some((_, last)) = self.attributes.last_mut() {
                    *last = text(value);
                }
            }
            CallbackEvent::CloseStartTag { .. } => self.close(),
            CallbackEvent::String { value } if self.in_anchor => {
                if let Some(anchor) = self.page.anchors.last_mut()
                    && anchor.text.len() + value.len() <= TEXT_BYTES
                {
                    anchor.text.push_str(&text(value));
                }
            }
            CallbackEvent::EndTag { name: b"a" } => self.in_anchor = false,
            _ => {}
        }
    }

    fn close(&mut self) {
        let attributes = std::mem::take(&mut self.attributes);
        let value = |name: &str| attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        match self.element.take() {
            Some(Element::A) => {
                self.in_anchor = value("href").is_some() && self.page.anchors.len() < self.max_anchors;
                if self.in_anchor {
                    self.page.anchors.push(Anchor { text: String::new(), attributes });
                } else {
                    self.page.overflow |= value("href").is_some();
                }
            }
            // The first one counts, wherever it stands, as for pip.
            Some(Element::Base) if self.page.base.is_none() => self.page.base = value("href"),
            Some(Element::Meta) if self.page.metas.len() < MAX_METAS => {
                if let (Some(name), Some(content)) = (value("name"), value("content")) {
                    self.page.metas.push((name.to_ascii_lowercase(), content));
                }
            }
            _ => {}
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

type Object = Map<String, Value>;

/// What `<meta name="pypi:…">` say, as JSON would have it: `meta` and the other top-level keys.
fn metas(metas: &[(String, String)]) -> Result<(Object, Object), IndexError> {
    let (mut meta, mut extra) = (Map::new(), Map::new());
    let mut status = Map::new();
    let add = |map: &mut Object, key: &str, content: &str| {
        if let Value::Array(list) = map.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            list.push(content.into());
        }
    };
    for (name, content) in metas {
        let content = content.trim();
        match name.as_str() {
            "pypi:repository-version" => {
                check_version(content)?;
                meta.insert("api-version".into(), content.into());
            }
            "pypi:project-status" => drop(status.insert("status".into(), content.into())),
            "pypi:project-status-reason" => drop(status.insert("reason".into(), content.into())),
            "pypi:tracks" => add(&mut meta, "tracks", content),
            "pypi:alternate-locations" => add(&mut extra, "alternate-locations", content),
            _ => {}
        }
    }
    if !status.is_empty() {
        extra.insert("project-status".into(), status.into());
    }
    Ok((meta, extra))
}

enum Anchored {
    File(Box<File>),
    Page,
    Hostile,
}

fn file(anchor: &Anchor, base: &Url) -> Anchored {
    let href = anchor.attribute("href").unwrap_or_default().trim();
    let Some(url) = link(Some(base), href) else { return Anchored::Hostile };
    let last = url.path().rsplit('/').next().unwrap_or_default();
    if last.is_empty() {
        return Anchored::Page;
    }
    let Ok(filename) = percent_decode(last).map(|name| name.into_owned()) else { return Anchored::Hostile };
    let fragment = href.split_once('#').map_or("", |(_, fragment)| fragment);
    let digests = fragment.split('&').find_map(|hash| hash.parse::<Digest>().ok());
    Anchored::File(Box::new(File {
        filename,
        url,
        digests: digests.into_iter().collect(),
        other_hashes: Map::new(),
        requires_python: anchor
            .attribute("data-requires-python")
            .filter(|r| !r.is_empty())
            .map(str::to_owned),
        yanked: anchor.attribute("data-yanked").map_or(Yanked::No, |reason| Yanked::Yes(reason.to_owned())),
        size: None,
        upload_time: None,
        core_metadata: anchor
            .attribute("data-core-metadata")
            .or(anchor.attribute("data-dist-info-metadata"))
            .map_or(CoreMetadata::No, core_metadata),
        gpg_sig: match anchor.attribute("data-gpg-sig") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
        provenance: anchor
            .attribute("data-provenance")
            .filter(|p| !p.is_empty())
            .and_then(|p| link(Some(base), p)),
        extra: Map::new(),
    }))
}

/// `true` or `<algorithm>=<hex>`; a broken hash still says that the metadata is there.
fn core_metadata(value: &str) -> CoreMetadata {
    match value.trim().parse::<Digest>() {
        Ok(digest) => CoreMetadata::Digest(digest),
        Err(_) if matches!(value.trim(), "" | "false") => CoreMetadata::No,
        Err(_) => CoreMetadata::Yes,
    }
}

/// An element with more attributes is passed over: real anchors have fewer than ten.
const MAX_ATTRIBUTES: usize = 32;

/// `<meta>` elements that are looked at.
const MAX_METAS: usize = 1000;

/// Bytes of an anchor's text that are kept: a project's or file's name.
const TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::project::tests::{idna, page_url};
    use super::*;
    use crate::base::mutate::mutations;

    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn page(body: &str) -> Project {
        parse(body.as_bytes(), &page_url(), &idna()).unwrap()
    }

    #[track_caller]
    fn check(body: &str, want: &[(&str, &str)]) {
        let project = page(body);
        let got = project.files.iter().map(|f| (f.filename.as_str(), f.url.as_str())).collect::<Vec<_>>();
        assert_eq!(got, want, "{body}");
    }

    #[test]
    fn links() {
        const HOST: &str = "https://index.example.org";
        let at = |path: &str| format!("{HOST}{path}");
        check("<a href=a-1.zip>a</a>", &[("a-1.zip", &at("/simple/idna/a-1.zip"))]);
        check("<A HREF='../../f/a-1.zip#sha256=zz'>a</A>", &[("a-1.zip", &at("/f/a-1.zip"))]);
        check(r#"<a href="/a-1%2Bcu.whl?x=1&amp;y=2#z">"#, &[("a-1+cu.whl", &at("/a-1%2Bcu.whl?x=1&y=2"))]);
        check("<a href='https:&#47;&#x2f;e.example.org/a.zip'>", &[("a.zip", "https://e.example.org/a.zip")]);
        check("<a href=//e.example.org/a.zip>", &[("a.zip", "https://e.example.org/a.zip")]);
        check("<base href=/b/><a href=a.zip>", &[("a.zip", &at("/b/a.zip"))]);
        check("<a href=a.zip><base href=/b/><base href=/c/>", &[("a.zip", &at("/b/a.zip"))]);
        check("<base href='file:///'><a href=a.zip>", &[("a.zip", &at("/simple/idna/a.zip"))]);
        check("<a href=../>Parent</a><a href='?C=N;O=D'>Name</a><a name=x>", &[]);
        check("<script>'<a href=a.zip>'</script><!--<a href=b.zip>--><title><a href=c.zip></title>", &[]);
        check("</a href=a.zip>", &[]);
        check("<a href=a.zip", &[]);
        check("<a href=a.zip>1<a href=a.zip?2>", &[("a.zip", &at("/simple/idna/a.zip"))]);
    }

    #[test]
    fn hostile_links_are_skipped() {
        for href in [
            "javascript:alert(1)",
            "file:///a.zip",
            "x/..%2fa",
            "a%5Cb",
            "a%00",
            "%2ea",
            "a%ff",
            "a.metadata",
        ] {
            let project = page(&format!("<a href='{href}'>a.zip</a><a href=ok.zip>"));
            assert_eq!((project.files.len(), project.skipped), (1, 1), "{href}");
        }
    }

    #[test]
    fn attributes() {
        let project = page(&format!(
            "<a href='a.whl#sha256={SHA}' data-requires-python='&gt;=3.8,&lt;4' data-yanked \
             data-dist-info-metadata=true data-core-metadata='sha256={SHA}' data-gpg-sig=true data-provenance='/p'>x</a>"
        ));
        let file = &project.files[0];
        let sha: Digest = format!("sha256:{SHA}").parse().unwrap();
        assert_eq!(file.digests, [sha]);
        assert_eq!(file.requires_python.as_deref(), Some(">=3.8,<4"));
        assert_eq!(file.yanked, Yanked::Yes(String::new()));
        assert_eq!(file.core_metadata, CoreMetadata::Digest(sha));
        assert_eq!(file.gpg_sig, Some(true));
        assert_eq!(file.provenance.as_ref().unwrap().path(), "/p");

        let rows = [
            ("data-core-metadata=true", CoreMetadata::Yes),
            ("data-dist-info-metadata=true", CoreMetadata::Yes),
            ("data-dist-info-metadata='sha256=00'", CoreMetadata::Yes),
            ("data-core-metadata=false data-dist-info-metadata=true", CoreMetadata::No),
            ("", CoreMetadata::No),
        ];
        for (attribute, want) in rows {
            assert_eq!(
                page(&format!("<a href=a.whl {attribute}>")).files[0].core_metadata,
                want,
                "{attribute}"
            );
        }
    }

    #[test]
    fn page_metas() {
        let project = page(
            "<meta name='pypi:repository-version' content='1.4'><meta name=pypi:project-status content=quarantined>\
             <meta name='pypi:project-status-reason' content='a &amp; b'><meta name=pypi:tracks content=https://a.example.org/>\
             <meta name=pypi:alternate-locations content=https://b.example.org/><meta name=other content=x>",
        );
        assert_eq!(project.meta["api-version"], "1.4");
        assert_eq!(project.meta["tracks"].to_string(), r#"["https://a.example.org/"]"#);
        assert_eq!(
            project.extra["project-status"].to_string(),
            r#"{"status":"quarantined","reason":"a & b"}"#
        );
        assert_eq!(project.extra["alternate-locations"].to_string(), r#"["https://b.example.org/"]"#);
        let other = b"<meta name=pypi:repository-version content=2.0>";
        assert!(matches!(parse(other, &page_url(), &idna()), Err(IndexError::Version(_))));
    }

    #[test]
    fn floods() {
        let body = "<a href=a>".repeat(MAX_FILES + 1);
        assert!(matches!(parse(body.as_bytes(), &page_url(), &idna()), Err(IndexError::TooMany(_))));
        let body = format!("<a {} href=a>", "x ".repeat(100_000));
        assert_eq!(page(&body).files.len(), 0);
    }

    #[test]
    fn mutated_pages_never_panic() {
        let seed = format!(
            "<!DOCTYPE html><base href=/x/><meta name=pypi:repository-version content=1.0><title>t</title><script>1</script>\
             <a href=\"a-1%2B.whl#sha256={SHA}\" data-yanked data-requires-python=\"&gt;3&amp;\">a</a><!-- c --><![CDATA[x]]>"
        );
        mutations(&[seed.as_bytes()], 20_000, |body| {
            if let Ok(project) = parse(body, &page_url(), &idna()) {
                assert_eq!(Project::from_stored(&project.to_stored()).unwrap(), project);
            }
        });
    }
}
