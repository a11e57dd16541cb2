//! A stage computes what is due, and nothing else.

use super::*;
use crate::settings::SiteSettings;
use std::cell::Cell;
use tombolo_federation_model::*;
use tombolo_federation_registry::MergedService;

fn world() -> World {
    World::new(SiteSettings::new(
        SiteName::parse("s").unwrap(),
        ClusterId::parse("c").unwrap(),
        NetworkId::parse("n").unwrap(),
        TrustDomain::parse("t").unwrap(),
    ))
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: Namespace::parse("ns").unwrap(), host: Host::parse(name).unwrap() }
}

fn merged(name: &str, created: i64) -> MergedService {
    MergedService {
        key: key(name),
        name: name.to_owned(),
        ports: Vec::new(),
        labels: Labels::new(),
        addresses: Vec::new(),
        resolution: Resolution::Registry,
        scope: Scope::Mesh,
        headless: false,
        visibility: Visibility::All,
        subject_alt_names: Vec::new(),
        created,
        origin: ObjectRef::new("Service", "ns", name, "c"),
        clusters: Vec::new(),
        endpoints: Vec::new(),
        exported: false,
        clusterset: false,
        imported: false,
        alias_of: None,
    }
}

/// A stage with an output for each of `a` and `b`: when the service was created, if there is one.
struct Rig {
    world: World,
    stage: Stage<&'static str>,
    computed: Cell<usize>,
}

impl Rig {
    fn new() -> Self {
        let mut stage = Stage::default();
        stage.want("a");
        stage.want("b");
        let mut rig = Self { world: world(), stage, computed: Cell::new(0) };
        rig.run();
        rig.computed.set(0);
        rig
    }

    fn run(&mut self) -> Vec<(&'static str, Option<Option<i64>>)> {
        let changed = self.world.take_changed();
        self.stage.touch(&changed);
        self.stage.run(&self.world, |reader, name| {
            self.computed.set(self.computed.get() + 1);
            reader.service(&key(name)).map(|service| service.created)
        })
    }
}

#[test]
fn a_miss_is_a_read() {
    let mut rig = Rig::new();
    rig.world.set_service(&key("a"), Some(&merged("a", 7)));
    assert_eq!(rig.run(), [("a", Some(Some(7)))]);
    assert_eq!(rig.computed.get(), 1, "b did not read a");
}

#[test]
fn an_equal_row_is_no_change() {
    let mut rig = Rig::new();
    rig.world.set_service(&key("a"), Some(&merged("a", 7)));
    rig.run();
    rig.world.set_service(&key("a"), Some(&merged("a", 7)));
    assert_eq!(rig.run(), []);
}

#[test]
fn what_is_wanted_no_more_is_named_once_and_read_no_more() {
    let mut rig = Rig::new();
    rig.stage.unwant(&"a");
    assert_eq!(rig.run(), [("a", None)]);
    rig.world.set_service(&key("a"), Some(&merged("a", 7)));
    assert_eq!(rig.run(), []);
}

#[test]
fn wanted_again_in_one_step_is_computed_and_not_gone() {
    let mut rig = Rig::new();
    rig.stage.unwant(&"a");
    rig.stage.want("a");
    assert_eq!(rig.run(), [("a", Some(None))]);
}
