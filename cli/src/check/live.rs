//! Claims about changes while everything runs: they take effect at once, and broken ones do no harm.

use super::{
    client::{Client, From, Seen, shares, words},
    report::Report,
};
use std::time::{Duration, Instant};

const STOREFRONT: From<'static> = From::Workload("east", "storefront");
const REVIEWS: &str = "http://reviews:9080/";
const FILE: &str = "reviews-routes.yaml";

/// Point 7.
pub(super) async fn edits(client: &Client, report: &mut Report) {
    let point = "7 live change";
    report.attempt(point, "all weight to v2", "within 1000 ms, no failure", shift_in_time(client).await);
    report.attempt(point, "a broken edit", "reported, v2 keeps serving", broken(client).await);
    report.attempt(point, "back to 80/20", "both versions again", restore(client).await);
}

/// Up to five times while the change takes longer than it should: a machine that stands still for a moment delays one change, a
/// fault delays all of them. A failure is one at once.
async fn shift_in_time(client: &Client) -> anyhow::Result<(String, bool)> {
    for _ in 0..4 {
        let shifted = shift(client).await?;
        if shifted.failures > 0 || shifted.in_time() {
            return Ok(shifted.told());
        }
        client
            .edit("east", FILE, |text| text.replace("weight: 0", "weight: 80").replace("weight: 100", "weight: 20"))?;
        client.until(STOREFRONT, REVIEWS, Duration::from_secs(5), |s| s.text("version") == "v1").await;
    }
    Ok(shift(client).await?.told())
}

/// How a change went.
struct Shifted {
    failures: u32,
    last_v1: Duration,
}

impl Shifted {
    fn in_time(&self) -> bool {
        self.last_v1 < Duration::from_secs(1)
    }

    fn told(&self) -> (String, bool) {
        let good = self.failures == 0 && self.in_time();
        (format!("last v1 after {} ms, {} failures", self.last_v1.as_millis(), self.failures), good)
    }
}

async fn shift(client: &Client) -> anyhow::Result<Shifted> {
    client.edit("east", FILE, |text| text.replace("weight: 80", "weight: 0").replace("weight: 20", "weight: 100"))?;
    let begin = Instant::now();
    let (mut failures, mut last_v1) = (0, Duration::ZERO);
    // The change took effect at the last answer of v1; a second and a half shows that no other comes.
    while begin.elapsed() < Duration::from_millis(1500) {
        let seen = Seen::of(client.get(STOREFRONT, REVIEWS).await);
        match seen.text("version").as_str() {
            "v1" => last_v1 = begin.elapsed(),
            "v2" => {}
            _ => failures += 1,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(Shifted { failures, last_v1 })
}

async fn broken(client: &Client) -> anyhow::Result<(String, bool)> {
    client.edit("east", FILE, |text| text.replace("weight: 100", "weight: plenty"))?;
    let admin = client.site("east")?.control_plane.admin;
    let begin = Instant::now();
    let found = loop {
        let status = crate::up::converge::status(admin).await?;
        let complaint = status
            .site
            .diagnostics
            .into_iter()
            .find(|d| d.severity == "error" && d.object.contains("reviews") && d.field.contains("weight"));
        if complaint.is_some() || begin.elapsed() > Duration::from_secs(5) {
            break complaint;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let seen = client.many(STOREFRONT, REVIEWS, 24).await?;
    let versions = shares(&seen, |s| s.text("version"));
    let neighbour = Seen::of(client.get(From::Outside("east", 80), "/").await);
    let folder = client.site("east")?.folder.display().to_string();
    let (code, _) = client.command(&["analyze", &folder]).await?;
    let reported = found.as_ref().map_or("not reported".to_owned(), |d| format!("{} {}", d.object, d.field));
    let good =
        found.is_some() && versions.len() == 1 && versions.contains_key("v2") && neighbour.status == 200 && code == 1;
    Ok((format!("{reported}; {}; ingress {}; analyze exits {code}", words(&versions), neighbour.status), good))
}

async fn restore(client: &Client) -> anyhow::Result<(String, bool)> {
    client
        .edit("east", FILE, |text| text.replace("weight: 0", "weight: 80").replace("weight: plenty", "weight: 20"))?;
    let (took, _) = client.until(STOREFRONT, REVIEWS, Duration::from_secs(5), |s| s.text("version") == "v1").await;
    let versions = shares(&client.many(STOREFRONT, REVIEWS, 80).await?, |s| s.text("version"));
    let good = versions.len() == 2 && versions.contains_key("v1") && versions.contains_key("v2");
    Ok((format!("{} after {} ms", words(&versions), took.as_millis()), good))
}
