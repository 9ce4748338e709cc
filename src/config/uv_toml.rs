//! uv's configuration file, edited in place so that comments and order stay.

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, TableLike, Value, value};

/// A parsed `uv.toml`.
#[derive(Clone, Debug)]
pub(crate) struct UvToml {
    document: DocumentMut,
    crlf: bool,
}

impl UvToml {
    /// Reads a file's text. An error says why uv itself would refuse the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| {
            let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("line {line}: {}", e.message())
        })?;
        Ok(Self { document, crlf: text.contains("\r\n") })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let text = self.document.to_string();
        // toml_edit writes new lines with \n; a file is of one kind.
        if self.crlf { text.replace("\r\n", "\n").replace('\n', "\r\n") } else { text }
    }

    /// The index that uv asks last and for everything else: `[[index]]` with `default`, else the older settings.
    pub(crate) fn default_url(&self) -> Option<&str> {
        let listed = self.indexes().into_iter().find(|index| is_true(*index, "default")).and_then(url_of);
        let pip = self.document.get("pip").and_then(Item::as_table_like);
        listed
            .or_else(|| url_text(self.document.get("index-url")))
            .or_else(|| url_text(pip.and_then(|pip| pip.get("index-url"))))
    }

    /// The indexes that uv asks before the default one, but for those that serve only packages pinned to them.
    pub(crate) fn other_urls(&self) -> Vec<&str> {
        let listed =
            self.indexes().into_iter().filter(|i| !is_true(*i, "default") && !is_true(*i, "explicit"));
        let extra = self.document.get("extra-index-url").and_then(Item::as_array);
        listed.filter_map(url_of).chain(extra.into_iter().flatten().filter_map(Value::as_str)).collect()
    }

    /// Makes this URL the default index wherever one is stated, or adds it.
    pub(crate) fn point_at(&mut self, url: &str, insecure_host: Option<&str>) {
        if let Some(pip) = self.document.get_mut("pip").and_then(Item::as_table_like_mut) {
            set_text(pip, "index-url", url);
        }
        let top = set_text(self.document.as_table_mut(), "index-url", url);
        let listed = self.set_default_index(url);
        if !top && !listed {
            self.add_default_index(url);
        }
        if let Some(host) = insecure_host {
            let hosts = self.document.entry(INSECURE).or_insert_with(|| value(Array::new()));
            if let Some(hosts) = hosts.as_array_mut()
                && !hosts.iter().any(|has| has.as_str() == Some(host))
            {
                hosts.push(host);
            }
        }
    }

    /// Takes only what [`Self::point_at`] wrote out again, and puts what stood there in `previous` in its place.
    pub(crate) fn take_out(&mut self, url: &str, insecure_host: Option<&str>, previous: &Self) {
        let old_pip = previous.document.get("pip").and_then(Item::as_table_like);
        if let Some(pip) = self.document.get_mut("pip").and_then(Item::as_table_like_mut) {
            put_back(pip, url, old_pip.and_then(|pip| pip.get("index-url")));
        }
        put_back(self.document.as_table_mut(), url, previous.document.get("index-url"));
        let old = previous.default_in_list();
        let old = old.as_ref();
        match self.document.get_mut("index") {
            Some(Item::ArrayOfTables(list)) => {
                let ours = list.iter().position(|index| url_of(index) == Some(url));
                if let Some(at) = ours {
                    match (old.and_then(Item::as_table), list.get_mut(at)) {
                        (Some(old), Some(ours)) => ours.clone_from(old),
                        _ => drop(list.remove(at)),
                    }
                }
                if list.is_empty() {
                    self.document.remove("index");
                }
            }
            Some(Item::Value(Value::Array(list))) => {
                let ours = list
                    .iter()
                    .position(|index| index.as_inline_table().and_then(|i| url_of(i)) == Some(url));
                if let Some(at) = ours {
                    match old.and_then(Item::as_inline_table) {
                        Some(old) => drop(list.replace_formatted(at, Value::InlineTable(old.clone()))),
                        None => drop(list.remove(at)),
                    }
                }
            }
            _ => {}
        }
        let had = |document: &DocumentMut| {
            let hosts = document.get(INSECURE).and_then(Item::as_array);
            hosts.is_some_and(|hosts| hosts.iter().any(|has| has.as_str() == insecure_host))
        };
        if insecure_host.is_some()
            && !had(&previous.document)
            && let Some(hosts) = self.document.get_mut(INSECURE).and_then(Item::as_array_mut)
        {
            hosts.retain(|has| has.as_str() != insecure_host);
            if hosts.is_empty() && !previous.document.contains_key(INSECURE) {
                self.document.remove(INSECURE);
            }
        }
    }

    fn indexes(&self) -> Vec<&dyn TableLike> {
        match self.document.get("index") {
            Some(Item::ArrayOfTables(list)) => list.iter().map(|table| table as &dyn TableLike).collect(),
            Some(Item::Value(Value::Array(list))) => {
                list.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike).collect()
            }
            _ => Vec::new(),
        }
    }

    fn default_in_list(&self) -> Option<Item> {
        match self.document.get("index")? {
            Item::ArrayOfTables(list) => {
                list.iter().find(|index| is_true(*index, "default")).map(|index| Item::Table(index.clone()))
            }
            Item::Value(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_inline_table)
                .find(|index| is_true(*index, "default"))
                .map(|index| value(index.clone())),
            _ => None,
        }
    }

    /// Whether there was one to set. Only the URL changes hands: credentials or a name there were of the old index.
    fn set_default_index(&mut self, url: &str) -> bool {
        let set = |index: &mut dyn TableLike| {
            if !is_true(index, "default") {
                return false;
            }
            set_text(index, "url", url);
            true
        };
        match self.document.get_mut("index") {
            Some(Item::ArrayOfTables(list)) => list.iter_mut().any(|index| set(index)),
            Some(Item::Value(Value::Array(list))) => {
                list.iter_mut().filter_map(Value::as_inline_table_mut).any(|index| set(index))
            }
            _ => false,
        }
    }

    fn add_default_index(&mut self, url: &str) {
        if let Some(Item::Value(Value::Array(list))) = self.document.get_mut("index") {
            let mut index = toml_edit::InlineTable::new();
            index.insert("url", url.into());
            index.insert("default", true.into());
            list.push(index);
            return;
        }
        let list = self.document.entry("index").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(list) = list.as_array_of_tables_mut() else { return };
        let mut index = Table::new();
        index.insert("url", value(url));
        index.insert("default", value(true));
        list.push(index);
    }
}

const INSECURE: &str = "allow-insecure-host";

fn is_true(table: &dyn TableLike, key: &str) -> bool {
    table.get(key).and_then(Item::as_bool) == Some(true)
}

fn url_of(table: &dyn TableLike) -> Option<&str> {
    url_text(table.get("url"))
}

fn url_text(item: Option<&Item>) -> Option<&str> {
    item.and_then(Item::as_str)
}

/// Changes a text that is there, with what stands around it kept.
fn set_text(table: &mut dyn TableLike, key: &str, text: &str) -> bool {
    let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) else { return false };
    let decor = old.decor().clone();
    *old = text.into();
    *old.decor_mut() = decor;
    true
}

fn put_back(table: &mut dyn TableLike, url: &str, old: Option<&Item>) {
    if url_text(table.get("index-url")) != Some(url) {
        return;
    }
    match url_text(old) {
        Some(old) => {
            set_text(table, "index-url", old);
        }
        None => {
            table.remove("index-url");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://127.0.0.1:3142/pypi/simple/";

    #[test]
    fn points_and_takes_out() {
        let ours = "[[index]]\nurl = \"U\"\ndefault = true\n";
        let cases = [
            ("", ours.to_owned()),
            ("# mine\noffline = false # no\n", format!("# mine\noffline = false # no\n\n{ours}")),
            (
                "[[index]] # a\nname = \"corp\"\nurl = 'http://a' # b\ndefault = true\n\n[pip]\nstrict = true\n",
                "[[index]] # a\nname = \"corp\"\nurl = \"U\" # b\ndefault = true\n\n[pip]\nstrict = true\n"
                    .to_owned(),
            ),
            ("[[index]]\nurl = \"http://a\"\n", format!("[[index]]\nurl = \"http://a\"\n\n{ours}")),
            ("index-url = \"http://a\"\n", "index-url = \"U\"\n".to_owned()),
            ("[pip]\nindex-url = \"http://a\"\n", format!("[pip]\nindex-url = \"U\"\n\n{ours}")),
            (
                "index = [{ url = \"http://a\", default = true }]\n",
                "index = [{ url = \"U\", default = true }]\n".to_owned(),
            ),
        ];
        for (text, want) in cases {
            for crlf in [false, true] {
                let ends = |text: &str| if crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
                let previous = UvToml::parse(&ends(text)).unwrap();
                let mut conf = previous.clone();
                conf.point_at(URL, None);
                assert_eq!(conf.default_url(), Some(URL));
                if !(crlf && text.is_empty()) {
                    assert_eq!(conf.text(), ends(&want.replace('U', URL)), "{text:?}");
                }
                let after = conf.text();
                conf.point_at(URL, None);
                assert_eq!(conf.text(), after, "twice is once");
                let mut edited = UvToml::parse(&after).unwrap();
                edited.take_out(URL, None, &previous);
                // A key keeps its place, not the quotes that it had.
                assert_eq!(edited.text().replace('\'', "\""), ends(text).replace('\'', "\""), "{text:?}");
            }
        }
    }

    #[test]
    fn insecure_hosts() {
        let cases = ["", "allow-insecure-host = [\"a\"]\n", "allow-insecure-host = [\"h\"]\n"];
        for text in cases {
            let previous = UvToml::parse(text).unwrap();
            let mut conf = previous.clone();
            conf.point_at(URL, Some("h"));
            assert!(conf.text().contains("\"h\""), "{}", conf.text());
            conf.take_out(URL, Some("h"), &previous);
            assert_eq!(conf.text(), text);
        }
    }

    #[test]
    fn reads() {
        let conf = UvToml::parse(
            "extra-index-url = ['http://x']\n[[index]]\nurl='http://a'\n[[index]]\nurl='http://b'\nexplicit=true\n\
             [[index]]\nurl='http://c'\ndefault=true\n",
        )
        .unwrap();
        assert_eq!(conf.default_url(), Some("http://c"));
        assert_eq!(conf.other_urls(), ["http://a", "http://x"]);
        assert_eq!(UvToml::parse("a = 1\nb =\n").unwrap_err().split(':').next(), Some("line 2"));
    }
}
