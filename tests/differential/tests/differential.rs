//! Our gateway and a stock Envoy see the same xDS and the same bytes, and everything that can be seen of them is the same, but for
//! the differences that `differences.txt` argues. `DIFFERENTIAL_ONLY=word` plays the cases whose name has the word;
//! `DIFFERENTIAL_TIMES=n` plays them so often and counts, which tells a race from a difference.

use anyhow::Result;
use tombolo_tests_differential::{cases, compare::List, run, script::Scenario, world::Who};
use tombolo_tests_kit::peers;

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
    if peers::left_out() {
        eprintln!("left out, because {} is set", peers::WITHOUT_PEERS);
        return Ok(());
    }
    let scenarios = wanted();
    if let Some(times) = std::env::var("DIFFERENTIAL_TIMES").ok().and_then(|n| n.parse().ok()) {
        let facts = run::tally(OURS, &scenarios, times).await?;
        eprintln!("{} facts differ or change in {times} times:\n{}", facts.len(), facts.join("\n"));
        return Ok(());
    }
    let list = List::parse(include_str!("../differences.txt"))?;
    let report = run::all(OURS, &scenarios, &|difference| list.has(difference)).await?;
    let count: usize = scenarios.iter().map(|s| s.cases.len()).sum();
    eprintln!("{count} cases, {} differences that are meant", report.meant);
    for line in list.idle().filter(|_| std::env::var_os("DIFFERENTIAL_ONLY").is_none()) {
        eprintln!("no such difference any more: {line}");
    }
    for (who, kind, reason) in &report.refused {
        eprintln!("{who:?} refused {kind}: {reason:.600}");
    }
    for difference in &report.once {
        eprintln!("differed once, not again: {difference}");
    }
    let text: Vec<String> = report.wrong.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} facts differ from Envoy:\n{}", text.len(), text.join("\n"));
    Ok(())
}
