//! Configurations of filters that come one by one (ECDS), and the places that wait for them.

use super::{
    Refusal,
    any::{At, Decoded, over_ads},
    filter, listener, network,
};
use crate::config::{Discovered, Extension};
use std::sync::Arc;
use tombolo_controlplane_api::xds::{
    envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig},
    google::protobuf::Any,
};

/// A resource.
pub(super) fn resource(message: TypedExtensionConfig) -> Decoded<(Arc<str>, Extension)> {
    let TypedExtensionConfig { name, typed_config } = message;
    let config = typed_config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
    let extension = extension(&name, &config).at("typed_config")?;
    Ok((name.into(), extension))
}

fn extension(name: &str, config: &Any) -> Decoded<Extension> {
    // One message may serve in several places, so each place looks at it. One that takes it and finds a fault refuses.
    let http = filter::known(name, config)?;
    let listener = listener::known_filter(config)?;
    let network = network::known_filter(name, config)?;
    if http.is_none() && listener.is_none() && network.is_none() {
        return Err(Refusal::unsupported(filter::inner_type(config)));
    }
    Ok(Extension { type_name: filter::inner_type(config).into(), http, listener, network })
}

/// A place in a chain that takes its configuration from a resource of the same name.
pub(super) fn source(name: &str, message: ExtensionConfigSource) -> Decoded<Arc<Discovered>> {
    let ExtensionConfigSource { config_source, default_config, apply_default_config_without_warming, type_urls } =
        message;
    let source = config_source.ok_or_else(|| Refusal::new("config_source", "missing"))?;
    let fetch_timeout = over_ads(&source).at("config_source")?;
    if type_urls.is_empty() {
        return Err(Refusal::new("type_urls", "empty"));
    }
    let types: Box<[Arc<str>]> =
        type_urls.iter().map(|url| Arc::from(url.rsplit_once('/').map_or(url.as_str(), |(_, name)| name))).collect();
    let default = default_config.map(|config| extension(name, &config)).transpose().at("default_config")?;
    if let Some(default) = &default
        && !types.contains(&default.type_name)
    {
        return Err(Refusal::new("default_config", format!("{} is not among type_urls", default.type_name)));
    }
    if apply_default_config_without_warming && default.is_none() {
        return Err(Refusal::new("apply_default_config_without_warming", "without default_config"));
    }
    Ok(Arc::new(Discovered {
        resource: name.into(),
        types,
        default,
        waits: !apply_default_config_without_warming,
        fetch_timeout,
    }))
}
