//! Two sites over real sockets.

use super::{
    certificates::Authority,
    relay::Relay,
    sites::{LEASE, Site, Start, cluster, domain, identity, key, name, network, peer, services, trust},
};
use crate::{Link, Settings};
use std::{sync::Arc, time::Duration};
use tombolo_federation_model::{Health, Host, Identity, Labels, Subsets, TlsMode};
use tombolo_federation_registry::{MergedService, Millis};

/// Two sites that trust each other.
struct World {
    east_ca: Authority,
    west_ca: Authority,
}

impl World {
    fn new() -> Self {
        Self { east_ca: Authority::root("east"), west_ca: Authority::root("west") }
    }

    fn authority(&self, site: &str) -> &Authority {
        if site == "east" { &self.east_ca } else { &self.west_ca }
    }

    fn start<'a>(&self, site: &'a str, peers: Vec<Settings>, exported: &[&str]) -> Start<'a> {
        Start {
            site,
            listen: None,
            peers,
            credentials: self.authority(site).identity(&identity(site).to_string()),
            trust: trust(&[("east", &self.east_ca), ("west", &self.west_ca)]),
            services: services(site, exported),
            // Longer than a busy machine leaves a test alone.
            lease_ms: 30_000,
        }
    }

    /// The west listens, the east dials.
    async fn pair(&self, east: &[&str], west: &[&str]) -> (Site, Site) {
        let west = Site::start(self.start("west", vec![peer("east", None)], west)).await;
        let east = Site::start(self.start("east", vec![peer("west", Some(west.address))], east)).await;
        (east, west)
    }
}

#[tokio::test]
async fn both_sides_show_and_read() {
    let (mut east, mut west) = World::new().pair(&["a"], &["a", "b"]).await;
    east.until("the east has both services", |site| site.endpoints("a") == 1 && site.endpoints("b") == 1).await;
    west.until("the west has the east's", |site| site.endpoints("a") == 1).await;
    let service = east.registry.service(&key("b")).unwrap();
    assert!(service.imported && service.addresses.is_empty());
    let endpoint = &service.endpoints[0];
    assert_eq!((&*endpoint.workload, endpoint.weight, endpoint.health), ("b-1", 7, Health::Unhealthy));
    assert_eq!((&endpoint.cluster, &endpoint.network), (&cluster("west"), &network("west")));
    assert_eq!(endpoint.locality.to_string(), "eu/eu-1/rack");
    assert_eq!(endpoint.ports[&80], 18_080);
    assert_eq!(endpoint.labels["version"], "v1");
    assert_eq!(endpoint.tls, TlsMode::Mutual);
    assert_eq!(endpoint.identity, Some(Identity::parse("spiffe://west.local/ns/default/sa/b").unwrap()));
    assert_eq!(east.registry.gateways()[&network("west")].len(), 1);
    east.until("roots and status", |site| !site.bundles.is_empty() && !site.statuses.is_empty()).await;
    assert_eq!(east.bundles, [(domain("west"), 4)]);
    let state = east.state("west");
    assert_eq!((state.link, state.services, state.endpoints, state.gateways), (Link::Connected, 2, 2, 1));
    assert_eq!((state.out_of_remit, state.lease.stale_after), (0, 30_000));
}

#[tokio::test]
async fn what_is_withdrawn_goes_and_what_is_added_comes() {
    let (mut east, west) = World::new().pair(&[], &["a"]).await;
    east.until("a", |site| site.endpoints("a") == 1).await;
    west.publish("west", services("west", &["b"]));
    east.until("b instead of a", |site| site.endpoints("b") == 1 && site.registry.service(&key("a")).is_none()).await;
}

#[tokio::test]
async fn hosts_of_one_definition_come_and_go_by_themselves() {
    let of_one_definition = |hosts: &[&str]| {
        let named = |service: &Arc<MergedService>| MergedService {
            name: "both".to_owned(),
            clusterset: true,
            ..MergedService::clone(service)
        };
        services("west", hosts).iter().map(|service| Arc::new(named(service))).collect::<Vec<_>>()
    };
    let (mut east, west) = World::new().pair(&[], &[]).await;
    west.publish("west", of_one_definition(&["a", "b"]));
    east.until("both", |site| site.endpoints("a") == 1 && site.endpoints("b") == 1).await;
    // Whichever of the two events comes last must not take along what the other host has.
    west.publish("west", of_one_definition(&["b", "c"]));
    let gone = |site: &Site| site.registry.service(&key("a")).is_none();
    east.until("c instead of a", |site| gone(site) && site.endpoints("c") == 1).await;
    assert_eq!(east.endpoints("b"), 1);
    assert!(["b", "c"].iter().all(|host| east.registry.service(&key(host)).unwrap().clusterset));
}

#[tokio::test]
async fn another_identity_than_the_configured_one_is_refused() {
    let world = World::new();
    let west = Site::start(world.start("west", vec![peer("east", None)], &["a"])).await;
    let other = Identity::parse("spiffe://west.local/ns/other/sa/other").unwrap();
    let settings = Settings { identity: other, ..peer("west", Some(west.address)) };
    let mut east = Site::start(world.start("east", vec![settings], &[])).await;
    east.until("refusal", |site| site.state("west").link == Link::Refused).await;
    let reason = east.state("west").reason;
    assert!(reason.contains("the identity is spiffe://west.local/ns/tombolo/sa/controlplane, not"), "{reason}");
    assert_eq!(east.registry.services().len(), 0);
}

#[tokio::test]
async fn a_caller_that_is_no_peer_is_told_so() {
    let world = World::new();
    let west = Site::start(world.start("west", Vec::new(), &["a"])).await;
    let mut east = Site::start(world.start("east", vec![peer("west", Some(west.address))], &[])).await;
    east.until("refusal", |site| site.state("west").link == Link::Refused).await;
    assert!(east.state("west").reason.contains("is not a configured peer"), "{}", east.state("west").reason);
    assert!(west.peers.as_ref().unwrap().turned_away()[0].contains("is not a configured peer"));
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_ends() {
    let world = World::new();
    let impostor = Authority::root("impostor");
    // The west's certificate names the west, but nobody that the east knows has signed it.
    let credentials = impostor.identity(&identity("west").to_string());
    let west = Site::start(Start { credentials, ..world.start("west", vec![peer("east", None)], &["a"]) }).await;
    let mut east = Site::start(world.start("east", vec![peer("west", Some(west.address))], &[])).await;
    east.until("refusal", |site| site.state("west").link == Link::Refused).await;
    let reason = east.state("west").reason;
    assert!(reason.contains("does not verify against the bundle"), "{reason}");
    // The other way round: the caller is the impostor.
    let credentials = impostor.identity(&identity("east").to_string());
    let mut west = Site::start(world.start("west", vec![peer("east", None)], &["a"])).await;
    let dialing = world.start("east", vec![peer("west", Some(west.address))], &[]);
    let mut east = Site::start(Start { credentials, ..dialing }).await;
    east.until("refusal", |site| site.state("west").link == Link::Refused).await;
    west.until("a note", |site| !site.peers.as_ref().unwrap().turned_away().is_empty()).await;
    let note = west.peers.as_ref().unwrap().turned_away()[0].clone();
    assert!(note.contains("does not verify against the bundle"), "{note}");
    assert_eq!(west.registry.services().len(), 0);
}

#[tokio::test]
async fn a_trust_domain_without_a_bundle_is_refused_with_that_reason() {
    let world = World::new();
    let west = Site::start(world.start("west", vec![peer("east", None)], &["a"])).await;
    let dialing = world.start("east", vec![peer("west", Some(west.address))], &[]);
    let mut east = Site::start(Start { trust: trust(&[("east", &world.east_ca)]), ..dialing }).await;
    east.until("refusal", |site| site.state("west").reason == "no bundle for trust domain west.local").await;
    // The bundle appears later: nothing else has to happen.
    east.trust.send_replace(trust(&[("east", &world.east_ca), ("west", &world.west_ca)]));
    east.until("data", |site| site.endpoints("a") == 1).await;
}

#[tokio::test]
async fn an_open_stream_ends_when_its_roots_go() {
    let world = World::new();
    let (mut east, _west) = world.pair(&[], &["a"]).await;
    east.until("data", |site| site.endpoints("a") == 1).await;
    east.trust.send_replace(trust(&[("east", &world.east_ca)]));
    east.until("refusal", |site| site.state("west").link == Link::Refused).await;
    assert_eq!(east.endpoints("a"), 1, "what was read stays");
}

#[tokio::test]
async fn what_is_outside_the_remit_is_dropped_counted_and_named() {
    let world = World::new();
    // The west shows services of the north besides its own, and one of its own with an endpoint of the north's domain.
    let mut shown = services("west", &["a", "b"]);
    shown.extend(services("north", &["c"]));
    let mut forged = (*shown[1]).clone();
    let mut endpoint = (*forged.endpoints[0]).clone();
    endpoint.identity = Some(Identity::parse("spiffe://north.local/ns/default/sa/b").unwrap());
    forged.endpoints = vec![endpoint.into()];
    shown[1] = forged.into();
    let showing = Start { services: shown, ..world.start("west", vec![peer("east", None)], &[]) };
    let west = Site::start(showing).await;
    let mut east = Site::start(world.start("east", vec![peer("west", Some(west.address))], &[])).await;
    east.until("the good one", |site| site.endpoints("a") == 1).await;
    east.until("the count", |site| site.state("west").out_of_remit == 2).await;
    let dropped = east.state("west").dropped.join("\n");
    assert!(dropped.contains("cluster \"north\" is outside the remit"), "{dropped}");
    assert!(dropped.contains("endpoint b-1: trust domain \"north.local\" is outside the remit"), "{dropped}");
    assert_eq!(east.registry.services().len(), 1);
    // What was refused is not offered again until it changes.
    west.publish("west", services("west", &["a", "b"]));
    east.until("the honest one", |site| site.endpoints("b") == 1).await;
    assert_eq!(east.state("west").out_of_remit, 2);
}

#[tokio::test]
async fn a_restarted_peer_sends_only_what_changed() {
    let world = World::new();
    let (mut east, mut west) = world.pair(&[], &["a", "b"]).await;
    east.until("data", |site| site.endpoints("a") == 1 && site.endpoints("b") == 1 && !site.statuses.is_empty()).await;
    let received = east.state("west").received;
    west.shutdown().await;
    east.until("loss", |site| site.state("west").link != Link::Connected).await;
    assert_eq!((east.endpoints("a"), east.endpoints("b")), (1, 1), "a lost connection deletes nothing");
    let again = Start { listen: Some(west.address), ..world.start("west", vec![peer("east", None)], &["b", "c"]) };
    let _west = Site::start(again).await;
    east.until("the difference", |site| site.endpoints("c") == 1 && site.registry.service(&key("a")).is_none()).await;
    assert_eq!(east.endpoints("b"), 1);
    assert_eq!(east.state("west").received, received + 1, "one new service, and nothing else");
}

#[tokio::test]
async fn a_dead_peer_leaves_its_data_which_grow_stale() {
    let (mut east, mut west) = World::new().pair(&[], &["a"]).await;
    east.until("data", |site| site.endpoints("a") == 1).await;
    west.shutdown().await;
    east.until("loss", |site| site.state("west").link != Link::Connected).await;
    east.registry.tick(Millis(30_000));
    east.registry.take_changes();
    assert!(east.registry.service(&key("a")).unwrap().endpoints[0].stale);
    east.registry.tick(Millis(LEASE.expire_after));
    east.registry.take_changes();
    assert_eq!(east.endpoints("a"), 1, "the last choice");
}

#[tokio::test]
async fn a_vanished_peer_is_noticed_within_its_lease_and_comes_back() {
    let world = World::new();
    let listening = Start { lease_ms: 600, ..world.start("west", vec![peer("east", None)], &["a"]) };
    let mut west = Site::start(listening).await;
    let relay = Relay::to(west.address).await;
    let dialing = world.start("east", vec![peer("west", Some(relay.address))], &["x"]);
    let mut east = Site::start(Start { lease_ms: 600, ..dialing }).await;
    east.until("data", |site| site.endpoints("a") == 1).await;
    west.until("data", |site| site.endpoints("x") == 1).await;
    relay.freeze(true);
    let frozen = std::time::Instant::now();
    east.until("silence", |site| site.state("west").reason.contains("silent for longer")).await;
    // Nothing but the lease ends a silence as soon as that.
    assert!(frozen.elapsed() < Duration::from_secs(60));
    west.until("silence", |site| site.state("east").link != Link::Connected).await;
    relay.freeze(false);
    west.publish("west", services("west", &["a", "b"]));
    east.until("news", |site| site.endpoints("b") == 1).await;
}

#[tokio::test]
async fn two_sites_that_dial_each_other_settle_on_one_stream() {
    let world = World::new();
    let at = tombolo_tests_kit::free();
    let mut west = Site::start(world.start("west", vec![peer("east", Some(at))], &["a"])).await;
    let both = Start { listen: Some(at), ..world.start("east", vec![peer("west", Some(west.address))], &["x"]) };
    let mut east = Site::start(both).await;
    east.until("data", |site| site.endpoints("a") == 1).await;
    west.until("data", |site| site.endpoints("x") == 1).await;
    west.publish("west", services("west", &["a", "b"]));
    east.until("news", |site| site.endpoints("b") == 1 && site.state("west").link == Link::Connected).await;
    west.until("connected", |site| site.state("east").link == Link::Connected).await;
    assert!(east.state("west").streams <= 4, "the two never stop replacing each other");
}

#[tokio::test]
async fn a_peer_that_is_removed_takes_its_data_along() {
    let (mut east, _west) = World::new().pair(&[], &["a"]).await;
    east.until("data", |site| site.endpoints("a") == 1).await;
    assert!(east.peers.as_mut().unwrap().remove(&name("west")));
    east.until("nothing", |site| site.registry.services().len() == 0 && site.registry.shards(Millis(0)).is_empty())
        .await;
}

#[tokio::test]
async fn a_site_that_says_another_name_is_refused() {
    let world = World::new();
    let west = Site::start(world.start("west", vec![peer("east", None)], &["a"])).await;
    let misnamed = Settings { name: name("north"), ..peer("west", Some(west.address)) };
    let mut east = Site::start(world.start("east", vec![misnamed], &[])).await;
    east.until("refusal", |site| site.state("north").reason.contains("says that it is site \"west\"")).await;
    assert_eq!(east.registry.services().len(), 0);
}

fn subsets(all: &[(&str, &str, &str)]) -> Subsets {
    let mut subsets = Subsets::new();
    for (host, name, version) in all {
        let labels = Labels::from([("version".to_owned(), (*version).to_owned())]);
        subsets.entry(Host::parse(host).unwrap()).or_default().insert((*name).to_owned(), labels);
    }
    subsets
}

#[tokio::test]
async fn subsets_come_as_the_complete_set_and_outlive_the_stream() {
    let world = World::new();
    let (mut east, mut west) = world.pair(&[], &["a"]).await;
    east.until("the empty set, once", |site| site.subsets == [Subsets::new()]).await;
    let two = subsets(&[("a.b", "v1", "1"), ("a.b", "v2", "2")]);
    west.publish_all("west", services("west", &["a"]), two.clone());
    east.until("both", |site| site.subsets.last() == Some(&two)).await;
    let other = subsets(&[("a.b", "v2", "3"), ("c.d", "v1", "1")]);
    west.publish_all("west", services("west", &["a"]), other.clone());
    east.until("the change", |site| site.subsets.last() == Some(&other)).await;
    assert_eq!(east.subsets.len(), 3, "one event for each change: {:?}", east.subsets);
    west.shutdown().await;
    east.until("loss", |site| site.state("west").link != Link::Connected).await;
    assert_eq!(east.subsets.len(), 3, "a lost connection says nothing");
    // A peer that comes back and uses none any more says so.
    let again = Start { listen: Some(west.address), ..world.start("west", vec![peer("east", None)], &["a"]) };
    let _west = Site::start(again).await;
    east.until("none", |site| site.subsets.last() == Some(&Subsets::new())).await;
    assert_eq!(east.subsets.len(), 4);
}

#[tokio::test]
async fn subsets_that_cannot_be_are_dropped_counted_and_named() {
    let (mut east, west) = World::new().pair(&[], &["a"]).await;
    let long = "x".repeat(64);
    let mut shown = subsets(&[("a.b", "good", "1"), ("*.b", "v1", "1"), ("a.b", "no good", "1"), ("a.b", &long, "1")]);
    shown.entry(Host::parse("a.b").unwrap()).or_default().insert("wide".to_owned(), {
        (0..200).map(|at| (format!("a-rather-long-label-{at}"), String::new())).collect()
    });
    let good = subsets(&[("a.b", "good", "1")]);
    west.publish_all("west", services("west", &["a"]), shown.clone());
    east.until("the good one", |site| site.subsets.last() == Some(&good)).await;
    east.until("the count", |site| site.state("west").out_of_remit == 4).await;
    let dropped = east.state("west").dropped.join("\n");
    for part in ["subset *.b/v1: host", "\"no good\" is not the name", "x\" is not the name", "a.b/wide: it is longer"]
    {
        assert!(dropped.contains(part), "{part}: {dropped}");
    }
    // What was refused is not offered again until it changes.
    shown.extend(subsets(&[("c.d", "v1", "1")]));
    west.publish_all("west", services("west", &["a"]), shown);
    east.until("the next one", |site| site.subsets.last().is_some_and(|all| all.len() == 2)).await;
    assert_eq!(east.state("west").out_of_remit, 4);
}

#[tokio::test]
async fn a_peer_may_use_only_so_many_subsets() {
    let (mut east, west) = World::new().pair(&[], &["a"]).await;
    let all: Vec<String> = (0..10_003).map(|at| format!("v{at}")).collect();
    let all: Vec<_> = all.iter().map(|name| ("a.b", name.as_str(), "1")).collect();
    west.publish_all("west", services("west", &["a"]), subsets(&all));
    let count = |site: &Site| site.subsets.last().map_or(0, |all| all.values().map(|named| named.len()).sum::<usize>());
    east.until("as many as may be", |site| count(site) == 10_000).await;
    assert_eq!(east.state("west").out_of_remit, 3);
    assert!(east.state("west").dropped.iter().all(|text| text.contains("there are 10000 already")));
}
