//! Our gateway and a stock Envoy see the same xDS and the same bytes, and everything that can be seen of them is the same, but for
//! the differences that `differences.txt` argues. `DIFFERENTIAL_ONLY=word` plays the cases whose name has the word.

use anyhow::Result;
use tombolo_tests_differential::{
    cases,
    compare::List,
    envoy,
    run::{self, Sides},
    script::Scenario,
    world::{Who, World},
};

const OURS: Who = Who::Ours(env!("CARGO_BIN_EXE_tombolo-differential"));

fn wanted() -> Vec<Scenario> {
    let only = std::env::var("DIFFERENTIAL_ONLY").unwrap_or_default();
    let mut scenarios = cases::all();
    for scenario in &mut scenarios {
        let name = scenario.name;
        scenario.cases.retain(|case| format!("{name}/{}", case.name).contains(&only));
    }
    scenarios.retain(|scenario| !scenario.cases.is_empty());
    scenarios
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_does_what_envoy_does() -> Result<()> {
    if envoy::left_out() {
        eprintln!("left out, because {} is set", envoy::WITHOUT_PEERS);
        return Ok(());
    }
    let scenarios = wanted();
    let sides = Sides { envoy: World::start(Who::Envoy, 0).await?, ours: World::start(OURS, 0).await? };
    let list = List::parse(include_str!("../differences.txt"))?;
    let (wrong, meant) = run::all(&sides, &scenarios, &|difference| list.has(difference)).await?;
    let count: usize = scenarios.iter().map(|s| s.cases.len()).sum();
    eprintln!("{count} cases, {meant} differences that are meant");
    for line in list.idle().filter(|_| std::env::var_os("DIFFERENTIAL_ONLY").is_none()) {
        eprintln!("no such difference any more: {line}");
    }
    for world in [&sides.envoy, &sides.ours] {
        for (kind, reason) in world.ads.refusals.lock().expect("nobody panics with it").iter() {
            eprintln!("{:?} refused {kind}: {:.600}", world.who, reason);
        }
    }
    let text: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{} facts differ from Envoy:\n{}", wrong.len(), text.join("\n"));
    Ok(())
}
