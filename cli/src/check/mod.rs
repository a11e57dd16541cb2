//! `tombolo up --check`: proves from outside that the federation does what it should.
//!
//! Owns the list of claims and the table. Uses what any user has: requests, processes to kill, files to edit, the other
//! commands. Never looks into a process.

mod client;
mod failover;
mod live;
mod report;
mod traffic;
mod watching;

use client::Client;
use report::Report;
use std::path::PathBuf;

/// Runs every claim against the `up` in a state folder, and prints the table. True when all hold.
pub(crate) async fn run(state: PathBuf) -> anyhow::Result<bool> {
    let client = Client::new(state)?;
    let mut report = Report::default();
    println!("checking");
    traffic::ingress(&client, &mut report).await;
    traffic::across_sites(&client, &mut report).await;
    traffic::federation(&client, &mut report).await;
    traffic::outside(&client, &mut report).await;
    traffic::identity(&client, &mut report).await;
    watching::metrics(&client, &mut report).await;
    watching::commands(&client, &mut report).await;
    live::edits(&client, &mut report).await;
    failover::local_endpoints(&client, &mut report).await;
    failover::remote_daemons(&client, &mut report).await;
    println!("\n{}", report.table());
    println!("{}", report.verdict());
    Ok(report.passed())
}
