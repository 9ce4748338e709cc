//! A drop-in of `registries.conf` (containers-registries.conf(5), version 2), which podman, skopeo, buildah and cri-o
//! read. Edited in place.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// A parsed file.
#[derive(Clone, Debug)]
pub(crate) struct RegistriesConf {
    document: DocumentMut,
}

/// One mirror of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The registry's host, as images name it.
    pub(crate) host: String,
    /// The mirror's host, and the path below it that stands for the registry.
    pub(crate) location: String,
    /// It speaks plain http.
    pub(crate) insecure: bool,
}

impl RegistriesConf {
    /// Reads a file's text. An error says why its readers would refuse the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("line {line}: {}", e.message())
        })?;
        if document.contains_key("registries") {
            return Err("it is in the format of version 1, which does not go with mirrors".into());
        }
        if document.get("registry").is_some_and(|item| !item.is_array_of_tables()) {
            return Err("registry is no [[registry]]".into());
        }
        Ok(Self { document })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        self.document.to_string()
    }

    /// The hosts of which it says something.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        self.registries().filter_map(host_of).collect()
    }

    /// The first mirror of all.
    pub(crate) fn mirror(&self) -> Option<&str> {
        self.registries().flat_map(mirrors_of).find_map(location_of)
    }

    /// Has these mirrors asked before their registries and before other mirrors. Mirrors below `base` that are not among
    /// them go.
    pub(crate) fn point_at(&mut self, base: &str, mirrors: &[Mirror]) {
        self.retain(base, |location| mirrors.iter().any(|mirror| mirror.location == location));
        for mirror in mirrors {
            let list =
                self.document.entry("registry").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
            let list = list.as_array_of_tables_mut().expect("it was one when it was read");
            let found = list.iter().position(|registry| host_of(registry) == Some(&mirror.host));
            let at = found.unwrap_or_else(|| {
                let mut registry = Table::new();
                registry.insert("prefix", value(&mirror.host));
                registry.insert("location", value(&mirror.host));
                list.push(registry);
                list.len() - 1
            });
            let registry = list.get_mut(at).expect("it is there");
            let theirs =
                registry.entry("mirror").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
            let Some(theirs) = theirs.as_array_of_tables_mut() else { continue };
            if theirs.iter().any(|has| location_of(has) == Some(&mirror.location)) {
                continue;
            }
            let mut ours = Table::new();
            ours.insert("location", value(&mirror.location));
            if mirror.insecure {
                ours.insert("insecure", value(true));
            }
            // A table without a place is written behind the one before it: ours stands first.
            let others: Vec<_> = theirs.iter().cloned().collect();
            theirs.clear();
            theirs.push(ours);
            theirs.extend(others);
        }
    }

    /// Takes the mirrors below `base` out, and the registries of which nothing else was said.
    pub(crate) fn take_out(&mut self, base: &str) {
        self.retain(base, |_| false);
    }

    fn retain(&mut self, base: &str, keep: impl Fn(&str) -> bool) {
        let Some(list) = self.document.get_mut("registry").and_then(Item::as_array_of_tables_mut) else {
            return;
        };
        list.retain(|registry| {
            let ours = |mirror: &Table| location_of(mirror).is_some_and(|l| is_below(l, base) && !keep(l));
            // A registry without any mirror of ours is none of our business.
            !mirrors_of(registry).any(ours)
                || registry.iter().any(|(key, _)| !matches!(key, "prefix" | "location" | "mirror"))
                || mirrors_of(registry).any(|mirror| !ours(mirror))
        });
        for registry in list.iter_mut() {
            let Some(mirrors) = registry.get_mut("mirror").and_then(Item::as_array_of_tables_mut) else {
                continue;
            };
            mirrors.retain(|mirror| location_of(mirror).is_none_or(|l| !is_below(l, base) || keep(l)));
            if mirrors.is_empty() {
                registry.remove("mirror");
            }
        }
        if list.is_empty() {
            self.document.remove("registry");
        }
    }

    fn registries(&self) -> impl Iterator<Item = &Table> {
        self.document.get("registry").and_then(Item::as_array_of_tables).into_iter().flatten()
    }
}

fn is_below(location: &str, base: &str) -> bool {
    location.strip_prefix(base).is_some_and(|rest| rest.starts_with('/'))
}

/// What images begin with of which a `[[registry]]` speaks.
fn host_of(registry: &Table) -> Option<&str> {
    let text = |key| registry.get(key).and_then(Item::as_str);
    text("prefix").filter(|prefix| !prefix.is_empty()).or_else(|| text("location"))
}

fn mirrors_of(registry: &Table) -> impl Iterator<Item = &Table> {
    registry.get("mirror").and_then(Item::as_array_of_tables).into_iter().flatten()
}

fn location_of(mirror: &Table) -> Option<&str> {
    mirror.get("location").and_then(Item::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "127.0.0.1:3142";

    fn mirror(host: &str) -> Mirror {
        Mirror { host: host.into(), location: format!("{BASE}/{host}"), insecure: true }
    }

    #[test]
    fn points_and_takes_out() {
        let ours = |host: &str| {
            format!(
                "[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n\
                 [[registry.mirror]]\nlocation = \"{BASE}/{host}\"\ninsecure = true\n"
            )
        };
        let cases = [
            ("", format!("{}\n{}", ours("docker.io"), ours("ghcr.io"))),
            (
                "# mine\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"m\" # x\n",
                format!(
                    "# mine\n[[registry]]\nlocation = \"docker.io\"\n\n\
                     [[registry.mirror]]\nlocation = \"{BASE}/docker.io\"\ninsecure = true\n\
                     [[registry.mirror]]\nlocation = \"m\" # x\n\n{}",
                    ours("ghcr.io")
                ),
            ),
        ];
        for (text, want) in cases {
            let mut conf = RegistriesConf::parse(text).unwrap();
            conf.point_at(BASE, &[mirror("docker.io"), mirror("ghcr.io")]);
            assert_eq!(conf.text(), want);
            assert_eq!(conf.hosts(), ["docker.io", "ghcr.io"]);
            assert_eq!(conf.mirror(), Some("127.0.0.1:3142/docker.io"));
            conf.point_at(BASE, &[mirror("docker.io"), mirror("ghcr.io")]);
            assert_eq!(conf.text(), want, "twice is once");
            let mut fewer = RegistriesConf::parse(&want).unwrap();
            fewer.point_at(BASE, &[mirror("docker.io")]);
            assert_eq!(fewer.hosts(), ["docker.io"], "a registry that is no longer configured goes");
            let mut back = RegistriesConf::parse(&want).unwrap();
            back.take_out(BASE);
            assert_eq!(back.text().trim_end(), text.trim_end());
        }
    }

    #[test]
    fn what_others_say_stays() {
        let text = format!(
            "[[registry]]\nprefix = \"a.b\"\nlocation = \"a.b\"\nblocked = true\n\n\
             [[registry.mirror]]\nlocation = \"{BASE}/a.b\"\n\n[[registry]]\nprefix = \"c.d\"\nlocation = \"c.d\"\n"
        );
        let mut conf = RegistriesConf::parse(&text).unwrap();
        conf.take_out(BASE);
        assert_eq!(conf.hosts(), ["a.b", "c.d"]);
        assert_eq!(conf.mirror(), None);
        assert!(!is_below("127.0.0.1:31420/a", BASE) && is_below("127.0.0.1:3142/a", BASE));
        for bad in ["[registries.search]\nregistries = []\n", "registry = 1\n", "[[registry]\n"] {
            assert!(RegistriesConf::parse(bad).is_err(), "{bad}");
        }
    }
}
