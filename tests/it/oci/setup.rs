//! Clients that `dpm setup` has pointed at dpm, and that go on naming images as they always did.

use std::process::Command;

use super::fake::{blob_path, manifest_path};
use super::image::Image;
use super::registry::{Auth, Registry};
use super::tools::{Engine, Tools};
use crate::clients::process::{Dpm, Home};

/// A configuration in which this registry is docker's.
pub fn settings(registry: &Registry) -> String {
    format!(
        "[[pypi]]\nurl = \"http://127.0.0.1:9/simple/\"\n\n\
         [[oci]]\nname = \"hub\"\nurl = \"http://{}\"\nhosts = [\"docker.io\"]\n",
        registry.host()
    )
}

/// A node that takes this registry for docker's. Its configuration is `dpm.toml` in the home.
pub fn node<'a>(home: &'a Home, registry: &Registry) -> Dpm<'a> {
    home.write("dpm.toml", &settings(registry));
    let config = home.path("dpm.toml");
    Dpm::serve(home, &["--config", config.to_str().expect("UTF-8")])
}

/// A client that reaches loopback and nothing else, whatever it falls back to.
pub fn kept_in(mut command: Command) -> Command {
    command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    command
}

#[test]
fn podman_buildah_and_skopeo_without_naming_dpm() {
    const DROP_IN: &str = ".config/containers/registries.conf.d/dpm.conf";
    let home = Home::bare();
    let (tools, registry) = (Tools::new(&home), Registry::start(&home, Auth::Open));
    let image = Image::index(1, &[3000, 200_000]);
    registry.push(&tools, &image, "library/x:1");
    let dpm = node(&home, &registry);

    let (drop_in, config) = (home.path(DROP_IN), home.path("dpm.toml"));
    let (url, setup) = (dpm.url(), ["setup", "podman", "--json"]);
    let told = |words: &[&str]| -> serde_json::Value {
        // Root's own place is the machine's: tests have no business there.
        let text = home.run(home.dpm().args(setup).args(words));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let file = drop_in.to_str().expect("UTF-8");
    let there = ["--url", &url, "--file", file, "--config", config.to_str().expect("UTF-8")];
    let dry = told(&[&there[..], &["--dry-run"]].concat());
    assert_eq!((dry["action"].as_str(), drop_in.exists()), (Some("created"), false), "{dry}");
    let done = told(&there);
    assert_eq!((done["action"].as_str(), done["file"].as_str()), (Some("created"), Some(file)), "{done}");
    assert_eq!(done["warnings"], serde_json::json!([]));
    assert_eq!(told(&there)["action"], "unchanged");

    let reference = "docker.io/library/x:1";
    let mut skopeo = kept_in(tools.command("skopeo"));
    skopeo.args(["copy", "--quiet", "--all", "--preserve-digests"]).arg(format!("docker://{reference}"));
    home.run(skopeo.arg(format!("dir:{}", home.path("out").display())));
    image.assert_is(&home.path("out"));
    for engine in [Engine::Podman, Engine::Buildah] {
        let mut pull = kept_in(tools.command(engine.program()));
        home.run(pull.args(["pull", "--quiet", reference]));
        assert_eq!(&tools.unpacked(engine, reference), image.unpacked(), "{engine:?}");
        tools.forget(engine);
    }
    assert_eq!(registry.hits("GET", &blob_path("library/x", image.largest().0)), 1, "once for all three");
    assert_eq!(registry.hits("GET", &manifest_path("library/x", "1")), 1);
    assert_eq!(registry.hits("GET", &manifest_path("library/x", &image.root.digest)), 0);

    assert_eq!(told(&["--undo"])["action"], "removed");
    assert!(!drop_in.exists());
    assert_eq!(told(&["--undo"])["action"], "nothing");
}
