//! Whether a resource fits what is here already.

use super::{Assembly, extend, needs::Needs};
use crate::{config::RouteTable, wire::Resource};

impl Assembly {
    /// Whether a resource fits what is here already.
    ///
    /// # Errors
    /// Why it does not, as goes into a refusal.
    pub fn admits(&self, resource: &Resource) -> Result<(), String> {
        match resource {
            Resource::Extension(name, extension) => {
                let all = self.extended.values().chain(self.listeners.warming.values().map(|w| &w.value));
                let mut places = all.flat_map(|listener| extend::places(listener)).filter(|p| p.resource == *name);
                match places.find(|place| !place.types.contains(&extension.type_name)) {
                    Some(_) => Err(format!("typed_config: {} is not among the type_urls", extension.type_name)),
                    None => Ok(()),
                }
            }
            Resource::Scope(scope) => {
                let all = self.scoped.values().chain(self.scopes.warming.values().map(|w| &w.value));
                let twin = all.into_iter().find(|other| other.key == scope.key && other.name != scope.name);
                twin.map_or(Ok(()), |twin| Err(format!("key: is that of scope {:?}", twin.name)))
            }
            Resource::Listener(listener) => {
                let mut tables = Needs::tables_of_listener(listener);
                tables.find_map(|table| self.stranger(table)).map_or(Ok(()), |why| Err(format!("route_config.{why}")))
            }
            Resource::Routes(table) => self.stranger(table).map_or(Ok(()), Err),
            Resource::Host(host) => {
                self.hosts.clash(host).map_or(Ok(()), |domain| Err(format!("domains: {domain:?} is there twice")))
            }
            _ => Ok(()),
        }
    }

    /// A cluster that a table names although it is not there, where the table does not allow that.
    fn stranger(&self, table: &RouteTable) -> Option<String> {
        let mut found = None;
        if table.validate_clusters {
            Needs::clusters_of_routes(table, |name| {
                if found.is_none() && !self.config.clusters.contains(name) && !self.clusters.warming.contains_key(name)
                {
                    found = Some(format!("virtual_hosts: there is no cluster {name:?}"));
                }
            });
        }
        found
    }
}
