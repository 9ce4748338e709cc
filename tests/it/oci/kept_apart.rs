//! Registries that are not for everybody: whose content goes where, and who has to say who he is.

use std::io::Write;
use std::sync::atomic::Ordering;

use dpm::base::{Access, Secret, Sha256};
use dpm::config::{Clients, Registry};

use super::fake::{FakeRegistry, blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry as Origin};
use super::through::{Front, beside, registry, with_login};
use super::tokens::{PASSWORD, USER, basic};
use super::tools::{Engine, Tools};
use crate::clients::process::{Dpm, Home, free_port, prefixed};
use crate::support::network::Network;
use crate::support::upstream::answer;
use crate::support::{File, Latch, Node, request, until};

/// Where clients log in to dpm itself.
const ADA: (&str, &str) = ("ada", "of dpm");

/// Nobody listens there.
const NO_INDEX: &str = "http://127.0.0.1:1/simple/";

/// A registry for those who know [`USER`] and [`PASSWORD`].
fn private() -> (FakeRegistry, Registry) {
    let registry = FakeRegistry::start();
    registry.gate("Basic realm=\"test\"", |said| said == basic(USER, PASSWORD));
    let host = registry.host();
    let configured = with_login(&host, Some((USER, PASSWORD)));
    (registry, Registry { hosts: vec!["corp.example.org".into()], ..configured })
}

#[test]
fn a_digest_is_no_key() {
    let (corp, configured) = private();
    let public = FakeRegistry::start();
    let (image, other) = (Image::new(1, &[3000]), Image::new(2, &[3000]));
    corp.put("team/app", "1", &image);
    corp.put("team/other", "1", &other);
    public.put("team/app", "1", &other);
    let front = Front::with(vec![configured, beside("public", &public.host())]);
    let (layer, bytes) = image.largest();
    let answer = front.tag("team/app", "1", "MISS", &image);
    assert_eq!(answer.header("cache-control"), "private, max-age=300");
    let list = front.node.get("/v2/team/app/tags/list");
    assert_eq!(list.header("cache-control"), "private, max-age=300");
    let answer = front.node.get(&blob_path("team/app", layer));
    assert!(answer.body == bytes);
    assert_eq!(answer.header("cache-control"), "private, max-age=31536000, immutable");
    front.node.settle();

    let elsewhere =
        ["team/other", "public.example.org/team/app", "public.example.org/team/other", "team/none"];
    for round in 0..2 {
        for name in elsewhere {
            for method in ["GET", "HEAD"] {
                for path in [blob_path(name, layer), manifest_path(name, &image.root.digest)] {
                    assert_eq!(front.ask(method, &path, &[]).status, 404, "{round}: {method} {path}");
                }
            }
        }
        // Where it belongs it is given without a word to the registry.
        let asked = corp.server.total();
        assert_eq!(front.node.get(&blob_path("team/app", layer)).cache(), "HIT");
        assert_eq!(corp.server.total(), asked);
    }
    // A registry that has it too gives it; what everybody may have is given in every repository.
    public.put("team/other", "1", &image);
    corp.put("team/other", "2", &image);
    front.pass(61);
    for name in ["public.example.org/team/other", "team/other"] {
        let answer = front.node.get(&blob_path(name, layer));
        assert!((answer.status, answer.cache()) == (200, "HIT") && answer.body == bytes, "{name}");
    }
    let stored = front.node.daemon().rooms().store.find(&layer.parse().unwrap()).unwrap().unwrap();
    assert_eq!(stored.access, Access::Private);
}

/// Nor is it one at the doors of other ecosystems, where whoever asks may name any digest.
#[test]
fn a_digest_is_no_key_at_another_door() {
    let (corp, configured) = private();
    let image = Image::new(1, &[3000]);
    corp.put("team/app", "1", &image);
    let front = Front::with(vec![configured]);
    let (layer, bytes) = image.largest();
    front.tag("team/app", "1", "MISS", &image);
    assert!(front.node.get(&blob_path("team/app", layer)).body == bytes);
    front.node.settle();
    let link = format!("/pypi/files/app/{}/app-1.0.tar.gz", layer.replace(':', "-"));
    for method in ["GET", "HEAD"] {
        let answer = front.ask(method, &link, &[]);
        assert_ne!(answer.status, 200, "{method}");
        assert!(answer.body != bytes);
    }
}

/// Anybody can have a manifest stored that lists what he would like to have.
#[test]
fn a_manifest_that_anybody_made_proves_nothing() {
    let (corp, configured) = private();
    let public = FakeRegistry::start();
    let image = Image::new(1, &[3000]);
    corp.put("team/app", "1", &image);
    let front = Front::with(vec![configured, beside("public", &public.host())]);
    let (layer, bytes) = image.largest();
    front.tag("team/app", "1", "MISS", &image);
    assert!(front.node.get(&blob_path("team/app", layer)).body == bytes);

    let forged = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": image.root.media_type,
        "config": {"mediaType": "a/b", "digest": layer, "size": bytes.len()},
        "layers": [],
    })
    .to_string();
    let digest = Sha256::of(forged.as_bytes()).digest().to_string();
    let file = File::new(forged.clone().into_bytes());
    public.server.route(&blob_path("team/app", &digest), move |asked, out| answer(&file, asked, out, None));
    let stored = front.node.get(&blob_path("public.example.org/team/app", &digest));
    assert!(stored.status == 200 && stored.body == forged.as_bytes());
    front.node.settle();
    for _ in 0..2 {
        // It is for everybody; that the repository has what it lists is another question.
        front.node.get(&manifest_path("team/none", &digest));
        assert_eq!(front.node.get(&blob_path("team/none", layer)).status, 404);
    }
}

/// A restart forgets what memory knew, and the registry is asked again who has what, or what it said is remembered.
#[test]
fn a_digest_is_no_key_after_a_restart() {
    let (corp, configured) = private();
    let image = Image::new(1, &[3000]);
    corp.put("team/app", "1", &image);
    let mut front = Front::with(vec![configured]);
    let (layer, bytes) = image.largest();
    front.tag("team/app", "1", "MISS", &image);
    assert!(front.node.get(&blob_path("team/app", layer)).body == bytes);
    front.node.settle();
    front.node.restart(|_, _| {});
    assert_eq!(front.node.get(&blob_path("team/other", layer)).status, 404);
    assert!(front.node.get(&blob_path("team/app", layer)).body == bytes);
    let heads = corp.server.asked(&blob_path("team/app", layer));
    assert_eq!(
        heads
            .iter()
            .filter(|asked| asked.method == "GET" && !asked.header("authorization").is_empty())
            .count(),
        1
    );
    front.node.restart(|config, _| config.offline = true);
    assert!(front.node.get(&blob_path("team/app", layer)).body == bytes, "the registry has said so");
    front.assert_refused(&blob_path("team/other", layer), 504, "UNKNOWN");
    front.tag("team/app", "1", "HIT", &image);
}

/// Whether somebody waits for what another has had asked for.
fn has_joined(front: &Front) -> bool {
    front.node.daemon().rooms().fetch.counters().joined.load(Ordering::Relaxed) > 0
}

/// While it is on its way, it is no more for everybody than when it is here.
#[test]
fn a_digest_is_no_key_to_what_is_coming() {
    let (corp, configured) = private();
    let public = FakeRegistry::start();
    let image = Image::new(1, &[600_000]);
    corp.put("team/app", "1", &image);
    public.put("team/app", "1", &Image::new(2, &[3000]));
    let front = Front::with(vec![configured, beside("public", &public.host())]);
    front.tag("team/app", "1", "MISS", &image);
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    let (gate, file) = (Latch::default(), File::new(bytes));
    let opened = gate.clone();
    corp.server.route(&path, move |asked, out| {
        opened.pass();
        answer(&file, asked, out, None)
    });
    let url = front.node.url(&path);
    let client = std::thread::spawn(move || request("GET", &url, &[]));
    until("it is asked for", || corp.server.hits(&path) > 0);
    let url = front.node.url(&blob_path("public.example.org/team/app", layer));
    // His registry is asked, and not what another one is bringing.
    assert_eq!(request("GET", &url, &[]).status, 404);
    assert!(!has_joined(&front));
    gate.open();
    assert!(client.join().unwrap().body == bytes);
}

/// The "no" of a repository that has not got it is not told to those who ask where it is.
#[test]
fn a_refusal_is_one_repositorys() {
    let (slow, quick) = (FakeRegistry::start(), FakeRegistry::start());
    let image = Image::new(1, &[3000]);
    quick.put("team/app", "1", &image);
    let front = Front::with(vec![registry(&quick.host()), beside("slow", &slow.host())]);
    let (layer, bytes) = image.largest();
    let (gate, path) = (Latch::default(), blob_path("team/app", layer));
    let opened = gate.clone();
    slow.server.route(&path, move |_, out| {
        opened.pass();
        out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    });
    let ask = |path: String| {
        let url = front.node.url(&path);
        std::thread::spawn(move || request("GET", &url, &[]))
    };
    let first = ask(blob_path("slow.example.org/team/app", layer));
    until("it is asked for", || slow.server.hits(&path) > 0);
    let second = ask(path);
    until("both wait for it", || has_joined(&front));
    gate.open();
    assert_eq!(first.join().unwrap().status, 404);
    let second = second.join().unwrap();
    assert!(second.status == 200 && second.body == bytes, "{}", second.text());
}

/// Two nodes that pull the same: what is private comes from its registry twice, what is public once.
#[test]
fn neighbours_get_what_is_public() {
    let (image, large) = (Image::index(1, &[3000]), Image::new(5, &[3 << 20]));
    for (apart, peers, cache) in [(false, false, "PEER"), (true, false, "MISS"), (true, true, "PEER")] {
        let (corp, configured) = private();
        corp.put("team/app", "1", &image);
        corp.put("team/app", "large", &large);
        let configured = Registry { private: apart, peers, ..configured };
        let nodes = Node::village_with(2, NO_INDEX, |_, config, _| config.oci = vec![configured.clone()]);
        for image in [&image, &large] {
            for digest in image.blobs.keys() {
                for (node, cache) in nodes.iter().zip(["MISS", cache]) {
                    let answer = node.get(&blob_path("team/app", digest));
                    assert_eq!((answer.status, answer.cache()), (200, cache), "{apart} {peers}");
                    assert!(answer.body == image.blobs[digest]);
                    node.settle();
                }
            }
            for (descriptor, bytes) in &image.manifests {
                for (node, cache) in nodes.iter().zip(["MISS", cache]) {
                    let answer = node.get(&manifest_path("team/app", &descriptor.digest));
                    assert_eq!((answer.status, answer.cache()), (200, cache), "{apart} {peers}");
                    assert!(&answer.body == bytes);
                    node.settle();
                }
            }
        }
        let paths = image.blobs.keys().map(|digest| blob_path("team/app", digest));
        for path in paths {
            let granted = corp.server.asked(&path);
            let got = granted
                .iter()
                .filter(|asked| asked.method == "GET" && !asked.header("authorization").is_empty());
            assert_eq!(got.count(), if cache == "PEER" { 1 } else { 2 }, "{apart} {peers}");
        }
    }
}

/// A neighbour who takes a private registry for a public one, and knows the digest, has it from nobody.
#[test]
fn neighbours_who_know_a_digest() {
    let (corp, configured) = private();
    let image = Image::new(1, &[3 << 20]);
    corp.put("team/app", "1", &image);
    let open = Registry { private: false, username: None, password: None, ..configured.clone() };
    let nodes = Node::village_with(2, NO_INDEX, |k, config, _| {
        config.oci = vec![if k == 0 { configured.clone() } else { open.clone() }];
    });
    let path = blob_path("team/app", image.largest().0);
    assert_eq!(nodes[0].get(&path).status, 200);
    nodes[0].settle();
    let answer = nodes[1].get(&path);
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(nodes[1].artifacts(), 0);
}

fn with_password(registry: Registry) -> Registry {
    Registry { clients: Clients::Password(ADA.0.into(), Secret::new(ADA.1)), ..registry }
}

/// Real clients that have to log in to dpm, for one registry of two.
#[test]
fn clients_that_log_in() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Origin::start(&home, Auth::Basic));
    let public = FakeRegistry::start();
    let (image, open) = (Image::index(1, &[3000]), Image::new(2, &[3000]));
    origin.push(&tools, &image, "team/app:1");
    public.put("team/app", "1", &open);
    let corp = with_password(with_login(&origin.host(), origin.login()));
    let front = Front::with(vec![corp, beside("public", &public.host())]);
    let secret = format!("{}/team/app:1", front.host());
    let shown = format!("{}/public.example.org/team/app:1", front.host());
    let wrong = Some((ADA.0, "wrong"));
    for login in [None, wrong, Some(("eve", ADA.1)), Some((USER, PASSWORD))] {
        let (ended, text) = home.try_run(&mut tools.copy(&secret, "refused", login));
        assert!(!ended.success(), "{login:?}: {text}");
        // Nobody who asks for what everybody may have is turned away for what he shows elsewhere.
        home.run(&mut tools.copy(&shown, "shown", login));
        open.assert_is(&home.path("shown"));
        std::fs::remove_dir_all(home.path("shown")).expect("a folder");
    }
    assert_eq!(origin.door.total(), 0, "the registry is not asked for strangers");
    home.run(&mut tools.copy(&secret, "secret", Some(ADA)));
    image.assert_is(&home.path("secret"));
    let asked = origin.door.total();
    for engine in [Engine::Podman, Engine::Buildah] {
        for login in [None, wrong] {
            assert!(!home.try_run(&mut tools.pull(engine, &secret, login)).0.success(), "{engine:?}");
        }
        home.run(&mut tools.pull(engine, &secret, Some(ADA)));
        assert_eq!(&tools.unpacked(engine, &secret), image.unpacked(), "{engine:?}");
        tools.forget(engine);
        home.run(&mut tools.pull(engine, &shown, None));
        tools.forget(engine);
    }
    assert_eq!(origin.door.total(), asked);
}

/// What dpm's tokens are worth: for their time, at the dpm that gave them, for what was shown.
#[test]
fn tokens_of_dpm() {
    let (corp, configured) = private();
    let (other, hers) = private();
    let image = Image::new(1, &[3000]);
    corp.put("team/app", "1", &image);
    other.put("team/app", "1", &image);
    let hers = Registry {
        name: "hers".into(),
        hosts: vec!["hers.example.org".into()],
        root: false,
        clients: Clients::Password("eve".into(), Secret::new("of eve")),
        ..hers
    };
    let registries = vec![with_password(configured), hers];
    let (front, another) = (Front::with(registries.clone()), Front::with(registries));
    let token = |front: &Front, login: Option<(&str, &str)>| {
        let said = login.map(|(user, password)| basic(user, password)).unwrap_or_default();
        let headers = [("authorization", said.as_str())];
        let scope = "/v2/token?service=dpm&scope=repository:team/app:pull";
        let answer = front.ask("GET", scope, &headers[..usize::from(login.is_some())]);
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        format!("Bearer {}", answer.json()["token"].as_str().expect("a token"))
    };
    let path = manifest_path("team/app", "1");
    let status = |path: &str, said: &str| front.ask("GET", path, &[("authorization", said)]).status;
    let (ada, eve) = (token(&front, Some(ADA)), token(&front, Some(("eve", "of eve"))));
    assert_eq!((status(&path, &ada), status(&path, &eve)), (200, 401));
    let at_hers = manifest_path("hers.example.org/team/app", "1");
    assert_eq!((status(&at_hers, &ada), status(&at_hers, &eve)), (401, 200));
    assert_eq!(status(&path, &token(&front, None)), 401, "nobody's");
    assert_eq!(status(&path, &token(&another, Some(ADA))), 401, "another dpm's");
    let (rest, last) = ada.split_at(ada.len() - 1);
    let forged = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    let everything = ada.replacen(".1.", ".ffffffffffffffff.", 1);
    for forged in [forged, everything, "Bearer ".into(), "Bearer ..".into(), "Basic !".into(), "x".into()] {
        assert_eq!(status(&path, &forged), 401, "{forged}");
    }
    assert_eq!(status(&path, &basic(ADA.0, ADA.1)), 200, "as simple clients do");
    let refused = front.ask("GET", &path, &[]);
    let challenge = refused.header("www-authenticate");
    let realm = format!("Bearer realm=\"http://{}/v2/token\"", front.host());
    assert!(challenge.starts_with(&realm), "{challenge}");
    assert!(challenge.ends_with("scope=\"repository:team/app:pull\""), "{challenge}");
    for said in [basic(ADA.0, "wrong"), basic("", "")] {
        let answer = front.ask("GET", "/v2/token?service=dpm", &[("authorization", &said)]);
        assert_eq!(answer.status, 401, "a login with a wrong password");
    }
    front.pass(301);
    assert_eq!(status(&path, &ada), 401, "its time is over");
    assert_eq!(status(&path, &token(&front, Some(ADA))), 200);
    // A restart makes them worthless, and clients get another.
    let mut front = front;
    let ada = token(&front, Some(ADA));
    front.node.restart(|_, _| {});
    assert_eq!(front.ask("GET", &path, &[("authorization", &ada)]).status, 401);
    assert_eq!(front.ask("GET", &path, &[("authorization", &token(&front, Some(ADA)))]).status, 200);
}

/// "loopback": programs of this machine, and no other's.
#[test]
fn clients_of_another_machine() {
    let Some(network) = Network::start() else { return };
    let (a, b) = (network.machine(&["10.7.0.1/24"]), network.machine(&["10.7.0.2/24"]));
    let home = Home::bare();
    let tools = Tools::new(&home);
    home.write("dpm.toml", "[[oci]]\nname = \"corp\"\nurl = \"http://127.0.0.1:1\"\nhosts = [\"corp.example.org\"]\nprivate = true\n");
    let (config, port) = (home.path("dpm.toml"), free_port());
    let listen = format!("0.0.0.0:{port}");
    let _dpm = Dpm::serve_at(&a, &home, &["--config", config.to_str().expect("UTF-8"), "--listen", &listen]);
    let ask = |machine: &crate::support::network::Machine, host: &str| {
        let inspect = tools.inspect(&format!("{host}:{port}/corp.example.org/team/app:1"), None);
        let (ended, text) = home.try_run(&mut prefixed(&machine.enter(), &inspect));
        assert!(!ended.success());
        text
    };
    let text = ask(&b, "10.7.0.1");
    assert!(text.contains("for this machine only"), "{text}");
    let text = ask(&a, "10.7.0.1");
    assert!(text.contains("for this machine only"), "by an address that others could have: {text}");
    let text = ask(&a, "127.0.0.1");
    assert!(!text.contains("for this machine only"), "there is only no registry: {text}");
}
