//! Everything that an image consists of, found manifest by manifest and within bounds.

use std::collections::{HashSet, VecDeque};

use crate::base::Digest;

use super::{Descriptor, Kind, Manifest, ManifestError, Platform};

/// Deepest nesting: an index of indexes of images is the deepest that is met, and referrers are one more.
const DEPTH: usize = 4;

/// Most manifests of an image. Those of all platforms with their attestations are some forty.
const MANIFESTS: usize = 1024;

/// Most blobs of an image: that many platforms with ten layers each would not come to this.
const BLOBS: usize = 16 << 10;

/// Most bytes of an image, as its manifests state them: four of the largest blobs. All platforms of the largest
/// images that are met have a quarter of it.
pub const IMAGE_BYTES: u64 = 256 << 30;

/// Which children of an index belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platforms {
    /// Every one.
    All,
    /// Those for these machines, as `linux/arm64` or `linux/arm/v7`; and those that are for none in particular.
    These(Vec<String>),
}

/// What belongs to a manifest, as far as it has been read. No I/O: whoever asks brings the bytes.
#[derive(Debug)]
pub struct Closure {
    platforms: Platforms,
    most_bytes: u64,
    seen: HashSet<Digest>,
    waiting: VecDeque<Step>,
    manifests: Vec<Digest>,
    blobs: Vec<Descriptor>,
    bytes: u64,
}

/// A manifest that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of the manifest.
    pub digest: Digest,
    /// In bytes, as its parent states it.
    pub size: Option<u64>,
    depth: usize,
}

impl Closure {
    /// Of nothing yet. It may come to [`IMAGE_BYTES`], or to `most_bytes` if that is less.
    pub fn new(platforms: Platforms, most_bytes: u64) -> Self {
        Self {
            platforms,
            most_bytes: most_bytes.min(IMAGE_BYTES),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            manifests: Vec::new(),
            blobs: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a manifest with all that belongs to it.
    pub fn add(&mut self, digest: Digest) {
        // One more than may be read says so when it is its turn.
        if self.manifests.len() + self.waiting.len() <= MANIFESTS && self.seen.insert(digest) {
            self.waiting.push_back(Step { digest, size: None, depth: 0 });
        }
    }

    /// The manifest to read next. None comes twice.
    pub fn step(&mut self) -> Option<Step> {
        self.waiting.pop_front()
    }

    /// Takes in the bytes of a manifest, which match its digest.
    pub fn take(&mut self, step: &Step, bytes: &[u8]) -> Result<Manifest, ClosureError> {
        let manifest =
            Manifest::read(bytes).map_err(|source| ClosureError::Manifest { digest: step.digest, source })?;
        if self.manifests.len() >= MANIFESTS {
            return Err(ClosureError::TooMany("manifests", MANIFESTS));
        }
        self.manifests.push(step.digest);
        self.count(bytes.len() as u64)?;
        let chosen = match manifest.kind {
            Kind::Index => self.choose(&manifest, step.depth)?,
            Kind::Image => manifest.children.iter().collect(),
        };
        for child in chosen {
            if !self.seen.insert(child.digest) {
                continue;
            }
            if manifest.kind == Kind::Index {
                if step.depth + 1 >= DEPTH {
                    return Err(ClosureError::TooDeep);
                }
                if self.manifests.len() + self.waiting.len() >= MANIFESTS {
                    return Err(ClosureError::TooMany("manifests", MANIFESTS));
                }
                let (digest, size) = (child.digest, Some(child.size));
                self.waiting.push_back(Step { digest, size, depth: step.depth + 1 });
                continue;
            }
            if self.blobs.len() >= BLOBS {
                return Err(ClosureError::TooMany("blobs", BLOBS));
            }
            self.count(child.size)?;
            self.blobs.push(child.clone());
        }
        Ok(manifest)
    }

    /// The manifests that were read, in the order in which they were.
    pub fn manifests(&self) -> &[Digest] {
        &self.manifests
    }

    /// The configurations and layers of those manifests.
    pub fn blobs(&self) -> &[Descriptor] {
        &self.blobs
    }

    /// What all of it comes to, as it is stated.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count(&mut self, bytes: u64) -> Result<(), ClosureError> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.most_bytes {
            true => Err(ClosureError::TooLarge { most: self.most_bytes }),
            false => Ok(()),
        }
    }

    fn choose<'a>(&self, index: &'a Manifest, depth: usize) -> Result<Vec<&'a Descriptor>, ClosureError> {
        let Platforms::These(wanted) = &self.platforms else { return Ok(index.children.iter().collect()) };
        let are = |platform: &Platform| wanted.iter().any(|wanted| platform.is(wanted));
        let there: Vec<_> = index.children.iter().filter_map(|child| child.platform.as_ref()).collect();
        let lacking = wanted.iter().find(|wanted| !there.iter().any(|platform| platform.is(wanted)));
        // One that is for no machine in particular may hold it. Below the first, an index is a choice already.
        let all_say = depth == 0 && there.len() == index.children.len();
        if let Some(lacking) = lacking.filter(|_| all_say && !there.is_empty()) {
            let mut there: Vec<_> = there.iter().map(|p| p.to_string()).collect();
            there.retain(|platform| platform != UNKNOWN);
            there.sort();
            there.dedup();
            return Err(ClosureError::NoPlatform { wanted: lacking.clone(), there: there.join(", ") });
        }
        Ok(index.children.iter().filter(|child| child.platform.as_ref().is_none_or(are)).collect())
    }
}

/// What buildkit calls the platform of what it attests.
const UNKNOWN: &str = "unknown/unknown";

/// Whether a text names a platform: `linux/arm64`, `linux/arm/v7`.
pub fn is_platform(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.len() <= 32
            && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c))
    };
    matches!(text.split('/').count(), 2 | 3) && text.split('/').all(word)
}

/// A machine that Rust calls this, in Go's words: `linux/amd64`. Containers are Linux's, wherever they run.
pub fn platform_here(architecture: &str) -> String {
    let architecture = match architecture {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        same => same,
    };
    format!("linux/{architecture}")
}

/// Why an image is not taken whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClosureError {
    /// A manifest cannot be read.
    #[error("{digest}: {source}")]
    Manifest {
        /// Of the manifest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// Nothing is for the machine that was asked for.
    #[error("there is nothing for {wanted}; there are {there}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        there: String,
    },
    /// Indexes in indexes.
    #[error("its indexes are nested more than {DEPTH} deep")]
    TooDeep,
    /// More than any image has.
    #[error("it has more than {1} {0}")]
    TooMany(&'static str, usize),
    /// More than any image has, or than there is room for.
    #[error("it comes to more than {most} bytes, which is what the store may take or what any image has")]
    TooLarge {
        /// Bytes allowed.
        most: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use serde_json::{Value, json};

    /// Manifests by their digests.
    #[derive(Default)]
    struct Registry(std::collections::HashMap<Digest, Vec<u8>>);

    fn row(digest: Digest, size: u64, platform: Option<&str>) -> Value {
        let mut row = json!({"mediaType": "m/t", "digest": digest.to_string(), "size": size});
        if let Some((os, architecture)) = platform.and_then(|p| p.split_once('/')) {
            row["platform"] = json!({"os": os, "architecture": architecture});
        }
        row
    }

    impl Registry {
        fn put(&mut self, manifest: &Value) -> Digest {
            let bytes = manifest.to_string().into_bytes();
            let digest = Sha256::of(&bytes).digest();
            self.0.insert(digest, bytes);
            digest
        }

        fn image(&mut self, layers: &[(&str, u64)]) -> Digest {
            let layers: Vec<_> = layers
                .iter()
                .map(|(of, size)| row(Sha256::of(of.as_bytes()).digest(), *size, None))
                .collect();
            self.put(&json!({"schemaVersion": 2, "config": row(Sha256::of(b"c").digest(), 1, None), "layers": layers}))
        }

        fn index(&mut self, rows: &[(Digest, Option<&str>)]) -> Digest {
            let rows: Vec<_> = rows.iter().map(|(digest, platform)| row(*digest, 9, *platform)).collect();
            self.put(&json!({"schemaVersion": 2, "manifests": rows}))
        }

        fn walk(&self, root: Digest, platforms: Platforms, most: u64) -> Result<Closure, ClosureError> {
            let mut closure = Closure::new(platforms, most);
            closure.add(root);
            while let Some(step) = closure.step() {
                closure.take(&step, &self.0[&step.digest])?;
            }
            Ok(closure)
        }
    }

    fn these(platforms: &[&str]) -> Platforms {
        Platforms::These(platforms.iter().map(|p| (*p).to_owned()).collect())
    }

    #[test]
    fn platforms_are_chosen() {
        let mut r = Registry::default();
        let amd = r.image(&[("base-amd", 10), ("app", 5)]);
        let arm = r.image(&[("base-arm", 20), ("app", 5)]);
        let signed = r.image(&[("sbom", 3)]);
        let nested = r.index(&[(arm, Some("linux/arm64"))]);
        let root = r.index(&[(amd, Some("linux/amd64")), (nested, None), (signed, Some(UNKNOWN))]);
        let cases = [(these(&["linux/amd64"]), 3, 3), (Platforms::All, 5, 5)];
        for (platforms, manifests, blobs) in cases {
            let found = r.walk(root, platforms.clone(), u64::MAX).unwrap();
            assert_eq!((found.manifests().len(), found.blobs().len()), (manifests, blobs), "{platforms:?}");
        }
        let flat =
            r.index(&[(amd, Some("linux/amd64")), (arm, Some("linux/arm64")), (signed, Some(UNKNOWN))]);
        let found = r.walk(flat, these(&["linux/arm64", "linux/amd64"]), u64::MAX).unwrap();
        assert_eq!(found.manifests(), [flat, amd, arm]);
        assert_eq!(found.blobs().len(), 4, "what both have comes once");
        assert_eq!(r.walk(flat, these(&["linux/arm64"]), u64::MAX).unwrap().manifests(), [flat, arm]);
        let said = r.walk(flat, these(&["linux/s390x"]), u64::MAX).unwrap_err().to_string();
        assert_eq!(said, "there is nothing for linux/s390x; there are linux/amd64, linux/arm64");
        // Who names a manifest of one platform wants that.
        assert_eq!(r.walk(arm, these(&["linux/amd64"]), u64::MAX).unwrap().blobs().len(), 3);
    }

    #[test]
    fn hostile_manifests_come_to_an_end() {
        let mut r = Registry::default();
        let image = r.image(&[("l", 1000)]);
        let mut deep = image;
        for _ in 0..DEPTH {
            deep = r.index(&[(deep, None)]);
        }
        assert_eq!(r.walk(deep, Platforms::All, u64::MAX).unwrap_err(), ClosureError::TooDeep);

        assert!(
            r.walk(image, Platforms::All, 1000).unwrap_err().to_string().contains("more than 1000 bytes")
        );
        let huge = r.image(&[("a", u64::MAX), ("b", u64::MAX)]);
        assert!(matches!(
            r.walk(huge, Platforms::All, u64::MAX),
            Err(ClosureError::TooLarge { most: IMAGE_BYTES })
        ));

        // What lists the same things again and again is read once.
        let wide = r.index(&vec![(image, None); 4000]);
        let again = r.index(&[(wide, None), (image, None), (wide, None)]);
        assert_eq!(r.walk(again, Platforms::All, u64::MAX).unwrap().manifests(), [again, wide, image]);

        let many: Vec<_> = (0..=MANIFESTS as u64).map(|n| (r.image(&[("l", n)]), None)).collect();
        let many = r.index(&many);
        assert_eq!(
            r.walk(many, Platforms::All, u64::MAX).unwrap_err(),
            ClosureError::TooMany("manifests", MANIFESTS)
        );

        let names: Vec<String> = (0..5 * 4000).map(|n| n.to_string()).collect();
        let parts: Vec<_> = names
            .chunks(4000)
            .map(|part| (r.image(&part.iter().map(|name| (name.as_str(), 0)).collect::<Vec<_>>()), None))
            .collect();
        let blobs = r.index(&parts);
        assert_eq!(
            r.walk(blobs, Platforms::All, u64::MAX).unwrap_err(),
            ClosureError::TooMany("blobs", BLOBS)
        );

        let bad = r.put(&json!({"schemaVersion": 1}));
        assert!(matches!(r.walk(bad, Platforms::All, u64::MAX), Err(ClosureError::Manifest { .. })));
    }

    #[test]
    fn words_for_machines() {
        for good in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert!(is_platform(good), "{good}");
        }
        for bad in ["", "linux", "linux/", "/arm64", "linux/arm/v7/x", "Linux/arm64", "linux/a b"] {
            assert!(!is_platform(bad), "{bad}");
        }
        assert_eq!(platform_here("x86_64"), "linux/amd64");
        assert_eq!(platform_here("aarch64"), "linux/arm64");
        assert_eq!(platform_here("riscv64"), "linux/riscv64");
    }
}
