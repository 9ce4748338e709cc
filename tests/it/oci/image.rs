//! Images and other artifacts, built here: the same in every run, with nothing but this file to make them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use dpm::base::Sha256;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::random_bytes;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// How Go names this machine's processor: clients take that manifest of an index.
pub const HERE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Every manifest and blob of one reference, by digest.
#[derive(Clone, Debug)]
pub struct Image {
    /// What a tag points to.
    pub root: Descriptor,
    /// Manifests, children before parents.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// By processor: what an engine knows of an image once it is unpacked.
    platforms: Vec<(&'static str, Unpacked)>,
}

/// What one manifest refers to by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: &'static str,
    pub digest: String,
    pub size: usize,
}

/// An image as an engine stores it: the digest of its config, and those of its layers' tar files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    pub config: String,
    pub layers: Vec<String>,
}

/// Which words an image is described in.
#[derive(Clone, Copy)]
struct Words {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: Words = Words { manifest: OCI_MANIFEST, config: OCI_CONFIG, layer: OCI_LAYER };
const DOCKER: Words = Words { manifest: DOCKER_MANIFEST, config: DOCKER_CONFIG, layer: DOCKER_LAYER };

impl Descriptor {
    fn of(media_type: &'static str, bytes: &[u8]) -> Self {
        Self { media_type, digest: format!("sha256:{}", Sha256::of(bytes)), size: bytes.len() }
    }

    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }

    /// The digest without its algorithm.
    pub fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }
}

impl Image {
    /// An image for this machine with a layer of each of these sizes, before compression that does not help.
    pub fn new(seed: u64, layers: &[usize]) -> Self {
        Self::empty().platform(seed, layers, HERE, OCI)
    }

    /// An image with a layer of these bytes, which nobody can unpack.
    pub fn with_layer(bytes: Vec<u8>) -> Self {
        let mut image = Self::empty();
        let config =
            image.blob(OCI_CONFIG, json!({"architecture": HERE, "os": "linux"}).to_string().into_bytes());
        let layer = image.blob(OCI_LAYER, bytes);
        image.manifest(OCI_MANIFEST, json!({"config": config.json(), "layers": [layer.json()]}))
    }

    /// The same in docker's words (schema 2).
    pub fn docker(seed: u64, layers: &[usize]) -> Self {
        Self::empty().platform(seed, layers, HERE, DOCKER)
    }

    /// An index of two platforms, each with layers of its own.
    pub fn index(seed: u64, layers: &[usize]) -> Self {
        let mut image = Self::empty();
        let mut children = Vec::new();
        for (n, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
            image = image.platform(seed * 2 + n as u64, layers, architecture, OCI);
            let mut child = image.root.json();
            child["platform"] = json!({"architecture": architecture, "os": "linux"});
            children.push(child);
        }
        image.manifest(OCI_INDEX, json!({"manifests": children}))
    }

    /// An image whose manifest is nearly as large as registries take them: 4 MiB.
    pub fn large(seed: u64) -> Self {
        let mut image = Self::empty();
        let config =
            image.blob(OCI_CONFIG, json!({"architecture": HERE, "os": "linux"}).to_string().into_bytes());
        let layer = image.blob(OCI_LAYER, gzip(&tar(&[("layer", &random_bytes(seed, 3000))])));
        let notes: serde_json::Map<_, _> =
            (0..390).map(|n| (format!("note-{n}"), Value::from("A".repeat(10_000)))).collect();
        image.manifest(
            OCI_MANIFEST,
            json!({"config": config.json(), "layers": [layer.json()], "annotations": notes}),
        )
    }

    /// Something that is no image, about another manifest: a signature, a list of parts.
    pub fn about(subject: &Descriptor, artifact_type: &str, text: &str) -> Self {
        let mut image = Self::empty();
        let config = image.blob(EMPTY, b"{}".to_vec());
        let layer = image.blob("text/plain", text.as_bytes().to_vec());
        image.manifest(
            OCI_MANIFEST,
            json!({
                "artifactType": artifact_type, "config": config.json(), "layers": [layer.json()],
                "subject": subject.json(),
            }),
        )
    }

    /// What older registries have in place of a list of referrers: an index of them, to be tagged `sha256-…`.
    pub fn referrers(about: &[&Self]) -> Self {
        let mut image = Self::empty();
        for other in about {
            image.manifests.extend(other.manifests.clone());
            image.blobs.extend(other.blobs.clone());
        }
        let rows: Vec<_> = about.iter().map(|image| image.referrer()).collect();
        image.manifest(OCI_INDEX, json!({"manifests": rows}))
    }

    /// A row of a list of referrers.
    pub fn referrer(&self) -> Value {
        let manifest: Value = serde_json::from_slice(self.root_bytes()).expect("JSON");
        let mut row = self.root.json();
        row["artifactType"] = manifest["artifactType"].clone();
        row
    }

    /// A chart as helm pushes it: a small config, and one tar file.
    pub fn chart(name: &str) -> Self {
        let mut image = Self::empty();
        let config = json!({"apiVersion": "v2", "name": name, "version": "1.0.0"}).to_string();
        let config = image.blob("application/vnd.cncf.helm.config.v1+json", config.into_bytes());
        let file = format!("{name}/Chart.yaml");
        let tar = gzip(&tar(&[(&file, b"apiVersion: v2\nversion: 1.0.0\n")]));
        let layer = image.blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip", tar);
        image.manifest(OCI_MANIFEST, json!({"config": config.json(), "layers": [layer.json()]}))
    }

    fn empty() -> Self {
        let root = Descriptor { media_type: OCI_MANIFEST, digest: String::new(), size: 0 };
        Self { root, manifests: Vec::new(), blobs: BTreeMap::new(), platforms: Vec::new() }
    }

    fn platform(mut self, seed: u64, sizes: &[usize], architecture: &'static str, words: Words) -> Self {
        let (mut layers, mut plain) = (Vec::new(), Vec::new());
        for (n, size) in sizes.iter().enumerate() {
            let content = random_bytes(seed * 1000 + n as u64, *size);
            let tar = tar(&[(&format!("layer-{n}"), &content)]);
            plain.push(format!("sha256:{}", Sha256::of(&tar)));
            layers.push(self.blob(words.layer, gzip(&tar)).json());
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z",
            "config": {"Cmd": ["/layer-0"], "Labels": {"seed": seed.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": plain},
        });
        let config = self.blob(words.config, config.to_string().into_bytes());
        self.platforms.push((architecture, Unpacked { config: config.digest.clone(), layers: plain }));
        self.manifest(words.manifest, json!({"config": config.json(), "layers": layers}))
    }

    fn blob(&mut self, media_type: &'static str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    fn manifest(mut self, media_type: &'static str, rest: Value) -> Self {
        let mut all = json!({"schemaVersion": 2, "mediaType": media_type});
        let fields = all.as_object_mut().expect("an object");
        fields.extend(rest.as_object().expect("an object").clone());
        let bytes = all.to_string().into_bytes();
        self.root = Descriptor::of(media_type, &bytes);
        self.manifests.push((self.root.clone(), bytes));
        self
    }

    pub fn root_bytes(&self) -> &[u8] {
        &self.manifests.last().expect("a manifest").1
    }

    /// What an engine on this machine has of it.
    pub fn unpacked(&self) -> &Unpacked {
        let found = self.platforms.iter().find(|(architecture, _)| *architecture == HERE);
        &found.expect("an image for this machine").1
    }

    /// The first layer, as it is transferred, of the image for this machine.
    pub fn first_layer(&self) -> String {
        let config = &self.unpacked().config;
        let manifests = self.manifests.iter().map(|(_, bytes)| serde_json::from_slice(bytes).expect("JSON"));
        let own = manifests.into_iter().find(|manifest: &Value| manifest["config"]["digest"] == **config);
        own.expect("its manifest")["layers"][0]["digest"].as_str().expect("a layer").to_owned()
    }

    /// The largest blob: a layer.
    pub fn largest(&self) -> (&str, &[u8]) {
        let (digest, bytes) = self.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).expect("a blob");
        (digest, bytes)
    }

    /// Writes it as the folder that skopeo calls `dir:`, which takes manifests of every kind.
    pub fn write(&self, folder: &Path) {
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a file");
        put("version", b"Directory Transport Version: 1.1\n");
        put("manifest.json", self.root_bytes());
        for (descriptor, bytes) in &self.manifests {
            put(&format!("{}.manifest.json", descriptor.hex()), bytes);
        }
        for (digest, bytes) in &self.blobs {
            put(digest.trim_start_matches("sha256:"), bytes);
        }
    }

    /// Compares a folder that `skopeo copy --all … dir:` made, byte for byte by digest.
    #[track_caller]
    pub fn assert_is(&self, folder: &Path) {
        let mut wanted: Vec<String> = Vec::new();
        for (descriptor, _) in &self.manifests {
            wanted.push(descriptor.digest.clone());
        }
        wanted.extend(self.blobs.keys().cloned());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            if entry.file_name() != "version" {
                let bytes = std::fs::read(entry.path()).expect("a file");
                found.push(format!("sha256:{}", Sha256::of(&bytes)));
            }
        }
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "{}", folder.display());
        let root = std::fs::read(folder.join("manifest.json")).expect("a manifest");
        assert!(root == self.root_bytes(), "{}", String::from_utf8_lossy(&root));
    }
}

/// A tar file of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut all = Vec::new();
    for (name, content) in files {
        let mut head = [0; BLOCK];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000755\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        // While the sum is made, its own field is spaces.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        all.extend_from_slice(&head);
        all.extend_from_slice(content);
        all.resize(all.len().next_multiple_of(BLOCK), 0);
    }
    all.resize(all.len() + 2 * BLOCK, 0);
    all
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
