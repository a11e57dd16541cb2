//! Virtual hosts that come one by one (VHDS), put into the tables that they belong to.

use crate::{
    config::RouteTable,
    route::more::{ComingHosts, lower},
    wire::DynamicHost,
};
use ahash::{AHashMap, AHashSet};
use std::sync::Arc;

/// What came, by table, and the tables as they were sent.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    came: AHashMap<Arc<str>, ComingHosts>,
    /// Tables in use that take further hosts.
    pub(super) tables: AHashMap<Arc<str>, Arc<RouteTable>>,
    /// Tables whose hosts changed since they were last put together.
    changed: AHashSet<Arc<str>>,
}

impl Hosts {
    /// Takes a host in.
    pub(super) fn put(&mut self, host: Arc<DynamicHost>) {
        let table = Arc::clone(&host.table);
        if self.came.entry(Arc::clone(&table)).or_default().put(host) {
            self.changed.insert(table);
        }
    }

    /// Forgets a host.
    pub(super) fn remove(&mut self, name: &str) {
        let Some((table, _)) = name.split_once('/') else { return };
        if let Some((table, came)) =
            self.came.get_key_value(table).map(|(table, _)| Arc::clone(table)).zip(self.came.get_mut(table))
            && came.remove(name)
        {
            self.changed.insert(table);
        }
    }

    /// Tables in use whose hosts changed, with them.
    pub(super) fn take_changed(&mut self) -> Vec<Arc<RouteTable>> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|name| self.tables.get(name)).map(|table| self.merged(table)).collect()
    }

    /// A table with the hosts that came for it.
    pub(super) fn merged(&self, table: &Arc<RouteTable>) -> Arc<RouteTable> {
        let Some(came) = self.came.get(&table.name).filter(|came| !came.is_empty()) else { return Arc::clone(table) };
        Arc::new(RouteTable { more: Some(Arc::clone(&came.hosts)), ..(**table).clone() })
    }

    /// A domain of the host that another one of its table has.
    pub(super) fn clash(&self, host: &DynamicHost) -> Option<Arc<str>> {
        let written = self
            .tables
            .get(&host.table)
            .and_then(|table| host.domains.iter().find(|domain| table.index.has(&lower(domain))).cloned());
        let own = || {
            let mut seen = AHashSet::new();
            host.domains.iter().find(|domain| !seen.insert(lower(domain))).cloned()
        };
        written.or_else(|| self.came.get(&host.table)?.clash(host)).or_else(own)
    }
}
