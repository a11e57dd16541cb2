//! The filter that changes headers, trailers and queries.

use super::{
    Refusal,
    any::{At as _, Decoded, refuse},
    header, matcher,
};
use crate::{
    config::{Action, HeaderMutationFilter, Mutation, QueryMutation},
    format::Format,
};
use ::http::HeaderName;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            common::mutation_rules::v3::{HeaderMutation, header_mutation},
            core::v3::{self as core, key_value_append::KeyValueAppendAction},
        },
        extensions::filters::http::header_mutation::v3::{self as mutation, HeaderMutationPerRoute},
    },
    google::protobuf::value::Kind,
};

/// Bytes of a parameter's name.
const NAME: usize = 16384;

/// In a chain.
pub(super) fn filter(message: mutation::HeaderMutation) -> Decoded<HeaderMutationFilter> {
    let mutation::HeaderMutation { mutations, most_specific_header_mutations_wins } = message;
    let lists = lists(mutations.unwrap_or_default()).at("mutations")?;
    Ok(HeaderMutationFilter { most_specific_wins: most_specific_header_mutations_wins, ..lists })
}

/// On a route, a virtual host or a table.
pub(super) fn of_route(message: HeaderMutationPerRoute) -> Decoded<HeaderMutationFilter> {
    let HeaderMutationPerRoute { mutations } = message;
    lists(mutations.unwrap_or_default()).at("mutations")
}

fn lists(message: mutation::Mutations) -> Decoded<HeaderMutationFilter> {
    let mutation::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = message;
    let query = query_parameter_mutations.into_iter().enumerate();
    Ok(HeaderMutationFilter {
        request: list(request_mutations, "request_mutations")?,
        query: query.map(|(at, one)| of_query(one).nth("query_parameter_mutations", at)).collect::<Decoded<_>>()?,
        request_trailers: list(request_trailers_mutations, "request_trailers_mutations")?,
        response: list(response_mutations, "response_mutations")?,
        response_trailers: list(response_trailers_mutations, "response_trailers_mutations")?,
        most_specific_wins: false,
    })
}

/// A list of changes.
pub(super) fn list(list: Vec<HeaderMutation>, field: &str) -> Decoded<Box<[Mutation]>> {
    let all = list.into_iter().enumerate();
    let all = all.map(|(at, one)| of_header(one).nth(field, at)).collect::<Decoded<Vec<_>>>()?;
    Ok(all.into_iter().flatten().collect())
}

/// `None` for what can have no effect.
fn of_header(message: HeaderMutation) -> Decoded<Option<Mutation>> {
    use header_mutation::Action as A;
    Ok(match message.action {
        Some(A::Remove(name)) if name.starts_with(':') || name.eq_ignore_ascii_case("host") => {
            return Err(Refusal::new("remove", format!("{name:?} may not be removed")));
        }
        Some(A::Remove(name)) if name.contains(['\0', '\r', '\n']) => {
            return Err(Refusal::new("remove", "has an end of a line"));
        }
        // No header is called what cannot be a name.
        Some(A::Remove(name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(Mutation::Remove),
        Some(A::Append(value)) => {
            let key = value.header.as_ref().map_or("", |header| header.key.as_str());
            if key.starts_with(':') || key.eq_ignore_ascii_case("host") {
                return Err(Refusal::new("append.header.key", format!("{key:?} may not be changed")));
            }
            Some(Mutation::Put(header::change(value).at("append")?))
        }
        Some(A::RemoveOnMatch(message)) => {
            let header_mutation::RemoveOnMatch { key_matcher } = message;
            let key_matcher = key_matcher.ok_or_else(|| Refusal::new("remove_on_match.key_matcher", "missing"))?;
            Some(Mutation::RemoveMatching(matcher::string(key_matcher).at("remove_on_match.key_matcher")?))
        }
        None => return Err(Refusal::new("action", "missing")),
    })
}

fn of_query(message: core::KeyValueMutation) -> Decoded<QueryMutation> {
    let core::KeyValueMutation { append, remove } = message;
    match (append, remove) {
        (Some(append), remove) if remove.is_empty() => put(append).at("append"),
        (None, remove) if remove.len() > NAME => Err(Refusal::new("remove", "too long")),
        (None, remove) if !remove.is_empty() => Ok(QueryMutation::Remove(remove.into())),
        (Some(_), _) => Err(Refusal::new("remove", "beside append")),
        (None, _) => Err(Refusal::new("append", "missing")),
    }
}

fn put(message: core::KeyValueAppend) -> Decoded<QueryMutation> {
    use KeyValueAppendAction as A;
    let core::KeyValueAppend { record, entry, action } = message;
    let record = record.ok_or_else(|| Refusal::new("record", "missing"))?;
    refuse!(entry);
    let core::KeyValuePair { key, value } = record;
    if key.is_empty() || key.len() > NAME {
        return Err(Refusal::new("record.key", "empty or too long"));
    }
    let Some(Kind::StringValue(value)) = value.and_then(|value| value.kind) else {
        return Err(Refusal::new("record.value", "not a text"));
    };
    let action = match A::try_from(action) {
        Ok(A::AppendIfExistsOrAdd) => Action::Append,
        Ok(A::AddIfAbsent) => Action::AddIfAbsent,
        Ok(A::OverwriteIfExistsOrAdd) => Action::Overwrite,
        Ok(A::OverwriteIfExists) => Action::OverwriteIfExists,
        Err(_) => return Err(Refusal::new("action", format!("{action} is not known"))),
    };
    Ok(QueryMutation::Put(key.into(), Format::parse(&value).at("record.value")?, action))
}
