//! Whom credentials and questions go to, and how registries that count are spared.

use dpm::base::Access;
use dpm::config::Registry;

use super::fake::{FakeRegistry, bearer, blob_path, manifest_path};
use super::image::{Image, OCI_MANIFEST};
use super::registry::{Auth, Registry as Origin};
use super::through::{Front, LONG, registry, with_login};
use super::tokens::{PASSWORD, Tokens, USER, basic};
use super::tools::Tools;
use crate::clients::process::Home;
use crate::support::upstream::ANY;
use crate::support::{Fault, File, Upstream, until};

fn published() -> (FakeRegistry, Image) {
    let (registry, image) = (FakeRegistry::start(), Image::new(1, &[600_000]));
    registry.put("team/app", "1", &image);
    (registry, image)
}

/// In front of a registry with a login, which may send to these too.
fn front(registry: &FakeRegistry, files: &[&Upstream]) -> Front {
    let configured = with_login(&registry.host(), Some((USER, PASSWORD)));
    let files = files.iter().map(|other| other.url("/").parse().expect("a URL")).collect();
    Front::with(vec![Registry { files, ..configured }])
}

/// CVE-2026-33540: a registry, or who speaks for it, names where the credentials are to be sent.
#[test]
fn token_servers_of_somebody_else() {
    let (registry, image) = published();
    let tokens = Tokens::start(60);
    let port = tokens.upstream.host().split_once(':').expect("a port").1.to_owned();
    let front = front(&registry, &[]);
    for realm in [
        format!("http://localhost:{port}/token"),
        format!("http://127.0.0.2:{port}/token"),
        format!("http://{}.example.org/token", "tokens"),
        format!("http://127.0.0.1.example.org:{port}/token"),
        // The registry's own host, but a port that nobody named.
        tokens.realm(),
        "file:///etc/passwd".into(),
        "/token".into(),
        format!("http://user:pw@{}/token", registry.host()),
    ] {
        registry.gate(&bearer(&realm), |_| false);
        for path in [manifest_path("team/app", "1"), blob_path("team/app", image.largest().0)] {
            let answer = front.node.get(&path);
            assert_eq!(answer.status, 502, "{realm}: {}", answer.text());
            assert!(!answer.text().contains(PASSWORD), "{}", answer.text());
        }
    }
    assert_eq!(tokens.upstream.total(), 0, "nobody else was asked");
    let all = registry.server.asked(&manifest_path("team/app", "1"));
    assert!(
        all.iter().all(|asked| asked.header("authorization").is_empty()),
        "nor was it shown to the registry"
    );
}

/// A token server that the operator named gets the credentials, and nobody else does: not the registry, not the host
/// that has its blobs.
#[test]
fn credentials_go_where_they_belong() {
    let (registry, image) = published();
    let (tokens, files) = (Tokens::start(60), Upstream::start());
    registry.ask_for_tokens(&tokens);
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    files.file("/blob?signed=yes", "application/octet-stream", bytes);
    registry.redirect(&path, &files.url("/blob?signed=yes"));
    let front = front(&registry, &[&tokens.upstream, &files]);
    front.tag("team/app", "1", "MISS", &image);
    assert!(front.node.get(&path).body == bytes);
    assert_eq!(tokens.given(), 1, "one for all of the repository");
    let given = tokens.upstream.asked("/token?service=registry.test&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!((given.len(), given[0].header("authorization")), (1, &*basic(USER, PASSWORD)));
    for asked in [files.asked("/blob?signed=yes"), registry.server.asked(&path)].concat() {
        assert!(!asked.header("authorization").starts_with("Basic"), "{asked:?}");
    }
    let asked = files.asked("/blob?signed=yes");
    assert_eq!((asked.len(), asked[0].header("authorization")), (1, ""));
    // That host asks for a login in vain.
    let other = Image::new(2, &[3000]);
    registry.put("team/app", "2", &other);
    let path = blob_path("team/app", other.largest().0);
    registry.redirect(&path, &files.url("/login"));
    files.broken("/login", Fault::Says("401 No\r\nwww-authenticate: Basic realm=\"files\""));
    front.assert_refused(&path, 403, "DENIED");
    assert!(files.asked("/login").iter().all(|asked| asked.header("authorization").is_empty()));
}

#[test]
fn redirects_to_where_nobody_should_go() {
    let (registry, image) = published();
    let inside = Upstream::start();
    let (layer, bytes) = image.largest();
    inside.file("/blob", "application/octet-stream", bytes);
    let port = inside.host().split_once(':').expect("a port").1.to_owned();
    let (front, path) = (Front::of(&registry.host()), blob_path("team/app", layer));
    for target in [
        inside.url("/blob"),
        format!("http://localhost:{port}/blob"),
        format!("http://[::ffff:127.0.0.1]:{port}/blob"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://10.0.0.1/blob".into(),
        "http://0.0.0.0/blob".into(),
        "ftp://files.example.org/blob".into(),
        format!("http://u:p@{}/blob", registry.host()),
        String::new(),
    ] {
        registry.redirect(&path, &target);
        for method in ["HEAD", "GET"] {
            let answer = front.ask(method, &path, &[]);
            assert!(matches!(answer.status, 502 | 504), "{target}: {} {}", answer.status, answer.text());
        }
    }
    assert_eq!(inside.total(), 0);
}

#[test]
fn a_registry_that_refuses_for_ever() {
    for challenge in ["bearer", "basic", "none", "nonsense"] {
        let (registry, image) = published();
        let tokens = Tokens::start(60);
        let front = front(&registry, &[&tokens.upstream]);
        let said = match challenge {
            "bearer" => bearer(&tokens.realm()),
            "basic" => "Basic realm=\"x\"".into(),
            "nonsense" => ",,=\"".into(),
            _ => "Negotiate".into(),
        };
        registry.gate(&said, |_| false);
        for (n, path) in [
            manifest_path("team/app", "1"),
            manifest_path("team/app", &image.root.digest),
            blob_path("team/app", image.largest().0),
            "/v2/team/app/tags/list".into(),
        ]
        .iter()
        .enumerate()
        {
            let (given, asked) = (tokens.given(), registry.server.total());
            let answer = front.assert_refused(path, 403, "DENIED");
            assert!(answer.text().contains("credentials"), "{}", answer.text());
            assert!(tokens.given() - given <= 2, "{challenge} {n}: {} tokens", tokens.given() - given);
            assert!(
                registry.server.total() - asked <= 4,
                "{challenge} {n}: {} times",
                registry.server.total() - asked
            );
        }
    }
    // A token server that gives none, or something else.
    for given in ["{}", "<html>", "{\"token\": \"a\\r\\nb\"}", "{\"token\": 7}"] {
        let (registry, _) = published();
        let tokens = Upstream::start();
        let realm = tokens.url("/token");
        tokens.file(
            "/token?service=registry.test&scope=repository%3Ateam%2Fapp%3Apull",
            "application/json",
            given,
        );
        registry.gate(&bearer(&realm), |_| false);
        let front = front(&registry, &[&tokens]);
        front.assert_refused(&manifest_path("team/app", "1"), 502, "UNKNOWN");
        assert_eq!(tokens.total(), 1);
    }
}

/// A token server that refuses our password, has had enough, breaks or hangs: that is said, and nobody is asked for ever.
#[test]
fn token_servers_that_fail() {
    for (fault, status, code) in [
        (Fault::Says("401 No\r\nwww-authenticate: Basic realm=\"x\""), 403, "DENIED"),
        (Fault::Says("403 No"), 403, "DENIED"),
        (Fault::Says("429 Too Many Requests\r\nretry-after: 30"), 503, "TOOMANYREQUESTS"),
        (Fault::Says("500 Broken"), 502, "UNKNOWN"),
        (Fault::Silence, 504, "UNKNOWN"),
    ] {
        let (registry, image) = published();
        let tokens = Upstream::start();
        registry.gate(&bearer(&tokens.url("/token")), |_| false);
        tokens.broken(ANY, fault);
        let front = front(&registry, &[&tokens]);
        let paths = [manifest_path("team/app", "1"), blob_path("team/app", image.largest().0)];
        // Who waits for one that hangs waits once.
        let hangs = matches!(fault, Fault::Silence);
        for path in &paths[..if hangs { 1 } else { 2 }] {
            let answer = front.assert_refused(path, status, code);
            assert!(answer.text().contains(&tokens.host()), "it is not said who failed: {}", answer.text());
            assert!(!answer.text().contains(PASSWORD), "{}", answer.text());
        }
        // What broke is tried three times, as anywhere.
        assert!((1..=6).contains(&tokens.total()), "{fault:?}: {} questions", tokens.total());
        assert!(registry.server.total() <= 6, "{fault:?}: {} questions", registry.server.total());
        assert_eq!(front.node.artifacts(), 0, "{fault:?}");
    }
}

/// As Docker Hub has it for who has no account: a token for everybody, and what it opens is everybody's.
#[test]
fn tokens_without_an_account() {
    let home = Home::bare();
    let (tools, origin) = (Tools::new(&home), Origin::start(&home, Auth::Token));
    let image = Image::index(1, &[3000]);
    origin.push(&tools, &image, "public/app:1");
    origin.push(&tools, &image, "team/app:1");
    let tokens = origin.tokens.as_ref().expect("a token server");
    let (given, asked) = (tokens.given(), tokens.upstream.total());
    let files = vec![tokens.upstream.url("/").parse().expect("a URL")];
    let front = Front::patient(vec![Registry { files, ..registry(&origin.host()) }]);
    home.run(&mut tools.copy(&format!("{}/public/app:1", front.host()), "out", None));
    image.assert_is(&home.path("out"));
    assert_eq!(tokens.given() - given, 1, "one for all of the repository");
    let path = "/token?service=registry.test&scope=repository%3Apublic%2Fapp%3Apull";
    let ours = tokens.upstream.asked(path);
    assert_eq!((ours.len(), tokens.upstream.total() - asked), (1, 1));
    assert_eq!(ours[0].header("authorization"), "");
    front.node.settle();
    for digest in image.blobs.keys() {
        let stored = front.node.daemon().rooms().store.find(&digest.parse().expect("a digest"));
        assert_eq!(stored.expect("the store").expect("a blob").access, Access::Public, "{digest}");
    }
    let answer = front.tag("public/app", "1", "HIT", &image);
    assert!(answer.header("cache-control").starts_with("max-age="), "{}", answer.header("cache-control"));
    // What wants an account is not for us, and the token that says so is not asked for again and again.
    let asked = tokens.upstream.total();
    front.assert_refused(&manifest_path("team/app", "1"), 403, "DENIED");
    assert!(tokens.upstream.total() - asked <= 2);
}

/// A token whose time is over in the middle of a layer.
#[test]
fn tokens_that_end_on_the_way() {
    let (registry, image) = published();
    let tokens = Tokens::start(60);
    registry.ask_for_tokens(&tokens);
    let front = front(&registry, &[&tokens.upstream]);
    front.tag("team/app", "1", "MISS", &image);
    tokens.forget();
    for digest in image.blobs.keys().filter(|digest| *digest != image.largest().0) {
        assert_eq!(front.node.get(&blob_path("team/app", digest)).status, 200);
        tokens.forget();
    }
    let (layer, bytes) = image.largest();
    let path = blob_path("team/app", layer);
    // Not on the way to it, but while it comes.
    let lost = std::sync::Arc::new(std::sync::Mutex::new(tokens));
    let theirs = lost.clone();
    registry.faulty(&path, move |n| {
        theirs.lock().unwrap().forget();
        (n == 0).then_some(Fault::Cut(200_000))
    });
    let answer = front.node.get(&path);
    assert!(answer.status == 200 && answer.body == bytes);
    let asked = registry.server.asked(&path);
    let last = asked.last().expect("it was asked for");
    assert_eq!(last.header("range"), "bytes=200000-");
    assert!(last.header("authorization").starts_with("Bearer "));
}

/// What a registry says of its limits can be read, and is kept to: a known image is served, and nobody is asked.
#[test]
fn registries_that_count() {
    let (registry, image) = published();
    let path = manifest_path("team/app", "1");
    let limited = |left: &str| {
        File { content_type: OCI_MANIFEST, ..File::new(image.root_bytes()) }
            .header("Docker-Content-Digest", &image.root.digest)
            .header("ratelimit-limit", "100;w=21600")
            .header("ratelimit-remaining", &format!("{left};w=21600"))
    };
    registry.server.serve(&path, limited("7"));
    let front = Front::of(&registry.host());
    front.tag("team/app", "1", "MISS", &image);
    let host = registry.host();
    let gauge =
        |name: &str| front.node.metric(&format!("dpm_upstream_ratelimit{name}{{registry=\"{host}\"}}"));
    assert_eq!((gauge(""), gauge("_remaining")), (100, 7));
    registry.server.serve(&path, limited("0"));
    front.pass(LONG);
    front.tag("team/app", "1", "MISS", &image);
    assert_eq!(gauge("_remaining"), 0);
    // Nothing is left: neither past its time nor a little past it is it asked for.
    let asked = registry.server.total();
    for seconds in [310, 400] {
        front.pass(seconds);
        front.tag("team/app", "1", "STALE", &image);
    }
    assert_eq!(registry.server.total(), asked);
    // Who demands it has it asked for all the same.
    assert_eq!(front.ask("GET", &path, &[("cache-control", "no-cache")]).cache(), "MISS");
    assert_eq!(registry.server.total(), asked + 1);
}

#[test]
fn registries_that_have_had_enough() {
    let (registry, image) = published();
    let front = Front::of(&registry.host());
    front.tag("team/app", "1", "MISS", &image);
    let path = manifest_path("team/app", "1");
    registry.server.broken(&path, Fault::Says("429 Too Many Requests\r\nretry-after: 30"));
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &image);
    // From here on it is left alone, whatever it is asked for.
    let asked = registry.server.total();
    for path in [manifest_path("team/app", "2"), blob_path("team/app", image.largest().0)] {
        let answer = front.assert_refused(&path, 503, "TOOMANYREQUESTS");
        let after: u64 = answer.header("retry-after").parse().expect("seconds");
        assert!((1..=30).contains(&after), "{after}");
    }
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &image);
    let answer = front.node.get(&manifest_path("team/app", &image.root.digest));
    assert_eq!((answer.status, answer.cache()), (200, "HIT"));
    assert_eq!(registry.server.total(), asked);

    // A short pause is waited for.
    let (registry, image) = published();
    let front = Front::with(vec![super::through::registry(&registry.host())]);
    registry.faulty(&path, |n| (n == 0).then_some(Fault::Says("429 Too Many Requests\r\nretry-after: 1")));
    front.tag("team/app", "1", "MISS", &image);
}

/// A tag that many poll, just past its time, at a registry that hangs: one asks, and nobody waits.
#[test]
fn a_registry_that_hangs_is_asked_by_one() {
    let (registry, image) = published();
    let front = Front::of(&registry.host());
    front.tag("team/app", "1", "MISS", &image);
    let path = manifest_path("team/app", "1");
    let before = registry.server.hits(&path);
    registry.server.broken(&path, Fault::Silence);
    front.pass(310);
    for _ in 0..20 {
        front.tag("team/app", "1", "STALE", &image);
    }
    until("it is asked", || registry.server.hits(&path) > before);
    assert_eq!(registry.server.hits(&path), before + 1);
    // Long past its time it is waited for, and not for long.
    front.pass(LONG);
    front.tag("team/app", "1", "STALE", &image);
}
