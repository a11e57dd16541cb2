//! Playing scenarios on both sides at once.

use crate::{
    ads,
    backend::Backends,
    client::{self, Facts, Scene, plain_fields},
    compare::{Difference, differences},
    place::Place,
    resource,
    script::{Case, Client, Scenario},
    world::{Who, World},
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Scenarios that are played at once. More would make the clocks of the cases wrong on a small machine.
const AT_ONCE: usize = 6;
/// How often a case that differs is played again.
const AGAIN: u8 = 5;
/// How long the last lines of the access logs are waited for, at least and at most.
const LOGS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(3));
/// How long a side may take until it serves all listeners.
const READY: Duration = Duration::from_secs(60);

/// Both sides.
pub struct Sides {
    /// The stock Envoy.
    pub envoy: World,
    /// Our gateway.
    pub ours: World,
}

impl Sides {
    /// Starts both; `salt` keeps several pairs of one process apart.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn start(ours: Who, salt: u8) -> Result<Self> {
        Ok(Self { envoy: World::start(Who::Envoy, salt).await?, ours: World::start(ours, salt).await? })
    }

    fn refused(&self) -> Vec<(Who, String, String)> {
        let of = |world: &World| {
            world.ads.refusals().into_iter().map(|(kind, reason)| (world.who, kind, reason)).collect::<Vec<_>>()
        };
        [of(&self.envoy), of(&self.ours)].concat()
    }
}

/// One scenario, ready on both sides.
struct Set<'a> {
    scenario: &'a Scenario,
    sides: [(&'a World, Place, Backends); 2],
}

fn full_name(scenario: &Scenario, case: &Case) -> String {
    format!("{}/{}", scenario.name, case.name)
}

/// What was found of one case.
struct Played {
    case: String,
    facts: [Facts; 2],
    ports: [Vec<u16>; 2],
    tag: String,
}

/// What was found.
#[derive(Default)]
pub struct Report {
    /// What differs each time, and is not meant.
    pub wrong: Vec<Difference>,
    /// What differed at first, and not again on other proxies.
    pub once: Vec<Difference>,
    /// How many differences were meant.
    pub meant: usize,
    /// What was refused: who, type and reason.
    pub refused: Vec<(Who, String, String)>,
}

/// Plays all scenarios on both sides. What differs without being meant is played again on proxies of its own, since a busy
/// machine disturbs clocks; only what differs each time counts.
///
/// # Errors
/// When a side cannot serve at all.
pub async fn all(ours: Who, scenarios: &[Scenario], meant: &dyn Fn(&Difference) -> bool) -> Result<Report> {
    let sides = Sides::start(ours, 0).await?;
    let found = round(&sides, scenarios, 0).await?;
    let (known, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(meant);
    let mut report = Report { wrong, meant: known.len(), refused: sides.refused(), ..Report::default() };
    drop(sides);
    for again in 1..=AGAIN {
        if report.wrong.is_empty() {
            break;
        }
        let sides = Sides::start(ours, again).await?;
        let now = round(&sides, &only(scenarios, &report.wrong), again).await?;
        let same = |d: &Difference| now.iter().any(|n| n.case == d.case && n.fact == d.fact);
        let (wrong, once): (Vec<_>, Vec<_>) = std::mem::take(&mut report.wrong).into_iter().partition(same);
        report.wrong = wrong;
        report.once.extend(once);
    }
    Ok(report)
}

/// The cases that differ; those that stand on what came before them with all of it.
fn only(scenarios: &[Scenario], found: &[Difference]) -> Vec<Scenario> {
    let named = |scenario: &Scenario, case: &Case| found.iter().any(|d| d.case == full_name(scenario, case));
    let touched = scenarios.iter().filter(|s| s.cases.iter().any(|case| named(s, case)));
    let kept = touched.map(|scenario| {
        let mut kept = scenario.clone();
        kept.cases.retain(|case| scenario.stateful || named(scenario, case));
        kept
    });
    kept.collect()
}

async fn round(sides: &Sides, scenarios: &[Scenario], number: u8) -> Result<Vec<Difference>> {
    let sets = prepare(sides, scenarios).await?;
    let found = play_all(&sets, number.into()).await.iter().flat_map(|(set, played)| compared(set, played)).collect();
    sides.envoy.alive()?;
    sides.ours.alive()?;
    Ok(found)
}

/// Plays all scenarios many times, on the same proxies, and says of each fact that is not always the same on both sides how often
/// it was what: how a race is told from a difference.
///
/// # Errors
/// When a side cannot serve at all.
pub async fn tally(ours: Who, scenarios: &[Scenario], times: u32) -> Result<Vec<String>> {
    let sides = Sides::start(ours, 0).await?;
    let sets = prepare(&sides, scenarios).await?;
    let mut counts: BTreeMap<String, [BTreeMap<String, u32>; 2]> = BTreeMap::new();
    for number in 0..times {
        for (_, played) in play_all(&sets, number).await {
            let names: BTreeSet<&String> = played.facts.iter().flat_map(BTreeMap::keys).collect();
            for name in names {
                let count = counts.entry(format!("{} # {name}", played.case)).or_default();
                for (facts, count) in played.facts.iter().zip(count) {
                    let value = facts.get(name).map_or("nothing".into(), Value::to_string);
                    *count.entry(value.replace(&played.tag, "<tag>")).or_default() += 1;
                }
            }
        }
    }
    let differs = |[envoy, ours]: &[BTreeMap<String, u32>; 2]| envoy != ours || envoy.len() > 1;
    let show = |(name, counts): (String, [BTreeMap<String, u32>; 2])| {
        let [envoy, ours] = counts.map(|count| {
            count.iter().map(|(value, n)| format!("\n        {n} x {value}")).collect::<Vec<_>>().concat()
        });
        format!("{name}\n    Envoy:{envoy}\n    ours:{ours}")
    };
    Ok(counts.into_iter().filter(|(_, counts)| differs(counts)).map(show).collect())
}

async fn prepare<'a>(sides: &'a Sides, scenarios: &'a [Scenario]) -> Result<Vec<Set<'a>>> {
    let mut sets = Vec::new();
    for (number, scenario) in (0u16..).zip(scenarios) {
        let [envoy, ours] = [&sides.envoy, &sides.ours].map(|world| (world, world.place(scenario, number)));
        let start = async |(world, place): (&'a World, Place)| -> Result<_> {
            let backends = Backends::start(scenario, &place).await?;
            Ok((world, place, backends))
        };
        sets.push(Set { scenario, sides: [start(envoy).await?, start(ours).await?] });
    }
    for (n, world) in [&sides.envoy, &sides.ours].into_iter().enumerate() {
        let places = sets.iter().map(|set| (set.scenario, &set.sides[n].1));
        let filled: Vec<Value> =
            places.flat_map(|(s, place)| s.resources.iter().map(|r| place.fill_json(r)).collect::<Vec<_>>()).collect();
        ads::show(&world.ads, resource::encode(&filled)?);
    }
    wait_ready(sides, &sets).await?;
    Ok(sets)
}

/// The listener that says that a scenario is served; over UDP nobody can be asked.
fn is_first(resource: &Value) -> bool {
    resource["address"]["socket_address"]["port_value"] == "$l0" && resource["udp_listener_config"].is_null()
}

/// Waits until both sides listen; one that never does shows in the cases.
async fn wait_ready(sides: &Sides, sets: &[Set<'_>]) -> Result<()> {
    let deadline = Instant::now() + READY;
    for set in sets {
        for (_, place, _) in &set.sides {
            let wanted = set.scenario.resources.iter().any(is_first);
            while wanted && TcpStream::connect(place.listener(0)).await.is_err() && Instant::now() < deadline {
                sides.envoy.alive()?;
                sides.ours.alive()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

/// Plays every case once; `number` tells this time from others on the same proxies.
async fn play_all<'a, 's>(sets: &'s [Set<'a>], number: u32) -> Vec<(&'s Set<'a>, Played)> {
    let room = tokio::sync::Semaphore::new(AT_ONCE);
    let plays = sets.iter().map(async |set| {
        let _room = room.acquire().await;
        play(set, number).await
    });
    let all = join(plays.collect()).await;
    let mut all: Vec<_> = sets.iter().zip(all).flat_map(|(set, all)| all.into_iter().map(move |p| (set, p))).collect();
    // The last lines of the access logs come late.
    let begin = Instant::now();
    tokio::time::sleep(LOGS.0).await;
    loop {
        let whole = add_logs(sets, &mut all);
        if whole || begin.elapsed() > LOGS.1 {
            return all;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Adds the lines of the access logs; false when one side wrote more of them than the other, so far.
fn add_logs(sets: &[Set<'_>], all: &mut [(&Set<'_>, Played)]) -> bool {
    let mut whole = true;
    for set in sets {
        let logs: [Vec<Value>; 2] = std::array::from_fn(|n| read_log(&set.sides[n].1.log()));
        for (_, played) in all.iter_mut().filter(|(of, _)| std::ptr::eq(*of, set)) {
            let lines: [Vec<String>; 2] =
                std::array::from_fn(|n| lines_of(&logs[n], &played.ports[n], &played.tag, &set.sides[n].1));
            whole &= lines[0].len() == lines[1].len();
            for (facts, lines) in played.facts.iter_mut().zip(lines) {
                facts.insert("log".into(), json!(lines));
            }
        }
    }
    whole
}

fn compared(set: &Set<'_>, played: &Played) -> Vec<Difference> {
    if std::env::var_os("DIFFERENTIAL_SHOW").is_some() {
        eprintln!("{}: {:#?}", played.case, played.facts);
    }
    let case = set.scenario.cases.iter().find(|c| played.case == full_name(set.scenario, c));
    let ignored = case.map_or(&[][..], |c| c.ignore);
    differences(&played.case, ignored, &played.facts[0], &played.facts[1])
}

/// Waits for futures together, in this task.
async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.into_iter().map(Box::pin).map(Some).collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (slot, out) in pending.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *out = Some(output);
                *slot = None;
            }
        }
        if pending.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

async fn play(set: &Set<'_>, number: u32) -> Vec<Played> {
    tokio::time::sleep(Duration::from_millis(set.scenario.warm)).await;
    let mut played = Vec::new();
    for case in &set.scenario.cases {
        let name = full_name(set.scenario, case);
        let tag: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let tag = if number == 0 { tag } else { format!("{tag}-{number}") };
        let one = |n: usize| {
            let (world, place, backends) = &set.sides[n];
            one(Scene { world, place, stage: &backends.stage, tag: &tag }, set.scenario, case)
        };
        let ((facts_a, ports_a), (facts_b, ports_b)) = tokio::join!(one(0), one(1));
        played.push(Played { case: name, facts: [facts_a, facts_b], ports: [ports_a, ports_b], tag });
    }
    played
}

/// Plays a case on one side.
async fn one(scene: Scene<'_>, scenario: &Scenario, case: &Case) -> (Facts, Vec<u16>) {
    scene.stage.begin(scene.tag, case);
    let (start, mark) = (Instant::now(), scene.world.ads.mark());
    if case.repeat > 1 {
        return many(scene, case).await;
    }
    let client::Outcome { mut facts, port } = client::play(scene, case).await;
    let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some((least, most)) = case.timing {
        let word = if took < least {
            "early"
        } else if took > most {
            "late"
        } else {
            "in time"
        };
        facts.insert("timing".into(), json!(word));
    }
    tokio::time::sleep(Duration::from_millis(case.settle)).await;
    if scenario.wire {
        let (wire, left) = ads::heard(&scene.world.ads, mark, scenario.name);
        facts.insert("wire".into(), json!(wire));
        facts.insert("left".into(), json!(left));
    }
    note_backends(scene, case, &mut facts);
    (facts, vec![port])
}

/// What the backends saw.
fn note_backends(scene: Scene<'_>, case: &Case, facts: &mut Facts) {
    let mut seen = scene.stage.seen();
    facts.insert("upstream".into(), json!(seen.len()));
    seen.sort_by_key(|facts| facts.get("backend").and_then(Value::as_u64));
    for (n, seen) in seen.into_iter().enumerate() {
        for (name, value) in seen {
            facts.insert(format!("upstream{n}.{name}"), plain_seen(scene.place, &case.client, &name, value));
        }
    }
    for (backend, checks) in scene.stage.checks() {
        let checks: Vec<String> = checks.iter().map(|check| scene.place.plain(check)).collect();
        facts.insert(format!("check{backend}"), json!(checks));
    }
}

/// Plays a case many times: only shares count.
async fn many(scene: Scene<'_>, case: &Case) -> (Facts, Vec<u16>) {
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..case.repeat {
        let got = client::play(scene, case).await.facts;
        let line = got.get("answer.line").or_else(|| got.get("answer")).map_or("nothing".into(), ToString::to_string);
        *lines.entry(format!("share.{line}")).or_default() += 1;
    }
    for seen in scene.stage.seen() {
        *lines.entry(format!("share.backend {}", seen["backend"])).or_default() += 1;
    }
    let share = |n: u32| json!(f64::from(n) / f64::from(case.repeat));
    (lines.into_iter().map(|(name, n)| (name, share(n))).collect(), Vec::new())
}

fn plain_seen(place: &Place, client: &Client, name: &str, value: Value) -> Value {
    match (name, value) {
        ("headers" | "trailers", Value::Array(fields)) => {
            let text = |v: &Value, n: usize| v[n].as_str().unwrap_or_default().to_owned();
            let mut fields: Vec<(String, String)> = fields.iter().map(|f| (text(f, 0), text(f, 1))).collect();
            // Whether the end of a request comes with its head or after it is up to the packets.
            if matches!(client, Client::Http3(_)) {
                fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
            }
            plain_fields(place, &fields)
        }
        (_, Value::String(text)) => Value::String(place.plain(&text)),
        (_, value) => value,
    }
}

fn read_log(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of one connection, or of the case where the client has no port.
fn lines_of(log: &[Value], ports: &[u16], tag: &str, place: &Place) -> Vec<String> {
    let text = |line: &Value, name: &str| match &line[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let mine = |line: &&Value| {
        let port = text(line, "port");
        let case = text(line, "case");
        let known = !case.is_empty() && case != "-";
        if known { case == tag } else { ports.iter().any(|p| *p != 0 && port == p.to_string()) }
    };
    let show = |line: &Value| {
        let fields = line.as_object().into_iter().flatten().filter(|(name, _)| *name != "port" && *name != "case");
        let fields: Vec<String> = fields.map(|(name, _)| format!("{name}={}", text(line, name))).collect();
        place.plain(&fields.join(" "))
    };
    log.iter().filter(mine).map(show).collect()
}
