//! Manifests and indexes (OCI image specification v1.1; Docker's image manifest version 2, schema 2).

use serde::Deserialize;

use crate::base::Digest;

use super::reference_digest;

/// Largest manifest in bytes: what registries have to take at least (OCI distribution specification, "Pushing
/// manifests"), and none of the large ones takes more.
pub const MANIFEST_BYTES: u64 = 4 << 20;

/// Most children of one manifest: an index of all platforms has some twenty, an image at most 127 layers.
const CHILDREN: usize = 4096;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A manifest, as far as a cache needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it says it is; by what it has, where it does not say.
    pub media_type: String,
    /// By what it has.
    pub kind: Kind,
    /// What it consists of, in the order in which it says it: for an index manifests, for an image its configuration
    /// and its layers. Layers that lie elsewhere ("foreign", with `urls`) are left out: their registry does not have them.
    pub children: Vec<Descriptor>,
}

/// What a manifest is, by what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its children are manifests.
    Index,
    /// Its children are blobs.
    Image,
}

impl Kind {
    /// Whether this may be called so. Clients read it as what it is called, and some by what it has.
    pub fn goes_by(self, media_type: &str) -> bool {
        let index = media_type.contains(".index.") || media_type.contains(".manifest.list.");
        let single =
            media_type.contains(".image.manifest.") || media_type.contains(".distribution.manifest.v2");
        !(index && self != Self::Index || single && self != Self::Image)
    }
}

/// A reference to content (OCI image specification, "Content descriptors").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// What it says of the content.
    pub media_type: String,
    /// Of the content.
    pub digest: Digest,
    /// Of the content, in bytes.
    pub size: u64,
    /// What an index says of the machine that it is for.
    pub platform: Option<Platform>,
}

/// What a manifest is for: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// `arm64`, in Go's words.
    #[serde(default)]
    pub architecture: String,
    /// `v8`
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether this is what `text` names: `linux/arm64`, `linux/arm/v7`. A variant counts only where `text` has one.
    pub fn is(&self, text: &str) -> bool {
        let mut parts = text.split('/');
        parts.next() == Some(self.os.as_str())
            && parts.next() == Some(self.architecture.as_str())
            && parts.next().is_none_or(|variant| self.variant.as_deref() == Some(variant))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variant = self.variant.iter().map(|variant| format!("/{variant}")).collect::<String>();
        let text = format!("{}/{}{variant}", self.os, self.architecture);
        // A stranger's words: they go to a terminal.
        text.chars().take(64).filter(|c| !c.is_control()).try_for_each(|c| std::fmt::Write::write_char(f, c))
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    blobs: Option<Vec<RawDescriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    urls: Option<Vec<String>>,
    platform: Option<Platform>,
}

impl Manifest {
    /// Reads a manifest of at most [`MANIFEST_BYTES`].
    ///
    /// One that is an index and an image at once is refused: what it is would depend on who reads it (CVE-2021-41190).
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| ManifestError::Json(e.to_string()))?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        let image = raw.config.is_some() || raw.layers.is_some() || raw.blobs.is_some();
        let kind = match (raw.manifests.is_some(), image) {
            (true, true) => return Err(ManifestError::Ambiguous),
            (true, false) => Kind::Index,
            (false, true) => Kind::Image,
            (false, false) => return Err(ManifestError::Neither),
        };
        let stated = raw.media_type.filter(|t| is_media_type(t));
        if stated.as_ref().is_some_and(|stated| !kind.goes_by(stated)) {
            return Err(ManifestError::Ambiguous);
        }
        let lists = [raw.manifests, raw.config.map(|c| vec![c]), raw.layers, raw.blobs];
        let all: Vec<RawDescriptor> = lists.into_iter().flatten().flatten().collect();
        if all.len() > CHILDREN {
            return Err(ManifestError::TooMany);
        }
        let children = all.into_iter().filter(|one| one.urls.as_ref().is_none_or(Vec::is_empty));
        let media_type = stated.unwrap_or_else(|| match kind {
            Kind::Index => OCI_INDEX.to_owned(),
            Kind::Image => OCI_MANIFEST.to_owned(),
        });
        Ok(Self { media_type, kind, children: children.map(Descriptor::of).collect::<Result<_, _>>()? })
    }
}

impl Descriptor {
    fn of(raw: RawDescriptor) -> Result<Self, ManifestError> {
        let digest = reference_digest(&raw.digest).map_err(|e| ManifestError::Digest(e.to_string()))?;
        Ok(Self { media_type: raw.media_type, digest, size: raw.size, platform: raw.platform })
    }
}

/// A media type that a header can hold.
fn is_media_type(text: &str) -> bool {
    text.len() <= 255 && text.contains('/') && text.bytes().all(|c| c.is_ascii_graphic())
}

/// Why bytes are no manifest that dpm hands on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Over [`MANIFEST_BYTES`].
    #[error("a manifest has at most {MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Over the limit of children.
    #[error("a manifest has at most {CHILDREN} children")]
    TooMany,
    /// No JSON, or not this JSON.
    #[error("not a manifest: {0}")]
    Json(String),
    /// Docker's first format.
    #[error(
        "this is a manifest of Docker's first schema, which clients have given up; have the image pushed again by a newer docker"
    )]
    Schema1,
    /// Both, or another than it says.
    #[error("a manifest that is an index and an image at once is not handed on")]
    Ambiguous,
    /// It has no children at all.
    #[error("neither an index nor an image")]
    Neither,
    /// A child's digest is none.
    #[error("a child of the manifest has no digest that can be checked: {0}")]
    Digest(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;

    fn descriptor(of: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"m/t","digest":"{}","size":7{more}}}"#, Sha256::of(of.as_bytes()).digest())
    }

    #[test]
    fn what_manifests_are() {
        let (a, b) = (descriptor("a", ""), descriptor("b", ""));
        let foreign = descriptor("f", r#","urls":["https://example.org/f"]"#);
        let arm = descriptor("p", r#","platform":{"os":"linux","architecture":"arm","variant":"v7"}"#);
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let list = "application/vnd.docker.distribution.manifest.list.v2+json";
        let cases = [
            (format!(r#"{{"schemaVersion":2,"config":{a},"layers":[{b}]}}"#), Ok((OCI_MANIFEST, 2))),
            (format!(r#"{{"mediaType":"{docker}","config":{a},"layers":[{b},{foreign}]}}"#), Ok((docker, 2))),
            (format!(r#"{{"schemaVersion":2,"manifests":[{arm}]}}"#), Ok((OCI_INDEX, 1))),
            (format!(r#"{{"mediaType":"{list}","manifests":[]}}"#), Ok((list, 0))),
            (format!(r#"{{"mediaType":"a/b\r\nc: d","config":{a}}}"#), Ok((OCI_MANIFEST, 1))),
            (format!(r#"{{"config":{a},"layers":[],"manifests":[]}}"#), Err(ManifestError::Ambiguous)),
            (format!(r#"{{"mediaType":"{list}","config":{a}}}"#), Err(ManifestError::Ambiguous)),
            (format!(r#"{{"mediaType":"{docker}","manifests":[]}}"#), Err(ManifestError::Ambiguous)),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), Err(ManifestError::Schema1)),
            (r#"{"schemaVersion":2}"#.into(), Err(ManifestError::Neither)),
            (
                format!(r#"{{"manifests":[{}]}}"#, vec![a.as_str(); CHILDREN + 1].join(",")),
                Err(ManifestError::TooMany),
            ),
        ];
        for (text, want) in cases {
            let got = Manifest::read(text.as_bytes());
            let got = got.as_ref().map(|m| (m.media_type.as_str(), m.children.len()));
            assert_eq!(got, want.as_ref().copied(), "{}", &text[..text.len().min(200)]);
        }
        for bad in ["", "[]", "null", "{\"config\":{}}", "{\"config\":{\"digest\":\"md5:00\",\"size\":1}}"] {
            assert!(Manifest::read(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Manifest::read("[".repeat(1 << 20).as_bytes()).is_err(), "nested without end");
        assert_eq!(Manifest::read(&vec![b' '; 5 << 20]), Err(ManifestError::TooLarge));
        assert!(Manifest::read(br#"{"config":{"digest":"sha256:00","size":-1}}"#).is_err());
    }

    #[test]
    fn platforms() {
        let of = |os: &str, architecture: &str, variant: Option<&str>| Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        };
        let cases = [
            (of("linux", "arm64", Some("v8")), "linux/arm64", true),
            (of("linux", "arm64", Some("v8")), "linux/arm64/v8", true),
            (of("linux", "arm", Some("v6")), "linux/arm/v7", false),
            (of("linux", "amd64", None), "linux/arm64", false),
            (of("windows", "amd64", None), "linux/amd64", false),
            (of("linux", "amd64", None), "linux", false),
        ];
        for (platform, text, want) in cases {
            assert_eq!(platform.is(text), want, "{platform:?} {text}");
        }
    }
}
