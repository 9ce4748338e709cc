//! Real clients pull through dpm: what a registry is asked meanwhile, and what is there without it.

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::{Image, OCI_INDEX, OCI_MANIFEST};
use super::registry::{Auth, Registry};
use super::through::{Front, LONG, registry, with_login};
use super::tools::{Engine, Tools};
use crate::clients::process::{Dpm, Home};
use crate::support::{File, until, upstream};

const ENGINES: [Engine; 2] = [Engine::Podman, Engine::Buildah];

#[test]
fn through_dpm_from_a_registry_for_everybody() {
    pulled(Auth::Open);
}

#[test]
fn through_dpm_from_a_registry_with_passwords() {
    pulled(Auth::Basic);
}

#[test]
fn through_dpm_from_a_registry_with_tokens() {
    pulled(Auth::Token);
}

/// Cold, warm, asked again, and without the registry.
fn pulled(auth: Auth) {
    let home = Home::bare();
    let (tools, mut origin) = (Tools::new(&home), Registry::start(&home, auth));
    let (index, docker) = (Image::index(1, &[3000, 200_000]), Image::docker(9, &[5000]));
    origin.push(&tools, &index, "team/app:1");
    origin.push(&tools, &docker, "team/app:docker");
    let mut configured = with_login(&origin.host(), origin.login());
    // It is not on the internet, so it has to be named.
    configured
        .files
        .extend(origin.tokens.iter().map(|tokens| tokens.upstream.url("/").parse().expect("a URL")));
    let mut front = Front::patient(vec![configured.clone()]);
    let copy = |front: &Front, tag: &str, folder: &str, image: &Image| {
        home.run(&mut tools.copy(&format!("{}/team/app:{tag}", front.host()), folder, None));
        image.assert_is(&home.path(folder));
    };

    // Cold: everything once, and what a tag means with the tag itself.
    copy(&front, "1", "cold", &index);
    copy(&front, "docker", "cold-docker", &docker);
    for (tag, image) in [("1", &index), ("docker", &docker)] {
        assert_eq!(origin.hits("HEAD", &manifest_path("team/app", tag)), 0, "{tag}");
        // The first one of all has to be told that it needs a login.
        assert!((1..=2).contains(&origin.hits("GET", &manifest_path("team/app", tag))), "{tag}");
        for (descriptor, _) in &image.manifests {
            let times = usize::from(*descriptor != image.root);
            assert_eq!(origin.hits("GET", &manifest_path("team/app", &descriptor.digest)), times);
        }
        for digest in image.blobs.keys() {
            assert_eq!(origin.hits("GET", &blob_path("team/app", digest)), 1, "{digest}");
        }
    }

    // Cold for each engine: what it takes, and once.
    for engine in ENGINES {
        let front = Front::patient(vec![configured.clone()]);
        let before = index.blobs.keys().map(|digest| origin.hits("GET", &blob_path("team/app", digest)));
        let before: Vec<_> = before.collect();
        let reference = format!("{}/team/app:1", front.host());
        home.run(&mut tools.pull(engine, &reference, None));
        assert_eq!(&tools.unpacked(engine, &reference), index.unpacked(), "{engine:?}, cold");
        tools.forget(engine);
        let wanted = [index.unpacked().config.clone(), index.first_layer()];
        for (digest, before) in index.blobs.keys().zip(before) {
            let times = origin.hits("GET", &blob_path("team/app", digest)) - before;
            // The engine wants both layers and the configuration of its platform, and nothing of the other.
            assert!(times <= 1 && (times == 1 || !wanted.contains(digest)), "{engine:?}, {digest}: {times}");
        }
    }

    // Warm: nobody is asked.
    let asked = origin.door.total();
    copy(&front, "1", "warm", &index);
    for (tag, image) in [("1", &index), ("docker", &docker)] {
        let reference = format!("{}/team/app:{tag}", front.host());
        for engine in ENGINES {
            home.run(&mut tools.pull(engine, &reference, None));
            assert_eq!(&tools.unpacked(engine, &reference), image.unpacked(), "{engine:?}, {tag}");
            tools.forget(engine);
        }
    }
    front.tag("team/app", "1", "HIT", &index);
    assert_eq!(origin.door.total(), asked, "within its time");

    // Its time over: one HEAD.
    front.pass(LONG);
    let heads = origin.hits("HEAD", &manifest_path("team/app", "1"));
    front.tag("team/app", "1", "MISS", &index);
    copy(&front, "1", "again", &index);
    assert_eq!(origin.hits("HEAD", &manifest_path("team/app", "1")), heads + 1);
    assert_eq!(origin.door.total(), asked + 1);

    // Without the registry.
    origin.kill();
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &index);
    copy(&front, "1", "stale", &index);
    front.node.restart(|config, _| config.offline = true);
    let asked = origin.door.total();
    copy(&front, "1", "offline", &index);
    front.tag("team/app", "1", "STALE", &index);
    front.tag("team/app", "docker", "STALE", &docker);
    let reference = format!("{}/team/app:1", front.host());
    for engine in ENGINES {
        home.run(&mut tools.pull(engine, &reference, None));
        assert_eq!(&tools.unpacked(engine, &reference), index.unpacked(), "{engine:?}");
        tools.forget(engine);
    }
    front.assert_refused(&manifest_path("team/app", "other"), 504, "UNKNOWN");
    assert_eq!(origin.door.total(), asked, "nobody is asked offline");
}

/// As it stands in the manual: a registry named on the command line is what clients get who name none.
#[test]
fn a_registry_named_on_the_command_line() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000]);
    origin.push(&tools, &image, "team/app:1");
    let index = "pypi=http://127.0.0.1:1/simple/";
    let dpm =
        Dpm::serve(&home, &["--upstream", index, "--upstream", &format!("oci=http://{}", origin.host())]);
    let host = dpm.url().replace("http://", "");
    for (name, folder) in
        [("team/app", "by-root"), (&*format!("{}/team/app", origin.host().replace(':', "_")), "by-host")]
    {
        home.run(&mut tools.copy(&format!("{host}/{name}:1"), folder, None));
        image.assert_is(&home.path(folder));
    }
    for digest in image.blobs.keys() {
        assert_eq!(origin.hits("GET", &blob_path("team/app", digest)), 1, "{digest}");
    }
}

#[test]
fn a_tag_that_moves() {
    let origin = FakeRegistry::start();
    let (first, second, third) = (Image::new(1, &[3000]), Image::new(2, &[3000]), Image::new(3, &[3000]));
    origin.put("team/app", "1", &first);
    let front = Front::of(&origin.host());
    front.tag("team/app", "1", "MISS", &first);
    origin.put("team/app", "1", &second);
    front.pass(299);
    let answer = front.tag("team/app", "1", "HIT", &first);
    assert_eq!((answer.header("age"), answer.header("cache-control")), ("299", "max-age=300"));

    // Just over, it is served once more and asked for meanwhile.
    front.pass(2);
    front.tag("team/app", "1", "STALE", &first);
    let path = manifest_path("team/app", "1");
    until("it is fresh", || front.node.get(&path).cache() != "STALE");
    front.tag("team/app", "1", "HIT", &second);

    // Who demands it has it asked for at once, with a digest that the registry did not name before too.
    origin.put("team/app", "1", &third);
    front.pass(2);
    front.tag("team/app", "1", "HIT", &second);
    let answer = front.ask("GET", &path, &[("cache-control", "no-cache")]);
    assert_eq!((answer.cache(), answer.header("docker-content-digest")), ("MISS", &*third.root.digest));
    front.tag("team/app", "1", "HIT", &third);
    let asked = origin.server.asked(&path);
    assert_eq!(asked[0].method, "GET", "the manifest comes with its tag");
    assert!(asked[1..].iter().all(|asked| asked.method == "HEAD"), "what is known is only confirmed");
    assert_eq!(origin.server.hits(&manifest_path("team/app", &first.root.digest)), 0);

    // What was pulled by its digest stays.
    let asked = origin.server.total();
    let answer = front.node.get(&manifest_path("team/app", &first.root.digest));
    assert!(answer.cache() == "HIT" && answer.body == first.root_bytes());
    assert!(answer.header("cache-control").contains("immutable"));
    assert_eq!(origin.server.total(), asked);
}

/// "No such tag" is believed for a minute, and "no such blob" too: somebody may be pushing it.
#[test]
fn what_is_not_there_yet() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[3000]);
    let front = Front::of(&origin.host());
    let paths = [
        manifest_path("team/app", "1"),
        manifest_path("team/app", &image.root.digest),
        blob_path("team/app", image.largest().0),
        "/v2/team/app/tags/list".into(),
    ];
    for path in &paths {
        for method in ["HEAD", "GET"] {
            assert_eq!(front.ask(method, path, &[]).status, 404, "{method} {path}");
        }
    }
    let asked = origin.server.hits(&paths[0]);
    assert_eq!((front.node.get(&paths[0]).status, origin.server.hits(&paths[0])), (404, asked));
    origin.put("team/app", "1", &image);
    front.pass(61);
    for path in &paths {
        for method in ["HEAD", "GET"] {
            assert_eq!(front.ask(method, path, &[]).status, 200, "{method} {path}");
        }
    }
}

#[test]
fn charts_signatures_and_what_refers_to_an_image() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let (image, chart) = (Image::new(1, &[3000]), Image::chart("demo"));
    let about = Image::about(&image.root, "application/vnd.example.signature", "signed");
    let list = Image::referrers(&[&about]);
    let fallback = image.root.digest.replace(':', "-");
    let signature = about.root.digest.replace(':', "-");
    origin.push(&tools, &image, "team/app:1");
    origin.push(&tools, &about, &format!("team/app:{signature}"));
    origin.put("team/app", &fallback, &list);
    origin.push(&tools, &chart, "team/chart:1.0.0");
    let front = Front::of(&origin.host());
    for (reference, image) in [(format!("team/app:{signature}"), &about), ("team/chart:1.0.0".into(), &chart)]
    {
        let folder = reference.replace(['/', ':'], "-");
        home.run(&mut tools.copy(&format!("{}/{reference}", front.host()), &folder, None));
        image.assert_is(&home.path(&folder));
    }
    // Clients look there when a registry knows no referrers, and dpm must not say that it does.
    let referrers = format!("/v2/team/app/referrers/{}", image.root.digest);
    front.assert_refused(&referrers, 404, "NAME_UNKNOWN");
    front.tag("team/app", &fallback, "MISS", &list);
    let said = home.run(&mut tools.inspect(&format!("{}/team/app:1", front.host()), None));
    assert!(said.contains(&image.root.digest), "{said}");
}

/// The next page of a list is where the client found the first, however it names the registry.
#[test]
fn lists_by_pages() {
    let origin = FakeRegistry::start();
    for tag in ["a", "b", "c", "d", "e"] {
        origin.put("team/app", tag, &Image::new(1, &[100]));
    }
    let front = Front::of(&origin.host());
    let prefix = origin.host().replace(':', "_");
    let ns = origin.host();
    for (path, query) in [
        ("/v2/team/app/tags/list".to_owned(), String::new()),
        (format!("/v2/{prefix}/team/app/tags/list"), String::new()),
        ("/v2/team/app/tags/list".to_owned(), format!("&ns={ns}")),
    ] {
        let (mut next, mut tags) = (format!("{path}?n=2{query}"), Vec::new());
        for _ in 0..3 {
            let answer = front.node.get(&next);
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{next}");
            let page = answer.json();
            tags.extend(
                page["tags"].as_array().expect("tags").iter().map(|t| t.as_str().unwrap().to_owned()),
            );
            let link = answer.header("link");
            if link.is_empty() {
                break;
            }
            next = link.trim_start_matches('<').split('>').next().expect("a target").to_owned();
            assert!(
                next.starts_with(&path) && next.ends_with(&query) && link.ends_with("rel=\"next\""),
                "{link}"
            );
        }
        assert_eq!(tags, ["a", "b", "c", "d", "e"], "{path}{query}");
    }
    assert_eq!(origin.server.hits("/v2/team/app/tags/list?n=2"), 1, "three names of one list");
    // Kept like a tag, and served when the registry fails.
    front.pass(LONG);
    origin.faulty("/v2/team/app/tags/list", |_| Some(upstream_fault()));
    assert_eq!(front.node.get("/v2/team/app/tags/list?n=2").cache(), "STALE");
}

fn upstream_fault() -> crate::support::Fault {
    crate::support::Fault::Says("500 Broken")
}

/// Clients that read no index get what the registry picks for them, and nobody else does.
#[test]
fn clients_that_read_no_index() {
    let origin = FakeRegistry::start();
    let (image, path) = (Image::index(1, &[3000]), manifest_path("team/app", "1"));
    origin.put("team/app", "1", &image);
    let single = image.manifests[0].clone();
    let files = [(&image.root, image.root_bytes()), (&single.0, &single.1)].map(|(descriptor, bytes)| {
        File { content_type: descriptor.media_type, ..File::new(bytes) }
            .header("Docker-Content-Digest", &descriptor.digest)
    });
    origin.server.route(&path, move |asked, out| {
        let picked = usize::from(!asked.header("accept").contains(OCI_INDEX));
        upstream::answer(&files[picked], asked, out, None)
    });
    let front = Front::of(&origin.host());
    let (old, new) = ([("accept", OCI_MANIFEST)], [("accept", OCI_INDEX), ("accept", OCI_MANIFEST)]);
    for round in ["cold", "warm"] {
        for method in ["HEAD", "GET"] {
            let answer = front.ask(method, &path, &old);
            assert_eq!(answer.header("docker-content-digest"), single.0.digest, "{round} {method}");
            assert_eq!(answer.header("content-type"), OCI_MANIFEST, "{round} {method}");
            let answer = front.ask(method, &path, &new);
            assert_eq!(answer.header("docker-content-digest"), image.root.digest, "{round} {method}");
            assert_eq!(answer.header("content-type"), OCI_INDEX, "{round} {method}");
        }
    }
    assert_eq!(origin.server.hits(&path), 2, "each was asked for once");
}

/// What a mirror is asked about a layer before it is pulled does not make it pull.
#[test]
fn questions_without_a_body_fetch_nothing() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[300_000]);
    origin.put("team/app", "1", &image);
    let front = Front::with(vec![registry(&origin.host())]);
    let (digest, bytes) = image.largest();
    for (path, size, kind) in [
        (blob_path("team/app", digest), bytes.len(), "application/octet-stream"),
        (manifest_path("team/app", "1"), image.root.size, OCI_MANIFEST),
        (manifest_path("team/app", &image.root.digest), image.root.size, OCI_MANIFEST),
    ] {
        let answer = front.ask("HEAD", &path, &[]);
        assert_eq!((answer.status, answer.header("content-length")), (200, &*size.to_string()), "{path}");
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert!(!answer.header("docker-content-digest").is_empty() && answer.body.is_empty(), "{path}");
        assert!(origin.server.asked(&path).iter().all(|asked| asked.method == "HEAD"), "{path}");
    }
    assert_eq!(front.node.artifacts(), 0);
}
