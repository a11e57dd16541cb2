//! `tombolo proxy-config PROXY [SECTION]`: what a proxy runs, from its own `/inventory` or `/config_dump`.
//!
//! Owns finding the proxy by name, and the choice of what is shown. Our gateway's dump and a stock Envoy's are read by
//! modules of their own.

use super::{block_on, dump_envoy, dump_own};
use crate::{
    args::{Output, ProxyConfigArgs, Section, resolve},
    http::{Ask, ask},
    up::published::Published,
};
use anyhow::{Context, bail};
use http::Uri;
use serde_json::Value;
use std::{net::SocketAddr, path::Path, process::ExitCode};

pub(crate) fn main(args: &ProxyConfigArgs) -> ExitCode {
    block_on(run(args))
}

async fn run(args: &ProxyConfigArgs) -> anyhow::Result<ExitCode> {
    let admin = find(&args.proxy, args.state.as_deref())?;
    // Our gateway tells in its own words as well, with the state of endpoints; an Envoy knows nothing of that page.
    let (dump, ours) = match fetch(admin, "/inventory").await {
        Ok(dump) => (dump, true),
        Err(_) => (fetch(admin, "/config_dump").await?, false),
    };
    // Our dump holds the state of endpoints; Envoy tells it elsewhere.
    let status = if ours { Value::Null } else { fetch(admin, "/clusters?format=json").await? };
    if args.output == Output::Json {
        let shown = json(&dump, &status, args.section, ours);
        println!("{}", serde_json::to_string_pretty(&shown).context("cannot print")?);
        return Ok(ExitCode::SUCCESS);
    }
    let sections = match args.section {
        Section::All => vec![Section::Listeners, Section::Routes, Section::Clusters, Section::Endpoints],
        one => vec![one],
    };
    let tables: Vec<String> = sections.into_iter().map(|s| table_of(&dump, &status, s, ours)).collect();
    println!("{}", tables.join("\n\n"));
    Ok(ExitCode::SUCCESS)
}

fn json(dump: &Value, status: &Value, section: Section, ours: bool) -> Value {
    match (section, ours) {
        (Section::All, _) => dump.clone(),
        (Section::Listeners, true) => dump["listeners"].clone(),
        (Section::Routes, true) => dump["routes"].clone(),
        (Section::Clusters | Section::Endpoints, true) => dump["clusters"].clone(),
        (Section::Listeners, false) => dump_envoy::part(dump, "Listeners"),
        (Section::Routes, false) => dump_envoy::part(dump, "Routes"),
        (Section::Clusters, false) => dump_envoy::part(dump, "Clusters"),
        (Section::Endpoints, false) => status.clone(),
    }
}

fn table_of(dump: &Value, status: &Value, section: Section, ours: bool) -> String {
    match (section, ours) {
        (Section::All, _) => String::new(),
        (Section::Listeners, true) => dump_own::listeners(dump),
        (Section::Routes, true) => dump_own::routes(dump),
        (Section::Clusters, true) => dump_own::clusters(dump),
        (Section::Endpoints, true) => dump_own::endpoints(dump),
        (Section::Listeners, false) => dump_envoy::listeners(dump),
        (Section::Routes, false) => dump_envoy::routes(dump),
        (Section::Clusters, false) => dump_envoy::clusters(dump),
        (Section::Endpoints, false) => dump_envoy::endpoints(status),
    }
}

/// The admin address behind what the user called the proxy.
fn find(name: &str, state: Option<&Path>) -> anyhow::Result<SocketAddr> {
    if name.contains(':') {
        return resolve(name).map_err(anyhow::Error::msg);
    }
    let published = Published::find(state)?;
    if let Some((site, proxy)) = name.split_once('/') {
        let site = published.site(site)?;
        return match proxy {
            "ingress" => Ok(site.ingress.admin),
            "east-west" => Ok(site.east_west.admin),
            workload => site
                .workload(workload)?
                .sidecar
                .as_ref()
                .map(|s| s.admin)
                .with_context(|| format!("workload {workload} of {} has no sidecar", site.name)),
        };
    }
    let sidecar = |exact: bool| {
        published.sites.iter().flat_map(|s| &s.workloads).find_map(|w| {
            let named = if exact { w.name == name } else { w.name.starts_with(name) };
            if named { w.sidecar.as_ref().map(|s| s.admin) } else { None }
        })
    };
    match sidecar(true).or_else(|| sidecar(false)) {
        Some(admin) => Ok(admin),
        None => {
            let names: Vec<_> = published
                .sites
                .iter()
                .flat_map(|s| s.workloads.iter().map(move |w| format!("{}/{}", s.name, w.name)))
                .collect();
            bail!("no proxy {name:?}; there are: SITE/ingress, SITE/east-west, {}", names.join(", "))
        }
    }
}

async fn fetch(admin: SocketAddr, path: &'static str) -> anyhow::Result<Value> {
    let answer = ask(Ask::get(admin, Uri::from_static(path))).await?;
    if answer.status != 200 {
        bail!("{admin}: {path} answered {}", answer.status);
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("{admin}: {path} is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_running_up() {
        assert_eq!(find("127.0.0.1:15000", None).unwrap().port(), 15000);
        assert!(find("127.0.0.1:x", None).is_err());
    }
}
