//! That what the other tests stand on stands: the real clients against the origins, with nothing of dpm between.

use super::fake::{FakeRegistry, bearer, blob_path, manifest_path};
use super::image::{DOCKER_MANIFEST, Image, OCI_INDEX};
use super::recorded::Recorded;
use super::registry::{Auth, Registry};
use super::tokens::{PASSWORD, Tokens, USER, basic};
use super::tools::{Engine, Tools};
use crate::clients::process::Home;
use crate::support::{Fault, Upstream, request};

const ENGINES: [Engine; 2] = [Engine::Podman, Engine::Buildah];

#[test]
fn a_registry_for_everybody() {
    there_and_back(Auth::Open);
}

#[test]
fn a_registry_with_passwords() {
    there_and_back(Auth::Basic);
}

#[test]
fn a_registry_with_tokens() {
    there_and_back(Auth::Token);
}

/// Pushes with skopeo, pulls with all three.
fn there_and_back(auth: Auth) {
    let home = Home::bare();
    let (tools, mut registry) = (Tools::new(&home), Registry::start(&home, auth));
    let (index, docker) = (Image::index(1, &[3000, 200_000]), Image::docker(9, &[5000]));
    assert_eq!((index.root.media_type, docker.root.media_type), (OCI_INDEX, DOCKER_MANIFEST));
    registry.push(&tools, &index, "team/app:1");
    registry.push(&tools, &docker, "team/app:docker");
    assert_eq!(registry.door.total(), 0, "pushes are not counted");

    for (tag, image) in [("1", &index), ("docker", &docker)] {
        let reference = format!("{}/team/app:{tag}", registry.host());
        home.run(&mut tools.copy(&reference, tag, registry.login()));
        image.assert_is(&home.path(tag));
        let layer = blob_path("team/app", image.largest().0);
        // The answer that says who is wanted is a hit as well.
        let taken = registry.door.asked(&layer).len();
        assert!((1..=2).contains(&taken), "{taken} requests for {layer}");

        for engine in ENGINES {
            let (ended, text) = home.try_run(&mut tools.pull(engine, &reference, None));
            assert_eq!(ended.success(), auth == Auth::Open, "{engine:?} without a password: {text}");
            home.run(&mut tools.pull(engine, &reference, registry.login()));
            assert_eq!(&tools.unpacked(engine, &reference), image.unpacked(), "{engine:?}, {tag}");
            tools.forget(engine);
        }
    }
    let said =
        home.run(&mut tools.inspect(&format!("{}/team/app:docker", registry.host()), registry.login()));
    assert!(said.contains(&docker.root.digest), "{said}");

    if let Some(tokens) = &registry.tokens {
        assert!(tokens.given() > 0);
        // Who has no password may pull what is public.
        registry.push(&tools, &docker, "public/app:1");
        let reference = format!("{}/public/app:1", registry.host());
        home.run(&mut tools.copy(&reference, "public", None));
        docker.assert_is(&home.path("public"));
    }
    let before = registry.hits("GET", "/v2/");
    registry.kill();
    let (ended, _) = home.try_run(&mut tools.copy(&format!("{}/team/app:1", registry.host()), "gone", None));
    assert!(!ended.success(), "there is no registry any more");
    assert!(registry.hits("GET", "/v2/") > before, "it was asked for");
}

/// What is no image goes the same way, byte for byte.
#[test]
fn charts_and_signatures() {
    let home = Home::bare();
    let (tools, registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::new(1, &[3000]);
    let about = Image::about(&image.root, "application/vnd.example.signature", "signed");
    let list = Image::referrers(&[&about]);
    let fallback = image.root.digest.replace(':', "-");
    let signature = about.root.digest.replace(':', "-");
    registry.push(&tools, &image, "team/app:1");
    registry.push(&tools, &about, &format!("team/app:{signature}"));
    // Older registries list referrers under a tag. skopeo of Debian 12 would not let `artifactType` through.
    registry.put("team/app", &fallback, &list);
    let answer =
        request("GET", &registry.door.url(&manifest_path("team/app", &fallback)), &[("accept", OCI_INDEX)]);
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, &*list.root.digest));
    assert!(answer.body == list.root_bytes());
    registry.push(&tools, &Image::chart("demo"), "team/chart:1.0.0");
    for (reference, image) in
        [(format!("team/app:{signature}"), &about), ("team/chart:1.0.0".into(), &Image::chart("demo"))]
    {
        let folder = reference.replace(['/', ':'], "-");
        home.run(&mut tools.copy(&format!("{}/{reference}", registry.host()), &folder, None));
        image.assert_is(&home.path(&folder));
    }
}

#[test]
fn engines_with_a_mirror() {
    let home = Home::bare();
    let (tools, registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000]);
    registry.push(&tools, &image, "hub/library/alpine:3.20");
    // Nobody listens at what stands for the hub itself.
    tools.registries(&mirror(&format!("{}/hub", registry.host())));
    for engine in ENGINES {
        home.run(&mut tools.pull(engine, "docker.io/library/alpine:3.20", None));
        assert_eq!(&tools.unpacked(engine, "docker.io/library/alpine:3.20"), image.unpacked(), "{engine:?}");
        tools.forget(engine);
    }
    assert!(registry.hits("GET", &manifest_path("hub/library/alpine", "3.20")) >= 2);
}

/// A `registries.conf` with a mirror of Docker Hub, which is out of reach itself.
fn mirror(location: &str) -> String {
    format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n"
    )
}

#[test]
fn recorded_pulls() {
    let home = Home::bare();
    let (tools, registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[50_000]);
    registry.push(&tools, &image, "library/alpine:3.20");
    for (client, requests) in [(Recorded::DockerMirror, 7), (Recorded::ContainerdNs, 6)] {
        let done = client.pull(&registry.host(), "library/alpine", "3.20", &image);
        assert_eq!(done.len(), requests, "{client:?}");
        let (sent, _) = &done[1];
        let asked = registry.door.asked(&sent.path);
        let agent = sent.headers.iter().find(|(name, _)| name == "User-Agent").expect("a name");
        assert_eq!(asked[0].header("user-agent"), agent.1, "{client:?}");
        assert!(asked[0].header("accept").contains(image.root.media_type), "every line of Accept was sent");
    }
}

#[test]
fn a_fake_with_tokens_and_another_host_for_blobs() {
    let home = Home::bare();
    let tools = Tools::new(&home);
    let (registry, tokens, elsewhere) = (FakeRegistry::start(), Tokens::start(60), Upstream::start());
    let image = Image::new(1, &[3000, 40_000]);
    registry.put("team/app", "1", &image);
    registry.ask_for_tokens(&tokens);
    let (digest, bytes) = image.largest();
    elsewhere.file("/blob?signed=yes", "application/octet-stream", bytes);
    let path = blob_path("team/app", digest);
    registry.redirect(&path, &elsewhere.url("/blob?signed=yes"));

    let reference = format!("{}/team/app:1", registry.host());
    home.run(&mut tools.copy(&reference, "out", Some((USER, PASSWORD))));
    image.assert_is(&home.path("out"));
    let asked = elsewhere.asked("/blob?signed=yes");
    assert_eq!((asked.len(), asked[0].header("authorization")), (1, ""));
    assert!(registry.server.asked(&path)[0].header("authorization").starts_with("Bearer "));
    assert_eq!(tokens.upstream.asked("/token").len(), 0, "it is asked with a query");
    assert!(tokens.given() > 0);

    let token = request("GET", &format!("{}?scope=repository:team/app:pull", tokens.realm()), &[]).json();
    let bearer = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let ask = || request("GET", &registry.server.url("/v2/"), &[("authorization", &bearer)]).status;
    assert_eq!(ask(), 200);
    tokens.forget();
    assert_eq!(ask(), 401, "a token that nobody knows any more");
}

#[test]
fn a_fake_that_fails() {
    let home = Home::bare();
    let tools = Tools::new(&home);
    let registry = FakeRegistry::start();
    let image = Image::new(1, &[40_000]);
    registry.put("team/app", "1", &image);
    let reference = format!("{}/team/app:1", registry.host());
    let layer = blob_path("team/app", image.largest().0);
    let pull = |folder: &str| home.try_run(&mut tools.copy(&reference, folder, None)).0.success();

    registry.faulty(&layer, |n| (n == 0).then_some(Fault::Cut(20_000)));
    // skopeo goes on with Range only after a mebibyte, in versions that do at all.
    assert!(!pull("cut"), "it broke off");
    assert!(pull("whole"));
    image.assert_is(&home.path("whole"));

    registry.lie(&layer, vec![0; 40_000]);
    assert!(!pull("lied"), "other bytes under a digest");
    registry.lie(&layer, image.largest().1);
    assert!(pull("right-again"));

    let busy = "429 Too Many Requests\r\nretry-after: 0\r\nratelimit-limit: 100;w=21600\r\nratelimit-remaining: 0;w=21600";
    let manifest = manifest_path("team/app", "1");
    registry.faulty(&manifest, move |n| (n == 0).then_some(Fault::Says(busy)));
    let answer = request("HEAD", &registry.server.url(&manifest), &[]);
    assert_eq!((answer.status, answer.header("ratelimit-remaining")), (429, "0;w=21600"));
    assert_eq!(request("HEAD", &registry.server.url(&manifest), &[]).status, 200);

    registry.gate(&bearer("http://tokens.example.org/token"), |_| false);
    let answer = request("GET", &registry.server.url(&manifest), &[]);
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.ends_with(r#"scope="repository:team/app:pull""#), "{challenge}");
    registry.gate("Basic realm=\"test\"", |said| said == basic(USER, PASSWORD));
    assert!(!pull("without"));
    home.run(&mut tools.copy(&reference, "with", Some((USER, PASSWORD))));
    image.assert_is(&home.path("with"));
}
