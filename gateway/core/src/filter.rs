//! HTTP filters: what each does to a request before it is forwarded.
//!
//! Owns behaviour; settings are in `config`. Pure: buckets of tokens are the one thing that changes, and they are told the time.
//! Used by `decide`.

mod access;
mod body;
mod bucket;
mod cors;
mod csrf;
mod fault;
mod limit;
mod mutation;
mod places;
mod told;

pub use access::{Subject, allowed};
pub use body::{BodyFilter, Leaving, Recode, Recodes, Web, enter, is_foreign_to_web, is_grpc_web, leave};
pub use bucket::TokenBucket;
pub(crate) use cors::CorsVerdict;
pub use mutation::{Mutations, TrailerChanges};
pub use places::{Place, Places};

use crate::{
    config::{ClusterWeight, FilterOverride, FilterOverrides},
    decision::Matched,
};

pub(crate) use cors::judge as cors;
pub(crate) use csrf::same_site;
pub(crate) use fault::inject;
pub(crate) use limit::{Described, take};

/// What the most specific level says about a filter.
pub(crate) fn override_of<'m>(
    name: &str,
    matched: Option<&'m Matched>,
    weight: Option<&'m ClusterWeight>,
) -> Option<&'m FilterOverride> {
    let matched = matched?;
    weight
        .and_then(|weight| find(name, &weight.overrides))
        .or_else(|| matched.route().and_then(|route| find(name, &route.overrides)))
        .or_else(|| find(name, &matched.host().overrides))
        .or_else(|| find(name, &matched.table.overrides))
}

fn find<'m>(name: &str, overrides: &'m FilterOverrides) -> Option<&'m FilterOverride> {
    overrides.iter().find(|(filter, _)| &**filter == name).map(|(_, value)| value)
}

/// What each level says about a filter, the specific ones first.
pub(crate) fn levels_of<'m>(
    name: &str,
    matched: Option<&'m Matched>,
    weight: Option<&'m ClusterWeight>,
) -> impl DoubleEndedIterator<Item = &'m FilterOverride> + use<'m> {
    let levels = [
        weight.map(|weight| &weight.overrides),
        matched.and_then(Matched::route).map(|route| &route.overrides),
        matched.map(|matched| &matched.host().overrides),
        matched.map(|matched| &matched.table.overrides),
    ];
    levels.map(|level| level.and_then(|overrides| find(name, overrides))).into_iter().flatten()
}
