//! A folder as its users treat it: edited, broken, deleted, renamed, gone. What is told to the engine each time.

use super::*;
use std::fs;
use tempfile::TempDir;
use tombolo_controlplane_core::{Input, IntentEvent};
use tombolo_controlplane_dialect::Context;
use tombolo_federation_model::{ClusterId, TrustDomain};
use tombolo_federation_registry::{Event, Item, ItemKey, ShardId};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: {port}, name: http}}]}}\n"
    )
}

fn destination(name: &str, subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {name}, subsets: [{{name: {subset}, labels: {{version: {subset}}}}}]}}\n"
    )
}

struct Place {
    dir: TempDir,
    manifests: Manifests,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
        let shard = ShardId::own(context.cluster.clone(), "user");
        let manifests = Manifests::new(dir.path().to_owned(), context, shard, 7);
        Self { dir, manifests }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// What is told, in short words.
    fn told(&mut self) -> Vec<String> {
        self.manifests.refresh().unwrap().inputs.iter().map(short).collect()
    }

    fn codes(&self) -> Vec<String> {
        self.manifests.report().diagnostics.iter().map(|d| format!("{} {}", d.code, d.object)).collect()
    }
}

fn short(input: &Input) -> String {
    match input {
        Input::Registry(Event::Begin { epoch, .. }) => format!("begin {epoch}"),
        Input::Registry(Event::Complete { .. }) => "complete".to_owned(),
        Input::Registry(Event::Put { item: Item::Service(s), .. }) => format!("put {}:{}", s.name, s.ports[0].number),
        Input::Registry(Event::Remove { key: ItemKey::Service { name, .. }, .. }) => format!("remove {name}"),
        Input::Intent(IntentEvent::Begin { .. }) => "begin intents".to_owned(),
        Input::Intent(IntentEvent::Complete { .. }) => "complete intents".to_owned(),
        Input::Intent(IntentEvent::Put { intent, .. }) => format!("mean {}", intent.meta().name),
        Input::Intent(IntentEvent::Remove { object, .. }) => format!("forget {}", object.name),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_listing_is_whole_and_later_ones_are_differences() {
    let mut place = Place::new();
    place.write("a.yaml", &format!("{}---\n{}", service("a", 80), destination("a", "v1")));
    place.write("b.yaml", &service("b", 80));
    assert_eq!(
        place.told(),
        ["begin 7", "begin intents", "put a:80", "put b:80", "mean a", "complete", "complete intents"]
    );
    assert_eq!(place.told(), [""; 0]);
    place.write("b.yaml", &service("b", 81));
    assert_eq!(place.told(), ["put b:81"]);
    place.write("a.yaml", &format!("# a comment\n{}---\n{}", service("a", 80), destination("a", "v2")));
    assert_eq!(place.told(), ["mean a"]);
}

#[test]
fn an_empty_folder_is_a_complete_listing_of_nothing() {
    let mut place = Place::new();
    assert_eq!(place.told(), ["begin 7", "begin intents", "complete", "complete intents"]);
}

#[test]
fn a_broken_edit_keeps_the_last_good_version_and_its_neighbours() {
    let mut place = Place::new();
    place.write("a.yaml", &service("a", 80));
    place.write("b.yaml", &format!("{}---\n{}", service("b", 80), destination("b", "v1")));
    place.told();
    place.write("b.yaml", &format!("{}---\nkind: [", service("b", 80)));
    assert_eq!(place.told(), [""; 0]);
    assert!(place.codes().contains(&"LAST_GOOD_KEPT DestinationRule default/b".to_owned()), "{:?}", place.codes());
    assert_eq!(place.manifests.report().refused, 1);
    // Still broken, and another object changes: the kept one stays.
    place.write("a.yaml", &service("a", 81));
    assert_eq!(place.told(), ["put a:81"]);
    // Repaired without the rule: now it is really gone.
    place.write("b.yaml", &service("b", 80));
    assert_eq!(place.told(), ["forget b"]);
    assert_eq!(place.manifests.report().refused, 0);
}

#[test]
fn deleting_and_renaming() {
    let mut place = Place::new();
    place.write("a.yaml", &service("a", 80));
    place.write("b.yaml", &service("b", 80));
    place.told();
    fs::remove_file(place.dir.path().join("a.yaml")).unwrap();
    assert_eq!(place.told(), [""; 0], "a vanished file is doubted");
    assert_eq!(place.told(), ["remove a"]);
    fs::rename(place.dir.path().join("b.yaml"), place.dir.path().join("c.yaml")).unwrap();
    assert_eq!(place.told(), [""; 0]);
    assert_eq!(place.told(), [""; 0], "the object is the same under another name");
}

#[test]
fn an_edit_by_replacing_tells_only_the_edit() {
    let mut place = Place::new();
    place.write("a.yaml", &service("a", 80));
    place.told();
    place.write(".a.yaml.swp", "x");
    place.write("a.yaml~", "x");
    place.write("new.tmp", &service("a", 90));
    fs::rename(place.dir.path().join("new.tmp"), place.dir.path().join("a.yaml")).unwrap();
    assert_eq!(place.told(), ["put a:90"]);
}

#[test]
fn a_folder_that_is_gone_is_told_as_nothing() {
    let mut place = Place::new();
    place.write("a.yaml", &service("a", 80));
    place.told();
    let away = place.dir.path().with_extension("away");
    fs::rename(place.dir.path(), &away).unwrap();
    assert!(place.manifests.refresh().is_err());
    fs::rename(&away, place.dir.path()).unwrap();
    assert_eq!(place.told(), [""; 0]);
}

#[tokio::test]
async fn a_change_is_told_at_once() {
    let place = Place::new();
    let (world, mut told) = World::hearing();
    let (source, mut report) = FolderSource::new(
        "user".to_owned(),
        SourceKind::KubernetesFolder,
        place.dir.path().to_owned(),
        place.manifests,
        world,
    );
    let running = tokio::spawn(source.run());
    report.wait_for(|report| report.synced).await.unwrap();
    told.recv().await.unwrap();
    let mut shortest = Duration::MAX;
    for port in 80..85 {
        fs::write(place.dir.path().join("new.tmp"), service("a", port)).unwrap();
        let began = Instant::now();
        fs::rename(place.dir.path().join("new.tmp"), place.dir.path().join("a.yaml")).unwrap();
        let inputs = tokio::time::timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap();
        shortest = shortest.min(began.elapsed());
        assert_eq!(inputs.iter().map(short).collect::<Vec<_>>(), [format!("put a:{port}")]);
    }
    // The promise is 200 ms, and a loaded machine keeps it at least once; who only looks regularly takes far longer each time.
    assert!(shortest < Duration::from_secs(1), "{shortest:?}");
    fs::remove_dir_all(place.dir.path()).unwrap();
    report.wait_for(|report| report.problem.is_some()).await.unwrap();
    assert!(report.borrow().synced);
    running.abort();
}
