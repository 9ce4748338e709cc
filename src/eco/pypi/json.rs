//! Reads PEP 691 JSON, upstream's and the stored form's.
//!
//! One pass without an intermediate tree: a value of an unexpected type costs its own field, never the page. What a
//! page may make us hold beyond its files is limited by [`Reading::spare`].

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;

use crate::base::{Algorithm, Digest};

use super::project::{MAX_FILES, check_version, link, weed, without_bom};
use super::{CoreMetadata, File, IndexError, Project, ProjectName, Yanked};

/// Reads upstream's page.
pub(super) fn parse(body: &[u8], page_url: &Url, name: &ProjectName) -> Result<Project, IndexError> {
    let reading = Reading { base: Some(page_url), spare: Cell::new(EXTRA_BYTES), entries: Cell::new(0) };
    let mut project = read(body, &reading, name)?;
    project.skipped += weed(&mut project.files);
    Ok(project)
}

/// Reads what we wrote ourselves: absolute links, nothing to leave out.
pub(super) fn parse_own(body: &[u8], name: &ProjectName) -> Result<Project, IndexError> {
    read(body, &Reading { base: None, spare: Cell::new(usize::MAX), entries: Cell::new(0) }, name)
}

fn read(body: &[u8], reading: &Reading<'_>, name: &ProjectName) -> Result<Project, IndexError> {
    let mut json = serde_json::Deserializer::from_slice(without_bom(body));
    let top = json.deserialize_map(Top(reading)).and_then(|top| json.end().map(|()| top));
    if reading.entries.get() > MAX_FILES {
        return Err(IndexError::TooMany(MAX_FILES));
    }
    let top = top.map_err(IndexError::Json)?;
    match top.meta.get("api-version") {
        Some(Value::String(version)) => check_version(version)?,
        Some(other) => check_version(&other.to_string())?,
        None => {}
    }
    if let Some(named) = &top.name
        && !ProjectName::normalise(named).is_ok_and(|n| n == *name)
    {
        return Err(IndexError::OtherProject {
            asked: name.clone(),
            named: named.chars().take(64).collect(),
        });
    }
    let (files, skipped) = top.files.ok_or(IndexError::NoList("files"))?;
    Ok(Project {
        name: name.clone(),
        files,
        versions: top.versions,
        meta: top.meta,
        extra: top.extra,
        skipped,
    })
}

/// What every part of a page's reader must know.
struct Reading<'a> {
    /// What links are relative to.
    base: Option<&'a Url>,
    /// Bytes of unknown keys that may still be kept.
    spare: Cell<usize>,
    /// Files and versions so far.
    entries: Cell<usize>,
}

impl Reading<'_> {
    fn keep(&self, extra: &mut Map<String, Value>, key: &str, raw: &RawValue) {
        if let Some(value) = self.afford(key.len() + raw.get().len(), raw) {
            extra.insert(key.to_owned(), value);
        }
    }

    fn afford(&self, cost: usize, raw: &RawValue) -> Option<Value> {
        let left = self.spare.get().checked_sub(cost)?;
        self.spare.set(left);
        serde_json::from_str(raw.get()).ok()
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > MAX_FILES { Err(E::custom("too many entries")) } else { Ok(()) }
    }
}

#[derive(Default)]
struct TopLevel {
    name: Option<String>,
    files: Option<(Vec<File>, usize)>,
    versions: Option<Vec<String>>,
    meta: Map<String, Value>,
    extra: Map<String, Value>,
}

struct Top<'a, 'r>(&'a Reading<'r>);

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = TopLevel;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a project's page")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopLevel, A::Error> {
        let mut top = TopLevel::default();
        while let Some(key) = map.next_key_seed(Text)? {
            match key.as_ref() {
                "name" => top.name = Some(map.next_value_seed(Text)?.into_owned()),
                "files" if top.files.is_some() => return Err(A::Error::duplicate_field("files")),
                "files" => top.files = Some(map.next_value_seed(Files(self.0))?),
                "versions" => {
                    self.0.entries.set(0);
                    top.versions = map.next_value_seed(Versions(self.0))?;
                    self.0.entries.set(0);
                }
                "meta" => {
                    if let Some(Value::Object(meta)) = self.0.afford(0, map.next_value()?) {
                        top.meta = meta;
                    }
                }
                key => self.0.keep(&mut top.extra, key, map.next_value()?),
            }
        }
        Ok(top)
    }
}

struct Files<'a, 'r>(&'a Reading<'r>);

impl<'de> DeserializeSeed<'de> for Files<'_, '_> {
    type Value = (Vec<File>, usize);
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Files<'_, '_> {
    type Value = (Vec<File>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut files, mut skipped) = (Vec::new(), 0);
        while let Some(file) = seq.next_element_seed(Entry(self.0))? {
            self.0.count()?;
            match file {
                Some(file) => files.push(file),
                None => skipped += 1,
            }
        }
        self.0.entries.set(0);
        Ok((files, skipped))
    }
}

/// A value that is taken when it has the expected shape and passed over when not.
macro_rules! tolerant {
    ($value:ty { $($visit:item)* }) => {
        type Value = $value;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
        $($visit)*
    };
}

struct Entry<'a, 'r>(&'a Reading<'r>);

impl<'de> DeserializeSeed<'de> for Entry<'_, '_> {
    type Value = Option<File>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<File>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_> {
    tolerant!(Option<File> {
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<File>, A::Error> {
            file(map, self.0)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<File>, A::Error> {
            drain(seq).map(|()| None)
        }
        fn visit_unit<E>(self) -> Result<Option<File>, E> { Ok(None) }
        fn visit_bool<E>(self, _: bool) -> Result<Option<File>, E> { Ok(None) }
        fn visit_u64<E>(self, _: u64) -> Result<Option<File>, E> { Ok(None) }
        fn visit_i64<E>(self, _: i64) -> Result<Option<File>, E> { Ok(None) }
        fn visit_f64<E>(self, _: f64) -> Result<Option<File>, E> { Ok(None) }
        fn visit_str<E>(self, _: &str) -> Result<Option<File>, E> { Ok(None) }
    });
}

fn file<'de, A: MapAccess<'de>>(mut map: A, reading: &Reading<'_>) -> Result<Option<File>, A::Error> {
    let (mut filename, mut url, mut provenance) = (None, None, None);
    let (mut requires_python, mut upload_time, mut size, mut gpg_sig) = (None, None, None, None);
    let mut yanked = Yanked::No;
    let mut hashes = Hashes::default();
    let (mut core, mut dist_info) = (None, None);
    let mut extra = Map::new();
    while let Some(key) = map.next_key_seed(Text)? {
        match key.as_ref() {
            "filename" => filename = map.next_value_seed(Loose)?.text(),
            "url" => url = map.next_value_seed(Loose)?.text(),
            "hashes" => hashes = map.next_value_seed(Stated(reading))?,
            "requires-python" => requires_python = map.next_value_seed(Loose)?.text(),
            "yanked" => yanked = map.next_value_seed(Loose)?.yanked(),
            "size" => size = map.next_value_seed(Loose)?.number(),
            "upload-time" => upload_time = map.next_value_seed(Loose)?.text(),
            "core-metadata" => core = map.next_value_seed(Stated(reading))?.core_metadata(),
            // PEP 714 has the first name for JSON; a large index writes the second.
            "dist-info-metadata" | "data-dist-info-metadata" => {
                dist_info = map.next_value_seed(Stated(reading))?.core_metadata();
            }
            "gpg-sig" => gpg_sig = map.next_value_seed(Loose)?.truth(),
            "provenance" => provenance = map.next_value_seed(Loose)?.text(),
            key => reading.keep(&mut extra, key, map.next_value()?),
        }
    }
    let (Some(filename), Some(url)) = (filename, url) else { return Ok(None) };
    let Some(url) = link(reading.base, &url) else { return Ok(None) };
    Ok(Some(File {
        filename: filename.into_owned(),
        url,
        digests: hashes.digests,
        other_hashes: hashes.other,
        requires_python: requires_python.map(Cow::into_owned).filter(|r| !r.is_empty()),
        yanked,
        size,
        upload_time: upload_time.map(Cow::into_owned),
        core_metadata: core.or(dist_info).unwrap_or(CoreMetadata::No),
        gpg_sig,
        provenance: provenance.and_then(|p| link(reading.base, &p)),
        extra,
    }))
}

/// A hash table, or a boolean in its place.
#[derive(Default)]
struct Hashes {
    digests: Vec<Digest>,
    other: Map<String, Value>,
    truth: Option<bool>,
}

impl Hashes {
    /// `None` when nothing was stated. A table without a usable hash still says that the metadata is there.
    fn core_metadata(self) -> Option<CoreMetadata> {
        Some(match (self.truth?, self.digests.into_iter().max_by_key(Digest::algorithm)) {
            (false, _) => CoreMetadata::No,
            (true, None) => CoreMetadata::Yes,
            (true, Some(digest)) => CoreMetadata::Digest(digest),
        })
    }
}

struct Stated<'a, 'r>(&'a Reading<'r>);

impl<'de> DeserializeSeed<'de> for Stated<'_, '_> {
    type Value = Hashes;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Hashes, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stated<'_, '_> {
    tolerant!(Hashes {
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hashes, A::Error> {
            let mut hashes = Hashes { truth: Some(true), ..Hashes::default() };
            while let Some(key) = map.next_key_seed(Text)? {
                let Ok(algorithm) = key.parse::<Algorithm>() else {
                    self.0.keep(&mut hashes.other, &key, map.next_value()?);
                    continue;
                };
                let digest = map.next_value_seed(Loose)?.text().and_then(|hex| Digest::parse(algorithm, &hex).ok());
                if let Some(digest) = digest
                    && !hashes.digests.iter().any(|d| d.algorithm() == algorithm)
                {
                    hashes.digests.push(digest);
                }
            }
            Ok(hashes)
        }
        fn visit_bool<E>(self, truth: bool) -> Result<Hashes, E> {
            Ok(Hashes { truth: Some(truth), ..Hashes::default() })
        }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Hashes, A::Error> {
            drain(seq).map(|()| Hashes::default())
        }
        fn visit_unit<E>(self) -> Result<Hashes, E> { Ok(Hashes::default()) }
        fn visit_u64<E>(self, _: u64) -> Result<Hashes, E> { Ok(Hashes::default()) }
        fn visit_i64<E>(self, _: i64) -> Result<Hashes, E> { Ok(Hashes::default()) }
        fn visit_f64<E>(self, _: f64) -> Result<Hashes, E> { Ok(Hashes::default()) }
        fn visit_str<E>(self, _: &str) -> Result<Hashes, E> { Ok(Hashes::default()) }
    });
}

/// A scalar; anything else is [`Scalar::Other`].
struct Loose;

enum Scalar<'de> {
    Text(Cow<'de, str>),
    Truth(bool),
    Number(u64),
    Other,
}

impl<'de> Scalar<'de> {
    fn text(self) -> Option<Cow<'de, str>> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn truth(self) -> Option<bool> {
        if let Self::Truth(truth) = self { Some(truth) } else { None }
    }

    fn number(self) -> Option<u64> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// Truthy is yanked (PEP 691), so an empty string is not.
    fn yanked(self) -> Yanked {
        match self {
            Self::Truth(true) => Yanked::Yes(String::new()),
            Self::Text(reason) if !reason.is_empty() => Yanked::Yes(reason.into_owned()),
            _ => Yanked::No,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Loose {
    type Value = Scalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Scalar<'de>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Loose {
    tolerant!(Scalar<'de> {
        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
            Ok(Scalar::Text(Cow::Borrowed(text)))
        }
        fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
            Ok(Scalar::Text(Cow::Owned(text.to_owned())))
        }
        fn visit_bool<E>(self, truth: bool) -> Result<Scalar<'de>, E> { Ok(Scalar::Truth(truth)) }
        fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> { Ok(Scalar::Number(number)) }
        fn visit_unit<E>(self) -> Result<Scalar<'de>, E> { Ok(Scalar::Other) }
        fn visit_i64<E>(self, _: i64) -> Result<Scalar<'de>, E> { Ok(Scalar::Other) }
        fn visit_f64<E>(self, _: f64) -> Result<Scalar<'de>, E> { Ok(Scalar::Other) }
        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Scalar<'de>, A::Error> {
            drain(seq).map(|()| Scalar::Other)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Scalar::Other)
        }
    });
}

/// `versions`; `None` when it is `null`.
struct Versions<'a, 'r>(&'a Reading<'r>);

impl<'de> DeserializeSeed<'de> for Versions<'_, '_> {
    type Value = Option<Vec<String>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Versions<'_, '_> {
    tolerant!(Option<Vec<String>> {
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut versions = Vec::new();
            while let Some(version) = seq.next_element_seed(Loose)? {
                self.0.count()?;
                versions.extend(version.text().map(Cow::into_owned));
            }
            Ok(Some(versions))
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> { Ok(None) }
    });
}

/// A string, borrowed where JSON has no escapes in it.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

fn drain<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Most bytes of unknown keys that are kept of one page: a tree of small values takes some forty times its text.
const EXTRA_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::super::project::tests::{idna, page_url};
    use super::*;
    use crate::base::mutate::mutations;

    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn page(files: &str) -> Project {
        let body = format!(r#"{{"meta":{{"api-version":"1.4"}},"name":"idna","files":[{files}]}}"#);
        parse(body.as_bytes(), &page_url(), &idna()).unwrap()
    }

    /// One file with these keys besides name and link.
    fn one(keys: &str) -> File {
        let mut project = page(&format!(r#"{{"filename":"i-1.whl","url":"../f/i-1.whl"{keys}}}"#));
        assert_eq!((project.files.len(), project.skipped), (1, 0), "{keys}");
        project.files.remove(0)
    }

    #[test]
    fn fields() {
        let file = one(&format!(
            r#","hashes":{{"sha256":"{SHA}","md5":"{}","blake9":"x"}},"requires-python":">=3.8","size":5,
            "upload-time":"2024-01-01T00:00:00Z","yanked":"bad \"build\"","gpg-sig":true,"new-key":[1,{{"a":null}}],
            "provenance":"/prov?x=1","core-metadata":{{"sha256":"{SHA}"}}"#,
            &SHA[..32]
        ));
        assert_eq!(file.url.as_str(), "https://index.example.org/simple/f/i-1.whl");
        assert_eq!(file.digests.len(), 2);
        assert_eq!(file.best_digest().unwrap().to_string(), format!("sha256:{SHA}"));
        assert_eq!(file.other_hashes["blake9"], "x");
        assert_eq!(file.requires_python.as_deref(), Some(">=3.8"));
        assert_eq!((file.size, file.gpg_sig), (Some(5), Some(true)));
        assert_eq!(file.yanked, Yanked::Yes(r#"bad "build""#.into()));
        assert_eq!(file.provenance.unwrap().as_str(), "https://index.example.org/prov?x=1");
        assert_eq!(file.core_metadata, CoreMetadata::Digest(format!("sha256:{SHA}").parse().unwrap()));
        assert_eq!(file.extra["new-key"].to_string(), r#"[1,{"a":null}]"#);
    }

    #[test]
    fn odd_values_cost_their_field_only() {
        for odd in ["null", "1", "-1", "1.5", "[[1],{}]", r#"{"a":{}}"#, r#""""#] {
            let keys =
                ["requires-python", "yanked", "size", "hashes", "core-metadata", "provenance", "gpg-sig"];
            let file = one(&keys.map(|key| format!(r#","{key}":{odd}"#)).concat());
            assert_eq!(
                (&file.requires_python, &file.yanked, file.gpg_sig),
                (&None, &Yanked::No, None),
                "{odd}"
            );
            assert_eq!((file.digests.len(), file.size), (0, (odd == "1").then_some(1)), "{odd}");
        }
    }

    #[test]
    fn metadata_rule() {
        let sha = CoreMetadata::Digest(format!("sha256:{SHA}").parse().unwrap());
        let rows = [
            (String::new(), CoreMetadata::No),
            (r#","core-metadata":true"#.into(), CoreMetadata::Yes),
            (r#","core-metadata":{}"#.into(), CoreMetadata::Yes),
            (r#","core-metadata":{"sha256":"zz"}"#.into(), CoreMetadata::Yes),
            (r#","dist-info-metadata":true"#.into(), CoreMetadata::Yes),
            (r#","data-dist-info-metadata":true"#.into(), CoreMetadata::Yes),
            (r#","core-metadata":false,"dist-info-metadata":true"#.into(), CoreMetadata::No),
            (r#","core-metadata":null,"dist-info-metadata":true"#.into(), CoreMetadata::Yes),
            (format!(r#","dist-info-metadata":true,"core-metadata":{{"sha256":"{SHA}"}}"#), sha),
        ];
        for (keys, want) in rows {
            assert_eq!(one(&keys).core_metadata, want, "{keys}");
        }
    }

    #[test]
    fn broken_hash_leaves_the_file() {
        assert_eq!(one("").digests, vec![]);
        assert_eq!(one(r#","hashes":{}"#).digests, vec![]);
        assert_eq!(one(&format!(r#","hashes":{{"sha256":"{}"}}"#, &SHA[1..])).digests, vec![]);
        let file = one(&format!(r#","hashes":{{"sha256":"zz","md5":"{}"}}"#, &SHA[..32]));
        assert_eq!(file.best_digest().unwrap().algorithm(), Algorithm::Md5);
    }

    #[test]
    fn hostile_entries_are_skipped() {
        let names =
            ["", ".", "..", "../a.whl", "a/b.whl", "a\\\\b.whl", ".a", "a\\u0000", "a\\n", "x.whl.metadata"];
        for name in names.map(str::to_owned).into_iter().chain(["x".repeat(256)]) {
            let project =
                page(&format!(r#"{{"filename":"{name}","url":"a"}},{{"filename":"ok","url":"b"}}"#));
            assert_eq!((project.files.len(), project.skipped), (1, 1), "{name}");
        }
        for url in
            ["file:///etc/passwd", "javascript:alert(1)", "ftp://example.org/a", "data:,a", "http://", "//["]
        {
            let project = page(&format!(r#"{{"filename":"a","url":"{url}"}}"#));
            assert_eq!((project.files.len(), project.skipped), (0, 1), "{url}");
        }
        let project = page(r#"1,null,[],"x",{},{"filename":1,"url":"a"},{"filename":"a"}"#);
        assert_eq!((project.files.len(), project.skipped), (0, 7));
    }

    #[test]
    fn first_of_a_name() {
        let project =
            page(r#"{"filename":"a","url":"1"},{"filename":"b","url":"2"},{"filename":"a","url":"3"}"#);
        assert_eq!(
            project.files.iter().map(|f| f.url.path()).collect::<Vec<_>>(),
            ["/simple/idna/1", "/simple/idna/2"]
        );
        assert_eq!(project.skipped, 1);
    }

    #[test]
    fn top_level() {
        let rows = [
            (r#"{"name":"IDNA","files":[]}"#, "ok"),
            (r#"{"files":[],"versions":null}"#, "ok"),
            (r#"{"files":[]} "#, "ok"),
            (r#"{"name":"other","files":[]}"#, "OtherProject"),
            (r#"{"name":"","files":[]}"#, "OtherProject"),
            (r#"{"meta":{"api-version":"2.0"},"files":[]}"#, "Version"),
            (r#"{"meta":{"api-version":1.0},"files":[]}"#, "ok"),
            (r#"{"meta":{"api-version":"10.0"},"files":[]}"#, "Version"),
            (r#"{"meta":{"api-version":null},"files":[]}"#, "Version"),
            (r#"{"message":"not found"}"#, "NoList"),
            (r#"{"files":{}}"#, "Json"),
            (r#"{"files":[],"files":[]}"#, "Json"),
            (r#"{"name":1,"files":[]}"#, "Json"),
            (r#"{"files":[]}x"#, "Json"),
            (r#"{"files":["#, "Json"),
            ("[]", "Json"),
            ("", "Json"),
        ];
        for (body, want) in rows {
            let got = parse(body.as_bytes(), &page_url(), &idna());
            let got = got.map_or_else(|e| format!("{e:?}"), |_| "ok".into());
            assert!(got.starts_with(want), "{body}: {got}");
        }
    }

    #[test]
    fn unknown_keys_are_kept_within_bounds() {
        let body = r#"{"meta":{"api-version":"1.4","_last-serial":7},"files":[],"project-status":{"status":"archived"}}"#;
        let project = parse(body.as_bytes(), &page_url(), &idna()).unwrap();
        assert_eq!(project.meta["_last-serial"], 7);
        assert_eq!(project.extra["project-status"]["status"], "archived");

        let body = format!(r#"{{"files":[],"big":"{}","small":1}}"#, "x".repeat(EXTRA_BYTES));
        let project = parse(body.as_bytes(), &page_url(), &idna()).unwrap();
        assert_eq!(project.extra.keys().collect::<Vec<_>>(), ["small"]);
    }

    #[test]
    fn floods() {
        let files = vec!["1"; MAX_FILES + 1].join(",");
        let body = format!(r#"{{"files":[{files}]}}"#);
        assert!(matches!(parse(body.as_bytes(), &page_url(), &idna()), Err(IndexError::TooMany(_))));
        let deep = format!(r#"{{"files":[],"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deep.as_bytes(), &page_url(), &idna()).unwrap().extra.is_empty());
        let deep = format!(r#"{{"files":[{}"#, "[".repeat(100_000));
        assert!(parse(deep.as_bytes(), &page_url(), &idna()).is_err());
    }

    #[test]
    fn mutated_pages_never_panic() {
        let page = format!(
            r#"{{"meta":{{"api-version":"1.1"}},"name":"idna","versions":["1"],"files":[{{"filename":"i-1.whl",
            "url":"https:\/\/files.example.org\/i-1.whl","hashes":{{"sha256":"{SHA}"}},"yanked":"é\u00e9","size":1,
            "core-metadata":{{"sha256":"{SHA}"}},"provenance":null,"x":{{}}}}]}}"#
        );
        mutations(&[page.as_bytes()], 20_000, |body| {
            if let Ok(project) = parse(body, &page_url(), &idna()) {
                assert_eq!(Project::from_stored(&project.to_stored()).unwrap(), project);
            }
        });
    }
}
