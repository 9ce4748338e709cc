use super::*;

const URL: &str = "http://127.0.0.1:3142/pypi/simple/";

fn target(base: &str) -> Target {
    let hosts = ["docker.io", "ghcr.io", "registry.example.org:5000", "registry:5000"].map(str::to_owned);
    Target { url: Url::parse(base).unwrap(), hosts: hosts.into(), file: None }
}

struct Home {
    dir: tempfile::TempDir,
    machine: Machine,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The temporary directory may itself be behind a symlink.
        let home = fs::canonicalize(dir.path()).unwrap();
        let vars = [("HOME".into(), home.clone().into())].into();
        Self { dir, machine: Machine { vars, root: home, superuser: false } }
    }

    fn path(&self, relative: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(relative)
    }

    fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, relative: &str) -> Option<String> {
        fs::read_to_string(self.path(relative)).ok()
    }

    fn apply_at(&self, client: Client, base: &str) -> Report {
        apply(&plan(client, &target(base), &self.machine).unwrap()).unwrap()
    }

    fn apply(&self, client: Client) -> Report {
        self.apply_at(client, "http://127.0.0.1:3142")
    }

    fn undo(&self, client: Client) -> Report {
        undo(client, &self.machine).unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

const PIP: &str = ".config/pip/pip.conf";
const UV: &str = ".config/uv/uv.toml";

#[test]
fn there_and_back() {
    let cases = [
        (Client::Pip, PIP, None),
        (Client::Pip, PIP, Some("")),
        (Client::Pip, PIP, Some("# mine\n[install]\nuser = no")),
        (Client::Pip, PIP, Some("[global]\r\n  timeout = 1\r\n")),
        (
            Client::Pip,
            PIP,
            Some("[global]\nindex-url =\n  https://me:hunter2@a.example.org/s\nindex-url = b\n"),
        ),
        (Client::Pip, ".pip/pip.conf", Some("[global]\nindex-url = https://a.example.org/s\n")),
        (Client::Uv, UV, None),
        (Client::Uv, UV, Some("# mine\r\noffline = true\r\n")),
        (Client::Uv, UV, Some("[[index]]\nurl = 'https://a.example.org/s'\ndefault = true # x")),
    ];
    for (client, file, text) in cases {
        for base in ["http://127.0.0.1:3142", "http://dpm.example.org:3142/sub/"] {
            let home = Home::new();
            if let Some(text) = text {
                home.write(file, text);
                fs::set_permissions(home.path(file), fs::Permissions::from_mode(0o640)).unwrap();
            }
            let first = home.apply_at(client, base);
            let want = if text.is_some() { Action::Changed } else { Action::Created };
            assert_eq!((first.action, &first.file), (want, &home.path(file)), "{text:?}");
            assert!(!format!("{first:?}").contains("hunter2"), "{first:?}");
            let after = home.read(file).unwrap();
            let trusted = after.contains("trusted-host") || after.contains("allow-insecure-host");
            assert_eq!(trusted, base.contains("dpm"), "{after}");

            let second = home.apply_at(client, base);
            assert_eq!((second.action, home.read(file).unwrap()), (Action::Unchanged, after));
            let back = home.undo(client);
            assert_eq!(home.read(file).as_deref(), text, "{client}");
            assert_eq!(back.action, if text.is_some() { Action::Restored } else { Action::Removed });
            if text.is_some() {
                let mode = home.path(file).metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o640);
            } else {
                assert_eq!(home.entries(), [".local"], "the directories that we made are gone");
            }
            assert_eq!(home.undo(client).action, Action::Nothing, "twice");
            assert_eq!(home.read(file).as_deref(), text);
        }
    }
}

#[test]
fn edited_since() {
    let cases = [
        (Client::Pip, PIP, None, "\n[freeze]\ntimeout = 10\n", Some("\n[freeze]\ntimeout = 10\n")),
        (
            Client::Pip,
            PIP,
            Some("[global]\nindex-url = a\n"),
            "cert = c\n",
            Some("[global]\nindex-url = a\ncert = c\n"),
        ),
        (Client::Uv, UV, None, "name = \"x\"\n[pip]\nstrict = true\n", Some("[pip]\nstrict = true\n")),
        (
            Client::Uv,
            UV,
            Some("offline = true\n"),
            "\n[pip]\nstrict = true\n",
            Some("offline = true\n\n[pip]\nstrict = true\n"),
        ),
    ];
    for (client, file, text, added, want) in cases {
        let home = Home::new();
        if let Some(text) = text {
            home.write(file, text);
        }
        home.apply(client);
        home.write(file, &format!("{}{added}", home.read(file).unwrap()));
        // Applying again must not make us forget that somebody else wrote here.
        assert_eq!(home.apply(client).action, Action::Unchanged);
        assert_eq!(home.undo(client).action, Action::TakenOut);
        assert_eq!(home.read(file).as_deref().map(str::trim_start), want.map(str::trim_start), "{client}");
    }
}

#[test]
fn edits_that_leave_nothing_or_too_much() {
    // The user pointed pip elsewhere meanwhile: theirs stays.
    let home = Home::new();
    home.apply(Client::Pip);
    home.write(PIP, "[global]\nindex-url = https://b.example.org/\n");
    assert_eq!(home.undo(Client::Pip).action, Action::Nothing);
    assert_eq!(home.read(PIP).unwrap(), "[global]\nindex-url = https://b.example.org/\n");

    // Ours is woven into something of theirs: said, not touched.
    let home = Home::new();
    home.apply(Client::Pip);
    let text = format!("[global]\nextra-index-url = {URL} https://b.example.org/\n");
    home.write(PIP, &text);
    let refused = undo(Client::Pip, &home.machine).unwrap_err().to_string();
    assert!(refused.contains(&format!("  2: extra-index-url = {URL}")), "{refused}");
    assert_eq!(home.read(PIP).unwrap(), text);

    // The user put the old text back by hand, or deleted the file.
    let home = Home::new();
    home.write(PIP, "[global]\n");
    home.apply(Client::Pip);
    home.write(PIP, "[global]\n");
    assert_eq!(home.undo(Client::Pip).action, Action::Nothing);
    home.apply(Client::Pip);
    fs::remove_file(home.path(PIP)).unwrap();
    assert_eq!(home.undo(Client::Pip).action, Action::Restored);
    assert_eq!(home.read(PIP).unwrap(), "[global]\n");
}

#[test]
fn symlinks_stay() {
    let home = Home::new();
    home.write("dotfiles/pip.conf", "[global]\n");
    fs::create_dir_all(home.path(".config/pip")).unwrap();
    std::os::unix::fs::symlink("../../dotfiles/pip.conf", home.path(PIP)).unwrap();
    assert_eq!(home.apply(Client::Pip).file, home.path("dotfiles/pip.conf"));
    assert!(home.path(PIP).is_symlink());
    home.undo(Client::Pip);
    assert!(home.path(PIP).is_symlink());
    assert_eq!(home.read(PIP).unwrap(), "[global]\n");
}

#[test]
fn a_home_behind_a_symlink() {
    for (client, file) in
        [(Client::Pip, PIP), (Client::Uv, UV), (Client::Podman, PODMAN), (Client::Docker, DOCKER)]
    {
        let mut home = Home::new();
        home.write("real/.keep", "");
        std::os::unix::fs::symlink("real", home.path("link")).unwrap();
        home.machine.vars.insert("HOME".into(), home.path("link").into());
        assert_eq!(home.apply(client).action, Action::Created);
        let text = home.read(&format!("real/{file}")).unwrap();
        assert!(text.contains("3142"), "{text}");
        // It is there now, and has the same name.
        assert_eq!(home.apply(client).action, Action::Unchanged, "{client}");
        assert_eq!(home.undo(client).action, Action::Removed);
        assert_eq!(home.read(&format!("real/{file}")), None);
    }
}

#[test]
fn warnings_and_refusals() {
    let base = target("http://127.0.0.1:3142");
    let mut home = Home::new();
    home.write(PIP, "[global]\nextra-index-url = https://b.example.org/\n");
    home.write(UV, "[[index]]\nurl = 'https://b.example.org/'\n");
    home.machine.vars.insert("PIP_INDEX_URL".into(), "x".into());
    home.machine.vars.insert("UV_DEFAULT_INDEX".into(), "x".into());
    for (client, words) in
        [(Client::Pip, ["$PIP_INDEX_URL", "extra-index-url"]), (Client::Uv, ["$UV_DEFAULT_INDEX", "further"])]
    {
        let warnings = plan(client, &base, &home.machine).unwrap().report().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().zip(words).all(|(warning, word)| warning.contains(word)), "{warnings:?}");
    }
    let planned = plan(Client::Pip, &base, &home.machine).unwrap();
    home.write(PIP, "[a]\n[a]\n");
    assert!(matches!(apply(&planned), Err(SetupError::Raced { .. })));
    assert!(matches!(plan(Client::Pip, &base, &home.machine), Err(SetupError::Unreadable { .. })));
    home.machine.vars.insert("PIP_CONFIG_FILE".into(), "/dev/null".into());
    assert!(matches!(plan(Client::Pip, &base, &home.machine), Err(SetupError::Disabled { .. })));
    home.apply(Client::Uv);
    home.machine.vars.insert("UV_CONFIG_FILE".into(), home.path("other.toml").into());
    assert!(matches!(plan(Client::Uv, &base, &home.machine), Err(SetupError::OtherFile { .. })));
}

/// With the machine's own pip, where there is one.
#[test]
fn real_pip_agrees() {
    let here = Machine::here();
    let Some(pip) = here.find("pip").filter(|pip| here.run(pip, &["--version"], &[]).is_ok()) else {
        eprintln!("there is no pip here");
        return;
    };
    let home = Home::new();
    home.write(PIP, "[global]\n   timeout = 7\n   index-url: https://a.example.org/s\n# end");
    let text = home.read(PIP);
    let mut machine = here.clone();
    let of_pip = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with("PIP_");
    machine.vars.retain(|name, _| of_pip(name));
    machine.vars.insert("XDG_CONFIG_HOME".into(), home.path(".config").into());
    let ask = |key| machine.run(&pip, &["config", "get", key], &[]).unwrap().trim().to_owned();
    assert_eq!(ask("global.index-url"), "https://a.example.org/s");
    home.apply_at(Client::Pip, "http://dpm.example.org:3142");
    assert_eq!(ask("global.index-url"), "http://dpm.example.org:3142/pypi/simple/");
    assert_eq!(ask("global.trusted-host"), "dpm.example.org:3142");
    assert_eq!(ask("global.timeout"), "7");
    home.undo(Client::Pip);
    assert_eq!(home.read(PIP), text);
    assert_eq!(ask("global.index-url"), "https://a.example.org/s");
}

const DOCKER: &str = ".config/docker/daemon.json";
const PODMAN: &str = ".config/containers/registries.conf.d/dpm.conf";
const CONTAINERD: &str = ".config/containerd/certs.d/_default/hosts.toml";

#[test]
fn containers_there_and_back() {
    let cases = [
        (Client::Docker, DOCKER, None),
        (Client::Docker, DOCKER, Some("")),
        (Client::Docker, DOCKER, Some("{\n    \"zeta\": 1,\n    \"alpha\": {\"b\": 2, \"a\": [ ]}\n}")),
        (Client::Docker, DOCKER, Some("{\"registry-mirrors\":[\"https://m.example.org\"]}")),
        (Client::Podman, PODMAN, None),
        (
            Client::Podman,
            PODMAN,
            Some("# mine\n[[registry]]\nprefix = 'quay.io'\nlocation = \"quay.io\"\nblocked = true"),
        ),
        (Client::Containerd, CONTAINERD, None),
        (Client::Containerd, CONTAINERD, Some("[host.'https://m.example.org']\n  ca = \"x\"")),
    ];
    for (client, file, text) in cases {
        let home = Home::new();
        if let Some(text) = text {
            home.write(file, text);
        }
        let first = home.apply(client);
        let want = if text.is_some() { Action::Changed } else { Action::Created };
        assert_eq!((first.action, &first.file), (want, &home.path(file)), "{text:?}");
        let after = home.read(file).unwrap();
        assert!(after.contains("127.0.0.1:3142"), "{after}");
        let second = home.apply(client);
        assert_eq!((second.action, home.read(file).unwrap()), (Action::Unchanged, after.clone()), "{client}");

        // To another address, and back.
        home.apply_at(client, "http://dpm.example.org:3142/");
        let other = home.read(file).unwrap();
        assert!(other.contains("dpm.example.org:3142") && !other.contains("127.0.0.1"), "{other}");
        assert_eq!(other.contains("insecure-registries"), client == Client::Docker, "{other}");
        assert_eq!(home.apply(client).action, Action::Changed);

        let back = home.undo(client);
        assert_eq!(home.read(file).as_deref(), text, "{client}");
        assert_eq!(back.action, if text.is_some() { Action::Restored } else { Action::Removed });
        if text.is_none() {
            assert_eq!(home.entries(), [".local"], "the directories that we made are gone");
        }
        assert_eq!(home.undo(client).action, Action::Nothing, "twice");

        // Somebody else writes there too.
        home.apply(client);
        let added = match client {
            Client::Docker => home.read(file).unwrap().replacen('{', "{\"debug\": true,", 1),
            _ => format!("{}\n[[other]]\nname = 1\n", home.read(file).unwrap()),
        };
        home.write(file, &added);
        assert_eq!(home.apply(client).action, Action::Unchanged, "{client}");
        assert_eq!(home.undo(client).action, Action::TakenOut, "{client} {text:?}");
        let left = home.read(file).unwrap();
        assert!(!left.contains("3142") && (left.contains("debug") || left.contains("other")), "{left}");
    }
}

#[test]
fn what_containers_clients_are_told() {
    let mut home = Home::new();
    home.write(".config/containers/registries.conf", "[[registry]]\nlocation = \"ghcr.io\"\n");
    let report = home.apply(Client::Podman);
    let text = home.read(PODMAN).unwrap();
    assert!(
        text.contains("location = \"127.0.0.1:3142/registry.example.org_5000\"\ninsecure = true"),
        "{text}"
    );
    assert!(!text.contains("ghcr.io") && !text.contains("\"registry:5000\""), "{text}");
    let said = report.warnings.join("\n");
    assert!(
        said.contains("says of ghcr.io already") && said.contains("registry:5000 cannot stand"),
        "{said}"
    );

    assert!(home.apply(Client::Docker).notes.iter().any(|n| n.contains("127.0.0.1:3142/ghcr.io/org/image")));
    assert_eq!(home.undo(Client::Docker).notes.len(), 1, "it has to be started anew");
    for (text, why) in [("[]", "no JSON object"), ("{\"a\"", "EOF")] {
        home.write(DOCKER, text);
        let said =
            plan(Client::Docker, &target("http://127.0.0.1:3142"), &home.machine).err().unwrap().to_string();
        assert!(said.contains(why) && said.contains("daemon.json"), "{said}");
        assert_eq!(home.read(DOCKER).unwrap(), text);
    }
    let below = target("http://dpm.example.org/cache/");
    assert!(matches!(plan(Client::Docker, &below, &home.machine), Err(SetupError::NotPlain { .. })));

    let lacking = home.apply(Client::Containerd).warnings.join("\n");
    assert!(lacking.contains("config_path = ") && lacking.contains("io.containerd.grpc.v1.cri"), "{lacking}");
    home.write(".config/containerd/certs.d/docker.io/hosts.toml", "");
    let certs = home.path(".config/containerd/certs.d");
    home.write(
        ".config/containerd/config.toml",
        &format!(
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/x:{}'\n",
            certs.display()
        ),
    );
    let warnings = home.apply(Client::Containerd).warnings;
    assert!(matches!(&warnings[..], [one] if one.contains("docker.io/hosts.toml outweighs")), "{warnings:?}");

    // Root's clients are the system's.
    home.undo(Client::Containerd);
    home.machine.superuser = true;
    for (client, file) in [
        (Client::Docker, "etc/docker/daemon.json"),
        (Client::Containerd, "etc/containerd/certs.d/_default/hosts.toml"),
    ] {
        assert_eq!(home.apply(client).file, home.path(file));
    }
    let elsewhere = Target { file: Some(home.path("k3s/hosts.toml")), ..target("http://127.0.0.1:3142") };
    assert!(matches!(plan(Client::Containerd, &elsewhere, &home.machine), Err(SetupError::OtherFile { .. })));
    home.undo(Client::Containerd);
    assert_eq!(
        apply(&plan(Client::Containerd, &elsewhere, &home.machine).unwrap()).unwrap().action,
        Action::Created
    );
}
