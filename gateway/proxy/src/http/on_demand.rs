//! Requests for hosts that the control plane tells one by one (VHDS): they wait until it answered.
//!
//! Owns the wait. Only connection managers with the on-demand filter wait, and only where the routes say that more hosts may come.

use super::exchange::Downstream;
use crate::{clock, worker::Pinned};
use std::{rc::Rc, time::Duration};
use tombolo_gateway_core::{
    config::{Hcm, HttpFilterKind},
    head::Head,
    route::hosts::without_port,
};

/// A worker follows a new configuration within this time, or the request goes on without.
const FOLLOW: Duration = Duration::from_secs(1);

/// The configuration by which a request is served.
pub(super) async fn live_for(downstream: &Downstream, head: &Head) -> Rc<Pinned> {
    let worker = &downstream.worker;
    let live = worker.live();
    if !waits(&downstream.hcm) {
        return live;
    }
    let Some(table) = live.config.routes_for(&downstream.hcm, &head.authority, &head.headers) else { return live };
    let host = if table.ignore_port { without_port(&head.authority) } else { &head.authority };
    if table.more_hosts.is_none() || table.find(host).is_some() {
        return live;
    }
    let told = worker.setup.asker.host(&table.name, host).await;
    clock::read();
    let Some(generation) = told else { return worker.live() };
    let mut news = worker.setup.live.clone();
    let caught_up = async {
        while worker.live().config.generation < generation {
            if news.changed().await.is_err() {
                return;
            }
            // The worker hears of it at the same moment and has its turn first.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(FOLLOW, caught_up).await;
    clock::read();
    worker.live()
}

fn waits(hcm: &Hcm) -> bool {
    hcm.filters.iter().any(|filter| !filter.disabled && matches!(filter.kind, HttpFilterKind::OnDemand))
}
