//! pip's configuration file as lines, so that what is not ours stays byte for byte.
//!
//! The grammar is that of Python's `configparser.RawConfigParser` with its defaults, which pip uses: a line that is
//! indented deeper than the key above it continues that key's value.

/// A parsed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PipConf {
    /// Each with its line end; the last may have none.
    lines: Vec<String>,
    headers: Vec<Header>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    section: String,
    line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: String,
    /// As pip compares keys: lower case, `-` for `_`.
    key: String,
    /// Lines joined by `\n`.
    value: String,
    line: usize,
    /// Lines that continue the value; comments and blanks between them are not among these.
    more: Vec<usize>,
}

impl PipConf {
    /// Reads a file's text. An error says, with the line, why pip itself would refuse the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut conf = Self {
            lines: text.split_inclusive('\n').map(str::to_owned).collect(),
            headers: Vec::new(),
            entries: Vec::new(),
        };
        let mut indent = 0;
        let mut in_entry = false;
        for (at, line) in conf.lines.iter().enumerate() {
            let value = line.trim();
            if value.is_empty() || value.starts_with(['#', ';']) {
                continue;
            }
            let own_indent = line.chars().take_while(|c| c.is_whitespace()).count();
            if in_entry
                && own_indent > indent
                && let Some(entry) = conf.entries.last_mut()
            {
                entry.value.push('\n');
                entry.value.push_str(value);
                entry.more.push(at);
                continue;
            }
            indent = own_indent;
            in_entry = false;
            if let Some(section) = header(value) {
                if let Some(first) = conf.headers.iter().find(|h| h.section == section) {
                    return Err(format!(
                        "section [{section}] begins on lines {} and {}",
                        first.line + 1,
                        at + 1
                    ));
                }
                conf.headers.push(Header { section: section.into(), line: at });
                continue;
            }
            let Some(section) = conf.headers.last() else {
                return Err(format!("line {} stands before any [section]", at + 1));
            };
            let (key, value) = value
                .split_once(['=', ':'])
                .ok_or_else(|| format!("line {} is neither a section nor KEY = VALUE", at + 1))?;
            conf.entries.push(Entry {
                section: section.section.clone(),
                key: normalise(key),
                value: value.trim().into(),
                line: at,
                more: Vec::new(),
            });
            in_entry = true;
        }
        Ok(conf)
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        self.lines.concat()
    }

    /// A value, the last one if it is stated more than once.
    pub(crate) fn value(&self, section: &str, key: &str) -> Option<&str> {
        let entry = self.entries.iter().rev().find(|e| e.section == section && e.key == key)?;
        Some(entry.value.trim())
    }

    /// The index that `pip install` would use by this file: a section of the command outweighs `[global]`.
    pub(crate) fn index_url(&self) -> Option<&str> {
        ["install", "global"].into_iter().find_map(|section| self.value(section, "index-url"))
    }

    /// Points `[global]` at this index, and every command's own section that says otherwise.
    pub(crate) fn point_at(&mut self, url: &str, trusted_host: Option<&str>) {
        let sections: Vec<String> = self
            .entries
            .iter()
            .filter(|e| e.key == "index-url" && e.section != "global")
            .map(|e| e.section.clone())
            .collect();
        for section in sections {
            self.set(&section, "index-url", url);
        }
        self.set("global", "index-url", url);
        if let Some(host) = trusted_host {
            self.add_word("global", "trusted-host", host);
        }
    }

    /// Takes only what [`Self::point_at`] wrote out again, and puts what stood there in `previous` in its place.
    pub(crate) fn take_out(&mut self, url: &str, trusted_host: Option<&str>, previous: &Self) {
        while let Some(ours) = self.entries.iter().find(|e| e.key == "index-url" && e.value.trim() == url) {
            let (section, key) = (ours.section.clone(), ours.key.clone());
            let before = previous.raw(&section, &key);
            // What stood there before may be the same; then there is nothing to take out.
            if before.as_deref().is_some_and(|raw| raw.contains(url)) {
                break;
            }
            self.replace_raw(&section, &key, before.as_deref());
        }
        if let Some(host) = trusted_host
            && !previous.words("global", "trusted-host").any(|word| word == host)
        {
            self.remove_word("global", "trusted-host", host);
        }
        if !previous.headers.iter().any(|h| h.section == "global") {
            self.remove_empty_section("global");
        }
    }

    fn words(&self, section: &str, key: &str) -> impl Iterator<Item = &str> {
        self.value(section, key).unwrap_or_default().split_whitespace()
    }

    /// States a key once, where it stood first.
    fn set(&mut self, section: &str, key: &str, value: &str) {
        let same: Vec<Entry> =
            self.entries.iter().filter(|e| e.section == section && e.key == key).cloned().collect();
        let Some(first) = same.first() else { return self.insert(section, key, value) };
        let (body, end) = split_end(&self.lines[first.line]);
        let delimiter = body.find(['=', ':']).expect("an entry has a delimiter");
        let (name, rest) = body.split_at(delimiter + 1);
        let space = &rest[..rest.len() - rest.trim_start().len()];
        let space = if rest.trim().is_empty() { " " } else { space };
        self.lines[first.line] = format!("{name}{space}{value}{end}");
        let mut gone: Vec<usize> = first.more.clone();
        gone.extend(same[1..].iter().flat_map(|e| e.more.iter().copied().chain([e.line])));
        self.remove_lines(gone);
    }

    fn insert(&mut self, section: &str, key: &str, value: &str) {
        let end = self.line_end();
        let Some(header) = self.headers.iter().find(|h| h.section == section).map(|h| h.line) else {
            self.end_last_line();
            if self.lines.last().is_some_and(|line| !line.trim().is_empty()) {
                self.lines.push(end.into());
            }
            self.lines.push(format!("[{section}]{end}"));
            self.lines.push(format!("{key} = {value}{end}"));
            return self.parse_again();
        };
        // As deep as the next key, else that would continue ours.
        let next = self.entries.iter().find(|e| e.section == section);
        let indent = next.map_or("", |e| indent_of(&self.lines[e.line])).to_owned();
        if header + 1 == self.lines.len() {
            self.end_last_line();
        }
        self.lines.insert(header + 1, format!("{indent}{key} = {value}{end}"));
        self.parse_again();
    }

    fn add_word(&mut self, section: &str, key: &str, word: &str) {
        if self.words(section, key).any(|has| has == word) {
            return;
        }
        let Some(entry) = self.entries.iter().rev().find(|e| e.section == section && e.key == key) else {
            return self.insert(section, key, word);
        };
        let last = entry.more.last().copied().unwrap_or(entry.line);
        let indent = match entry.more.last() {
            Some(&more) => indent_of(&self.lines[more]).to_owned(),
            None => format!("{}    ", indent_of(&self.lines[entry.line])),
        };
        let end = self.line_end();
        if last + 1 == self.lines.len() {
            self.end_last_line();
        }
        self.lines.insert(last + 1, format!("{indent}{word}{end}"));
        self.parse_again();
    }

    fn remove_word(&mut self, section: &str, key: &str, word: &str) {
        let Some(entry) = self.entries.iter().rev().find(|e| e.section == section && e.key == key) else {
            return;
        };
        if entry.value.trim() == word {
            return self.replace_raw(section, key, None);
        }
        if let Some(&line) = entry.more.iter().find(|&&line| self.lines[line].trim() == word) {
            return self.remove_lines(vec![line]);
        }
        let kept: Vec<&str> = entry.value.split_whitespace().filter(|has| *has != word).collect();
        if kept.len() < entry.value.split_whitespace().count() {
            let kept = kept.join(" ");
            self.set(section, key, &kept);
        }
    }

    /// The lines that state a key, as they are.
    fn raw(&self, section: &str, key: &str) -> Option<String> {
        let entries = || self.entries.iter().filter(|e| e.section == section && e.key == key);
        entries().next()?;
        let lines = entries().flat_map(|e| [e.line].into_iter().chain(e.more.iter().copied()));
        Some(lines.map(|line| self.lines[line].as_str()).collect())
    }

    /// Puts raw lines where a key stood first, or nothing.
    fn replace_raw(&mut self, section: &str, key: &str, raw: Option<&str>) {
        let same = self.entries.iter().filter(|e| e.section == section && e.key == key);
        let mut gone: Vec<usize> = same.flat_map(|e| e.more.iter().copied().chain([e.line])).collect();
        gone.sort_unstable();
        if let Some(raw) = raw {
            let first = gone.remove(0);
            let (_, end) = split_end(&self.lines[first]);
            self.lines[first] = if raw.ends_with('\n') { raw.into() } else { format!("{raw}{end}") };
        }
        self.remove_lines(gone);
    }

    fn remove_empty_section(&mut self, section: &str) {
        let Some(place) = self.headers.iter().position(|h| h.section == section) else { return };
        let from = self.headers[place].line;
        let to = self.headers.get(place + 1).map_or(self.lines.len(), |next| next.line);
        if self.lines[from + 1..to].iter().all(|line| line.trim().is_empty()) {
            let blank_before = from > 0 && self.lines[from - 1].trim().is_empty();
            self.remove_lines((from - usize::from(blank_before)..from + 1).collect());
        }
    }

    fn remove_lines(&mut self, gone: Vec<usize>) {
        let mut at = 0;
        self.lines.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        self.parse_again();
    }

    fn end_last_line(&mut self) {
        let end = self.line_end();
        if let Some(last) = self.lines.last_mut().filter(|last| !last.ends_with('\n')) {
            last.push_str(end);
        }
    }

    fn line_end(&self) -> &'static str {
        if self.lines.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" }
    }

    fn parse_again(&mut self) {
        *self = Self::parse(&self.text()).expect("our own edits keep the grammar");
    }
}

/// `[name]` up to the last bracket, whatever follows: `configparser`'s `SECTCRE`.
fn header(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('[')?;
    Some(&inner[..inner.rfind(']')?]).filter(|name| !name.is_empty())
}

fn normalise(key: &str) -> String {
    let key = key.trim().to_lowercase().replace('_', "-");
    key.strip_prefix("--").map(str::to_owned).unwrap_or(key)
}

fn split_end(line: &str) -> (&str, &str) {
    let body = line.trim_end_matches('\n').trim_end_matches('\r');
    line.split_at(body.len())
}

fn indent_of(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:3142/pypi/simple/";

    fn pointed(text: &str, trusted: Option<&str>) -> String {
        let mut conf = PipConf::parse(text).unwrap();
        conf.point_at(URL, trusted);
        let after = conf.text();
        assert_eq!(conf.value("global", "index-url"), Some(URL), "{text:?}");
        let mut again = PipConf::parse(&after).unwrap();
        again.point_at(URL, trusted);
        assert_eq!(again.text(), after, "twice is once");
        after
    }

    #[test]
    fn points() {
        let cases = [
            ("", "[global]\nindex-url = U\n"),
            ("[global]", "[global]\nindex-url = U\n"),
            ("# mine\n[install]\nuser = no", "# mine\n[install]\nuser = no\n\n[global]\nindex-url = U\n"),
            ("[global]\n# x\ntimeout = 9\n", "[global]\nindex-url = U\n# x\ntimeout = 9\n"),
            ("[global]\n  timeout = 9\n", "[global]\n  index-url = U\n  timeout = 9\n"),
            ("[global]\nindex-url=http://a\ntimeout=1", "[global]\nindex-url=U\ntimeout=1"),
            ("[global]\nINDEX_url: http://a", "[global]\nINDEX_url: U"),
            (
                "[global]\nindex-url =\n  http://a\n# b\ncert = c\n",
                "[global]\nindex-url = U\n# b\ncert = c\n",
            ),
            ("[global]\r\nindex-url = a\r\n[x]\r\n", "[global]\r\nindex-url = U\r\n[x]\r\n"),
            ("[x]\r\n", "[x]\r\n\r\n[global]\r\nindex-url = U\r\n"),
            (
                "[global]\nindex-url = a\nindex-url = b\nindex_url = c\nx = y\n",
                "[global]\nindex-url = U\nx = y\n",
            ),
            ("[install]\nindex-url = a\n", "[install]\nindex-url = U\n\n[global]\nindex-url = U\n"),
        ];
        for (text, want) in cases {
            assert_eq!(pointed(text, None), want.replace('U', URL), "{text:?}");
        }
    }

    #[test]
    fn trusted_hosts() {
        let cases = [
            ("[global]\n", "[global]\ntrusted-host = h\nindex-url = U\n"),
            ("[global]\ntrusted-host = a\n", "[global]\nindex-url = U\ntrusted-host = a\n    h\n"),
            (
                "[global]\ntrusted-host =\n  a\n  b",
                "[global]\nindex-url = U\ntrusted-host =\n  a\n  b\n  h\n",
            ),
            ("[global]\ntrusted-host = a h\n", "[global]\nindex-url = U\ntrusted-host = a h\n"),
        ];
        for (text, want) in cases {
            assert_eq!(pointed(text, Some("h")), want.replace('U', URL), "{text:?}");
        }
    }

    #[test]
    fn takes_out_what_it_put_in() {
        let texts = [
            "",
            "[global]\n",
            "# mine\n[install]\nuser = no\n",
            "[global]\n  timeout = 9\n  trusted-host = a\n",
            "[global]\nindex-url =\n  http://a\n# b\ncert = c\n",
            "[global]\r\nindex_url: a\r\n[x]\r\n",
            "[install]\nindex-url = a\n[global]\ntrusted-host = a b\n",
            "[global]\ntrusted-host = h\n",
        ];
        for text in texts {
            let previous = PipConf::parse(text).unwrap();
            let mut conf = PipConf::parse(&pointed(text, Some("h"))).unwrap();
            conf.set("freeze", "timeout", "10");
            conf.take_out(URL, Some("h"), &previous);
            conf.remove_lines(
                (0..conf.lines.len()).filter(|&l| conf.lines[l].contains("timeout = 10")).collect(),
            );
            conf.remove_empty_section("freeze");
            assert_eq!(conf.text(), text);
        }
    }

    #[test]
    fn refuses_what_pip_refuses() {
        let cases = [
            ("a = b\n", "line 1 stands before any [section]"),
            ("[a]\n[b]\n[a]\n", "section [a] begins on lines 1 and 3"),
            ("[a]\nb\n", "line 2 is neither a section nor KEY = VALUE"),
        ];
        for (text, want) in cases {
            assert_eq!(PipConf::parse(text).unwrap_err(), want);
        }
    }
}
