//! Claims about what can be seen from outside: metrics, logs, and the other commands.

use super::{
    client::{Client, From, Seen, get_at},
    report::Report,
};

/// Sums the samples of a metric that carry all of the labels, each as `name="value"`.
pub(super) fn sum(text: &str, metric: &str, labels: &[&str]) -> f64 {
    let sample = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(metric)?;
        let (labels_text, value) = match rest.strip_prefix('{') {
            Some(inner) => inner.rsplit_once('}')?,
            None if rest.starts_with(' ') => ("", rest),
            None => return None,
        };
        let all = labels.iter().all(|label| labels_text.contains(label));
        if all { value.split_whitespace().next()?.parse().ok() } else { None }
    };
    text.lines().filter_map(sample).fold(0.0, |sum, value| sum + value)
}

/// Point 10: standard metrics at both ends of a call, and an access log.
pub(super) async fn metrics(client: &Client, report: &mut Report) {
    let point = "10 metrics";
    for (workload, reporter, destination) in
        [("storefront", "source", "reviews"), ("reviews-v1", "destination", "reviews")]
    {
        let outcome = async {
            let workload = client.workload("east", workload)?;
            let sidecar = workload.sidecar.ok_or_else(|| anyhow::anyhow!("no sidecar"))?;
            let text = get_at(sidecar.admin, "/stats/prometheus", &[]).await?.text();
            let labels = [format!("reporter=\"{reporter}\""), format!("destination_service_name=\"{destination}\"")];
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let total = sum(&text, "istio_requests_total", &labels);
            let timed = sum(&text, "istio_request_duration_milliseconds_count", &labels);
            Ok((format!("{total} requests, {timed} timed"), total >= 1.0 && timed >= 1.0))
        };
        let what = format!("istio_requests_total, reporter {reporter}");
        report.attempt(point, what, "requests to reviews", outcome.await);
    }
    both_sides(client, report).await;
    let outcome = async {
        let site = client.site("east")?;
        let text = get_at(site.control_plane.admin, "/metrics", &[]).await?.text();
        Ok((format!("{} lines", text.lines().count()), text.contains("# TYPE")))
    };
    report.attempt(point, "metrics of a control plane", "Prometheus text", outcome.await);
    let outcome = async {
        let log = std::fs::read_to_string(&client.site("east")?.ingress.log)?;
        let line = log.lines().find(|line| line.contains("/teapot") && line.contains("FI")).unwrap_or_default();
        Ok((line.chars().take(60).collect(), !line.is_empty()))
    };
    report.attempt(point, "access log of the ingress gateway", "the injected fault, flag FI", outcome.await);
}

/// Point 10: each end of a call knows the other, also across sites, and nobody else is told.
async fn both_sides(client: &Client, report: &mut Report) {
    let point = "10 metrics";
    let storefront = [
        "source_workload=\"storefront\"",
        "source_workload_namespace=\"default\"",
        "source_app=\"storefront\"",
        "source_canonical_service=\"storefront\"",
        "source_cluster=\"east\"",
        "source_principal=\"spiffe://east.local/ns/default/sa/storefront\"",
    ];
    let reviews = ["destination_workload=\"reviews-v2\"", "destination_version=\"v2\"", "destination_cluster=\"west\""];
    for (site, workload, what, rest) in [
        (
            "west",
            "reviews-v2",
            "who called, at reviews v2 in west",
            vec![
                "reporter=\"destination\"",
                "connection_security_policy=\"mutual_tls\"",
                "destination_principal=\"spiffe://west.local/",
            ],
        ),
        (
            "east",
            "storefront",
            "who answered, at storefront in east",
            vec!["reporter=\"source\"", "destination_principal=\"spiffe://west.local/"],
        ),
    ] {
        let outcome = async {
            let workload = client.workload(site, workload)?;
            let sidecar = workload.sidecar.ok_or_else(|| anyhow::anyhow!("no sidecar"))?;
            let text = get_at(sidecar.admin, "/stats/prometheus", &[]).await?.text();
            let labels: Vec<&str> = storefront.iter().chain(&reviews).copied().chain(rest).collect();
            let total = sum(&text, "istio_requests_total", &labels);
            let missing: Vec<_> =
                labels.iter().filter(|l| sum(&text, "istio_requests_total", &[l]) == 0.0).copied().collect();
            let seen = if missing.is_empty() { String::new() } else { format!(", never {}", missing.join(" ")) };
            Ok((format!("{total} requests{seen}"), total >= 1.0))
        };
        report.attempt(point, what, "storefront in east to reviews v2 in west", outcome.await);
    }
    let mut told = Vec::new();
    for url in ["http://reviews:9080/", "http://partner.example.com/"] {
        let forged = [("x-envoy-peer-metadata", "eA=="), ("x-envoy-peer-metadata-id", "me")];
        let outcome = client.get_with(From::Workload("east", "storefront"), url, &forged).await;
        let back = outcome.as_ref().is_ok_and(|a| a.headers.keys().any(|k| k.as_str().contains("peer-metadata")));
        let seen = Seen::of(outcome);
        let there = seen.body["headers"].to_string().contains("peer-metadata");
        told.push(match (seen.status, there || back) {
            (200, false) => "nothing",
            (200, true) => "told",
            _ => "no answer",
        });
    }
    let good = told == ["nothing", "nothing"];
    report.claim(point, "what applications see of this exchange", "nothing, nothing", told.join(", "), good);
}

/// Point 8: the commands of a running federation.
pub(super) async fn commands(client: &Client, report: &mut Report) {
    let point = "8 commands";
    let state = client.state().display().to_string();
    let outcome = super::traffic::settled(|| async {
        let (code, text) = client.command(&["federation", "status", "--state", &state]).await?;
        let named = ["east", "west", "vm"].iter().all(|site| text.contains(site));
        let first = text.lines().find(|l| l.contains("unhealthy") || l.starts_with("error")).unwrap_or("healthy");
        Ok((format!("exit code {code}, {first}"), code == 0 && named))
    });
    report.attempt(point, "federation status of a healthy federation", "exit code 0, three sites", outcome.await);

    let outcome = async {
        let (code, text) = client.command(&["proxy-config", "storefront-0", "routes", "--state", &state]).await?;
        let line = text.lines().find(|l| l.contains("|v1|reviews.")).unwrap_or("no route to reviews");
        Ok((line.split_whitespace().collect::<Vec<_>>().join(" "), code == 0 && line.contains("|v2|reviews.")))
    };
    report.attempt(point, "proxy-config of storefront", "routes to both subsets of reviews", outcome.await);

    let outcome = async {
        let folder = client.site("east")?.folder.display().to_string();
        let (code, text) = client.command(&["analyze", &folder]).await?;
        Ok((format!("exit code {code}, {}", text.lines().last().unwrap_or_default()), code == 0))
    };
    report.attempt(point, "analyze of sound manifests", "exit code 0", outcome.await);
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn sums_samples_by_label() {
        let text = "# TYPE x counter\nx{a=\"1\",b=\"2\"} 3\nx{a=\"1\"} 4 1700000000\nx_more{a=\"1\"} 9\nx 5\n";
        assert_eq!(sum(text, "x", &["a=\"1\""]), 7.0);
        assert_eq!(sum(text, "x", &[]), 12.0);
        assert_eq!(sum(text, "y", &[]), 0.0);
    }
}
