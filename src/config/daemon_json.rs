//! docker's `daemon.json`, with every key that is not ours kept as it is and where it is.

use serde_json::{Map, Value};

/// A parsed `daemon.json`.
#[derive(Clone, Debug)]
pub(crate) struct DaemonJson {
    keys: Map<String, Value>,
    /// There was no text to parse, which docker takes for no settings.
    blank: bool,
}

/// What docker asks before docker.io.
const MIRRORS: &str = "registry-mirrors";

/// What docker speaks plain http with.
const INSECURE: &str = "insecure-registries";

impl DaemonJson {
    /// Reads a file's text. An error says why docker itself would refuse the file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self { keys: Map::new(), blank: true });
        }
        let keys = match serde_json::from_str(text).map_err(|e| e.to_string())? {
            Value::Object(keys) => keys,
            _ => return Err("it is no JSON object".into()),
        };
        for name in [MIRRORS, INSECURE] {
            let list = keys.get(name).map(|value| value.as_array().ok_or(value));
            if let Some(Err(_)) = list {
                return Err(format!("{name:?} is no list"));
            }
        }
        Ok(Self { keys, blank: false })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        match self.blank && self.keys.is_empty() {
            true => String::new(),
            false => format!("{:#}\n", Value::from(self.keys.clone())),
        }
    }

    /// The mirror that is asked first.
    pub(crate) fn mirror(&self) -> Option<&str> {
        self.list(MIRRORS).iter().find_map(Value::as_str)
    }

    /// Has this mirror asked before all others, and plain http spoken with `insecure`.
    pub(crate) fn point_at(&mut self, mirror: &str, insecure: Option<&str>) {
        if !self.has(MIRRORS, mirror) {
            self.list_mut(MIRRORS).insert(0, mirror.into());
        }
        if let Some(host) = insecure.filter(|host| !self.has(INSECURE, host)) {
            self.list_mut(INSECURE).push(host.into());
        }
    }

    /// Takes only what [`Self::point_at`] wrote out again.
    pub(crate) fn take_out(&mut self, mirror: &str, insecure: Option<&str>, previous: &Self) {
        for (name, ours) in [(MIRRORS, Some(mirror)), (INSECURE, insecure)] {
            let Some(ours) = ours.filter(|ours| !previous.has(name, ours)) else { continue };
            if self.has(name, ours) {
                self.list_mut(name).retain(|one| !is(one, ours));
            }
            if self.list(name).is_empty() && !previous.keys.contains_key(name) {
                self.keys.shift_remove(name);
            }
        }
        self.blank = previous.blank;
    }

    fn list(&self, name: &str) -> &[Value] {
        self.keys.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn list_mut(&mut self, name: &str) -> &mut Vec<Value> {
        let list = self.keys.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().expect("it was one when it was read")
    }

    fn has(&self, name: &str, text: &str) -> bool {
        self.list(name).iter().any(|one| is(one, text))
    }
}

/// docker adds the slash at the end of a mirror itself.
fn is(value: &Value, text: &str) -> bool {
    value.as_str().is_some_and(|has| has.trim_end_matches('/') == text.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://dpm.example.org:3142";

    #[test]
    fn points_and_takes_out() {
        let mirrors = r#""registry-mirrors": ["U"]"#;
        let insecure = r#""insecure-registries": ["h:1"]"#;
        let cases = [
            ("", format!("{{{mirrors}, {insecure}}}")),
            ("{}", format!("{{{mirrors}, {insecure}}}")),
            (
                r#"{"zeta": 1, "alpha": {"b": [], "a": 2.5}}"#,
                format!(r#"{{"zeta": 1, "alpha": {{"b": [], "a": 2.5}}, {mirrors}, {insecure}}}"#),
            ),
            (
                r#"{"insecure-registries": ["a"], "registry-mirrors": ["https://b"], "c": null}"#,
                r#"{"insecure-registries": ["a", "h:1"], "registry-mirrors": ["U", "https://b"], "c": null}"#
                    .to_owned(),
            ),
            (
                r#"{"registry-mirrors": ["U/"], "insecure-registries": ["h:1"]}"#,
                format!(r#"{{"registry-mirrors": ["U/"], {insecure}}}"#),
            ),
            (r#"{"registry-mirrors": []}"#, format!("{{{mirrors}, {insecure}}}")),
        ];
        for (text, want) in cases {
            let [text, want] = [text.to_owned(), want].map(|text| text.replace('U', URL));
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let previous = DaemonJson::parse(&text).unwrap();
            let mut json = previous.clone();
            json.point_at(URL, Some("h:1"));
            assert_eq!(json.text(), format!("{:#}\n", value(&want)), "{text}");
            assert_eq!(json.mirror().map(|m| m.trim_end_matches('/')), Some(URL));
            let after = json.text();
            json.point_at(URL, Some("h:1"));
            assert_eq!(json.text(), after, "twice is once");
            let mut edited = DaemonJson::parse(&after).unwrap();
            edited.take_out(URL, Some("h:1"), &previous);
            assert_eq!(edited.text(), previous.text(), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, why) in [
            ("[]", "no JSON object"),
            ("{\"a\": 1,}", "line 1 column"),
            (r#"{"registry-mirrors": "a"}"#, "\"registry-mirrors\" is no list"),
        ] {
            let said = DaemonJson::parse(text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
