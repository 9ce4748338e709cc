//! What a request below `/ipfs/` asks for. Pure.

use http::request::Parts as Request;
use http::{StatusCode, header};

use crate::base::{Cid, DAG_PB, RAW, parse_cid_text};
use crate::fetch::{Repeats, Scope};

use super::super::content::text;

/// Longest file name that a client may wish for: what common file systems take.
const FILENAME_BYTES: usize = 255;

/// What is asked for, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) cid: Cid,
    pub(super) format: Format,
    /// Where the answer would be found if the URL alone decided; `None` when it does.
    pub(super) location: Option<String>,
    /// `?filename=`, as a name that is harmless everywhere.
    pub(super) filename: Option<String>,
    /// `?download=true`.
    pub(super) download: bool,
}

/// What the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A file's bytes.
    File,
    /// One block.
    Raw,
    /// Blocks, as CARv1, depth first.
    Car { scope: Scope, repeats: Repeats },
}

impl Format {
    /// The end of an entity tag: what makes answers about one CID different.
    pub(super) fn tag(self) -> String {
        let Self::Car { scope, repeats } = self else {
            return if self == Self::Raw { ".raw".into() } else { String::new() };
        };
        let mut tag = match scope {
            Scope::Whole => ".car".to_owned(),
            Scope::Block => ".car.block".to_owned(),
            Scope::Bytes { from, to: Some(to) } => format!(".car.bytes.{from}.{to}"),
            Scope::Bytes { from, to: None } => format!(".car.bytes.{from}.end"),
        };
        if repeats == Repeats::Sent {
            tag.push_str(".dups");
        }
        tag
    }
}

/// A request that is answered with a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

fn refused<T>(status: StatusCode, text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, text.into()))
}

/// Reads a request; `below` is what follows `/ipfs`, with its slash.
pub(super) fn read(request: &Request, below: &str) -> Result<Asked, Refusal> {
    use StatusCode as S;
    let below = below.strip_prefix('/').unwrap_or(below);
    let (name, path) = below.split_once('/').unwrap_or((below, ""));
    if name.is_empty() {
        return refused(S::BAD_REQUEST, "name a CID: /ipfs/CID");
    }
    let cid = match parse_cid_text(name) {
        Ok(cid) => cid,
        Err(e) => return refused(S::BAD_REQUEST, format!("what follows /ipfs/ is no CID: {e}")),
    };
    // Browsers would let a script take over whatever lies below (Path Gateway, `Service-Worker`).
    if request.headers.get("service-worker").is_some_and(|v| v == "script") {
        return refused(S::BAD_REQUEST, "no service workers here");
    }
    let query = Query::read(request.uri.query().unwrap_or_default());
    let accepted = accepted(text(request, header::ACCEPT).unwrap_or_default());
    let (kind, by_url) = match query.format.as_deref() {
        Some(format) => (stated(format)?, true),
        None => (accepted.kind?, false),
    };
    let format = match kind {
        Kind::File => Format::File,
        Kind::Raw => Format::Raw,
        Kind::Car => {
            let repeats = match query.dups.as_deref() {
                None => accepted.repeats,
                Some("y") => Repeats::Sent,
                Some("n") => Repeats::LeftOut,
                Some(_) => return refused(S::BAD_REQUEST, "car-dups is y or n"),
            };
            if query.version.as_deref().is_some_and(|v| v != "1") {
                return refused(S::BAD_REQUEST, "only CAR version 1 is sent");
            }
            if query.order.as_deref().is_some_and(|o| !matches!(o, "dfs" | "unk")) {
                return refused(S::BAD_REQUEST, "car-order is dfs or unk");
            }
            Format::Car { scope: query.scope()?, repeats }
        }
    };
    if !path.is_empty() {
        return refused(S::NOT_FOUND, "dpm has files and no folders: nothing lies below a CID");
    }
    if format != Format::Raw && !matches!(cid.codec(), RAW | DAG_PB) {
        let text = format!("{cid} has the codec {:#x}: only raw and dag-pb are read here", cid.codec());
        return refused(S::BAD_REQUEST, text);
    }
    let location = (!by_url && format != Format::File).then(|| {
        let format = if format == Format::Raw { "raw" } else { "car" };
        let rest = request.uri.query().filter(|q| !q.is_empty()).map(|q| format!("&{q}"));
        format!("/ipfs/{name}?format={format}{}", rest.unwrap_or_default())
    });
    let filename = query.filename.map(|name| harmless(&name)).filter(|name| !name.is_empty());
    Ok(Asked { cid, format, location, filename, download: query.download })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Raw,
    Car,
}

/// What `?format=` says.
fn stated(format: &str) -> Result<Kind, Refusal> {
    match format {
        "raw" => Ok(Kind::Raw),
        "car" => Ok(Kind::Car),
        "ipns-record" => refused(StatusCode::BAD_REQUEST, "there are no IPNS records below /ipfs/"),
        "tar" | "dag-json" | "dag-cbor" | "json" | "cbor" => {
            refused(StatusCode::NOT_ACCEPTABLE, format!("{format} is not made here: raw and car are"))
        }
        _ => refused(StatusCode::BAD_REQUEST, "format is raw or car"),
    }
}

struct Accepted {
    kind: Result<Kind, Refusal>,
    repeats: Repeats,
}

/// What `Accept` comes to: the first of the best-liked types that can be had (RFC 9110 §12.5.1).
fn accepted(header: &str) -> Accepted {
    let mut wishes: Vec<(f32, Wish)> =
        header.split(',').filter(|w| !w.trim().is_empty()).take(MOST_WISHES).filter_map(Wish::read).collect();
    // Stable: of equals, the first.
    wishes.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let repeats = Repeats::LeftOut;
    for (_, wish) in &wishes {
        match wish {
            Wish::Known(kind, repeats) => return Accepted { kind: Ok(*kind), repeats: *repeats },
            Wish::Refused(refusal) if wishes.len() == 1 => {
                return Accepted { kind: Err(refusal.clone()), repeats };
            }
            Wish::Refused(_) => {}
        }
    }
    let kind = match wishes.is_empty() {
        true => Ok(Kind::File),
        false => refused(
            StatusCode::NOT_ACCEPTABLE,
            "there are application/vnd.ipld.raw, application/vnd.ipld.car of version 1, and the file itself",
        ),
    };
    Accepted { kind, repeats }
}

/// Entries of an `Accept` that are looked at: browsers send ten.
const MOST_WISHES: usize = 32;

enum Wish {
    Known(Kind, Repeats),
    Refused(Refusal),
}

impl Wish {
    /// An entry of `Accept` and its weight; `None` for one that is ruled out.
    fn read(entry: &str) -> Option<(f32, Self)> {
        let mut parameters = entry.split(';').map(str::trim);
        let name = parameters.next().unwrap_or_default().to_ascii_lowercase();
        let (mut weight, mut repeats, mut possible) = (1.0, Repeats::LeftOut, true);
        for parameter in parameters {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => weight = value.parse::<f32>().ok().filter(|q| q.is_finite()).unwrap_or(0.0),
                "dups" if value == "y" => repeats = Repeats::Sent,
                "version" => possible &= value == "1",
                "order" => possible &= matches!(value, "dfs" | "unk" | ""),
                _ => {}
            }
        }
        let refusal = |status, text: &str| Self::Refused(Refusal(status, text.to_owned()));
        let wish = match name.as_str() {
            "application/vnd.ipld.raw" => Self::Known(Kind::Raw, repeats),
            "application/vnd.ipld.car" if possible => Self::Known(Kind::Car, repeats),
            "application/vnd.ipld.car" => {
                refusal(StatusCode::NOT_ACCEPTABLE, "CAR files are sent as version=1;order=dfs")
            }
            "application/vnd.ipfs.ipns-record" => {
                refusal(StatusCode::BAD_REQUEST, "there are no IPNS records below /ipfs/")
            }
            "application/x-tar" | "application/json" | "application/cbor" => {
                refusal(StatusCode::NOT_ACCEPTABLE, "files are sent as they are, as raw blocks, or as CAR")
            }
            other if other.starts_with("application/vnd.ipld.") => {
                refusal(StatusCode::NOT_ACCEPTABLE, "files are sent as they are, as raw blocks, or as CAR")
            }
            // Whatever else it is, a file may be just that.
            _ => Self::Known(Kind::File, repeats),
        };
        (weight > 0.0).then_some((weight, wish))
    }
}

#[derive(Default)]
struct Query {
    format: Option<String>,
    scope: Option<String>,
    bytes: Option<String>,
    version: Option<String>,
    order: Option<String>,
    dups: Option<String>,
    filename: Option<String>,
    download: bool,
}

impl Query {
    fn read(query: &str) -> Self {
        let mut read = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*key {
                "format" => read.format = Some(value),
                "dag-scope" => read.scope = Some(value),
                "entity-bytes" => read.bytes = Some(value),
                "car-version" => read.version = Some(value),
                "car-order" => read.order = Some(value),
                "car-dups" => read.dups = Some(value),
                "filename" => read.filename = Some(value),
                "download" => read.download = value == "true",
                _ => {}
            }
        }
        read
    }

    fn scope(&self) -> Result<Scope, Refusal> {
        if let Some(bytes) = &self.bytes {
            let bad =
                || Refusal(StatusCode::BAD_REQUEST, "entity-bytes is FROM:TO, as 0:1023 or -1024:*".into());
            let (from, to) = bytes.split_once(':').ok_or_else(bad)?;
            let from = from.parse().map_err(|_| bad())?;
            let to = match to {
                "*" => None,
                to => Some(to.parse().map_err(|_| bad())?),
            };
            return Ok(Scope::Bytes { from, to });
        }
        match self.scope.as_deref() {
            None | Some("all" | "entity") => Ok(Scope::Whole),
            Some("block") => Ok(Scope::Block),
            Some(_) => refused(StatusCode::BAD_REQUEST, "dag-scope is block, entity or all"),
        }
    }
}

/// A file name without what a header, a shell or a file system could misread.
fn harmless(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_control() || matches!(c, '/' | '\\' | '"') { '_' } else { c })
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= FILENAME_BYTES).then_some(c)
        })
        .collect();
    if name.starts_with('.') { name.replacen('.', "_", 1) } else { name }
}

/// `Content-Disposition` (Path Gateway; RFC 6266): non-ASCII names twice, once without.
pub(super) fn disposition(attachment: bool, filename: &str) -> String {
    let kind = if attachment { "attachment" } else { "inline" };
    let ascii: String = filename.chars().map(|c| if c.is_ascii() { c } else { '_' }).collect();
    let mut out = format!("{kind}; filename=\"{ascii}\"");
    if !filename.is_ascii() {
        out.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
                _ if byte.is_ascii_alphanumeric() => out.push(byte as char),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW_CID: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    const NODE_CID: &str = "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64";

    fn ask(path: &str, accept: Option<&str>) -> Result<Asked, Refusal> {
        let mut request = http::Request::get(path);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        let below = request.uri.path().strip_prefix("/ipfs").unwrap().to_owned();
        read(&request, &below)
    }

    fn car(scope: Scope) -> Format {
        Format::Car { scope, repeats: Repeats::LeftOut }
    }

    #[test]
    fn formats() {
        let cases = [
            ("", None, Format::File),
            ("/", None, Format::File),
            ("", Some("*/*"), Format::File),
            ("", Some("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"), Format::File),
            ("?format=raw", None, Format::Raw),
            ("?format=raw", Some("application/vnd.ipld.car"), Format::Raw),
            ("", Some("application/vnd.ipld.raw"), Format::Raw),
            ("", Some("application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car"), car(Scope::Whole)),
            ("", Some("application/vnd.ipld.dag-json, application/vnd.ipld.raw;q=0.1"), Format::Raw),
            (
                "",
                Some("application/vnd.ipld.car;version=2, application/vnd.ipld.car;q=0.2"),
                car(Scope::Whole),
            ),
            (
                "",
                Some("application/vnd.ipld.car; version=1; order=dfs; dups=y"),
                Format::Car { scope: Scope::Whole, repeats: Repeats::Sent },
            ),
            ("?car-dups=n", Some("application/vnd.ipld.car;dups=y"), car(Scope::Whole)),
            ("?format=car&dag-scope=block", None, car(Scope::Block)),
            ("?format=car&dag-scope=entity", None, car(Scope::Whole)),
            ("?format=car&entity-bytes=0:*", None, car(Scope::Bytes { from: 0, to: None })),
            ("?format=car&entity-bytes=-5:-1", None, car(Scope::Bytes { from: -5, to: Some(-1) })),
        ];
        for (rest, accept, want) in cases {
            for cid in [RAW_CID, NODE_CID] {
                let asked = ask(&format!("/ipfs/{cid}{rest}"), accept);
                assert_eq!(asked.map(|a| a.format), Ok(want), "{rest} {accept:?}");
            }
        }
        let located = ask(&format!("/ipfs/{RAW_CID}?filename=a"), Some("application/vnd.ipld.raw")).unwrap();
        assert_eq!(located.location, Some(format!("/ipfs/{RAW_CID}?format=raw&filename=a")));
        assert_eq!(ask(&format!("/ipfs/{RAW_CID}?format=raw"), None).unwrap().location, None);
    }

    #[test]
    fn refusals() {
        let long = format!("/ipfs/{}", "b".repeat(1500));
        let cases = [
            ("/ipfs", None, 400),
            ("/ipfs/", None, 400),
            ("/ipfs/nonsense", None, 400),
            (&*long, None, 400),
            (&format!("/ipfs/{RAW_CID}/a/b"), None, 404),
            (&format!("/ipfs/{RAW_CID}?format=tar"), None, 406),
            (&format!("/ipfs/{RAW_CID}?format=dag-json"), None, 406),
            (&format!("/ipfs/{RAW_CID}?format=ipns-record"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=zip"), None, 400),
            (&format!("/ipfs/{RAW_CID}"), Some("application/x-tar"), 406),
            (&format!("/ipfs/{RAW_CID}"), Some("application/vnd.ipfs.ipns-record"), 400),
            (&format!("/ipfs/{RAW_CID}"), Some("application/vnd.ipld.car;version=2"), 406),
            (&format!("/ipfs/{RAW_CID}?format=car&car-version=2"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&car-order=bfs"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&car-dups=maybe"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&dag-scope=some"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&entity-bytes=5"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&entity-bytes=*:5"), None, 400),
            (&format!("/ipfs/{RAW_CID}?format=car&entity-bytes=a:b"), None, 400),
            ("/ipfs/bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua", None, 400),
        ];
        for (path, accept, want) in cases {
            let refusal = ask(path, accept).unwrap_err();
            assert_eq!(refusal.0.as_u16(), want, "{path}: {}", refusal.1);
        }
    }

    #[test]
    fn names_are_harmless() {
        let cases = [
            ("a.whl", "inline; filename=\"a.whl\""),
            ("../../etc/passwd", "inline; filename=\"_._.._etc_passwd\""),
            ("a\"b\r\nc", "inline; filename=\"a_b__c\""),
            (
                "testтест.pdf",
                "inline; filename=\"test____.pdf\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.pdf",
            ),
        ];
        for (name, want) in cases {
            assert_eq!(disposition(false, &harmless(name)), want, "{name}");
        }
        assert!(harmless(&"ж".repeat(500)).len() <= FILENAME_BYTES);
    }
}
