//! Laws of the merged view, on random histories: it is a function of what the shards hold and of their freshness, and of
//! nothing else.

use crate::{
    Event, ExportPolicy, Item, Millis, Registry, RegistrySettings, ShardId,
    fixtures::{export, gateway, labels, own, peer, service, settings, slice, workload, written},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{Health, Resolution, Service};

fn shards() -> Vec<(ShardId, crate::ShardSettings)> {
    vec![
        (own("east", "k8s"), settings("east", true)),
        (own("east", "files"), settings("east", true)),
        (peer("west"), settings("west", false)),
        (peer("vm"), settings("vm", false)),
    ]
}

fn declared(order: &[usize]) -> Registry {
    let mut registry = Registry::new(RegistrySettings { export: ExportPolicy::All, cluster_local: Vec::new() });
    let shards = shards();
    for index in order {
        let (id, settings) = shards[*index].clone();
        registry.declare(id, settings, Millis(0));
    }
    registry
}

/// A few items that meet: the same hosts, labels, names and addresses in every shard.
fn item() -> impl Strategy<Value = Item> {
    let name = prop::sample::select(vec!["a", "b"]);
    let workload_name = prop::sample::select(vec!["a1", "a2", "b1"]);
    let label = prop::sample::select(vec!["app=a", "app=b", "app=a,version=v1", ""]);
    let services = (name.clone(), 0..3_i64, 0..6_u8, any::<bool>()).prop_map(|(name, created, kind, wide)| {
        let mut service = Service { created, ..service("any", name) };
        match kind {
            0 | 1 => service.selector = None,
            2 => service.resolution = Resolution::Static,
            3 => service.addresses = vec![[10, 96, 0, 1].into()],
            4 => service.selector = Some(labels("")),
            _ => service.labels = labels("x=y"),
        }
        if wide {
            service.ports.push(crate::fixtures::port(90, "admin", tombolo_federation_model::TargetPort::Number(90)));
        }
        Item::Service(service)
    });
    let workloads =
        (workload_name.clone(), label, any::<bool>(), 0..3_u16).prop_map(|(name, label, healthy, served)| {
            let mut workload = workload("any", name, label);
            workload.health = if healthy { Health::Healthy } else { Health::Unhealthy };
            workload.served_ports = BTreeMap::from([(8080, 18_000 + served)]);
            Item::Workload(workload)
        });
    let slices = (name.clone(), workload_name, any::<bool>(), 1..4_u8).prop_map(|(name, workload, named, last)| {
        slice(name, vec![written(if named { workload } else { "" }, [10, 0, 0, last], 8080)])
    });
    let gateways = prop::sample::select(vec!["1.1.1.1", "2.2.2.2"]).prop_map(|address| gateway("east", address));
    prop_oneof![
        3 => services,
        4 => workloads,
        2 => slices,
        1 => gateways,
        1 => name.prop_map(|name| export("any", name)),
    ]
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a test's script, mostly of the large kind
enum Act {
    Put(Item),
    Remove(usize),
    Begin,
    Complete,
    Alive,
    Look,
}

fn act() -> impl Strategy<Value = (usize, Act)> {
    let act = prop_oneof![
        8 => item().prop_map(Act::Put),
        2 => (0..20_usize).prop_map(Act::Remove),
        1 => Just(Act::Begin),
        1 => Just(Act::Complete),
        1 => Just(Act::Alive),
        6 => Just(Act::Look),
    ];
    (0..4_usize, act)
}

/// What a shard should hold, kept in the plainest way.
#[derive(Debug, Default, Clone)]
struct Model {
    epoch: u64,
    live: Vec<Item>,
    listing: Option<Vec<Item>>,
}

impl Model {
    fn target(&mut self) -> &mut Vec<Item> {
        self.listing.as_mut().unwrap_or(&mut self.live)
    }
}

/// Plays a history; the shards' contents are tracked beside the registry.
fn play(registry: &mut Registry, acts: &[(usize, Act)]) -> Vec<Model> {
    let ids: Vec<ShardId> = shards().into_iter().map(|(id, _)| id).collect();
    let mut models = vec![Model::default(); ids.len()];
    for id in &ids {
        registry.apply(Event::Begin { shard: id.clone(), epoch: 0 }, Millis(0));
        registry.apply(Event::Complete { shard: id.clone(), epoch: 0 }, Millis(0));
    }
    for (index, act) in acts {
        let (shard, model) = (ids[*index].clone(), &mut models[*index]);
        let epoch = model.epoch;
        let event = match act {
            Act::Put(item) => {
                model.target().retain(|old| old.key() != item.key());
                model.target().push(item.clone());
                Event::Put { shard, epoch, item: item.clone() }
            }
            Act::Remove(at) => {
                let target = model.target();
                if target.is_empty() {
                    continue;
                }
                let item = target.remove(at % target.len());
                Event::Remove { shard, epoch, key: item.key() }
            }
            Act::Begin => {
                model.epoch += 1;
                model.listing = Some(Vec::new());
                Event::Begin { shard, epoch: model.epoch }
            }
            Act::Complete => {
                if let Some(listing) = model.listing.take() {
                    model.live = listing;
                }
                Event::Complete { shard, epoch }
            }
            Act::Alive => Event::Alive { shard },
            Act::Look => {
                registry.take_changes();
                continue;
            }
        };
        registry.apply(event, Millis(0));
    }
    registry.take_changes();
    models
}

/// Builds the same contents from nothing, in the given order of shards.
fn from_scratch(models: &[Model], order: &[usize], backwards: bool) -> Registry {
    let mut registry = declared(order);
    let ids: Vec<ShardId> = shards().into_iter().map(|(id, _)| id).collect();
    for index in order {
        let mut items = models[*index].live.clone();
        if backwards {
            items.reverse();
        }
        crate::fixtures::list(&mut registry, &ids[*index], 7, items, 0);
    }
    registry.take_changes();
    registry
}

type View = (Vec<Arc<crate::MergedService>>, Vec<Arc<crate::MergedService>>, String);

fn view(registry: &Registry) -> View {
    let rest = format!("{:?} {:?}", registry.gateways(), registry.diagnostics().collect::<Vec<_>>());
    (registry.services().cloned().collect(), registry.exported().cloned().collect(), rest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Incremental equals from scratch, and neither the order of shards nor of items shows.
    #[test]
    fn the_view_is_a_function_of_what_the_shards_hold(
        acts in prop::collection::vec(act(), 0..80),
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        passed in prop::sample::select(vec![0_u64, 20_000, 700_000]),
    ) {
        let mut registry = declared(&[0, 1, 2, 3]);
        let models = play(&mut registry, &acts);
        let mut again = from_scratch(&models, &order, passed == 0);
        for registry in [&mut registry, &mut again] {
            registry.tick(Millis(passed));
            registry.take_changes();
        }
        prop_assert_eq!(view(&registry), view(&again));
    }

    /// Taking everything out leaves nothing behind, and putting it back is as if it had never gone.
    #[test]
    fn what_comes_back_never_went(acts in prop::collection::vec(act(), 0..40)) {
        let mut registry = declared(&[0, 1, 2, 3]);
        let models = play(&mut registry, &acts);
        let before = view(&registry);
        let ids: Vec<ShardId> = shards().into_iter().map(|(id, _)| id).collect();
        for (id, model) in ids.iter().zip(&models) {
            crate::fixtures::list(&mut registry, id, model.epoch + 1, Vec::new(), 0);
        }
        registry.take_changes();
        prop_assert_eq!(view(&registry), view(&declared(&[])));
        for (id, model) in ids.iter().zip(&models) {
            crate::fixtures::list(&mut registry, id, model.epoch + 2, model.live.clone(), 0);
        }
        registry.take_changes();
        prop_assert_eq!(view(&registry), before);
    }

    /// What is told is what changed: a reader that only looks at changed keys has the whole view.
    #[test]
    fn changes_name_everything_that_changed(acts in prop::collection::vec(act(), 0..60)) {
        let mut registry = declared(&[0, 1, 2, 3]);
        let mut followed = BTreeMap::new();
        let ids: Vec<ShardId> = shards().into_iter().map(|(id, _)| id).collect();
        for (index, act) in &acts {
            if let Act::Put(item) = act {
                let shard = ids[*index].clone();
                registry.apply(Event::Begin { shard: shard.clone(), epoch: 1 }, Millis(0));
                registry.apply(Event::Put { shard: shard.clone(), epoch: 1, item: item.clone() }, Millis(0));
                registry.apply(Event::Complete { shard, epoch: 1 }, Millis(0));
            }
            for key in registry.take_changes().services {
                match registry.service(&key) {
                    Some(service) => {
                        let before = followed.insert(key, service.clone());
                        prop_assert_ne!(before.as_ref(), Some(service));
                    }
                    None => prop_assert!(followed.remove(&key).is_some()),
                }
            }
        }
        let followed: Vec<_> = followed.into_values().collect();
        prop_assert_eq!(followed, registry.services().cloned().collect::<Vec<_>>());
    }
}
