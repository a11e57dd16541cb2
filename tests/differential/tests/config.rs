//! Our gateway and a stock Envoy take and refuse the same resources, but for what `config-differences.txt` argues.
//! `DIFFERENTIAL_MUTANTS=n` offers more of them, `DIFFERENTIAL_SEED=n` others, `DIFFERENTIAL_WIDE=1` also those of a
//! listener with many filters (3000 are all of them): `DIFFERENTIAL_MUTANTS=1200 DIFFERENTIAL_SEED=7 cargo test -p tombolo-tests-differential --test config -- --nocapture`.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tombolo_tests_differential::{
    ads::{self, Probe},
    compare::{Difference, List},
    fuzz::{self, Mutant},
    world::{Who, World},
};
use tombolo_tests_kit::peers;

const OURS: Who = Who::Ours(env!("CARGO_BIN_EXE_tombolo-differential"));
/// How long a side may take to answer or to begin.
const PATIENCE: Duration = Duration::from_secs(30);
const SEED: u64 = 0x746f_6d62_6f6c_6f21;
/// So much of a reason is shown.
const MOST: usize = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Offers a resource; what was taken is taken away again where it would stay. An error: no answer came.
async fn offer(world: &World, mutant: &Mutant) -> Result<Option<String>> {
    let ask = async |body| {
        let (type_url, content_url) = (mutant.type_url.clone(), mutant.content_url.clone());
        let probe = Probe { type_url, content_url, name: mutant.name.clone(), body };
        let answered = tokio::time::timeout(PATIENCE, world.ads.probe(probe)).await;
        answered.context("silence")?.map_err(|error| anyhow::anyhow!("{error}"))
    };
    let answer = ask(Some(mutant.body.clone())).await?;
    if answer.is_none() && mutant.name != "fuzz" {
        ask(None).await?;
    }
    Ok(answer)
}

/// Envoy's answer. One that it refused may leave it without an answer to all that come after (a ring hash whose least size is
/// more than its most, for one: the cluster counts as warming for ever); then another Envoy is asked.
async fn ask_envoy(world: &mut Option<World>, mutant: &Mutant) -> Result<Option<String>> {
    if let Some(running) = world.as_ref()
        && let Ok(answer) = offer(running, mutant).await
    {
        running.alive()?;
        return Ok(answer);
    }
    eprintln!("Envoy said nothing to {} {}: another one is asked", mutant.kind, mutant.what);
    // Its places are free only when it is gone.
    drop(world.take());
    let fresh = World::start(Who::Envoy, 1).await?;
    open(&fresh).await?;
    let answer = offer(&fresh, mutant).await.with_context(|| format!("Envoy, asked {} {}", mutant.kind, mutant.what));
    *world = Some(fresh);
    answer
}

/// The end of a reason: before it stands the whole resource.
fn brief(reason: &str) -> String {
    let skip = reason.chars().count().saturating_sub(MOST);
    if skip == 0 { reason.to_owned() } else { format!("…{}", reason.chars().skip(skip).collect::<String>()) }
}

async fn open(world: &World) -> Result<()> {
    ads::show(&world.ads, fuzz::base(&world.ip));
    let begun = Instant::now();
    while tokio::net::TcpStream::connect((world.ip.as_str(), 7999)).await.is_err() {
        world.alive()?;
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{:?} did not take the base:\n{}", world.who, world.log());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_take_and_refuse_the_same() -> Result<()> {
    if peers::left_out() {
        eprintln!("left out, because {} is set", peers::WITHOUT_PEERS);
        return Ok(());
    }
    let count = number("DIFFERENTIAL_MUTANTS").and_then(|n| usize::try_from(n).ok()).unwrap_or(250);
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(SEED);
    let wide = std::env::var_os("DIFFERENTIAL_WIDE").is_some();
    let (theirs, ours) = (World::start(Who::Envoy, 1).await?, World::start(OURS, 1).await?);
    tokio::try_join!(open(&theirs), open(&ours))?;
    let mut theirs = Some(theirs);
    let list = List::parse(include_str!("../config-differences.txt"))?;
    let (mut wrong, mut taken, mut kinds) = (Vec::new(), 0, BTreeSet::new());
    for mutant in fuzz::mutants(seed, count, wide, &ours.ip) {
        let (a, b) = tokio::join!(ask_envoy(&mut theirs, &mutant), offer(&ours, &mutant));
        let (a, b) = (a?, b.with_context(|| format!("ours, asked {} {}", mutant.kind, mutant.what))?);
        ours.alive()?;
        taken += u32::from(a.is_none());
        kinds.insert(mutant.kind);
        let word = |answer: &Option<String>| {
            answer.as_ref().map_or("taken".into(), |reason| format!("refused: {}", brief(reason)))
        };
        let difference = Difference {
            case: mutant.kind.rsplit('.').next().unwrap_or_default().to_owned(),
            fact: mutant.what,
            envoy: word(&a).into(),
            ours: word(&b).into(),
        };
        if a.is_some() != b.is_some() && !list.has(&difference) {
            wrong.push(difference.to_string());
        }
    }
    eprintln!("Envoy took {taken} of {count}");
    assert!(taken > 20 && kinds.len() == 4, "the templates are valid: {taken} taken");
    assert!(wrong.is_empty(), "{} resources are judged otherwise:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
