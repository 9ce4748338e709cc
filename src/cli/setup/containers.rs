//! Clients of container images: where they are told of mirrors, and what they have to be told beside that.

use std::fs;
use std::path::{Path, PathBuf};

use url::Url;

use crate::config::{Client, DaemonJson, HostsToml, Machine, Mirror, RegistriesConf};
use crate::eco::oci::{self, Repository, Want};

use super::SetupError;
use super::clients::Pointed;

/// Our file among podman's.
const DROP_IN: &str = "dpm.conf";

/// Whether it is one of these.
pub(super) fn is(client: Client) -> bool {
    matches!(client, Client::Docker | Client::Podman | Client::Containerd)
}

/// Root's clients are the system's own; those of others run without root and read what is at home.
pub(super) fn file(client: Client, machine: &Machine) -> Result<PathBuf, SetupError> {
    let config = || machine.config_home().ok_or(SetupError::NoHome);
    Ok(match (client, machine.superuser) {
        (Client::Docker, true) => machine.at("etc/docker/daemon.json"),
        (Client::Docker, false) => config()?.join("docker/daemon.json"),
        (Client::Containerd, true) => machine.at("etc/containerd/certs.d/_default/hosts.toml"),
        (Client::Containerd, false) => config()?.join("containerd/certs.d/_default/hosts.toml"),
        (_, true) => machine.at("etc/containers/registries.conf.d").join(DROP_IN),
        // podman knows no XDG_CONFIG_HOME here.
        (_, false) => {
            let home = machine.home().ok_or(SetupError::NoHome)?;
            home.join(".config/containers/registries.conf.d").join(DROP_IN)
        }
    })
}

/// dpm's own URL, as docker and containerd are given it.
pub(super) fn url(client: Client, base_url: &Url) -> Result<String, SetupError> {
    if base_url.path() != "/" || !base_url.username().is_empty() || base_url.password().is_some() {
        return Err(SetupError::NotPlain { client });
    }
    Ok(base_url.as_str().trim_end_matches('/').to_owned())
}

/// The same, as podman is given it.
fn location(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest)
}

/// What is found in the file where dpm is named.
pub(super) fn mark(client: Client, url: &str) -> String {
    if client == Client::Podman { format!("{}/", location(url)) } else { url.to_owned() }
}

/// Points the client at dpm; `hosts` are the registries that dpm stands for.
pub(super) fn point(
    client: Client,
    text: &str,
    url: &str,
    trusted_host: Option<&str>,
    hosts: &[String],
) -> Result<Pointed, String> {
    let before = stated(client, text);
    let mut warnings = Vec::new();
    let then = match client {
        Client::Docker => {
            let mut json = DaemonJson::parse(text)?;
            json.point_at(url, trusted_host);
            // A file that says it already keeps its form.
            if DaemonJson::parse(text)?.text() == json.text() { text.to_owned() } else { json.text() }
        }
        Client::Containerd => HostsToml::parse(text)?.point_at(url)?.text(),
        _ => {
            let mut conf = RegistriesConf::parse(text)?;
            let mut mirrors = Vec::new();
            for host in hosts {
                match path_of(host) {
                    Some(path) => mirrors.push(Mirror {
                        host: host.clone(),
                        location: format!("{}/{path}", location(url)),
                        insecure: url.starts_with("http:"),
                    }),
                    None => warnings.push(format!("{host} cannot stand in a mirror's path and is left out")),
                }
            }
            conf.point_at(location(url), &mirrors);
            conf.text()
        }
    };
    Ok(Pointed { then, before, warnings })
}

/// A registry's host as it stands in a path of dpm's: `localhost_5000`.
fn path_of(host: &str) -> Option<String> {
    let path = host.replace(':', "_");
    let asked = oci::want(&format!("/{path}/x/tags/list"), None);
    let found = matches!(asked, Ok(Want::Of(place, _)) if place.host.as_deref() == Some(host));
    (found && Repository::parse(&path).is_some()).then_some(path)
}

/// Takes out what [`point`] wrote.
pub(super) fn take_out(
    client: Client,
    text: &str,
    url: &str,
    trusted_host: Option<&str>,
    previous: &str,
) -> Result<String, String> {
    Ok(match client {
        Client::Docker => {
            let mut json = DaemonJson::parse(text)?;
            json.take_out(url, trusted_host, &DaemonJson::parse(previous)?);
            json.text()
        }
        Client::Containerd => {
            let mut conf = HostsToml::parse(text)?;
            conf.take_out(url, &HostsToml::parse(previous)?);
            conf.text()
        }
        _ => {
            let mut conf = RegistriesConf::parse(text)?;
            conf.take_out(location(url));
            conf.text()
        }
    })
}

/// Who is asked before a registry.
pub(super) fn stated(client: Client, text: &str) -> Option<String> {
    match client {
        Client::Docker => DaemonJson::parse(text).ok()?.mirror().map(str::to_owned),
        Client::Containerd => HostsToml::parse(text).ok()?.host().map(str::to_owned),
        _ => RegistriesConf::parse(text).ok()?.mirror().map(str::to_owned),
    }
}

/// What is for people to do or to know once the file has changed.
pub(super) fn notes(client: Client, url: &str) -> Vec<String> {
    let location = location(url);
    match client {
        Client::Docker => vec![
            "docker reads it when it starts: systemctl restart docker, or systemctl --user restart docker"
                .into(),
            format!(
                "docker asks a mirror for images of docker.io only; name others by where dpm is: \
                 docker pull {location}/ghcr.io/org/image"
            ),
        ],
        Client::Containerd => vec!["containerd reads it at each pull".into()],
        Client::Podman => vec!["podman, buildah, skopeo and cri-o read it at each pull".into()],
        Client::Pip | Client::Uv => Vec::new(),
    }
}

/// What keeps the client from doing as `file` says.
pub(super) fn warnings(client: Client, file: &Path, machine: &Machine) -> Vec<String> {
    match client {
        Client::Containerd => {
            let Some(certs) = file.parent().and_then(Path::parent) else { return Vec::new() };
            let mut warnings: Vec<_> = config_path(certs, machine).into_iter().collect();
            let is_default = file.parent().is_some_and(|dir| dir.ends_with("_default"));
            let others = fs::read_dir(certs).into_iter().flatten().flatten();
            let mut others: Vec<_> = others.map(|entry| entry.path()).collect();
            others.retain(|dir| is_default && !dir.ends_with("_default") && dir.join("hosts.toml").exists());
            others.sort();
            warnings.extend(others.iter().map(|dir| {
                format!("{} outweighs _default for that registry", dir.join("hosts.toml").display())
            }));
            warnings
        }
        _ => Vec::new(),
    }
}

/// What containerd's own configuration lacks, if it is to look into `certs`.
fn config_path(certs: &Path, machine: &Machine) -> Option<String> {
    let system = machine.at("etc/containerd");
    let folder = match certs.starts_with(&system) {
        true => system,
        false => machine.config_home()?.join("containerd"),
    };
    let file = folder.join("config.toml");
    let table = fs::read_to_string(&file).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let table = table.unwrap_or_default();
    let plugins = table.get("plugins").and_then(toml::Value::as_table);
    let paths = plugins.into_iter().flatten().filter_map(|(_, plugin)| {
        plugin.get("registry").and_then(|registry| registry.get("config_path")).and_then(toml::Value::as_str)
    });
    let paths: Vec<_> = paths.filter(|path| !path.is_empty()).collect();
    if paths.iter().any(|path| std::env::split_paths(path).any(|path| path == certs)) {
        return None;
    }
    if let Some(other) = paths.first() {
        return Some(format!("{} has config_path = {other:?}; --file puts the hosts there", file.display()));
    }
    let version = table.get("version").and_then(toml::Value::as_integer);
    let plugin = match version {
        Some(3..) => "io.containerd.cri.v1.images",
        _ => "io.containerd.grpc.v1.cri",
    };
    Some(format!(
        "Kubernetes' side of containerd looks there only with this in {}:\n  [plugins.\"{plugin}\".registry]\n  \
         config_path = {:?}\nctr needs --hosts-dir; nerdctl looks there by itself",
        file.display(),
        certs.display().to_string()
    ))
}

/// Of these hosts those of which no other file of podman's says anything, for ours would take its place or be replaced
/// by it; and what to say of the others.
pub(super) fn unclaimed(hosts: &[String], file: &Path, machine: &Machine) -> (Vec<String>, Vec<String>) {
    let home = machine.home().map(|home| home.join(".config/containers"));
    let system = machine.at("etc/containers");
    let folders = || home.iter().chain([&system]);
    let main = machine
        .path("CONTAINERS_REGISTRIES_CONF")
        .into_iter()
        .chain(folders().map(|folder| folder.join("registries.conf")))
        .find(|file| file.exists());
    let drop_ins =
        folders().flat_map(|folder| fs::read_dir(folder.join("registries.conf.d")).into_iter().flatten());
    let mut files: Vec<_> = drop_ins.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "conf"));
    // A home may be behind a symlink; `file` is the real one.
    files.retain(|path| fs::canonicalize(path).is_ok_and(|real| real != file));
    files.sort();
    files.extend(main);
    let mut claimed = Vec::new();
    for path in &files {
        let conf = fs::read_to_string(path).ok().and_then(|text| RegistriesConf::parse(&text).ok());
        let conf = conf.iter().flat_map(RegistriesConf::hosts).map(str::to_owned).collect::<Vec<_>>();
        claimed.extend(conf.into_iter().map(|host| (host, path)));
    }
    let (mut free, mut said) = (Vec::new(), Vec::new());
    for host in hosts {
        match claimed.iter().find(|(claimed, _)| claimed == host) {
            None => free.push(host.clone()),
            Some((_, path)) => said.push(format!(
                "{} says of {host} already where it is: add a [[registry.mirror]] there yourself",
                path.display()
            )),
        }
    }
    (free, said)
}
