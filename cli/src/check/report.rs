//! The table of claims: what, expected, seen, verdict.
//!
//! Owns nothing else. A claim that could not be tried is a claim that does not hold.

use crate::inspect::table;

#[derive(Debug)]
struct Row {
    point: &'static str,
    what: String,
    expected: String,
    seen: String,
    good: bool,
}

/// Claims in the order in which they were tried.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Notes a claim, and prints it so that a long check shows life.
    pub(super) fn claim(
        &mut self,
        point: &'static str,
        what: impl Into<String>,
        expected: impl Into<String>,
        seen: impl Into<String>,
        good: bool,
    ) {
        let row = Row { point, what: what.into(), expected: expected.into(), seen: seen.into(), good };
        println!("{}  {}: {}", if good { "ok  " } else { "FAIL" }, row.what, row.seen);
        self.rows.push(row);
    }

    /// Notes a claim whose trial may break off.
    pub(super) fn attempt(
        &mut self,
        point: &'static str,
        what: impl Into<String>,
        expected: impl Into<String>,
        outcome: anyhow::Result<(String, bool)>,
    ) {
        let (seen, good) = outcome.unwrap_or_else(|e| (format!("{e:#}"), false));
        self.claim(point, what, expected, seen, good);
    }

    pub(super) fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|r| r.good)
    }

    pub(super) fn table(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let verdict = if row.good { "ok" } else { "FAILED" };
            vec![row.point.to_owned(), row.what.clone(), row.expected.clone(), row.seen.clone(), verdict.to_owned()]
        });
        table::render(&["POINT", "WHAT", "EXPECTED", "SEEN", "VERDICT"], rows.collect())
    }

    pub(super) fn verdict(&self) -> String {
        let failed = self.rows.iter().filter(|r| !r.good).count();
        format!("{} claims, {} hold, {failed} do not", self.rows.len(), self.rows.len() - failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_could_not_be_tried_fails() {
        let mut report = Report::default();
        assert!(!report.passed(), "nothing tried is nothing proved");
        report.claim("1", "a", "x", "x", true);
        assert!(report.passed());
        report.attempt("2", "b", "y", Err(anyhow::anyhow!("broke")));
        assert!(!report.passed());
        assert!(report.table().contains("FAILED") && report.table().contains("broke"));
        assert_eq!(report.verdict(), "2 claims, 1 hold, 1 do not");
    }
}
