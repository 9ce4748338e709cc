//! The list of all projects.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::path::percent_decode;
use super::html::Page;
use super::json::Text;
use super::project::{Syntax, check_version, without_bom};
use super::render::{html_escape, html_meta, json_pair};
use super::{Form, IndexError, ProjectName};

/// Reads the names of an upstream's list of all projects as it writes them; what is no name is left out.
///
/// `Content-Type` and body are taken as [`parse`](super::parse) takes them.
pub fn parse_root(content_type: Option<&str>, body: &[u8]) -> Result<Names, IndexError> {
    match Syntax::of(content_type, body)? {
        Syntax::Json => json(body),
        Syntax::Html => html(body),
    }
}

/// Names of projects as an index writes them, in one piece of memory: a public index has most of a million.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    lines: String,
    count: usize,
}

impl Names {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.lines.lines()
    }

    /// One a line.
    pub fn into_lines(self) -> String {
        self.lines
    }

    /// Adds what is a name; a name has no line's end.
    fn extend(&mut self, raw: Option<impl AsRef<str>>) {
        if let Some(raw) = raw.filter(|raw| ProjectName::normalise(raw.as_ref()).is_ok()) {
            self.lines.push_str(raw.as_ref());
            self.lines.push('\n');
            self.count += 1;
        }
    }
}

/// Renders a list of all projects; links are relative to it and normalised, what is no name is left out.
pub fn render_root<'a>(names: impl Iterator<Item = &'a str>, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    let names = names.filter_map(|raw| Some((raw, ProjectName::normalise(raw).ok()?)));
    if form == Form::Json {
        out.extend(br#"{"meta":{"api-version":"1.0"},"projects":["#);
        for (i, (raw, _)) in names.enumerate() {
            out.extend(if i == 0 { "{" } else { ",{" }.as_bytes());
            json_pair(&mut out, "name", raw);
            out.push(b'}');
        }
        out.extend(b"]}");
        return out;
    }
    out.extend(b"<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n");
    html_meta(&mut out, "pypi:repository-version", "1.0");
    out.extend(b"<title>Simple index</title>\n</head>\n<body>\n");
    for (raw, name) in names {
        out.extend_from_slice(b"<a href=\"");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b"/\">");
        html_escape(&mut out, raw);
        out.extend_from_slice(b"</a><br>\n");
    }
    out.extend(b"</body>\n</html>\n");
    out
}

fn html(body: &[u8]) -> Result<Names, IndexError> {
    let page = Page::read(body, MAX_PROJECTS);
    page.check_version()?;
    if page.overflow {
        return Err(IndexError::TooMany(MAX_PROJECTS));
    }
    let is_name = |raw: &str| ProjectName::normalise(raw).is_ok();
    let mut names = Names::default();
    for anchor in &page.anchors {
        let Some(href) = anchor.attribute("href") else { continue };
        let text = anchor.text.trim();
        if is_name(text) {
            names.extend(Some(text));
        } else {
            let last = href.trim().trim_end_matches('/').rsplit('/').next();
            names.extend(last.and_then(|last| percent_decode(last).ok()));
        }
    }
    Ok(names)
}

fn json(body: &[u8]) -> Result<Names, IndexError> {
    let mut json = serde_json::Deserializer::from_slice(without_bom(body));
    let list =
        json.deserialize_map(Top).and_then(|list| json.end().map(|()| list)).map_err(IndexError::Json)?;
    if let Some(version) = list.version {
        check_version(&version)?;
    }
    if list.overflow {
        return Err(IndexError::TooMany(MAX_PROJECTS));
    }
    list.names.ok_or(IndexError::NoList("projects"))
}

#[derive(Default)]
struct List {
    version: Option<String>,
    names: Option<Names>,
    overflow: bool,
}

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of projects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
        let mut list = List::default();
        while let Some(key) = map.next_key_seed(Text)? {
            match key.as_ref() {
                "meta" => list.version = map.next_value_seed(Member("api-version"))?,
                "projects" => {
                    let (names, overflow) = map.next_value_seed(Projects)?;
                    (list.names, list.overflow) = (Some(names), overflow);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(list)
    }
}

struct Projects;

impl<'de> DeserializeSeed<'de> for Projects {
    type Value = (Names, bool);
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Projects {
    type Value = (Names, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of projects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut names = Names::default();
        while names.count < MAX_PROJECTS {
            let Some(name) = seq.next_element_seed(Member("name"))? else { return Ok((names, false)) };
            names.extend(name);
        }
        let mut overflow = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            overflow = true;
        }
        Ok((names, overflow))
    }
}

/// One string member of an object; the rest is passed over.
struct Member(&'static str);

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<String>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key_seed(Text)? {
            if key == self.0 {
                found = Some(map.next_value_seed(Text)?.into_owned());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Most projects of one index: several times the largest known.
const MAX_PROJECTS: usize = 3_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;

    #[track_caller]
    fn check(body: &str, want: Result<&[&str], &str>) {
        match (parse_root(None, body.as_bytes()), want) {
            (Ok(got), Ok(want)) => assert!(got.iter().eq(want.iter().copied()), "{body}: {got:?}"),
            (Err(got), Err(want)) => assert!(format!("{got:?}").starts_with(want), "{body}: {got:?}"),
            (got, _) => panic!("{body}: {got:?}"),
        }
    }

    #[test]
    fn lists() {
        check(
            r#"{"meta":{"api-version":"1.0","x":[1]},"projects":[{"name":"A.b","x":{}},{"name":"../c"},{},{"name":"d"}]}"#,
            Ok(&["A.b", "d"]),
        );
        check(r#"{"projects":[]}"#, Ok(&[]));
        check(r#"{"projects":1}"#, Err("Json"));
        check(r#"{"projects":["a"]}"#, Err("Json"));
        check(r#"{"message":"no"}"#, Err("NoList"));
        check(r#"{"meta":{"api-version":"2.0"},"projects":[]}"#, Err("Version"));
        check(
            "<a href='/simple/a-b/'> A.b </a><a href=/simple/c%2Dd/></a><a href=../>..</a>",
            Ok(&["A.b", "c-d"]),
        );
        check("<meta name=pypi:repository-version content=2><a href=a/>a</a>", Err("Version"));
        check("nothing", Err("Unrecognised"));
    }

    #[test]
    fn rendered_lists_read_back() {
        let names = ["A.b", "c", "<x>", "../y"];
        for form in [Form::Json, Form::Html, Form::LegacyHtml] {
            let page = render_root(names.into_iter(), form);
            let read = parse_root(Some(form.content_type()), &page).unwrap();
            assert!(read.iter().eq(["A.b", "c"]), "{read:?}");
        }
        let page = String::from_utf8(render_root(names.into_iter(), Form::Html)).unwrap();
        assert!(page.contains(r#"<a href="a-b/">A.b</a>"#), "{page}");
    }

    #[test]
    fn mutated_lists_never_panic() {
        let seeds: [&[u8]; 2] = [
            br#"{"meta":{"api-version":"1.0"},"projects":[{"name":"a\u002db"}]}"#,
            b"<a href='/simple/a%2Db/'>A</a>",
        ];
        mutations(&seeds, 10_000, |body| drop(parse_root(None, body)));
    }
}
