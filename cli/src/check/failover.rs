//! Claims about failures: traffic goes where endpoints live, and comes back.
//!
//! Kills processes of the federation; `up` starts them again, as a cluster would.

use super::{
    client::{Client, From, Seen, kill, shares, words},
    report::Report,
};
use std::time::Duration;

const POINT: &str = "3 failover";
const STOREFRONT: From<'static> = From::Workload("east", "storefront");
const CATALOG: &str = "http://catalog:8080/";

/// All local endpoints of a service die: calls go to the other site, and come back.
pub(super) async fn local_endpoints(client: &Client, report: &mut Report) {
    let seen = client.many(STOREFRONT, CATALOG, 20).await.unwrap_or_default();
    let places = shares(&seen, |s| s.text("site"));
    report.claim(POINT, "catalog while it lives in east", "east 20", words(&places), places.get("east") == Some(&20));

    report.attempt(POINT, "catalog of east killed", "west 40", without_catalog(client).await);

    let (took, seen) = client.until(STOREFRONT, CATALOG, Duration::from_secs(20), |s| s.text("site") == "east").await;
    report.claim(
        POINT,
        "catalog of east is back",
        "east",
        format!("{} after {:.1} s", seen.who(), took.as_secs_f64()),
        seen.text("site") == "east",
    );
}

/// A remote gateway or control plane dies: local traffic does not notice, and the remote site comes back.
pub(super) async fn remote_daemons(client: &Client, report: &mut Report) {
    for what in ["east-west gateway of west", "control plane of west", "control plane of east"] {
        let outcome = async {
            let (east, west) = (client.site("east")?, client.site("west")?);
            kill(match what {
                "east-west gateway of west" => west.east_west.pid,
                "control plane of west" => west.control_plane.pid,
                _ => east.control_plane.pid,
            })?;
            // Until the restart, and over it.
            let mut seen = Vec::new();
            for _ in 0..70 {
                seen.push(Seen::of(client.get(STOREFRONT, CATALOG).await));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let answers = shares(&seen, |s| if s.status == 200 { "ok".to_owned() } else { s.who() });
            Ok((words(&answers), answers.len() == 1 && answers.contains_key("ok")))
        };
        report.attempt(POINT, format!("{what} killed: calls inside east"), "ok 70", outcome.await);
        let (took, seen) =
            client.until(STOREFRONT, "http://ratings:9080/", Duration::from_secs(20), |s| s.status == 200).await;
        let seen_text = format!("{} after {:.1} s more", seen.who(), took.as_secs_f64());
        report.claim(
            POINT,
            format!("{what} is back: calls to west"),
            "ratings-v1-0 in west",
            seen_text,
            seen.status == 200,
        );
    }
    let what = "federation status without the control plane of vm";
    report.attempt("8 commands", what, "exit code 1", without_control_plane(client).await);
}

/// What is killed is started again after a while. Where the machine stands still for that long nothing is seen, and it is killed
/// again, up to three times.
const TRIES: u32 = 3;

async fn without_catalog(client: &Client) -> anyhow::Result<(String, bool)> {
    let mut tries = 0;
    loop {
        kill(client.workload("east", "catalog")?.pid)?;
        let (took, first) =
            client.until(STOREFRONT, CATALOG, Duration::from_secs(4), |s| s.text("site") == "west").await;
        let seen = client.many(STOREFRONT, CATALOG, 40).await?;
        let places = shares(&seen, |s| if s.status == 200 { s.text("site") } else { s.who() });
        let good = first.status == 200 && places.get("west") == Some(&40);
        let back = places.contains_key("east") && places.keys().all(|place| place == "east" || place == "west");
        tries += 1;
        if !back || tries == TRIES {
            return Ok((format!("{} after {} ms", words(&places), took.as_millis()), good));
        }
        client.until(STOREFRONT, CATALOG, Duration::from_secs(20), |s| s.text("site") == "east").await;
    }
}

async fn without_control_plane(client: &Client) -> anyhow::Result<(String, bool)> {
    let state = client.state().display().to_string();
    let mut tries = 0;
    loop {
        kill(client.site("vm")?.control_plane.pid)?;
        let begin = std::time::Instant::now();
        // A peer is missed as soon as its connection breaks, or after its lease at the latest.
        let code = loop {
            let (code, _) = client.command(&["federation", "status", "--state", &state, "--site", "east"]).await?;
            if code != 0 || begin.elapsed() > Duration::from_secs(4) {
                break code;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tries += 1;
        if code != 0 || tries == TRIES {
            return Ok((format!("exit code {code} after {} ms", begin.elapsed().as_millis()), code == 1));
        }
    }
}
