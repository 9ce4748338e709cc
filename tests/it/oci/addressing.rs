//! Which registry a client means: the root, a host in the path, `?ns=`; and that nobody else is ever asked.

use std::io::Write;

use dpm::config::Registry;

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::{Image, OCI_MANIFEST};
use super::recorded::Recorded;
use super::registry::{Auth, Registry as Origin};
use super::through::{Front, LONG, beside, registry};
use super::tools::{Engine, Tools};
use crate::clients::process::Home;
use crate::support::{Fault, File, Raw, Upstream};

/// Two registries with other images under one name.
struct Town {
    root: FakeRegistry,
    corp: FakeRegistry,
    front: Front,
    at_root: Image,
    at_corp: Image,
}

impl Town {
    fn new() -> Self {
        let (root, corp) = (FakeRegistry::start(), FakeRegistry::start());
        let (at_root, at_corp) = (Image::new(1, &[3000]), Image::new(2, &[3000]));
        root.put("team/app", "1", &at_root);
        corp.put("team/app", "1", &at_corp);
        let also = Registry {
            hosts: vec!["corp.example.org".into(), "corp.example.org:5000".into()],
            ..beside("corp", &corp.host())
        };
        let front = Front::with(vec![registry(&root.host()), also]);
        Self { root, corp, front, at_root, at_corp }
    }
}

#[test]
fn registries_by_name() {
    let town = Town::new();
    let root_with_port = town.root.host().replace(':', "_");
    for (name, query, image) in [
        ("team/app".to_owned(), "", &town.at_root),
        (format!("{root_with_port}/team/app"), "", &town.at_root),
        ("corp.example.org/team/app".into(), "", &town.at_corp),
        ("CORP.example.org/team/app".into(), "", &town.at_corp),
        ("corp.example.org_5000/team/app".into(), "", &town.at_corp),
        ("team/app".into(), "?ns=corp.example.org", &town.at_corp),
        ("team/app".into(), "?ns=corp.example.org:5000", &town.at_corp),
        ("team/app".into(), "?ns=corp.example.org%3A5000", &town.at_corp),
        ("team/app".into(), "?x=y&ns=Corp.Example.org", &town.at_corp),
    ] {
        for reference in ["1", &image.root.digest] {
            let path = format!("{}{query}", manifest_path(&name, reference));
            let answer = town.front.node.get(&path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert!(answer.body == image.root_bytes(), "{path}");
        }
        let layer = image.largest();
        let answer = town.front.node.get(&format!("{}{query}", blob_path(&name, layer.0)));
        assert!(answer.status == 200 && answer.body == layer.1, "{name}{query}");
    }
    for (registry, image) in [(&town.root, &town.at_root), (&town.corp, &town.at_corp)] {
        let asked = registry.server.asked(&blob_path("team/app", image.largest().0));
        assert_eq!(asked.len(), 1, "one thing under all its names");
        assert_eq!(registry.server.hits(&manifest_path("team/app", "1")), 1);
    }
}

/// A closed table: a host that no configuration names is not asked because a client names it.
#[test]
fn registries_that_nobody_configured() {
    let town = Town::new();
    let stranger = FakeRegistry::start();
    stranger.put("team/app", "1", &town.at_root);
    let (host, digest) = (stranger.host(), &town.at_root.root.digest);
    let by_path = host.replace(':', "_");
    for path in [
        format!("/v2/{by_path}/team/app/manifests/1"),
        format!("/v2/{host}/team/app/manifests/{digest}"),
        format!("/v2/{by_path}/team/app/tags/list"),
        format!("/v2/{by_path}/team/app/referrers/{digest}"),
        format!("/v2/{by_path}/team/app/blobs/{}", town.at_root.largest().0),
        format!("/v2/team/app/manifests/1?ns={host}"),
        "/v2/localhost/team/app/manifests/1".into(),
        "/v2/team/app/manifests/1?ns=169.254.169.254".into(),
        "/v2/docker.io/library/alpine/manifests/latest".into(),
    ] {
        let answer = town.front.assert_refused(&path, 404, "NAME_UNKNOWN");
        assert!(answer.text().contains("[[oci]]"), "what to do is said: {}", answer.text());
    }
    town.front.assert_refused("/v2/team/app/manifests/1?ns=http://x/", 400, "NAME_INVALID");
    let asked = [&town.root, &town.corp, &stranger].map(|registry| registry.server.total());
    assert_eq!(asked, [0, 0, 0]);
    // Without one at the root, a name alone is nobody's.
    let front = Front::with(vec![beside("corp", &town.corp.host())]);
    front.assert_refused(&manifest_path("team/app", "1"), 404, "NAME_UNKNOWN");
    assert_eq!(front.node.get("/v2/").status, 200);
}

#[test]
fn names_that_climb() {
    let town = Town::new();
    let digest = &town.at_root.root.digest;
    for path in [
        "/v2/../manifests/1",
        "/v2/team/../app/manifests/1",
        "/v2/team/./app/manifests/1",
        "/v2/%2e%2e/app/manifests/1",
        "/v2/team%2fapp/manifests/1",
        "/v2/team%2Fapp/manifests/1",
        "/v2/team\\app/manifests/1",
        "/v2//team/app/manifests/1",
        "/v2/team//app/manifests/1",
        "/v2/Team/app/manifests/1",
        "/v2/team/app/manifests/..",
        "/v2/team/app/manifests/%2e%2e",
        "/v2/team/app/manifests/..%2f..%2fetc%2fpasswd",
        "/v2/team/app/manifests/a%00b",
        "/v2/team/app/manifests/a%0d%0aX-Evil:%20yes",
        "/v2/team/app%00/manifests/1",
        "/v2/corp.example.org/../team/app/manifests/1",
        "/v2/team/app/blobs/sha256:../../../../etc/passwd",
        "/v2/team/app/blobs/sha256:00",
        "/v2/team/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e",
        "/v2/team/app/blobs/1",
        "/v2/team/app/manifests/1?ns=../x",
        "/v2/team/app/manifests/1?ns=corp.example.org%0d%0a",
        &format!("/v2/team/app/blobs/{}", digest.to_uppercase()),
        &format!("/v2/{}/manifests/1", "a/".repeat(400)),
        &format!("/v2/team/app/manifests/{}", "1".repeat(129)),
    ] {
        let said = Raw::connect(town.front.node.daemon().address())
            .send(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .read_all();
        assert!(said.starts_with("HTTP/1.1 40"), "{path}: {said}");
        assert!(!said.to_ascii_lowercase().contains("\nx-evil"), "{path}: {said}");
    }
    for path in
        ["/v2/_catalog", "/v2/team/app/blobs/uploads/", "/v2/manifests/1", "/v2/x", "/v2/a/tags/other"]
    {
        town.front.assert_refused(path, 404, "UNSUPPORTED");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/v2/", "/v2/token", "/v2/team/app/manifests/1", "/v2/team/app/blobs/uploads/"] {
            let answer = town.front.ask(method, path, &[]);
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    assert_eq!((town.root.server.total(), town.corp.server.total()), (0, 0), "nobody was asked");
    assert_eq!(town.front.node.get("/v2").status, 200);
}

/// Docker Hub's own images are in `library/`, and people leave that out.
#[test]
fn the_library() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[3000]);
    origin.put("library/alpine", "3.20", &image);
    let hosts = vec!["docker.io".into(), "registry-1.docker.io".into()];
    let front = Front::with(vec![Registry { library: true, hosts, ..registry(&origin.host()) }]);
    let path = manifest_path("library/alpine", "3.20");
    for name in [
        "alpine",
        "library/alpine",
        "docker.io/alpine",
        "docker.io/library/alpine",
        "registry-1.docker.io/alpine",
    ] {
        let answer = front.node.get(&manifest_path(name, "3.20"));
        assert!(answer.status == 200 && answer.body == image.root_bytes(), "{name}");
    }
    assert_eq!(origin.server.hits(&path), 1, "one image under all its names");
}

/// docker with `registry-mirrors`, containerd with `hosts.toml`, podman and buildah with a mirror in `registries.conf`.
#[test]
fn dpm_as_a_mirror_of_the_hub() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Origin::start(&home, Auth::Open));
    let image = Image::index(1, &[50_000]);
    origin.push(&tools, &image, "library/alpine:3.20");
    let hosts = vec!["docker.io".into()];
    let front = Front::with(vec![Registry { library: true, hosts, ..registry(&origin.host()) }]);
    for round in ["cold", "warm"] {
        for client in [Recorded::DockerMirror, Recorded::ContainerdNs] {
            for (sent, answer) in client.pull(&front.host(), "library/alpine", "3.20", &image) {
                let cache = answer.cache();
                assert!(
                    round == "cold" || cache == "HIT" || sent.path == "/v2/",
                    "{cache} for {}",
                    sent.path
                );
            }
            front.node.settle();
        }
    }
    let asked = origin.door.total();
    for location in [front.host(), format!("{}/docker.io", front.host())] {
        tools.registries(&format!(
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n"
        ));
        for engine in [Engine::Podman, Engine::Buildah] {
            let reference = "docker.io/library/alpine:3.20";
            home.run(&mut tools.pull(engine, reference, None));
            assert_eq!(&tools.unpacked(engine, reference), image.unpacked(), "{engine:?} {location}");
            tools.forget(engine);
        }
    }
    assert_eq!(origin.door.total(), asked, "all of it was here");
}

/// Registries that do not do all that the specification wants of them.
#[test]
fn registries_of_another_kind() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[3000]);
    let plain = File { content_type: OCI_MANIFEST, ..File::new(image.root_bytes()) };
    origin.put("team/app", "1", &image);
    for (tag, status) in [("silent", ""), ("refuses", "405 No"), ("cannot", "501 No"), ("empty", "200 X")] {
        let (path, plain) = (manifest_path("team/app", tag), plain.clone());
        origin.server.route(&path, move |asked, out| match (asked.method.as_str(), status) {
            ("HEAD", "") | ("GET", _) => crate::support::upstream::answer(&plain, asked, out, None),
            _ => write!(out, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"),
        });
        let asked =
            || -> Vec<_> { origin.server.asked(&path).into_iter().map(|asked| asked.method).collect() };
        let front = Front::of(&origin.host());
        front.tag("team/app", tag, "MISS", &image);
        front.tag("team/app", tag, "HIT", &image);
        assert_eq!(asked(), ["GET"], "{tag}");
        let front = Front::of(&origin.host());
        let told = front.ask("HEAD", &path, &[]);
        assert_eq!((told.status, told.header("docker-content-digest")), (200, &*image.root.digest));
        front.tag("team/app", tag, "HIT", &image);
        assert_eq!(asked(), ["GET", "HEAD", "GET"], "{tag}");
    }
    // Those that answer no HEAD at all.
    let layer = image.largest();
    for (path, bytes) in [
        (manifest_path("team/app", &image.root.digest), image.root_bytes()),
        (blob_path("team/app", layer.0), layer.1),
    ] {
        let file = File { content_type: OCI_MANIFEST, ..File::new(bytes) };
        origin.server.route(&path, move |asked, out| match asked.method.as_str() {
            "HEAD" => out.write_all(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n"),
            _ => crate::support::upstream::answer(&file, asked, out, None),
        });
        let front = Front::of(&origin.host());
        let answer = front.ask("HEAD", &path, &[]);
        assert_eq!((answer.status, answer.header("content-length")), (200, &*bytes.len().to_string()));
        assert!(front.node.get(&path).body == bytes, "{path}");
    }
}

/// What a network shows its users in place of what they asked for is neither an image nor a list of tags.
#[test]
fn a_network_that_wants_its_users_to_log_in() {
    let origin = FakeRegistry::start();
    let image = Image::new(1, &[3000]);
    origin.put("team/app", "1", &image);
    let (path, list) = (manifest_path("team/app", "1"), "/v2/team/app/tags/list");
    let front = Front::of(&origin.host());
    front.tag("team/app", "1", "MISS", &image);
    assert_eq!(front.node.get(list).cache(), "MISS");
    for page in ["<html>Welcome</html>", "\"Welcome\"", "{\"tags\": [\"1\", ", ""] {
        for path in [&path, list, "/v2/team/app/manifests/2", "/v2/team/other/tags/list"] {
            origin.server.serve(path, File::html(page));
        }
        front.pass(LONG);
        front.tag("team/app", "1", "STALE", &image);
        let answer = front.node.get(list);
        assert_eq!((answer.status, answer.cache()), (200, "STALE"), "{page}");
        assert_eq!(answer.json()["tags"][0], "1");
        assert_eq!(front.node.get("/v2/team/app/manifests/2").status, 502, "{page}");
        assert_eq!(front.node.get("/v2/team/other/tags/list").status, 502, "{page}");
    }
    // Nor is one that is moved there.
    let portal = Upstream::start();
    portal.serve("/login", File::html("<html>Welcome</html>"));
    origin.server.remove(&path);
    origin.redirect(&path, &portal.url("/login"));
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &image);
    assert_eq!(portal.total(), 0);
    origin.server.broken(&path, Fault::Says("500 Broken"));
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &image);
}
