//! Scoped routes.

use super::{
    Refusal,
    any::{At, Decoded, header_name, over_ads, refuse},
    route,
};
use crate::config::{Element, FetchTimeout, Fragment, RouteSource, Scope, ScopeIndex, ScopeTable, ScopedRoutes};
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::{
    config::route::v3::{
        ScopedRouteConfiguration,
        scoped_route_configuration::{Key, key::fragment::Type as Part},
    },
    extensions::filters::network::http_connection_manager::v3::{
        self as pb,
        scoped_routes::{
            ConfigSpecifier,
            scope_key_builder::{
                FragmentBuilder, fragment_builder as fb,
                fragment_builder::header_value_extractor::{ExtractType, KvElement},
            },
        },
    },
};

/// How a connection manager finds a scope, and how long routes may take.
pub(super) fn routes(message: pb::ScopedRoutes) -> Decoded<(RouteSource, FetchTimeout)> {
    let pb::ScopedRoutes { name, scope_key_builder, rds_config_source, config_specifier } = message;
    let builder = scope_key_builder.ok_or_else(|| Refusal::new("scope_key_builder", "missing"))?;
    if builder.fragments.is_empty() {
        return Err(Refusal::new("scope_key_builder.fragments", "empty"));
    }
    let fragments = builder.fragments.into_iter().enumerate();
    let fragments = fragments.map(|(at, f)| fragment(f).nth("scope_key_builder.fragments", at));
    // Without a source of its own for routes, those of scopes come from the aggregated stream.
    let wait = rds_config_source.as_ref().map(over_ads).transpose().at("rds_config_source")?.unwrap_or_default();
    let scopes = match config_specifier {
        Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => {
            let mut index = ScopeIndex::default();
            for (at, one) in list.scoped_route_configurations.into_iter().enumerate() {
                let one = scope(one).nth("scoped_route_configurations_list", at)?;
                let put = index.put(Arc::new(one)).map_err(|other| format!("has the key of {other:?}"));
                put.nth("scoped_route_configurations_list", at)?;
            }
            Some(index)
        }
        Some(ConfigSpecifier::ScopedRds(pb::ScopedRds { scoped_rds_config_source, srds_resources_locator })) => {
            refuse!(srds_resources_locator);
            let source = scoped_rds_config_source
                .ok_or_else(|| Refusal::new("scoped_rds.scoped_rds_config_source", "missing"))?;
            over_ads(&source).at("scoped_rds.scoped_rds_config_source")?;
            None
        }
        None => return Err(Refusal::new("config_specifier", "missing")),
    };
    let scoped = ScopedRoutes { name: name.into(), fragments: fragments.collect::<Decoded<_>>()?, scopes };
    Ok((RouteSource::Scoped(Arc::new(scoped)), wait))
}

fn fragment(message: FragmentBuilder) -> Decoded<Fragment> {
    let Some(fb::Type::HeaderValueExtractor(extractor)) = message.r#type else {
        return Err(Refusal::new("header_value_extractor", "missing"));
    };
    let fb::HeaderValueExtractor { name, element_separator, extract_type } = extractor;
    let element = match extract_type {
        Some(ExtractType::Index(index)) if index > 0 && element_separator.is_empty() => {
            return Err(Refusal::new("header_value_extractor.index", "without element_separator there is only 0"));
        }
        Some(ExtractType::Index(index)) => Element::Index(index),
        Some(ExtractType::Element(KvElement { separator, key })) if !separator.is_empty() && !key.is_empty() => {
            Element::Value { key: key.into(), separator: separator.into() }
        }
        Some(ExtractType::Element(_)) => return Err(Refusal::new("header_value_extractor.element", "incomplete")),
        None => return Err(Refusal::new("header_value_extractor.extract_type", "missing")),
    };
    let header = match name.to_ascii_lowercase().as_str() {
        ":authority" | "host" => None,
        other => Some(header_name(other).at("header_value_extractor.name")?),
    };
    Ok(Fragment { header, separator: element_separator.into(), element })
}

/// A scope.
pub(super) fn scope(message: ScopedRouteConfiguration) -> Decoded<Scope> {
    let ScopedRouteConfiguration { on_demand, name, route_configuration_name, route_configuration, key } = message;
    // A scope that may be loaded when it is first asked for is loaded at once.
    let _ = on_demand;
    if name.is_empty() {
        return Err(Refusal::new("name", "empty"));
    }
    let routes = match (route_configuration, route_configuration_name.is_empty()) {
        (Some(table), true) => {
            ScopeTable::Inline(Arc::new(route::table(table, route::Comes::Alone).at("route_configuration")?))
        }
        (None, false) => ScopeTable::Named(route_configuration_name.into()),
        (Some(_), false) => return Err(Refusal::new("route_configuration", "beside route_configuration_name")),
        (None, true) => return Err(Refusal::new("route_configuration_name", "missing")),
    };
    let Key { fragments } = key.ok_or_else(|| Refusal::new("key", "missing"))?;
    if fragments.is_empty() {
        return Err(Refusal::new("key.fragments", "empty"));
    }
    let parts = fragments.into_iter().enumerate().map(|(at, fragment)| match fragment.r#type {
        Some(Part::StringKey(text)) => Ok(Arc::from(text)),
        None => Err(Refusal::new(format!("key.fragments[{at}]"), "missing")),
    });
    Ok(Scope { name: name.into(), key: parts.collect::<Decoded<_>>()?, routes })
}
