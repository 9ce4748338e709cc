//! skopeo, podman and buildah as their users call them, each with a home of its own and no rights on this machine.

use std::process::Command;

use serde_json::Value;

use super::image::{Image, Unpacked};
use crate::clients::process::{Home, counterpart, counterparts};

/// Where everything of an engine lies in a home.
const CONFIG: &str = ".config/containers";

/// An engine that keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Podman,
    Buildah,
}

/// The programs of one user.
pub struct Tools<'a> {
    pub home: &'a Home,
}

impl<'a> Tools<'a> {
    /// A user who trusts every image and has no registry but those that are named in full.
    pub fn new(home: &'a Home) -> Self {
        let write = |file: &str, text: &str| home.write(&format!("{CONFIG}/{file}"), text);
        let (path, oci) = (|name: &str| home.path(name).display().to_string(), counterparts().join("oci"));
        let (oci, signatures) = (oci.display().to_string(), path("signatures"));
        write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        write(
            "registries.d/default.yaml",
            &format!("default-docker: {{sigstore: \"file://{signatures}\"}}\n"),
        );
        write(
            "storage.conf",
            &format!(
                "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
                path("images"),
                path("run/storage")
            ),
        );
        // A file to lock: shared memory is the machine's, and podman of another user may have taken the name.
        write(
            "containers.conf",
            &format!(
                "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n\
                 runtime = \"crun\"\nconmon_path = [\"{oci}/bin/conmon\"]\ntmp_dir = \"{}\"\n\
                 [engine.runtimes]\ncrun = [\"{oci}/bin/crun\"]\n\
                 [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"{}\"\ncni_plugin_dirs = [\"{oci}/usr/lib/cni\"]\n",
                path("run/libpod"),
                path("networks")
            ),
        );
        for folder in ["run", "tmp"] {
            std::fs::create_dir_all(home.path(folder)).expect("a folder");
        }
        let tools = Self { home };
        tools.registries("");
        tools
    }

    /// What the user says of registries: mirrors, and which speak no TLS.
    pub fn registries(&self, text: &str) {
        let head = "unqualified-search-registries = []\nshort-name-mode = \"disabled\"\n";
        self.home.write(&format!("{CONFIG}/registries.conf"), &format!("{head}{text}"));
    }

    /// A program in a user namespace of its own, where it is told that it is the user who is root there. So it takes
    /// no rights from this machine's root, and does without a range of ids, which not every user has.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.home.client("unshare");
        command.args(["-U", "-r", "-m"]).arg(counterpart("oci", program));
        for (name, value) in [
            ("XDG_RUNTIME_DIR", self.home.path("run")),
            ("TMPDIR", self.home.path("tmp")),
            ("CONTAINERS_CONF", self.home.path(&format!("{CONFIG}/containers.conf"))),
            ("CONTAINERS_STORAGE_CONF", self.home.path(&format!("{CONFIG}/storage.conf"))),
            ("CONTAINERS_REGISTRIES_CONF", self.home.path(&format!("{CONFIG}/registries.conf"))),
        ] {
            command.env(name, value);
        }
        command.env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME");
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(name);
        }
        command.env("_CONTAINERS_USERNS_CONFIGURED", "done");
        command.env("_CONTAINERS_ROOTLESS_UID", "1000").env("_CONTAINERS_ROOTLESS_GID", "1000");
        command
    }

    /// Pushes an image, every byte as it is, to `host:port/name:tag`.
    pub fn push(&self, image: &Image, reference: &str, login: Option<(&str, &str)>) {
        let folder = tempfile::tempdir_in(self.home.path("tmp")).expect("a folder");
        image.write(folder.path());
        let mut skopeo = self.command("skopeo");
        skopeo.args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
        if let Some((user, password)) = login {
            skopeo.arg(format!("--dest-creds={user}:{password}"));
        }
        skopeo.arg(format!("dir:{}", folder.path().display())).arg(format!("docker://{reference}"));
        self.home.run(&mut skopeo);
    }

    /// `skopeo copy` of everything behind a reference into a folder of this home.
    pub fn copy(&self, reference: &str, folder: &str, login: Option<(&str, &str)>) -> Command {
        let mut skopeo = self.command("skopeo");
        skopeo.args(["copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false"]);
        if let Some((user, password)) = login {
            skopeo.arg(format!("--src-creds={user}:{password}"));
        }
        skopeo.arg(format!("docker://{reference}")).arg(format!("dir:{}", self.home.path(folder).display()));
        skopeo
    }

    /// What `skopeo inspect` says: digest, tags, layers.
    pub fn inspect(&self, reference: &str, login: Option<(&str, &str)>) -> Command {
        let mut skopeo = self.command("skopeo");
        skopeo.args(["inspect", "--tls-verify=false"]);
        if let Some((user, password)) = login {
            skopeo.arg(format!("--creds={user}:{password}"));
        }
        skopeo.arg(format!("docker://{reference}"));
        skopeo
    }

    /// `podman pull`, `buildah pull`.
    pub fn pull(&self, engine: Engine, reference: &str, login: Option<(&str, &str)>) -> Command {
        let mut command = self.command(engine.program());
        command.args(["pull", "--quiet", "--tls-verify=false"]);
        if engine == Engine::Buildah {
            command.args(["--policy", "always"]);
        }
        if let Some((user, password)) = login {
            command.arg(format!("--creds={user}:{password}"));
        }
        command.arg(reference);
        command
    }

    /// What the engine has under a reference. Images of both engines are one store's.
    pub fn unpacked(&self, engine: Engine, reference: &str) -> Unpacked {
        let mut command = self.command(engine.program());
        match engine {
            Engine::Podman => command.args(["image", "inspect", reference]),
            Engine::Buildah => command.args(["inspect", "--type", "image", reference]),
        };
        let text = self.home.run(&mut command);
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let (id, layers) = match engine {
            Engine::Podman => (&said[0]["Id"], &said[0]["RootFS"]["Layers"]),
            Engine::Buildah => (&said["FromImageID"], &said["OCIv1"]["rootfs"]["diff_ids"]),
        };
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{said:#}")).to_owned();
        Unpacked {
            config: format!("sha256:{}", text(id)),
            layers: layers.as_array().expect("layers").iter().map(text).collect(),
        }
    }

    /// Forgets every image.
    pub fn forget(&self, engine: Engine) {
        let mut command = self.command(engine.program());
        self.home.run(command.args(["rmi", "--all", "--force"]));
    }
}

impl Engine {
    pub fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }
}
