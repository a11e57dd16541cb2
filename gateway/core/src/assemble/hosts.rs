//! Virtual hosts that come one by one (VHDS), put into the tables that they belong to.

use crate::{config::RouteTable, wire::DynamicHost};
use ahash::AHashMap;
use std::{collections::BTreeMap, sync::Arc};

/// What came, by table and by name, and the tables as they were sent.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    came: AHashMap<Arc<str>, BTreeMap<Arc<str>, Arc<DynamicHost>>>,
    /// Tables in use that take further hosts.
    pub(super) tables: AHashMap<Arc<str>, Arc<RouteTable>>,
}

impl Hosts {
    /// Takes a host in. True when the table is in use and changed by it.
    pub(super) fn put(&mut self, host: Arc<DynamicHost>) -> bool {
        let of_table = self.came.entry(Arc::clone(&host.table)).or_default();
        if of_table.get(&host.name).is_some_and(|before| **before == *host) {
            return false;
        }
        let table = Arc::clone(&host.table);
        of_table.insert(Arc::clone(&host.name), host);
        self.tables.contains_key(&table)
    }

    /// Forgets a host; says which table in use is changed by it.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<str>> {
        let (table, _) = name.split_once('/')?;
        self.came.get_mut(table)?.remove(name)?;
        self.tables.get_key_value(table).map(|(name, _)| Arc::clone(name))
    }

    /// A table with the hosts that came for it. A domain that is taken already stays with who has it.
    pub(super) fn merged(&self, table: &Arc<RouteTable>) -> Arc<RouteTable> {
        let Some(came) = self.came.get(&table.name).filter(|came| !came.is_empty()) else { return Arc::clone(table) };
        let mut out = RouteTable::clone(table);
        let mut hosts = std::mem::take(&mut out.hosts).into_vec();
        for host in came.values() {
            let Ok(place) = u32::try_from(hosts.len()) else { break };
            for domain in &host.domains {
                let _ = out.index.put(domain, place);
            }
            hosts.push((*host.host).clone());
        }
        out.hosts = hosts.into();
        Arc::new(out)
    }

    /// A domain of the host that another one of its table has.
    pub(super) fn clash(&self, host: &DynamicHost) -> Option<Arc<str>> {
        let mut index = self.tables.get(&host.table).map(|table| table.index.clone()).unwrap_or_default();
        let others = self.came.get(&host.table).into_iter().flatten().filter(|(name, _)| **name != host.name);
        for domain in others.flat_map(|(_, other)| &other.domains) {
            let _ = index.put(domain, 0);
        }
        host.domains.iter().find(|domain| index.put(domain, 0).is_err()).cloned()
    }
}
