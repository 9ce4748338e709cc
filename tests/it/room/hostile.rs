//! Members who lie, and members who are no longer: what counts for nothing is named, and what counted before goes on to.

use std::time::{SystemTime, UNIX_EPOCH};

use dpm::base::Sha256;
use dpm::catalogue::{self, Root};
use dpm::swarm::Identity;
use dpm::wire::room::{Context, NodeAdvert, Packages};
use serde_json::{Value, json};

use super::synapse::{Account, Limits, Synapse};
use super::world::{World, locked, row};
use crate::support::member::entry;
use crate::support::until;

/// Somebody with an account in the room and no node: what its homeserver is sent is made here.
struct Eve<'a> {
    synapse: &'a Synapse,
    account: Account,
    room: String,
    identity: Identity,
}

impl<'a> Eve<'a> {
    fn joins(synapse: &'a Synapse, room: &str) -> Self {
        let account = synapse.account("eve");
        let eve = Self { synapse, account, room: room.to_owned(), identity: Identity::fresh() };
        eve.ask("POST", &format!("client/v3/join/{}", eve.escaped()), Some(json!({})));
        eve
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.synapse.ask(method, path, Some(&self.account.token), body)
    }

    fn escaped(&self) -> String {
        self.room.replace('!', "%21")
    }

    fn states(&self, key: &str, content: &Value) {
        let path = format!("client/v3/rooms/{}/state/org.dpm.node/{key}", self.escaped());
        self.ask("PUT", &path, Some(content.clone()));
    }

    fn says(&self, kind: &str, content: &Value) {
        let number = Sha256::of(content.to_string().as_bytes()).hex();
        let path = format!("client/v3/rooms/{}/send/{kind}/{number}", self.escaped());
        self.ask("PUT", &path, Some(content.clone()));
    }

    /// What the room has of a node, with who sent it.
    fn reads(&self, peer: &str) -> Value {
        let state = self.ask("GET", &format!("client/v3/rooms/{}/state", self.escaped()), None);
        let events = state.as_array().expect("events").iter();
        let mut said = events.filter(|e| e["type"] == "org.dpm.node" && e["state_key"] == peer);
        said.next().cloned().unwrap_or_default()
    }

    fn peer(&self) -> String {
        self.identity.peer_id().to_string()
    }

    fn context(&self) -> Context<'_> {
        Context { room: &self.room, sender: &self.account.user }
    }

    /// A good event of that number, signed by `signer` for this node.
    fn advert(&self, sequence: u64, name: &str, signer: &Identity) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("1970 is over");
        let advert = NodeAdvert {
            peer: self.identity.peer_id(),
            addresses: vec!["/ip4/127.0.0.1/udp/9/quic-v1".into()],
            name: name.into(),
            agent: "eve/1".into(),
            catalogue: None,
            sequence,
            time_ms: now.as_millis() as u64,
        };
        let json = advert.write(&self.context(), &self.identity.public_key(), |m| signer.sign(m));
        serde_json::from_str(&json.expect("an event")).expect("JSON")
    }

    /// The one event of packages that `whose` have, signed by this node.
    fn packages(&self, whose: &Identity, root: Root, sequence: u64, name: &str, bytes: &[u8]) -> Value {
        let added = vec![entry(&format!("pkg:pypi/{name}@1.0"), &format!("{name}-1.0.zip"), bytes)];
        let packages = Packages { peer: whose.peer_id(), root, sequence, added, removed: Vec::new() };
        let sign = |message: &[u8]| self.identity.sign(message);
        let json = packages.write(&self.context(), &whose.public_key(), sign).expect("an event");
        serde_json::from_str(&json[0]).expect("JSON")
    }
}

fn with(mut content: Value, key: &str, value: Value) -> Value {
    content[key] = value;
    content
}

#[test]
fn what_liars_say_counts_for_nothing() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let small = index.publish("small", &[], 10_000);
    let on_ada = synapse.account("ada");
    let [ada, bob] = [&on_ada, &synapse.account("bob")].map(|account| {
        let node = world.node(&index, "[rooms]\npace = { per_second = 100.0, burst = 100 }");
        node.login(&house, account);
        node.write("requirements.txt", &locked(&[&small]));
        node
    });
    let room = ada.node.json(&["create", "project", "--scope", "pkg:pypi/*"]);
    let room = room["room"].as_str().expect("a room").to_owned();
    bob.node.json(&["join", &room]);
    let files = ada.pip(&["small"], "small");
    bob.learns(&room, &on_ada, 1);

    let eve = Eve::joins(&synapse, &room);
    let (peer, other) = (eve.peer(), Identity::fresh());
    let adas = row(&bob.show(&room), &on_ada).expect("ada's")["peer"].as_str().expect("an id").to_owned();
    until("ada has said all that she has to say", || eve.reads(&adas)["content"]["entries"] == 1);
    let real = eve.reads(&adas)["content"].clone();
    let good = eve.advert(7, "eve's box", &eve.identity);
    let mut unsigned = good.clone();
    unsigned.as_object_mut().expect("an object").remove("signature");
    let address = "/ip4/1.1.1.1/udp/9/quic-v1";
    let refused: Vec<(&str, &str, Value, &str)> = vec![
        ("malformed", &peer, json!({"version": 1, "peer": 5}), "the event is not as it should be"),
        ("of another version", &peer, with(good.clone(), "version", 2.into()), "has version Some(2)"),
        ("unsigned", &peer, unsigned, "missing field `signature`"),
        ("many addresses", &peer, with(good.clone(), "addresses", vec![address; 20].into()), "16 addresses"),
        ("a long name", &peer, with(good.clone(), "name", "x".repeat(65).into()), "64 are allowed"),
        ("huge", &peer, with(good.clone(), "name", "x".repeat(60_000).into()), "16384 are allowed"),
        ("somebody's signature", &peer, eve.advert(8, "", &other), "does not fit this event"),
        ("changed", &peer, with(good.clone(), "sequence", 9.into()), "does not fit this event"),
        (
            "another's key",
            &peer,
            with(good.clone(), "peer", other.peer_id().to_string().into()),
            "has the key of",
        ),
        ("in another's place", &adas, good.clone(), "has another state key"),
        ("another's own words", &adas, real, "does not fit this event"),
        // This one counts; what comes after it is older, or another under its number.
        ("good", &peer, good, ""),
        ("from before", &peer, eve.advert(6, "eve's box", &eve.identity), "a replay"),
        ("two in one", &peer, eve.advert(7, "another box", &eve.identity), "two different things"),
    ];
    for (what, key, content, why) in &refused {
        eve.states(key, content);
        until(&format!("{what} is judged: {why}"), || {
            let shown = bob.show(&room);
            if why.is_empty() {
                return row(&shown, &eve.account).is_some();
            }
            let events = shown["refused"].as_array().expect("events");
            let is_this = |event: &Value| {
                let why_not = event["why"].as_str().expect("a text");
                (&event["sender"], &event["kind"]) == (&json!(eve.account.user), &json!("org.dpm.node"))
                    && why_not.contains(why)
            };
            events.iter().any(is_this)
        });
    }
    let shown = bob.show(&room);
    let eves = row(&shown, &eve.account).expect("eve's");
    assert_eq!((&eves["name"], &eves["connected"]), (&"eve's box".into(), &false.into()), "{eves:#}");
    assert_eq!(eves["refused_addresses"][0]["address"], "/ip4/127.0.0.1/udp/9/quic-v1");

    // In its timeline: in ada's name, and of a catalogue that is not what its packages make.
    let evil = entry("pkg:pypi/evil@1.0", "evil-1.0.zip", b"evil");
    let root = catalogue::build([evil], &mut |_, _| {}).expect("a catalogue");
    let ada_as_eve = with(eve.packages(&eve.identity, root, 9, "evil", b"evil"), "peer", adas.clone().into());
    eve.says("org.dpm.packages", &ada_as_eve);
    eve.says("org.dpm.packages", &eve.packages(&eve.identity, root, 10, "evil", b"other"));
    until("what was said is judged", || {
        let shown = bob.show(&room);
        let of_packages = |event: &Value| event["kind"] == "org.dpm.packages";
        shown["refused"].as_array().expect("events").iter().any(of_packages)
            && row(&shown, &eve.account).is_some_and(|row| row["says_files"] == 1)
    });
    let shown = bob.show(&room);
    let eves = row(&shown, &eve.account).expect("eve's");
    assert_eq!((&eves["known"], &eves["files"]), (&false.into(), &0.into()), "{eves:#}");
    until("why is known", || {
        let shown = bob.show(&room);
        let eves = row(&shown, &eve.account).expect("eve's");
        eves["trouble"].as_str().is_some_and(|why| why.contains("not connected"))
    });
    let people = bob.node.says(&["show", &room]);
    let line = format!("counts for nothing: org.dpm.node of {}", eve.account.user);
    assert!(people.contains(&line) && people.contains("a replay"), "{people}");

    // Who was spoken for is who it was, for those who come later too.
    let said = |shown: &Value| row(shown, &on_ada).map(|row| (row["known"].clone(), row["files"].clone()));
    assert_eq!(said(&bob.show(&room)), Some((true.into(), 1.into())));
    until("ada has said again who she is", || eve.reads(&adas)["sender"] == on_ada.user.as_str());
    index.close();
    assert_eq!(bob.get("/pypi/simple/evil/").status, 502);
    assert_eq!(bob.pip(&["--require-hashes", "-r", "requirements.txt"], "small"), files);
}

/// Two in front of different indexes. What they disagree about nobody is given, until one of them is thrown out.
#[test]
fn members_who_disagree_and_one_who_is_thrown_out() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, elsewhere, house) = (world.index(), world.index(), world.homeserver(&synapse));
    let twin = index.publish("twin", &[], 10_000);
    let (evil, late) = (elsewhere.publish("twin", &[], 20_000), elsewhere.publish("late", &[], 100));
    let [on_ada, on_bob, on_cy] = ["ada", "bob", "cy"].map(|name| synapse.account(name));
    let [ada, bob, cy] = [(&on_ada, &index), (&on_bob, &index), (&on_cy, &elsewhere)].map(|(who, index)| {
        let node = world.node(index, "[rooms]\npace = { per_second = 100.0, burst = 100 }");
        node.login(&house, who);
        node
    });
    let room = ada.node.json(&["create", "project", "--scope", "pkg:pypi/*"]);
    let room = room["room"].as_str().expect("a room").to_owned();
    for node in [&bob, &cy] {
        node.node.json(&["join", &room]);
    }
    let files = ada.pip(&["twin"], "twin");
    cy.pip(&["twin", "late"], "twin");
    bob.learns(&room, &on_ada, 1);
    bob.learns(&room, &on_cy, 2);
    index.close();

    for path in [twin.page(), twin.file(), evil.file()] {
        let (answer, of) = (bob.get(&path), [(&on_ada, &twin), (&on_cy, &evil)]);
        let text = answer.text();
        assert_eq!(answer.status, 409, "{path}: {text}");
        for (who, project) in of {
            let says = text.split(", @").find(|part| part.contains(&who.user[1..])).unwrap_or(&text);
            assert!(says.contains(&project.sha256.hex()), "{}: {text}", who.user);
        }
    }
    let text = bob.try_pip(&["-vvv", "twin"], "twin").expect_err("nobody knows which");
    assert!(text.contains("Members of a room contradict each other"), "{text}");
    let disputes = bob.show(&room)["disputes"].clone();
    assert_eq!(disputes.as_array().map(Vec::len), Some(1), "{disputes:#}");
    assert_eq!(disputes[0]["file"], twin.filename.as_str());
    let mut users: Vec<_> =
        disputes[0]["members"].as_array().expect("two").iter().map(|m| &m["user"]).collect();
    users.sort_by_key(|user| user.as_str());
    assert_eq!(users, [on_ada.user.as_str(), on_cy.user.as_str()]);
    let people = bob.node.says(&["show", &room]);
    assert!(people.contains(&format!("members disagree on {}", twin.filename)), "{people}");
    assert_eq!(bob.get(&late.page()).cache(), "ROOM");

    let path = format!("client/v3/rooms/{}/kick", room.replace('!', "%21"));
    synapse.ask("POST", &path, Some(&on_ada.token), Some(json!({"user_id": on_cy.user})));
    until("it is known", || {
        let shown = bob.show(&room);
        row(&shown, &on_cy).is_some_and(|row| row["present"] == false && row["connected"] == false)
    });
    let people = bob.node.says(&["show", &room]);
    assert!(people.contains("is no longer in the room: what it said counts for nothing"), "{people}");
    // Its state is still there, and what only it had is no longer known; nor is there anything left to disagree about.
    let state = format!("client/v3/rooms/{}/state", room.replace('!', "%21"));
    let state = synapse.ask("GET", &state, Some(&on_ada.token), None).to_string();
    let peer = row(&bob.show(&room), &on_cy).expect("cy's")["peer"].as_str().expect("an id").to_owned();
    assert!(state.contains(&format!("\"state_key\":\"{peer}\"")), "{state}");
    for path in [late.page(), late.file()] {
        let answer = bob.get(&path);
        assert!(matches!(answer.status, 502..=504), "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(bob.pip(&["twin"], "twin"), files);
    assert_eq!(bob.show(&room)["disputes"], json!([]));
}
