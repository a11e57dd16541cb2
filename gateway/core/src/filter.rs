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
mod places;

pub use access::{Subject, allowed};
pub use body::{BodyFilter, Leaving, Recode, Recodes, Web, enter, is_foreign_to_web, is_grpc_web, leave};
pub use bucket::TokenBucket;
pub(crate) use cors::CorsVerdict;
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
    let find =
        |overrides: &'m FilterOverrides| overrides.iter().find(|(filter, _)| &**filter == name).map(|(_, value)| value);
    weight
        .and_then(|weight| find(&weight.overrides))
        .or_else(|| matched.route().and_then(|route| find(&route.overrides)))
        .or_else(|| find(&matched.host().overrides))
        .or_else(|| find(&matched.table.overrides))
}
