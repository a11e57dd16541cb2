//! Playing scenarios on both sides at once.

use crate::{
    backend::Backends,
    client::{self, Facts, plain_fields},
    compare::{Difference, differences},
    place::Place,
    resource,
    script::{Case, Scenario},
    world::World,
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Scenarios that are played at once. More would make the clocks of the cases wrong on a small machine.
const AT_ONCE: usize = 6;
/// How long a side may take until it serves all listeners.
const READY: Duration = Duration::from_secs(20);

/// Both sides.
pub struct Sides {
    /// The stock Envoy.
    pub envoy: World,
    /// Our gateway.
    pub ours: World,
}

/// One scenario, ready on both sides.
struct Set<'a> {
    scenario: &'a Scenario,
    sides: [(&'a World, Place, Backends); 2],
}

/// Which cases are played.
type Wanted<'a> = &'a dyn Fn(&Scenario, &Case) -> bool;

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

/// Plays all scenarios and says what differs, and how many differences were meant.
///
/// # Errors
/// When a side cannot serve at all.
pub async fn all(
    sides: &Sides,
    scenarios: &[Scenario],
    meant: &dyn Fn(&Difference) -> bool,
) -> Result<(Vec<Difference>, usize)> {
    let sets = prepare(sides, scenarios).await?;
    let (known, mut found): (Vec<_>, Vec<_>) = play_many(&sets, &|_, _| true).await.into_iter().partition(meant);
    for _ in 0..2 {
        sides.envoy.alive()?;
        sides.ours.alive()?;
        if found.is_empty() {
            break;
        }
        // A busy machine disturbs clocks: what differs is played again, and only what differs each time counts.
        let before: Vec<String> = found.iter().map(|d| d.case.clone()).collect();
        let wanted =
            |scenario: &Scenario, case: &Case| !scenario.stateful && before.contains(&full_name(scenario, case));
        let now = play_many(&sets, &wanted).await;
        let stateful =
            |d: &Difference| scenarios.iter().any(|s| s.stateful && d.case.starts_with(&format!("{}/", s.name)));
        let same = |d: &Difference| now.iter().any(|n| n.case == d.case && n.fact == d.fact);
        found.retain(|d| stateful(d) || same(d));
    }
    Ok((found, known.len()))
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
        world.ads.show(resource::encode(&filled)?);
    }
    wait_ready(sides, &sets).await?;
    Ok(sets)
}

/// Waits until both sides listen; one that never does shows in the cases.
async fn wait_ready(sides: &Sides, sets: &[Set<'_>]) -> Result<()> {
    let deadline = Instant::now() + READY;
    for set in sets {
        for (_, place, _) in &set.sides {
            let wanted = set.scenario.resources.iter().any(|r| r["address"]["socket_address"]["port_value"] == "$l0");
            while wanted && TcpStream::connect(place.listener(0)).await.is_err() && Instant::now() < deadline {
                sides.envoy.alive()?;
                sides.ours.alive()?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    Ok(())
}

async fn play_many(sets: &[Set<'_>], wanted: Wanted<'_>) -> Vec<Difference> {
    let room = tokio::sync::Semaphore::new(AT_ONCE);
    let has = |set: &&Set<'_>| set.scenario.cases.iter().any(|case| wanted(set.scenario, case));
    let sets: Vec<&Set<'_>> = sets.iter().filter(has).collect();
    let plays = sets.iter().map(async |set| {
        let _room = room.acquire().await;
        play(set, wanted).await
    });
    let played = join(plays.collect()).await;
    // The last lines of the access logs come late.
    tokio::time::sleep(Duration::from_millis(400)).await;
    sets.into_iter().zip(played).flat_map(|(set, played)| compared(set, played)).collect()
}

/// Adds the access logs and compares.
fn compared(set: &Set<'_>, played: Vec<Played>) -> Vec<Difference> {
    let logs: [Vec<Value>; 2] = std::array::from_fn(|n| read_log(&set.sides[n].1.log()));
    let mut found = Vec::new();
    for mut played in played {
        for (n, log) in logs.iter().enumerate() {
            let lines = lines_of(log, &played.ports[n], &played.tag, &set.sides[n].1);
            played.facts[n].insert("log".into(), json!(lines));
        }
        if std::env::var_os("DIFFERENTIAL_SHOW").is_some() {
            eprintln!("{}: {:#?}", played.case, played.facts);
        }
        let case = set.scenario.cases.iter().find(|c| played.case == full_name(set.scenario, c));
        let ignored = case.map_or(&[][..], |c| c.ignore);
        found.extend(differences(&played.case, ignored, &played.facts[0], &played.facts[1]));
    }
    found
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

async fn play(set: &Set<'_>, wanted: Wanted<'_>) -> Vec<Played> {
    tokio::time::sleep(Duration::from_millis(set.scenario.warm)).await;
    let mut played = Vec::new();
    for case in set.scenario.cases.iter().filter(|case| wanted(set.scenario, case)) {
        let name = full_name(set.scenario, case);
        let tag: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let [a, b] = &set.sides;
        let ((facts_a, ports_a), (facts_b, ports_b)) = tokio::join!(one(a, case, &tag), one(b, case, &tag));
        played.push(Played { case: name, facts: [facts_a, facts_b], ports: [ports_a, ports_b], tag });
    }
    played
}

/// Plays a case on one side.
async fn one((world, place, backends): &(&World, Place, Backends), case: &Case, tag: &str) -> (Facts, Vec<u16>) {
    backends.stage.begin(tag, &case.script);
    let start = Instant::now();
    if case.repeat > 1 {
        return many(world, place, backends, case, tag).await;
    }
    let client::Outcome { mut facts, port } = client::play(world, place, case, tag).await;
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
    let seen = backends.stage.seen();
    facts.insert("upstream".into(), json!(seen.len()));
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_by_key(|facts| facts.get("backend").and_then(Value::as_u64));
    for (n, seen) in seen.into_iter().enumerate() {
        for (name, value) in seen {
            facts.insert(format!("upstream{n}.{name}"), plain_seen(place, &name, value));
        }
    }
    (facts, vec![port])
}

/// Plays a case many times: only shares count.
async fn many(world: &World, place: &Place, backends: &Backends, case: &Case, tag: &str) -> (Facts, Vec<u16>) {
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..case.repeat {
        let got = client::play(world, place, case, tag).await.facts;
        let line = got.get("answer.line").or_else(|| got.get("answer")).map_or("nothing".into(), ToString::to_string);
        *lines.entry(format!("share.{line}")).or_default() += 1;
    }
    for seen in backends.stage.seen() {
        *lines.entry(format!("share.backend {}", seen["backend"])).or_default() += 1;
    }
    let share = |n: u32| json!(f64::from(n) / f64::from(case.repeat));
    (lines.into_iter().map(|(name, n)| (name, share(n))).collect(), Vec::new())
}

fn plain_seen(place: &Place, name: &str, value: Value) -> Value {
    match (name, value) {
        ("headers" | "trailers", Value::Array(fields)) => {
            let text = |v: &Value, n: usize| v[n].as_str().unwrap_or_default().to_owned();
            let fields: Vec<(String, String)> = fields.iter().map(|f| (text(f, 0), text(f, 1))).collect();
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
