//! The filter that changes headers, trailers and query parameters, as configured.

use crate::{
    config::{Action, HeaderChange, HeaderChanges, StringMatcher},
    format::Format,
};
use http::HeaderName;

/// Changes requests and responses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutationFilter {
    /// The request's headers.
    pub request: Box<[Mutation]>,
    /// The query of its path, after its headers.
    pub query: Box<[QueryMutation]>,
    /// The request's trailers, where it has any.
    pub request_trailers: Box<[Mutation]>,
    /// The response's headers.
    pub response: Box<[Mutation]>,
    /// The response's trailers, where it has any.
    pub response_trailers: Box<[Mutation]>,
    /// What routes, virtual hosts and tables say is applied from the general to the specific; otherwise the other way round.
    pub most_specific_wins: bool,
}

/// One change. Each is done before the next is looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// These go.
    Remove(HeaderName),
    /// Those go whose name, in lower case, fits.
    RemoveMatching(StringMatcher),
    /// This is put.
    Put(HeaderChange),
}

/// One change of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryMutation {
    /// All parameters of this name go.
    Remove(Box<str>),
    /// A value is put.
    Put(Box<str>, Format, Action),
}

impl From<&HeaderChanges> for HeaderMutationFilter {
    /// Of a request's headers alone.
    fn from(changes: &HeaderChanges) -> Self {
        let removed = changes.removed().iter().cloned().map(Mutation::Remove);
        Self { request: removed.chain(changes.set().iter().cloned().map(Mutation::Put)).collect(), ..Self::default() }
    }
}
