//! Filters that come as resources of their own (ECDS), put into the chains that wait for them.

use crate::config::{
    Discovered, Extension, FilterChain, Hcm, HttpFilter, HttpFilterKind, Listener, ListenerFilter, NetworkFilter,
    Terminal,
};
use ahash::AHashMap;
use std::sync::Arc;

/// What came, by name.
pub(super) type Extensions = AHashMap<Arc<str>, Arc<Extension>>;

/// All places of a listener that wait for a resource.
pub(super) fn places(listener: &Listener) -> impl Iterator<Item = &Arc<Discovered>> {
    let of_listener = listener.filters.iter().filter_map(|filter| match filter {
        ListenerFilter::Discovered(place) => Some(place),
        _ => None,
    });
    let chains = listener.chains.iter().chain(&listener.default_chain);
    of_listener.chain(chains.flat_map(|chain| of_chain(chain)))
}

fn of_chain(chain: &FilterChain) -> impl Iterator<Item = &Arc<Discovered>> {
    let network = chain.filters.iter().filter_map(|filter| match filter {
        NetworkFilter::Discovered(place) => Some(place),
        _ => None,
    });
    let http: &[HttpFilter] = match &chain.terminal {
        Terminal::Http(hcm) => &hcm.filters,
        Terminal::Tcp(_) => &[],
    };
    network.chain(http.iter().filter_map(|filter| match &filter.kind {
        HttpFilterKind::Discovered(place) => Some(place),
        _ => None,
    }))
}

/// The listener with what came in the places that wait for it. Where nothing came and there is no default the place stays.
pub(super) fn resolved(listener: &Arc<Listener>, have: &Extensions) -> Arc<Listener> {
    if places(listener).next().is_none() {
        return Arc::clone(listener);
    }
    let mut out = Listener::clone(listener);
    for filter in &mut out.filters {
        if let ListenerFilter::Discovered(place) = filter
            && let Some(found) = found(place, have).and_then(|extension| extension.listener.clone())
        {
            *filter = found;
        }
    }
    for chain in out.chains.iter_mut().chain(&mut out.default_chain) {
        if of_chain(chain).next().is_some() {
            *chain = Arc::new(chain_with(chain, have));
        }
    }
    Arc::new(out)
}

fn chain_with(chain: &FilterChain, have: &Extensions) -> FilterChain {
    let mut out = chain.clone();
    for filter in &mut out.filters {
        if let NetworkFilter::Discovered(place) = filter
            && let Some(found) = found(place, have).and_then(|extension| extension.network.clone())
        {
            *filter = found;
        }
    }
    if let Terminal::Http(hcm) = &out.terminal {
        out.terminal = Terminal::Http(Arc::new(manager_with(hcm, have)));
    }
    out
}

fn manager_with(hcm: &Hcm, have: &Extensions) -> Hcm {
    let mut out = hcm.clone();
    for filter in &mut out.filters {
        if let HttpFilterKind::Discovered(place) = &filter.kind
            && let Some(kind) = found(place, have).and_then(|extension| extension.http.clone())
        {
            filter.kind = kind;
        }
    }
    out.mesh_stats = out.filters.iter().any(|filter| matches!(filter.kind, HttpFilterKind::MeshStats));
    out
}

fn found<'e>(place: &'e Discovered, have: &'e Extensions) -> Option<&'e Extension> {
    have.get(&place.resource)
        .map(|extension| &**extension)
        .filter(|extension| place.types.contains(&extension.type_name))
        .or(place.default.as_ref())
}

/// The listener with the chains of the version before wherever they say the same: what is counted in them goes on, and tickets
/// of their sessions stay good.
pub(super) fn keeping(mut fresh: Arc<Listener>, before: &Listener) -> Arc<Listener> {
    let mut known: AHashMap<&Arc<str>, Vec<&Arc<FilterChain>>> = AHashMap::new();
    for chain in before.chains.iter().chain(&before.default_chain) {
        known.entry(&chain.name).or_default().push(chain);
    }
    let listener = Arc::make_mut(&mut fresh);
    for chain in listener.chains.iter_mut().chain(&mut listener.default_chain) {
        let same = known.get(&chain.name).and_then(|all| all.iter().find(|before| ***before == *chain));
        if let Some(same) = same {
            *chain = Arc::clone(same);
        }
    }
    fresh
}
