//! A page that gets files which its upstream did not list, or that is made of nothing else. Pure.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::want::is_filename;
use super::{File, Project, ProjectName};

impl Project {
    /// A page without files, of a project whose upstream gave none. What is added has sizes: version 1.1 of the API.
    pub fn unlisted(name: &ProjectName) -> Self {
        Self {
            name: name.clone(),
            files: Vec::new(),
            versions: Some(Vec::new()),
            meta: Map::from_iter([("api-version".to_owned(), Value::from("1.1"))]),
            extra: Map::new(),
            skipped: 0,
        }
    }

    /// Adds files, each with its version, and gives how many. What is listed already stays as its upstream says.
    pub fn add(&mut self, files: impl IntoIterator<Item = (File, String)>) -> usize {
        let mut listed: HashSet<String> = self.files.iter().map(|file| file.filename.clone()).collect();
        let mut versions: HashSet<String> = self.versions.iter().flatten().cloned().collect();
        let before = self.files.len();
        for (file, version) in files {
            if !is_filename(&file.filename) || !listed.insert(file.filename.clone()) {
                continue;
            }
            self.files.push(file);
            if let Some(known) = &mut self.versions
                && versions.insert(version.clone())
            {
                known.push(version);
            }
        }
        self.files.len() - before
    }

    /// Whether its index holds all of its files back (PEP 792).
    pub fn is_quarantined(&self) -> bool {
        let status = self.extra.get("project-status");
        // An object in JSON; some indexes write the bare word.
        let word = status.and_then(|status| status.get("status").unwrap_or(status).as_str());
        word.is_some_and(|word| word.eq_ignore_ascii_case("quarantined"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::project::tests::{file_named, idna};
    use super::*;

    fn told(files: &[(&str, &str)]) -> Vec<(File, String)> {
        files.iter().map(|(file, version)| (file_named(file), (*version).to_owned())).collect()
    }

    fn names(project: &Project) -> Vec<&str> {
        project.files.iter().map(|file| file.filename.as_str()).collect()
    }

    #[test]
    fn what_is_listed_stays() {
        let mut project = Project::unlisted(&idna());
        assert_eq!(project.add(told(&[("idna-1.zip", "1"), ("idna-1.whl", "1"), ("idna-2.zip", "2")])), 3);
        assert_eq!(project.versions.as_deref(), Some(&["1".to_owned(), "2".to_owned()][..]));
        project.files[0].size = Some(7);
        let hostile = ["../x.zip", ".x.zip", "", "idna-4.whl.metadata"].map(|file| (file, "4"));
        assert_eq!(project.add(told(&hostile)), 0);
        assert_eq!(project.add(told(&[("idna-1.zip", "9"), ("idna-3.zip", "3"), ("idna-3.zip", "5")])), 1);
        assert_eq!(names(&project), ["idna-1.zip", "idna-1.whl", "idna-2.zip", "idna-3.zip"]);
        assert_eq!((project.files[0].size, project.versions.as_ref().unwrap().len()), (Some(7), 3));
        // An upstream that states no versions has none stated for it.
        project.versions = None;
        assert_eq!((project.add(told(&[("idna-6.zip", "6")])), &project.versions), (1, &None));
    }

    #[test]
    fn quarantine() {
        let mut project = Project::unlisted(&idna());
        assert!(!project.is_quarantined());
        for (status, want) in [
            (serde_json::json!({"status": "quarantined", "reason": "x"}), true),
            (serde_json::json!("Quarantined"), true),
            (serde_json::json!({"status": "archived"}), false),
            (serde_json::json!(["quarantined"]), false),
        ] {
            project.extra.insert("project-status".into(), status.clone());
            assert_eq!(project.is_quarantined(), want, "{status}");
        }
    }
}
