//! Formats of bodies made here.

use super::{
    Refusal,
    any::{At, Decoded, header_value, refuse},
};
use crate::format::Format;
use http::HeaderValue;
use tombolo_controlplane_api::xds::envoy::config::core::v3::{
    SubstitutionFormatString, substitution_format_string as sf,
};

/// A body's format and its content type.
pub(super) fn body(message: SubstitutionFormatString) -> Decoded<(Format, HeaderValue)> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } = message;
    let _ = omit_empty_values;
    refuse!(formatters, json_format_options);
    let text = match format {
        Some(sf::Format::TextFormat(text)) => text,
        Some(sf::Format::TextFormatSource(source)) => {
            String::from_utf8(super::any::data(&source).at("text_format_source")?)
                .map_err(|_| Refusal::new("text_format_source", "not text"))?
        }
        Some(sf::Format::JsonFormat(_)) => return Err(Refusal::unsupported("json_format")),
        None => return Err(Refusal::new("format", "missing")),
    };
    let content_type = if content_type.is_empty() { "text/plain" } else { &content_type };
    Ok((Format::parse(&text).at("text_format")?, header_value(content_type).at("content_type")?))
}
