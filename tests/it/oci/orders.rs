//! What operators order of images: prefetched, explained, kept, forgotten, carried.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry};
use super::setup::{node, settings};
use super::tools::Tools;
use crate::clients::process::{Dpm, Home};
use crate::support::process::{run, text};
use crate::support::{Listing, Upstream};

/// An order for the node of a home, or for its idle store.
struct Orders<'a>(&'a Home);

impl Orders<'_> {
    fn output(&self, data: &str, words: &[&str]) -> Output {
        let (config, data) = (self.0.path("dpm.toml"), self.0.path(data));
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        all.extend(["--config".into(), path(&config), "--data".into(), path(&data), "--json".into()]);
        run(&all)
    }

    #[track_caller]
    fn tell(&self, words: &[&str]) -> Value {
        self.tell_at("dpm", words)
    }

    #[track_caller]
    fn tell_at(&self, data: &str, words: &[&str]) -> Value {
        let output = self.output(data, words);
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// `[artifacts fetched, here already]` of the only row.
fn sums(outcome: &Value) -> [u64; 2] {
    let row = &outcome["prefetched"][0];
    ["fetched", "already_here"]
        .map(|key| row[key]["artifacts"].as_u64().unwrap_or_else(|| panic!("{outcome:#}")))
}

fn pull(home: &Home, tools: &Tools<'_>, dpm: &Dpm<'_>, reference: &str, folder: &str) {
    let host = dpm.url().replace("http://", "");
    home.run(&mut tools.copy(&format!("{host}/{reference}"), folder, None));
}

#[test]
fn images_are_there_before_they_are_asked_for() {
    let home = Home::bare();
    let (tools, mut registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    // Three layers and a configuration each, for two platforms.
    let image = Image::index(1, &[3000, 2_000_000, 5000]);
    registry.push(&tools, &image, "library/x:1");
    let dpm = node(&home, &registry);
    let orders = Orders(&home);

    let arm = orders.tell(&["prefetch", "x:1", "--platform", "linux/arm64"]);
    let row = &arm["prefetched"][0];
    assert_eq!((sums(&arm), &row["digest"]), ([6, 0], &json!(image.root.digest)), "{arm:#}");
    assert_eq!((&row["manifests"], &row["blobs"], &row["confirmed"]), (&json!(2), &json!(4), &json!(true)));
    assert_eq!(
        sums(&orders.tell(&["prefetch", "docker.io/library/x:1", "--platform", "linux/arm64"])),
        [0, 6]
    );
    let asked = registry.door.total();
    let all = orders.tell(&["prefetch", "docker://docker.io/library/x:1", "--all-platforms"]);
    assert_eq!(sums(&all), [5, 6]);
    assert!(all["prefetched"][0]["already_here"]["bytes"].as_u64().unwrap() > 1_000_000, "{all:#}");
    assert!(registry.door.total() - asked <= 6, "a HEAD for the tag, and what was not here");
    assert_eq!(registry.hits("GET", &blob_path("library/x", image.largest().0)), 1);

    // What cannot be had is named, and keeps nothing else.
    let lacking = orders.output(
        "dpm",
        &["prefetch", "x:2", "x@sha256:00", "example.org/a", "x:1", "--platform", "linux/s390x"],
    );
    assert_eq!(lacking.status.code(), Some(1));
    let lacking: Value = serde_json::from_slice(&lacking.stdout).expect("JSON");
    let said: Vec<_> =
        lacking["failed"].as_array().unwrap().iter().map(|row| row["error"].as_str().unwrap()).collect();
    for (said, word) in said.iter().zip([
        "does not know hub/library/x:2",
        "names no image",
        "example.org",
        "linux/amd64, linux/arm64",
    ]) {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(said.len(), 4);
    let bad = orders.output("dpm", &["prefetch", "x", "--platform", "arm64"]);
    assert!(text(&bad.stderr).contains("linux/arm64 or linux/arm/v7"));

    registry.kill();
    pull(&home, &tools, &dpm, "docker.io/library/x:1", "out");
    image.assert_is(&home.path("out"));
}

#[test]
fn an_idle_store_is_filled_too() {
    let home = Home::bare();
    let (tools, mut registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::new(1, &[3000, 40_000]);
    let about = Image::about(&image.root, "application/vnd.example.signature", "signed");
    let signature = format!("{}.sig", image.root.digest.replace(':', "-"));
    registry.push(&tools, &image, "team/app:1");
    registry.push(&tools, &about, &format!("team/app:{signature}"));
    let index = Upstream::start();
    let project = Listing::publish(&index, 1, 100_000);
    home.write(
        "dpm.toml",
        &settings(&registry).replace("http://127.0.0.1:9/simple/", &index.url("/simple/")),
    );
    let orders = Orders(&home);

    let plain = orders.tell(&["prefetch", "docker.io/team/app:1"]);
    assert_eq!(sums(&plain), [4, 0], "{plain:#}");
    let signed = orders.tell(&["prefetch", "docker.io/team/app:1", "--with-signatures"]);
    assert_eq!(sums(&signed), [3, 4], "{signed:#}");
    assert_eq!(signed["prefetched"][0]["unanswered"], json!([]));
    let purl = format!("pkg:pypi/{}@1.0", project.name);
    let file = orders.tell(&["prefetch", &purl]);
    assert_eq!(
        (sums(&file), &file["prefetched"][0]["digest"]),
        ([1, 0], &json!(project.digest())),
        "{file:#}"
    );
    assert!(!home.path(&project.filename()).exists(), "it is stored and not written");

    registry.kill();
    let config = home.path("dpm.toml");
    let dpm = Dpm::serve(&home, &["--config", config.to_str().unwrap(), "--offline"]);
    for (tag, folder, image) in [("1", "image", &image), (signature.as_str(), "signature", &about)] {
        pull(&home, &tools, &dpm, &format!("docker.io/team/app:{tag}"), folder);
        image.assert_is(&home.path(folder));
    }
}

#[test]
fn why_pin_purge_and_carry() {
    let home = Home::bare();
    let (tools, mut registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000, 40_000]);
    registry.push(&tools, &image, "library/x:1");
    let dpm = node(&home, &registry);
    let orders = Orders(&home);
    let (reference, url) = ("docker.io/library/x:1", dpm.url());

    let unknown = orders.tell(&["why", reference]);
    assert_eq!((&unknown["kind"], &unknown["stored"]), (&json!("image"), &json!(false)), "{unknown:#}");
    assert_eq!(registry.door.total(), 0, "why asks nobody");
    orders.tell(&["prefetch", reference, "--platform", "linux/amd64"]);
    let (tag, digest) = (format!("{url}/v2/library/x/manifests/1"), format!("x@{}", image.root.digest));
    for what in [reference, "x:1", &tag, &format!("{url}/v2/docker.io/library/x/manifests/1")] {
        let why = orders.tell(&["why", what]);
        assert_eq!(
            (&why["image"], &why["digest"], &why["stored"], &why["fresh"]),
            (&json!("hub/library/x:1"), &json!(image.root.digest), &json!(true), &json!(true)),
            "{what}: {why:#}"
        );
        // The index, one manifest, a configuration and two layers; of the other platform its manifest is not here.
        assert_eq!((&why["stored_artifacts"], &why["not_stored"]), (&json!(5), &json!(1)), "{why:#}");
        assert_eq!(why["manifest"]["upstream"], "hub");
    }
    let why = orders.tell(&["why", &digest]);
    assert_eq!((&why["stored"], &why["fresh"]), (&json!(true), &Value::Null), "a digest is fresh for ever");
    let blob = format!("{url}{}", blob_path("library/x", image.largest().0));
    assert_eq!(orders.tell(&["why", &blob])["kind"], "artifact");

    assert_eq!(orders.tell(&["pin", reference])["artifacts"], 5);
    assert_eq!(orders.tell(&["why", &image.root.digest])["pinned"], true);
    assert_eq!(orders.tell(&["pin", reference, "--undo"])["artifacts"], 5);

    // On a stick, to a node that has no network and was never told of the tag.
    let stick = home.path("stick.car");
    let stick = stick.to_str().unwrap();
    assert_eq!(orders.tell(&["export", reference, "-o", stick])["artifacts"], 5);
    orders.tell(&["prefetch", reference, "--all-platforms"]);
    assert_eq!(orders.tell(&["export", "--all", "-o", stick])["artifacts"], 9);
    assert_eq!(orders.tell_at("other", &["import", stick])["artifacts"], 9);
    let config = home.path("dpm.toml");
    let other = Home::bare();
    let serve = ["--config", config.to_str().unwrap(), "--offline"];
    std::fs::rename(home.path("other"), other.path("dpm")).unwrap();
    let carried = Dpm::serve(&other, &serve);
    let host = carried.url().replace("http://", "");
    home.run(&mut tools.copy(&format!("{host}/library/x@{}", image.root.digest), "carried", None));
    image.assert_is(&home.path("carried"));

    let tag = manifest_path("library/x", "1");
    let before = registry.door.hits(&tag);
    let purged = orders.tell(&["purge", reference]);
    assert_eq!(purged["artifacts"], 9, "{purged:#}");
    assert!(purged["pages"].as_u64().unwrap() >= 1, "{purged:#}");
    assert_eq!(orders.tell(&["why", reference])["stored"], false);
    pull(&home, &tools, &dpm, reference, "again");
    image.assert_is(&home.path("again"));
    assert!(registry.door.hits(&tag) > before, "its registry is asked again");
    registry.kill();
}

#[test]
fn what_is_wrong_with_an_image_is_said_and_not_stored() {
    let home = Home::bare();
    let registry = FakeRegistry::start();
    home.write(
        "dpm.toml",
        &format!("[[oci]]\nname = \"hub\"\nurl = \"http://{}\"\nhosts = [\"docker.io\"]\n", registry.host()),
    );
    let orders = Orders(&home);
    let image = Image::new(1, &[3000, 40_000]);
    let (digest, bytes) = image.largest();
    registry.put("team/lied", "1", &image);
    registry.lie(&blob_path("team/lied", digest), vec![0; bytes.len()]);
    registry.put("team/short", "1", &image);
    registry.lie(&blob_path("team/short", digest), vec![0; 10]);
    let mut deep = Image::new(2, &[100]);
    for _ in 0..4 {
        deep = Image::referrers(&[&deep]);
    }
    registry.put("team/deep", "1", &deep);
    let names = ["docker.io/team/lied:1", "docker.io/team/short:1", "docker.io/team/deep:1"];
    let output = orders.output("dpm", &[&["prefetch"], &names[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed = outcome["failed"].as_array().expect("rows");
    assert_eq!(failed.len(), 3, "{outcome:#}");
    for (row, (name, why)) in failed.iter().zip(names.iter().zip(["digest", "bytes", "nested"])) {
        assert_eq!(row["what"], *name);
        assert!(row["error"].as_str().unwrap().contains(why), "{row}");
    }
    assert_eq!(orders.tell(&["why", digest])["stored"], false);
    // The same bytes as they should be.
    registry.lie(&blob_path("team/lied", digest), bytes);
    assert_eq!(sums(&orders.tell(&["prefetch", names[0]]))[0], 1, "the rest is here");
    assert_eq!(orders.tell(&["why", digest])["stored"], true);
}
