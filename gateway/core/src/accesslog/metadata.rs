//! Owns the operators that read metadata: whose, and where in it.

use super::{operator::Found, record::Record};
use crate::config::Metadata;

/// Whose metadata is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// What filters said of the request.
    Dynamic,
    Cluster,
    Route,
    Endpoint,
    Listener,
    Chain,
    VirtualHost,
}

/// A place in metadata.
#[derive(Debug, Clone)]
pub(super) struct Path {
    of: Of,
    namespace: Box<str>,
    keys: Box<[Box<str>]>,
}

impl Path {
    /// `TYPE:NAMESPACE:KEY…` for the operator that reads any, `NAMESPACE:KEY…` for the others.
    pub(super) fn parse(name: &str, argument: &str) -> Result<Self, String> {
        let (of, rest) = match name {
            "DYNAMIC_METADATA" => (Of::Dynamic, argument),
            "CLUSTER_METADATA" => (Of::Cluster, argument),
            "UPSTREAM_METADATA" => (Of::Endpoint, argument),
            _ => {
                let (of, rest) = argument.split_once(':').unwrap_or((argument, ""));
                (whose(of).ok_or_else(|| format!("%{name}({argument})%: there is no metadata of {of:?}"))?, rest)
            }
        };
        let mut parts = rest.split(':').map(Into::into);
        let namespace = parts.next().unwrap_or_default();
        Ok(Self { of, namespace, keys: parts.collect() })
    }

    /// Whether it is metadata that not every record has at hand.
    pub(super) fn is_of_upstream(&self) -> bool {
        matches!(self.of, Of::Cluster | Of::Endpoint)
    }

    pub(super) fn find<'a>(&self, record: &Record<'a>) -> Found<'a> {
        let (around, metadata) = (record.facts.around, record.facts.metadata);
        let found: Option<&'a Metadata> = match self.of {
            Of::Dynamic => record.facts.head.map(|head| &head.metadata),
            Of::Cluster => metadata.cluster,
            Of::Route => metadata.route,
            Of::Endpoint => metadata.endpoint,
            Of::Listener => around.listener,
            Of::Chain => around.chain,
            Of::VirtualHost => metadata.virtual_host,
        };
        let Some(whole) = found.and_then(|found| found.namespace(&self.namespace)) else { return Found::Nothing };
        let part = self.keys.iter().try_fold(whole, |value, key| value.get(key));
        part.map_or(Found::Nothing, Found::Value)
    }
}

fn whose(text: &str) -> Option<Of> {
    Some(match text {
        "DYNAMIC" => Of::Dynamic,
        "CLUSTER" => Of::Cluster,
        "ROUTE" => Of::Route,
        "UPSTREAM_HOST" => Of::Endpoint,
        "LISTENER" => Of::Listener,
        "LISTENER_FILTER_CHAIN" => Of::Chain,
        "VIRTUAL_HOST" => Of::VirtualHost,
        _ => return None,
    })
}
