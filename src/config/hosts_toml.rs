//! containerd's `hosts.toml` (containerd, docs/hosts.md): who is asked before a registry, in the order of the file.

use toml_edit::{DocumentMut, Item, TableLike};

/// A parsed `hosts.toml`.
#[derive(Clone, Debug)]
pub(crate) struct HostsToml {
    document: DocumentMut,
}

impl HostsToml {
    /// Reads a file's text. An error says why containerd would refuse the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("line {line}: {}", e.message())
        })?;
        match document.get("host").is_none_or(Item::is_table_like) {
            true => Ok(Self { document }),
            false => Err("host is no table".into()),
        }
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        self.document.to_string()
    }

    /// Who is asked first.
    pub(crate) fn host(&self) -> Option<&str> {
        self.hosts()?.iter().next().map(|(host, _)| host)
    }

    /// Has this host asked before all others, for what it has and for what tags mean.
    pub(crate) fn point_at(self, url: &str) -> Result<Self, String> {
        if self.hosts().is_some_and(|hosts| hosts.contains_key(url)) {
            return Ok(self);
        }
        let text = self.text();
        let (before, after) = text.split_at(first_table(&text));
        let between = |text: &str| if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
        let behind = if after.is_empty() { "" } else { "\n" };
        let ours = format!(
            "[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             # What is not there is not waited for.\ndial_timeout = \"2s\"\n"
        );
        let then = Self::parse(&format!("{before}{}{ours}{behind}{after}", between(before)))?;
        match then.host() == Some(url) {
            true => Ok(then),
            // Its hosts stand in one line, say.
            false => Err("its hosts cannot be told apart; write each as [host.\"URL\"]".into()),
        }
    }

    /// Takes only what [`Self::point_at`] wrote out again.
    pub(crate) fn take_out(&mut self, url: &str, previous: &Self) {
        if previous.hosts().is_some_and(|hosts| hosts.contains_key(url)) {
            return;
        }
        let Some(hosts) = self.document.get_mut("host").and_then(Item::as_table_like_mut) else { return };
        hosts.remove(url);
        if hosts.is_empty() && !previous.document.contains_key("host") {
            self.document.remove("host");
        }
    }

    fn hosts(&self) -> Option<&dyn TableLike> {
        self.document.get("host").and_then(Item::as_table_like)
    }
}

/// Where the first table begins, with the comments in front of it.
fn first_table(text: &str) -> usize {
    let mut lines: Vec<(usize, &str)> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('[') {
            let comments = lines.iter().rev().take_while(|(_, line)| line.trim_start().starts_with('#'));
            return comments.last().map_or(at, |(start, _)| *start);
        }
        lines.push((at, line));
        at += line.len();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:3142";

    #[test]
    fn points_and_takes_out() {
        let ours = "[host.\"U\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
                    # What is not there is not waited for.\ndial_timeout = \"2s\"\n"
            .replace('U', URL);
        let theirs = "# theirs\n[host.\"https://m.example.org\"]\n  ca = 'x'\n";
        let cases = [
            (String::new(), ours.clone()),
            ("server = 'https://a'\n".to_owned(), format!("server = 'https://a'\n\n{ours}")),
            (theirs.to_owned(), format!("{ours}\n{theirs}")),
            (
                format!("# top\nserver = \"x\"\n\n{theirs}"),
                format!("# top\nserver = \"x\"\n\n{ours}\n{theirs}"),
            ),
        ];
        for (text, want) in cases {
            let previous = HostsToml::parse(&text).unwrap();
            let conf = previous.clone().point_at(URL).unwrap();
            assert_eq!(conf.text(), want);
            assert_eq!(conf.host(), Some(URL));
            let mut conf = conf.point_at(URL).unwrap();
            assert_eq!(conf.text(), want, "twice is once");
            conf.take_out(URL, &previous);
            assert_eq!(conf.text().trim(), text.trim());
        }
        assert!(HostsToml::parse("host = 1\n").is_err());
        let inline = HostsToml::parse("host = { \"https://a\" = {} }\n").unwrap();
        assert!(inline.point_at(URL).is_err());
    }
}
