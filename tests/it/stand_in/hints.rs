//! Pages that changed are told, and what is told of pages makes an index be asked sooner.

use std::time::Duration;

use dpm::resolve::{Change, Hint, PageKey};
use futures_lite::future::block_on;

use super::House;
use crate::support::{Fault, File, Project, until};

/// Puts the page there with an entity tag.
fn publish(house: &House, project: &Project, etag: &'static str) {
    let page = project.page_of(&[project.entry(&house.upstream)]);
    let file = File::json(page).header("etag", etag);
    house.upstream.route(&project.page_path(), move |asked, out| {
        let same = asked.header("if-none-match") == etag;
        crate::support::upstream::answer(&file, asked, out, same.then_some(Fault::Says("304 Same")))
    });
}

fn key(project: &Project) -> PageKey {
    PageKey::Project(dpm::eco::pypi::ProjectName::normalise(&project.name).unwrap())
}

#[test]
fn changes_are_told() {
    let house = House::new();
    let changes = house.node.daemon().rooms().resolve.changes();
    let project = Project::new("demo", 10);
    publish(&house, &project, "\"a\"");
    house.page(&project, 200, "MISS");
    house.pass(600);
    house.page(&project, 200, "MISS");
    assert!(changes.is_empty(), "it is seen for the first time, and then it is as it was");
    house.pass(600);
    publish(&house, &project, "\"b\"");
    house.page(&project, 200, "MISS");
    let change = Change { key: key(&project), mark: "\"b\"".into() };
    assert_eq!(changes.try_recv(), Ok(change.clone()));
    let package = change.key.package().unwrap();
    assert_eq!((package.as_str(), PageKey::of(&package)), ("pkg:pypi/demo", Some(change.key)));
    // Without anything to tell it by, and when it is gone.
    house.pass(600);
    project.list(&house.upstream, &[]);
    house.page(&project, 200, "MISS");
    house.pass(600);
    house.upstream.remove(&project.page_path());
    house.page(&project, 404, "NONE");
    assert!(changes.is_empty());
}

#[test]
fn names_of_private_indexes_are_not_told() {
    let house = House::with(|config, _| config.pypi[0].private = true);
    let resolve = &house.node.daemon().rooms().resolve;
    let (changes, project) = (resolve.changes(), Project::new("corp-app", 10));
    for etag in ["\"a\"", "\"b\""] {
        publish(&house, &project, etag);
        house.page(&project, 200, "MISS");
        house.pass(600);
    }
    assert!(changes.is_empty());
    let asked = house.upstream.total();
    assert_eq!(block_on(resolve.hint(&key(&project), "\"c\"")).unwrap(), Hint::NotOurs);
    assert_eq!(house.upstream.total(), asked);
}

#[test]
fn a_hint_has_the_index_asked() {
    let house = House::new();
    let resolve = &house.node.daemon().rooms().resolve;
    let hint = |project: &Project, mark: &str| block_on(resolve.hint(&key(project), mark)).unwrap();
    let project = Project::new("demo", 10);
    let hits = || house.upstream.hits(&project.page_path());
    assert_eq!(hint(&project, "\"a\""), Hint::NotOurs, "nobody here wants it");
    publish(&house, &project, "\"a\"");
    house.page(&project, 200, "MISS");
    house.pass(40);
    assert_eq!((hint(&project, "\"a\""), hits()), (Hint::Known, 1));
    publish(&house, &project, "\"b\"");
    assert_eq!(hint(&project, "\"b\""), Hint::Asked);
    until("the index has been asked", || hits() == 2);
    until("it is known", || hint(&project, "\"b\"") == Hint::Known);
    house.page(&project, 200, "HIT");
    assert_eq!(hits(), 2);
    // Whoever makes marks up causes a question now and then.
    house.pass(40);
    assert_eq!(hint(&project, "\"c\""), Hint::Asked);
    until("the index has been asked", || hits() == 3);
    for n in 0..20 {
        assert_eq!(hint(&project, &format!("\"{n}\"")), Hint::Later);
    }
    let confirmed = || block_on(resolve.known(&key(&project))).unwrap().expect("a page").checked_at;
    until("it has answered", || confirmed() == house.node.now().0);
    assert_eq!(hits(), 3);
    house.pass(40);
    until("all of them have caused one more", || hits() == 4);
    // The list of all projects is no package's page.
    assert_eq!(block_on(resolve.hint(&PageKey::Root, "x")).unwrap(), Hint::NotOurs);
}

/// A hint that comes while the index fails takes nothing away.
#[test]
fn a_hint_about_an_index_that_fails() {
    let house = House::with(|_, tuning| tuning.upstream.pauses = [Duration::from_millis(1); 2]);
    let resolve = &house.node.daemon().rooms().resolve;
    let project = Project::new("demo", 10);
    publish(&house, &project, "\"a\"");
    let good = house.page(&project, 200, "MISS");
    house.upstream.broken(&project.page_path(), Fault::Says("500 Broken"));
    house.pass(40);
    assert_eq!(block_on(resolve.hint(&key(&project), "\"b\"")).unwrap(), Hint::Asked);
    until("the index has failed", || house.upstream.hits(&project.page_path()) >= 4);
    assert_eq!(house.page(&project, 200, "HIT").body, good.body);
}

/// What is told right after the index was asked is asked for when the page has rested, unless somebody was sooner.
#[test]
fn a_hint_that_comes_too_soon() {
    let house = House::new();
    let resolve = &house.node.daemon().rooms().resolve;
    let hint = |project: &Project, mark: &str| block_on(resolve.hint(&key(project), mark)).unwrap();
    let [late, sooner] = ["late", "sooner"].map(|name| Project::new(name, 10));
    for project in [&late, &sooner] {
        publish(&house, project, "\"a\"");
        house.page(project, 200, "MISS");
        house.pass(10);
        publish(&house, project, "\"b\"");
        assert_eq!(hint(project, "\"b\""), Hint::Later);
        assert_eq!(hint(project, "\"b\""), Hint::Later);
        assert_eq!(house.upstream.hits(&project.page_path()), 1);
    }
    // A client has it asked for.
    house.pass(1);
    let path = house.node.url(&sooner.page());
    let asked = crate::support::request("GET", &path, &[("cache-control", "no-cache")]);
    assert_eq!(asked.cache(), "MISS");
    house.pass(25);
    until("the index has been asked", || house.upstream.hits(&late.page_path()) == 2);
    until("it is known", || hint(&late, "\"b\"") == Hint::Known);
    house.page(&late, 200, "HIT");
    for project in [&late, &sooner] {
        assert_eq!(house.upstream.hits(&project.page_path()), 2, "{}", project.name);
    }
}
