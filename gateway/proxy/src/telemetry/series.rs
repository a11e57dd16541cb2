//! Counters and histograms with labels, one table per worker, merged when somebody reads them.
//!
//! A worker is the only writer of its table, so counting is a plain load and store without a locked instruction. Labels
//! are rendered once, when a series is made; afterwards a series is a pointer. The number of series is bounded: what does
//! not fit is counted in one series without labels.

use ahash::{AHashMap, AHashSet};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

/// Series that a worker may have of one family.
const MOST_SERIES: usize = 4096;
/// Labels of the one that stands for all others.
const OVERFLOW: &str = "overflow=\"true\"";

/// Istio's buckets for durations (milliseconds) and sizes (bytes).
pub(crate) const DURATION_BUCKETS: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
const BUCKETS: usize = DURATION_BUCKETS.len();

/// A number that only its worker changes.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    /// Adds, without a locked instruction: there is one writer.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value.
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// Adds, or takes away.
    #[inline]
    pub(crate) fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value.
    pub(crate) fn load(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A distribution.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Cell; BUCKETS + 1],
    /// In thousandths.
    sum: Cell,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Cell::default()), sum: Cell::default() }
    }
}

impl Histogram {
    /// Adds an observation.
    #[inline]
    pub(crate) fn observe(&self, value: f64) {
        let at = DURATION_BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "durations and sizes are small and not negative"
        )]
        self.sum.add((value * 1000.0) as u64);
    }
}

/// Everything that is counted for one combination of labels of requests.
#[derive(Debug, Default)]
pub(crate) struct RequestSeries {
    /// istio_requests_total
    pub(crate) total: Cell,
    /// istio_request_duration_milliseconds
    pub(crate) duration: Histogram,
    /// istio_request_bytes
    pub(crate) request_bytes: Histogram,
    /// istio_response_bytes
    pub(crate) response_bytes: Histogram,
}

/// Everything that is counted for one combination of labels of TCP connections.
#[derive(Debug, Default)]
pub(crate) struct TcpSeries {
    /// istio_tcp_connections_opened_total
    pub(crate) opened: Cell,
    /// istio_tcp_connections_closed_total
    pub(crate) closed: Cell,
    /// istio_tcp_sent_bytes_total
    pub(crate) sent: Cell,
    /// istio_tcp_received_bytes_total
    pub(crate) received: Cell,
}

/// Numbers of labels without which a series is nobody's.
pub(crate) type Owners = [u32; 3];

/// The series of one kind of one worker, by their rendered labels, with the numbers that they go with.
#[derive(Debug, Default)]
pub(crate) struct Family<S> {
    series: Mutex<ByLabels<S>>,
}

type ByLabels<S> = AHashMap<Arc<str>, (Arc<S>, Owners)>;

impl<S: Default> Family<S> {
    /// The series with these labels. Takes a lock: keep the result.
    pub(crate) fn with(&self, labels: &str, of: Owners) -> Arc<S> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((found, _)) = series.get(labels) {
            return found.clone();
        }
        let (labels, of) = if series.len() < MOST_SERIES { (labels, of) } else { (OVERFLOW, [0; 3]) };
        series.entry(Arc::from(labels)).or_insert_with(|| (Arc::default(), of)).0.clone()
    }

    /// Lets go of the series that belong to one of these numbers.
    pub(crate) fn forget(&self, gone: &AHashSet<u32>) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|_, (_, of)| !of.iter().any(|number| gone.contains(number)));
    }
}

/// The tables of one worker.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Requests.
    pub(crate) requests: Family<RequestSeries>,
    /// Connections of TCP proxies.
    pub(crate) tcp: Family<TcpSeries>,
}

/// Renders labels in the exposition format, values escaped.
pub(crate) fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[derive(Default)]
struct Merged {
    buckets: [u64; BUCKETS + 1],
    sum: u64,
}

impl Merged {
    fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load();
        }
        self.sum += histogram.sum.load();
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut running = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            running += count;
            let _ = match DURATION_BUCKETS.get(at) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {running}"),
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {running}"),
            };
        }
        #[allow(clippy::cast_precision_loss, reason = "shown, not computed with")]
        let sum = self.sum as f64 / 1000.0;
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {running}");
    }
}

/// Writes all workers' series as one exposition.
pub(crate) fn expose(workers: &[Arc<Tables>], out: &mut String) {
    let mut requests: BTreeMap<Arc<str>, (u64, [Merged; 3])> = BTreeMap::new();
    let mut tcp: BTreeMap<Arc<str>, [u64; 4]> = BTreeMap::new();
    for worker in workers {
        for (labels, (series, _)) in worker.requests.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (total, merged) = requests.entry(labels.clone()).or_default();
            *total += series.total.load();
            for (into, from) in merged.iter_mut().zip([&series.duration, &series.request_bytes, &series.response_bytes])
            {
                into.add(from);
            }
        }
        for (labels, (series, _)) in worker.tcp.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sums = tcp.entry(labels.clone()).or_default();
            for (into, from) in sums.iter_mut().zip([&series.opened, &series.closed, &series.sent, &series.received]) {
                *into += from.load();
            }
        }
    }
    write_requests(&requests, out);
    let names = [
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
    ];
    for (at, name) in names.iter().enumerate() {
        head(out, name, "counter");
        for (labels, sums) in &tcp {
            let _ = writeln!(out, "{name}{{{labels}}} {}", sums.get(at).copied().unwrap_or(0));
        }
    }
}

fn write_requests(requests: &BTreeMap<Arc<str>, (u64, [Merged; 3])>, out: &mut String) {
    head(out, "istio_requests_total", "counter");
    for (labels, (total, _)) in requests {
        let _ = writeln!(out, "istio_requests_total{{{labels}}} {total}");
    }
    let names = ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"];
    for (at, name) in names.iter().enumerate() {
        head(out, name, "histogram");
        for (labels, (_, merged)) in requests {
            if let Some(merged) = merged.get(at) {
                merged.write(out, name, labels);
            }
        }
    }
}

/// Writes the type line of a metric.
pub(crate) fn head(out: &mut String, name: &str, kind: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_merged_by_labels() {
        let (a, b) = (Arc::new(Tables::default()), Arc::new(Tables::default()));
        for (worker, labels, n) in [(&a, "x=\"1\"", 2), (&b, "x=\"1\"", 3), (&b, "x=\"2\"", 1)] {
            let series = worker.requests.with(labels, [0; 3]);
            for _ in 0..n {
                series.total.add(1);
                series.duration.observe(7.0);
            }
        }
        let mut out = String::new();
        expose(&[a, b], &mut out);
        assert!(out.contains("istio_requests_total{x=\"1\"} 5\n"), "{out}");
        assert!(out.contains("istio_requests_total{x=\"2\"} 1\n"));
        assert!(out.contains("istio_request_duration_milliseconds_bucket{x=\"1\",le=\"5\"} 0\n"));
        assert!(out.contains("istio_request_duration_milliseconds_bucket{x=\"1\",le=\"10\"} 5\n"));
        assert!(out.contains("istio_request_duration_milliseconds_sum{x=\"1\"} 35\n"));
    }

    #[test]
    fn hostile_labels_cannot_grow_the_table_or_break_a_line() {
        let family: Family<TcpSeries> = Family::default();
        for n in 0..MOST_SERIES + 100 {
            family.with(&format!("n=\"{n}\""), [0, 7, u32::from(n % 2 == 0) + 8]);
        }
        assert_eq!(family.series.lock().unwrap().len(), MOST_SERIES + 1);
        family.forget(&[9, 10].into_iter().collect());
        assert_eq!(family.series.lock().unwrap().len(), MOST_SERIES / 2 + 1);
        family.forget(&[7].into_iter().collect());
        assert_eq!(family.series.lock().unwrap().len(), 1, "what overflowed belongs to nobody");
        let mut out = String::new();
        label(&mut out, "a", "x\"\n\\y");
        assert_eq!(out, "a=\"x\\\"\\n\\\\y\"");
    }
}
