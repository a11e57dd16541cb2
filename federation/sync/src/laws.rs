//! Laws of the protocol, on pairs of halves over a link that delays and breaks: the reader always ends up with the
//! snapshot; what it holds is not sent again; what it refuses is not sent again until it changes.

use crate::{
    DeltaRequest, DeltaResponse, Plan, Publisher, Resource, ResourceSet, Snapshot, SotwPublisher, SotwRequest,
    SotwResponse, SotwSubscriber, Subscriber, Update, resource_set, types,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

const CDS: &str = types::CLUSTER;
const EDS: &str = types::ENDPOINT;
const LDS: &str = types::LISTENER;
const RDS: &str = types::ROUTE;

/// Content `0` means absent, `9` means that the reader cannot use it.
type World = BTreeMap<(&'static str, u8), u8>;

fn snapshot(previous: &Snapshot, world: &World) -> Snapshot {
    let mut next = Snapshot { revision: previous.revision + 1, types: previous.types.clone() };
    for type_url in [CDS, EDS, LDS, RDS] {
        let present = world.iter().filter(|((url, _), content)| *url == type_url && **content != 0);
        let resources = present.map(|((_, name), content)| Arc::new(Resource::new(format!("r{name}"), vec![*content])));
        next = next.with(type_url, resource_set(resources));
    }
    next
}

/// A reader's store, and its taste.
#[derive(Default)]
struct Reader {
    store: BTreeMap<(String, String), u8>,
    received: usize,
    /// Resources in responses, whether they were news or not.
    sent: usize,
}

impl Reader {
    fn take(&mut self, update: &Update) -> BTreeMap<String, String> {
        let mut refused = BTreeMap::new();
        for resource in &update.changed {
            self.received += 1;
            if resource.body[0] == 9 {
                refused.insert(resource.name.to_string(), "nine".to_owned());
            } else {
                self.store.insert((update.type_url.to_string(), resource.name.to_string()), resource.body[0]);
            }
        }
        for name in &update.removed {
            self.store.remove(&(update.type_url.to_string(), name.to_string()));
        }
        refused
    }
}

/// What each side did, so that either protocol can be driven by the same script.
trait Pair {
    fn open(plan: Plan) -> Self;
    fn reader(&mut self) -> &mut Reader;
    fn ask(&mut self, type_url: &str, names: &BTreeSet<String>);
    fn reconnect(&mut self);
    /// Moves one message in one direction; false when there was none.
    fn step(&mut self, down: bool, snapshot: &Snapshot) -> bool;
    fn synced(&self) -> bool;
}

struct Delta {
    plan: Plan,
    publisher: Publisher,
    subscriber: Subscriber,
    up: VecDeque<DeltaRequest>,
    down: VecDeque<DeltaResponse>,
    reader: Reader,
}

impl Pair for Delta {
    fn open(plan: Plan) -> Self {
        let mut subscriber = Subscriber::new(plan.clone());
        subscriber.subscribe_all(CDS);
        subscriber.subscribe_all(LDS);
        let publisher = Publisher::new(plan.clone());
        Self { plan, publisher, subscriber, up: VecDeque::new(), down: VecDeque::new(), reader: Reader::default() }
    }
    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
    fn ask(&mut self, type_url: &str, names: &BTreeSet<String>) {
        self.subscriber.subscribe_to(type_url, names);
        self.reader.store.retain(|(url, name), _| url != type_url || names.contains(name));
    }
    fn reconnect(&mut self) {
        self.publisher = Publisher::new(self.plan.clone());
        self.up.clear();
        self.down.clear();
        self.subscriber.disconnected();
        self.subscriber.connected();
    }
    fn step(&mut self, down: bool, snapshot: &Snapshot) -> bool {
        self.up.extend(std::iter::from_fn(|| self.subscriber.next_request()));
        if down {
            self.down.extend(std::iter::from_fn(|| self.publisher.next(snapshot)));
            let Some(response) = self.down.pop_front() else { return false };
            self.reader.sent += response.resources.len();
            let update = self.subscriber.on_response(response);
            let refused = self.reader.take(&update);
            self.subscriber.answer(&update, &refused);
        } else {
            let Some(request) = self.up.pop_front() else { return false };
            self.publisher.on_request(&request);
        }
        true
    }
    fn synced(&self) -> bool {
        self.publisher.states().all(|(_, status)| status.synced)
    }
}

struct Sotw {
    plan: Plan,
    publisher: SotwPublisher,
    subscriber: SotwSubscriber,
    up: VecDeque<SotwRequest>,
    down: VecDeque<SotwResponse>,
    reader: Reader,
}

impl Pair for Sotw {
    fn open(plan: Plan) -> Self {
        let mut subscriber = SotwSubscriber::new(plan.clone());
        subscriber.subscribe_all(CDS);
        subscriber.subscribe_all(LDS);
        let publisher = SotwPublisher::new(plan.clone());
        Self { plan, publisher, subscriber, up: VecDeque::new(), down: VecDeque::new(), reader: Reader::default() }
    }
    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
    fn ask(&mut self, type_url: &str, names: &BTreeSet<String>) {
        self.subscriber.subscribe_to(type_url, names);
        self.reader.store.retain(|(url, name), _| url != type_url || names.contains(name));
    }
    fn reconnect(&mut self) {
        self.publisher = SotwPublisher::new(self.plan.clone());
        self.up.clear();
        self.down.clear();
        self.subscriber.disconnected();
        self.subscriber.connected();
    }
    fn step(&mut self, down: bool, snapshot: &Snapshot) -> bool {
        self.up.extend(std::iter::from_fn(|| self.subscriber.next_request()));
        if down {
            self.down.extend(std::iter::from_fn(|| self.publisher.next(snapshot)));
            let Some(response) = self.down.pop_front() else { return false };
            let update = self.subscriber.on_response(response);
            let refused = self.reader.take(&update);
            self.subscriber.answer(&update, &refused);
        } else {
            let Some(request) = self.up.pop_front() else { return false };
            self.publisher.on_request(&request);
        }
        true
    }
    fn synced(&self) -> bool {
        self.publisher.states().all(|(_, status)| status.synced)
    }
}

/// Runs until nothing moves. Panics when that never happens: somebody repeats himself.
fn settle(pair: &mut impl Pair, snapshot: &Snapshot) -> usize {
    for steps in 0..10_000 {
        let (up, down) = (pair.step(false, snapshot), pair.step(true, snapshot));
        if !up && !down {
            return steps;
        }
    }
    panic!("the pair never comes to rest");
}

#[derive(Debug, Clone)]
enum Act {
    Set(&'static str, u8, u8),
    Ask(&'static str, BTreeSet<u8>),
    Step(bool),
    Publish,
    Reconnect,
}

fn acts(contents: std::ops::Range<u8>) -> impl Strategy<Value = Vec<Act>> {
    let url = prop::sample::select(vec![CDS, EDS, LDS, RDS]);
    let named = prop::sample::select(vec![EDS, RDS]);
    let contents = prop_oneof![4 => contents, 1 => Just(0_u8)];
    let act = prop_oneof![
        6 => (url, 0..4_u8, contents).prop_map(|(url, name, content)| Act::Set(url, name, content)),
        2 => (named, prop::collection::btree_set(0..4_u8, 0..4)).prop_map(|(url, names)| Act::Ask(url, names)),
        12 => any::<bool>().prop_map(Act::Step),
        4 => Just(Act::Publish),
        1 => Just(Act::Reconnect),
    ];
    prop::collection::vec(act, 0..120)
}

fn names(of: &BTreeSet<u8>) -> BTreeSet<String> {
    of.iter().map(|name| format!("r{name}")).collect()
}

struct Played<P> {
    pair: P,
    world: World,
    asked: BTreeMap<&'static str, BTreeSet<u8>>,
    snapshot: Snapshot,
}

fn play<P: Pair>(plan: Plan, acts: &[Act]) -> Played<P> {
    let mut pair = P::open(plan);
    pair.reconnect();
    let (mut world, mut asked) = (World::new(), BTreeMap::new());
    let mut current = Snapshot::default();
    for act in acts {
        match act {
            Act::Set(url, name, content) => drop(world.insert((url, *name), *content)),
            Act::Ask(url, of) => {
                pair.ask(url, &names(of));
                asked.insert(*url, of.clone());
            }
            Act::Step(down) => drop(pair.step(*down, &current)),
            Act::Publish => current = snapshot(&current, &world),
            Act::Reconnect => pair.reconnect(),
        }
    }
    Played { pair, world, asked, snapshot: current }
}

/// What the reader has to hold: everything that is there, except that removals of named types do not reach it.
fn check_store<P: Pair>(played: &mut Played<P>) -> Result<(), TestCaseError> {
    let store = played.pair.reader().store.clone();
    // While an old listener or route has to stay, so do the upstreams that it may use.
    let lingers = |url: &str| url == CDS && played.world.iter().any(|((of, _), content)| *of != CDS && *content == 9);
    for ((url, name), content) in &played.world {
        let key = ((*url).to_owned(), format!("r{name}"));
        let whole = matches!(*url, CDS | LDS);
        let wanted = whole || played.asked.get(url).is_some_and(|names| names.contains(name));
        match (wanted, *content) {
            (false, _) => prop_assert_eq!(store.get(&key), None, "{:?} was not asked for", key),
            (true, 0) if lingers(url) => {}
            (true, 0) if whole => prop_assert_eq!(store.get(&key), None, "{:?} is gone", key),
            // A named resource stays, and one that is refused keeps its last good content.
            (true, 0 | 9) => {}
            (true, content) => prop_assert_eq!(store.get(&key), Some(&content), "{:?} is there", key),
        }
    }
    Ok(())
}

fn converges<P: Pair>(plan: Plan, acts: &[Act], quiet: bool) -> Result<(), TestCaseError> {
    let silent = quiet && plan.rule(EDS).1.follows.is_none();
    let mut played = play::<P>(plan, acts);
    let last = snapshot(&played.snapshot, &played.world);
    settle(&mut played.pair, &last);
    check_store(&mut played)?;
    let refuses = played.world.values().any(|content| *content == 9);
    prop_assert!(refuses || played.pair.synced());
    // The same content again, in a new snapshot and over a new stream, is not news.
    let before = played.pair.reader().received;
    let sent = played.pair.reader().sent;
    let same = snapshot(&last, &played.world);
    settle(&mut played.pair, &same);
    prop_assert_eq!(played.pair.reader().received, before);
    played.pair.reconnect();
    settle(&mut played.pair, &same);
    check_store(&mut played)?;
    if quiet && !refuses {
        prop_assert_eq!(played.pair.reader().received, before);
    }
    if silent && !refuses {
        prop_assert_eq!(played.pair.reader().sent, sent, "a resumed stream repeats something");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_delta_reader_converges(acts in acts(1..5)) {
        converges::<Delta>(Plan::quiet(), &acts, true)?;
        converges::<Delta>(Plan::envoy(), &acts, true)?;
    }

    #[test]
    fn a_delta_reader_that_refuses_converges(acts in acts(7..10)) {
        converges::<Delta>(Plan::envoy(), &acts, false)?;
    }

    #[test]
    fn a_whole_reader_converges(acts in acts(1..5)) {
        converges::<Sotw>(Plan::envoy(), &acts, true)?;
    }

    #[test]
    fn a_whole_reader_that_refuses_converges(acts in acts(7..10)) {
        converges::<Sotw>(Plan::envoy(), &acts, false)?;
    }

    #[test]
    fn small_batches_converge(acts in acts(1..5)) {
        let mut plan = Plan::quiet();
        plan.batch_bytes = 1;
        converges::<Delta>(plan, &acts, true)?;
    }
}

/// A publisher, and a reader that is written out message by message, as foreign clients behave.
struct Bench {
    publisher: Publisher,
    snapshot: Snapshot,
}

impl Bench {
    fn new(world: &[(&'static str, u8, u8)]) -> Self {
        let mut bench = Self { publisher: Publisher::new(Plan::envoy()), snapshot: Snapshot::default() };
        bench.publish(world);
        bench
    }

    fn publish(&mut self, world: &[(&'static str, u8, u8)]) {
        let world = world.iter().map(|(url, name, content)| ((*url, *name), *content)).collect();
        self.snapshot = snapshot(&self.snapshot, &world);
    }

    fn say(&mut self, type_url: &str, subscribe: &[&str]) {
        let subscribe = subscribe.iter().map(|name| (*name).to_owned()).collect();
        self.publisher.on_request(&DeltaRequest { type_url: type_url.into(), subscribe, ..DeltaRequest::default() });
    }

    fn answer(&mut self, response: &DeltaResponse, error: Option<&str>) {
        self.publisher.on_request(&DeltaRequest {
            type_url: response.type_url.clone(),
            nonce: response.nonce.clone(),
            error: error.map(str::to_owned),
            ..DeltaRequest::default()
        });
    }

    fn next(&mut self) -> Option<DeltaResponse> {
        self.publisher.next(&self.snapshot)
    }

    /// The next response as text: type, changed names, removed names.
    fn seen(&mut self) -> (Option<DeltaResponse>, String) {
        let response = self.next();
        let text = response.as_ref().map_or_else(|| "nothing".to_owned(), describe);
        (response, text)
    }

    /// Expects a response and accepts it.
    fn expect(&mut self, text: &str) {
        let (response, seen) = self.seen();
        assert_eq!(seen, text);
        self.answer(&response.unwrap(), None);
    }
}

fn describe(response: &DeltaResponse) -> String {
    let kind = response.type_url.rsplit('.').next().unwrap();
    let changed: Vec<_> = response.resources.iter().map(|resource| resource.name.to_string()).collect();
    let removed: Vec<_> = response.removed.iter().map(|name| format!("-{name}")).collect();
    format!("{kind} {}", [changed, removed].concat().join(" ")).trim_end().to_owned()
}

#[test]
fn a_first_request_is_answered_even_when_nothing_is_there() {
    let mut bench = Bench::new(&[]);
    bench.say(CDS, &[]);
    bench.expect("Cluster");
    assert_eq!(bench.next(), None);
    bench.say(EDS, &["r1"]);
    bench.expect("ClusterLoadAssignment -r1");
    assert_eq!(bench.next(), None);
}

#[test]
fn one_response_is_in_flight_and_changes_coalesce() {
    let mut bench = Bench::new(&[(CDS, 1, 1)]);
    bench.say(CDS, &[]);
    let (first, seen) = bench.seen();
    assert_eq!(seen, "Cluster r1");
    bench.publish(&[(CDS, 1, 2)]);
    assert_eq!(bench.next(), None);
    bench.publish(&[(CDS, 1, 3), (CDS, 2, 1)]);
    assert_eq!(bench.next(), None);
    bench.answer(&first.unwrap(), None);
    bench.expect("Cluster r1 r2");
    assert_eq!(bench.next(), None);
}

#[test]
fn new_upstreams_come_before_what_refers_to_them_and_go_after_it() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (LDS, 1, 1), (RDS, 1, 1)]);
    bench.say(CDS, &[]);
    bench.expect("Cluster r1");
    bench.say(LDS, &[]);
    bench.expect("Listener r1");
    bench.say(RDS, &["r1"]);
    bench.expect("RouteConfiguration r1");
    bench.publish(&[(CDS, 2, 1), (LDS, 1, 1), (RDS, 1, 2)]);
    let (added, seen) = bench.seen();
    assert_eq!(seen, "Cluster r2");
    assert_eq!(bench.next(), None, "routes wait until the new upstream is warm");
    bench.answer(&added.unwrap(), None);
    let (routes, seen) = bench.seen();
    assert_eq!(seen, "RouteConfiguration r1");
    assert_eq!(bench.next(), None, "the old upstream stays until the routes are taken over");
    bench.answer(&routes.unwrap(), None);
    bench.expect("Cluster -r1");
    assert_eq!(bench.next(), None);
}

#[test]
fn an_old_upstream_stays_while_the_routes_that_leave_it_are_refused() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (RDS, 1, 1)]);
    bench.say(CDS, &[]);
    bench.expect("Cluster r1");
    bench.say(RDS, &["r1"]);
    bench.expect("RouteConfiguration r1");
    bench.publish(&[(RDS, 1, 9)]);
    let (routes, _) = bench.seen();
    bench.answer(&routes.unwrap(), Some("r1: no"));
    assert_eq!(bench.next(), None);
    bench.publish(&[(RDS, 1, 2)]);
    bench.expect("RouteConfiguration r1");
    bench.expect("Cluster -r1");
}

#[test]
fn endpoints_follow_a_changed_upstream_without_waiting_for_its_acknowledgement() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (CDS, 2, 1), (EDS, 1, 1), (EDS, 2, 1)]);
    bench.say(CDS, &[]);
    bench.expect("Cluster r1 r2");
    bench.say(EDS, &["r1", "r2"]);
    bench.expect("ClusterLoadAssignment r1 r2");
    bench.publish(&[(CDS, 1, 2), (CDS, 2, 1), (EDS, 1, 1), (EDS, 2, 1)]);
    let (_unanswered, seen) = bench.seen();
    assert_eq!(seen, "Cluster r1");
    bench.expect("ClusterLoadAssignment r1");
    assert_eq!(bench.next(), None);
}

#[test]
fn a_subscription_is_answered_even_for_a_version_that_is_held() {
    let mut bench = Bench::new(&[(EDS, 1, 1)]);
    bench.say(EDS, &["r1"]);
    bench.expect("ClusterLoadAssignment r1");
    bench.say(EDS, &["r1"]);
    bench.expect("ClusterLoadAssignment r1");
    bench.say(EDS, &["r7"]);
    bench.expect("ClusterLoadAssignment -r7");
    bench.publish(&[(EDS, 1, 1), (EDS, 7, 1)]);
    bench.expect("ClusterLoadAssignment r7");
}

#[test]
fn the_good_part_of_a_refused_response_is_sent_again_alone() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (CDS, 2, 9), (CDS, 3, 1)]);
    bench.say(CDS, &[]);
    let (refused, seen) = bench.seen();
    assert_eq!(seen, "Cluster r1 r2 r3");
    bench.answer(&refused.unwrap(), Some("Error adding/updating cluster(s) r2: bad"));
    bench.expect("Cluster r1 r3");
    assert_eq!(bench.next(), None);
    let status = bench.publisher.state(CDS).unwrap();
    assert!(!status.synced && status.nacked == 1 && status.last_error.is_some());
    bench.publish(&[(CDS, 1, 1), (CDS, 2, 1), (CDS, 3, 1)]);
    bench.expect("Cluster r2");
    assert_eq!(bench.next(), None);
    let status = bench.publisher.state(CDS).unwrap();
    assert!(status.synced && status.last_error.is_none());
}

#[test]
fn an_unnamed_culprit_is_found_by_halves() {
    let world: Vec<_> = (0..16).map(|name| (CDS, name, if name == 11 { 9 } else { 1 })).collect();
    let mut bench = Bench::new(&world);
    bench.say(CDS, &[]);
    let (mut held, mut responses) = (BTreeSet::new(), 0);
    while let Some(response) = bench.next() {
        responses += 1;
        let bad = response.resources.iter().any(|resource| resource.body[0] == 9);
        if !bad {
            held.extend(response.resources.iter().map(|resource| resource.name.to_string()));
        }
        bench.answer(&response, bad.then_some("Proto constraint validation failed"));
    }
    assert_eq!(held.len(), 15);
    assert!(responses <= 16, "{responses} responses");
}

#[test]
fn what_a_refused_response_may_have_left_behind_is_removed() {
    let mut bench = Bench::new(&[(LDS, 1, 1), (LDS, 2, 9)]);
    bench.say(LDS, &[]);
    let (refused, _) = bench.seen();
    bench.publish(&[(LDS, 2, 9)]);
    bench.answer(&refused.unwrap(), Some("r2: bad"));
    bench.expect("Listener -r1");
}

#[test]
fn a_stale_nonce_is_no_answer() {
    let mut bench = Bench::new(&[(CDS, 1, 1)]);
    bench.say(CDS, &[]);
    let (first, _) = bench.seen();
    let first = first.unwrap();
    bench.answer(&first, None);
    bench.publish(&[(CDS, 1, 2)]);
    let (second, _) = bench.seen();
    bench.answer(&first, Some("r1: too late to say so"));
    assert_eq!(bench.publisher.state(CDS).unwrap().nacked, 0);
    bench.publish(&[(CDS, 1, 3)]);
    assert_eq!(bench.next(), None, "the second response is still not answered");
    bench.answer(&second.unwrap(), None);
    bench.expect("Cluster r1");
}

#[test]
fn a_reader_that_comes_back_gets_differences_only() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (CDS, 2, 1), (EDS, 1, 1)]);
    let version = |url: &str, name: &str| bench.snapshot.resource(url, name).unwrap().version.to_string();
    let mut held = BTreeMap::from([("r1".to_owned(), version(CDS, "r1")), ("r5".to_owned(), "old".to_owned())]);
    let request = |url: &str, names: &[&str], held: &BTreeMap<String, String>| DeltaRequest {
        type_url: url.into(),
        subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        initial_versions: held.clone(),
        ..DeltaRequest::default()
    };
    let first = request(CDS, &["*"], &held);
    held = BTreeMap::from([("r1".to_owned(), version(EDS, "r1"))]);
    bench.publisher.on_request(&first);
    bench.expect("Cluster r2 -r5");
    // Endpoints are sent again: an upstream may be waiting for them since before the connection was lost.
    bench.publisher.on_request(&request(EDS, &["r1"], &held));
    bench.expect("ClusterLoadAssignment r1");
}

#[test]
fn a_type_on_demand_beside_everything_is_told_at_once_what_does_not_exist() {
    let mut bench = Bench::new(&[(CDS, 1, 1), (LDS, 1, 9)]);
    bench.say(CDS, &[]);
    bench.expect("Cluster r1");
    bench.say(LDS, &[]);
    let (listeners, _) = bench.seen();
    bench.answer(&listeners.unwrap(), Some("r1: no"));
    bench.say(CDS, &["od"]);
    bench.expect("Cluster -od");
}

fn sotw(type_url: &str, names: &[&str], answered: Option<&SotwResponse>) -> SotwRequest {
    SotwRequest {
        type_url: type_url.into(),
        version: answered.map(|response| response.version.clone()).unwrap_or_default(),
        nonce: answered.map(|response| response.nonce.clone()).unwrap_or_default(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        error: None,
    }
}

fn held(response: &SotwResponse) -> Vec<(String, u8)> {
    response.resources.iter().map(|resource| (resource.name.to_string(), resource.body[0])).collect()
}

fn world(entries: &[(&'static str, u8, u8)]) -> World {
    entries.iter().map(|(url, name, content)| ((*url, *name), *content)).collect()
}

#[test]
fn whole_types_are_repeated_and_others_are_not() {
    let mut publisher = SotwPublisher::new(Plan::envoy());
    let first = snapshot(&Snapshot::default(), &world(&[(CDS, 1, 1), (CDS, 2, 1), (EDS, 1, 1), (EDS, 2, 1)]));
    publisher.on_request(&sotw(CDS, &[], None));
    let clusters = publisher.next(&first).unwrap();
    assert_eq!(held(&clusters), [("r1".into(), 1), ("r2".into(), 1)]);
    publisher.on_request(&sotw(CDS, &[], Some(&clusters)));
    publisher.on_request(&sotw(EDS, &["r1", "r2"], None));
    let endpoints = publisher.next(&first).unwrap();
    assert_eq!(held(&endpoints), [("r1".into(), 1), ("r2".into(), 1)]);
    publisher.on_request(&sotw(EDS, &["r1", "r2"], Some(&endpoints)));
    assert_eq!(publisher.next(&first), None);
    let second = snapshot(&first, &world(&[(CDS, 1, 1), (CDS, 2, 2), (EDS, 1, 2), (EDS, 2, 1)]));
    assert_eq!(held(&publisher.next(&second).unwrap()), [("r1".into(), 1), ("r2".into(), 2)]);
    let endpoints = publisher.next(&second).unwrap();
    assert_eq!(held(&endpoints), [("r1".into(), 2), ("r2".into(), 1)], "changed, and followed");
}

#[test]
fn the_same_request_again_means_that_the_reader_waits() {
    let mut publisher = SotwPublisher::new(Plan::envoy());
    let shown = snapshot(&Snapshot::default(), &world(&[(EDS, 1, 1)]));
    publisher.on_request(&sotw(EDS, &["r1"], None));
    let endpoints = publisher.next(&shown).unwrap();
    publisher.on_request(&sotw(EDS, &["r1"], Some(&endpoints)));
    assert_eq!(publisher.next(&shown), None);
    publisher.on_request(&sotw(EDS, &["r1"], Some(&endpoints)));
    let again = publisher.next(&shown).unwrap();
    assert_eq!(held(&again), [("r1".into(), 1)]);
    publisher.on_request(&sotw(EDS, &["r1", "r9"], Some(&again)));
    assert_eq!(publisher.next(&shown), None, "there is no word for what does not exist");
}

#[test]
fn clients_that_name_everything_get_nothing_else() {
    let mut publisher = SotwPublisher::new(Plan::envoy());
    let shown = snapshot(&Snapshot::default(), &world(&[(LDS, 1, 1), (LDS, 2, 1)]));
    publisher.on_request(&sotw(LDS, &["r2"], None));
    let listeners = publisher.next(&shown).unwrap();
    assert_eq!(held(&listeners), [("r2".into(), 1)]);
    publisher.on_request(&sotw(LDS, &["r2"], Some(&listeners)));
    let gone = snapshot(&shown, &world(&[(LDS, 1, 1)]));
    assert_eq!(held(&publisher.next(&gone).unwrap()), []);
}

#[test]
fn a_refused_whole_response_is_replaced_by_what_was_good() {
    let mut publisher = SotwPublisher::new(Plan::envoy());
    let good = snapshot(&Snapshot::default(), &world(&[(LDS, 1, 1)]));
    publisher.on_request(&sotw(LDS, &[], None));
    let first = publisher.next(&good).unwrap();
    publisher.on_request(&sotw(LDS, &[], Some(&first)));
    let bad = snapshot(&good, &world(&[(LDS, 1, 9), (LDS, 2, 1)]));
    let second = publisher.next(&bad).unwrap();
    let refusal = SotwRequest {
        version: first.version.clone(),
        error: Some("Error adding/updating listener(s) r1: no".to_owned()),
        ..sotw(LDS, &[], Some(&second))
    };
    publisher.on_request(&refusal);
    assert_eq!(held(&publisher.next(&bad).unwrap()), [("r1".into(), 1), ("r2".into(), 1)]);
}

#[test]
fn an_unchanged_set_is_kept_so_that_comparing_is_free() {
    let first = snapshot(&Snapshot::default(), &world(&[(CDS, 1, 1)]));
    let second = snapshot(&first, &world(&[(CDS, 1, 1), (LDS, 1, 1)]));
    assert!(Arc::ptr_eq(first.set(CDS).unwrap(), second.set(CDS).unwrap()));
    assert!(first.set(LDS).is_none_or(|set: &Arc<ResourceSet>| set.is_empty()));
}
