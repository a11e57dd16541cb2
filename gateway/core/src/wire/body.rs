//! Filters that change bodies.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, refuse, type_name, u32_or, unpack},
    matcher,
};
use crate::config::{Coder, Coding, Compressible, Compressor, CompressorOverride, Decompressor, FilterOverride};
use prost::Name as _;
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::{RuntimeFeatureFlag, TypedExtensionConfig},
    extensions::{
        compression::{
            brotli::{compressor::v3::Brotli, decompressor::v3::Brotli as Unbrotli},
            gzip::{compressor::v3::Gzip, decompressor::v3::Gzip as Gunzip},
            zstd::{compressor::v3::Zstd, decompressor::v3::Zstd as Unzstd},
        },
        filters::http::{
            buffer::v3::{self as buffer, buffer_per_route},
            compressor::v3::{self as pb, compressor as c, compressor_per_route},
            decompressor::v3::{self as de, decompressor as d},
        },
    },
};

/// What is compressed when nothing is said of types.
const TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
];
const MIN_LENGTH: u32 = 30;
/// A body may not grow more than this when it is decompressed.
const GROWTH: u32 = 100;

pub(super) fn compressor(message: pb::Compressor) -> Decoded<Compressor> {
    let pb::Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = message;
    // The older fields mean the response.
    let old = c::CommonDirectionConfig {
        enabled: runtime_enabled,
        min_content_length: content_length,
        content_type,
        content_type_matcher: Vec::new(),
    };
    let response = response_direction_config.unwrap_or_else(|| c::ResponseDirectionConfig {
        common_config: Some(old),
        disable_on_etag_header,
        remove_accept_encoding_header,
        ..c::ResponseDirectionConfig::default()
    });
    let c::ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        weaken_etag_on_compress,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = response;
    if status_header_enabled {
        return Err(Refusal::unsupported("response_direction_config.status_header_enabled"));
    }
    let request = request_direction_config.map(|request| direction(request.common_config.unwrap_or_default(), false));
    Ok(Compressor {
        coder: coder(compressor_library)?,
        request: request.transpose().at("request_direction_config.common_config")?.flatten(),
        response: direction(common_config.unwrap_or_default(), true).at("response_direction_config.common_config")?,
        not_with_etag: disable_on_etag_header,
        weaken_etag: weaken_etag_on_compress,
        remove_accept_encoding: remove_accept_encoding_header,
        not_with_status: uncompressible_response_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
        choose_first,
    })
}

fn direction(message: c::CommonDirectionConfig, default: bool) -> Decoded<Option<Compressible>> {
    let c::CommonDirectionConfig { enabled, min_content_length, content_type, content_type_matcher } = message;
    // A request is compressed only when that is asked for.
    let asked = flag(enabled, default || min_content_length.is_some() || !content_type.is_empty());
    let matchers = matcher::strings(content_type_matcher, "content_type_matcher")?;
    let types = if content_type.is_empty() && matchers.is_empty() {
        TYPES.iter().map(|one| Box::from(*one)).collect()
    } else {
        content_type.iter().map(|one| one.to_ascii_lowercase().into()).collect()
    };
    Ok(asked.then(|| Compressible { min_length: u64::from(u32_or(min_content_length, MIN_LENGTH)), types, matchers }))
}

fn flag(flag: Option<RuntimeFeatureFlag>, default: bool) -> bool {
    flag.map_or(default, |flag| bool_or(flag.default_value, default))
}

fn coder(library: Option<TypedExtensionConfig>) -> Decoded<Coder> {
    let place = "compressor_library.typed_config";
    let config = library
        .ok_or_else(|| Refusal::new("compressor_library", "missing"))?
        .typed_config
        .ok_or_else(|| Refusal::new(place, "missing"))?;
    let kind = type_name(&config);
    if kind == Gzip::full_name() {
        let Gzip { memory_level, compression_level, compression_strategy, window_bits, chunk_size } =
            unpack(&config).at(place)?;
        // Of memory and speed, which the library manages itself: they are judged, and not heeded.
        for (name, value, least, most) in [
            ("memory_level", memory_level, 1, 9),
            ("window_bits", window_bits, 9, 15),
            ("chunk_size", chunk_size, 4096, 65536),
        ] {
            if let Some(value) = value.map(|v| v.value).filter(|value| !(least..=most).contains(value)) {
                return Err(Refusal::new(name, format!("{value} is not between {least} and {most}"))).at(place);
            }
        }
        for (name, value, most) in
            [("compression_level", compression_level, 9), ("compression_strategy", compression_strategy, 4)]
        {
            if !(0..=most).contains(&value) {
                return Err(Refusal::new(name, "not a value of the enumeration")).at(place);
            }
        }
        let _ = (memory_level, compression_strategy, window_bits, chunk_size);
        let level = u8::try_from(compression_level).ok().filter(|level| (1..=9).contains(level));
        Ok(Coder::Gzip { level })
    } else if kind == Brotli::full_name() {
        let message: Brotli = unpack(&config).at(place)?;
        let quality = bounded(u32_or(message.quality, 3), 0, 11).at("quality").at(place)?;
        let window = bounded(u32_or(message.window_bits, 18), 10, 24).at("window_bits").at(place)?;
        Ok(Coder::Brotli { quality, window })
    } else if kind == Zstd::full_name() {
        let Zstd { compression_level, enable_checksum, strategy, dictionary, chunk_size } =
            unpack(&config).at(place)?;
        let _ = (strategy, chunk_size);
        if dictionary.is_some() {
            return Err(Refusal::unsupported(format!("{place}.dictionary")));
        }
        let level = bounded(u32_or(compression_level, 3), 1, 22).at("compression_level").at(place)?;
        Ok(Coder::Zstd { level, checksum: enable_checksum })
    } else {
        Err(Refusal::unsupported(format!("{place} ({kind})")))
    }
}

fn bounded(value: u32, least: u8, most: u8) -> Result<u8, String> {
    let fits = u8::try_from(value).ok().filter(|value| (least..=most).contains(value));
    fits.ok_or_else(|| format!("{value} is not between {least} and {most}"))
}

pub(super) fn compressor_override(message: pb::CompressorPerRoute) -> Decoded<FilterOverride> {
    match message.r#override {
        Some(compressor_per_route::Override::Disabled(_)) => Ok(FilterOverride::Off),
        Some(compressor_per_route::Override::Overrides(message)) => {
            let pb::CompressorOverrides { response_direction_config, compressor_library } = message;
            let told = response_direction_config.and_then(|response| response.remove_accept_encoding_header);
            Ok(FilterOverride::Compressor(Arc::new(CompressorOverride {
                remove_accept_encoding: told.map(|told| told.value),
                coder: compressor_library.map(|library| coder(Some(library))).transpose()?,
            })))
        }
        None => Err(Refusal::new("override", "missing")),
    }
}

pub(super) fn decompressor(message: de::Decompressor) -> Decoded<Decompressor> {
    let de::Decompressor { decompressor_library, request_direction_config, response_direction_config } = message;
    let (coding, most_growth) = decoder(decompressor_library)?;
    let common = |config: Option<d::CommonDirectionConfig>| {
        let d::CommonDirectionConfig { enabled, ignore_no_transform_header } = config.unwrap_or_default();
        flag(enabled, true).then_some(ignore_no_transform_header)
    };
    let request = request_direction_config.unwrap_or_default();
    Ok(Decompressor {
        coding,
        most_growth,
        advertise: bool_or(request.advertise_accept_encoding, true),
        request: common(request.common_config),
        response: common(response_direction_config.unwrap_or_default().common_config),
    })
}

fn decoder(library: Option<TypedExtensionConfig>) -> Decoded<(Coding, u32)> {
    let place = "decompressor_library.typed_config";
    let config = library
        .ok_or_else(|| Refusal::new("decompressor_library", "missing"))?
        .typed_config
        .ok_or_else(|| Refusal::new(place, "missing"))?;
    let kind = type_name(&config);
    if kind == Gunzip::full_name() {
        let Gunzip { window_bits, chunk_size, max_inflate_ratio } = unpack(&config).at(place)?;
        let _ = (window_bits, chunk_size);
        Ok((Coding::Gzip, u32_or(max_inflate_ratio, GROWTH).max(1)))
    } else if kind == Unbrotli::full_name() {
        Ok((Coding::Brotli, GROWTH))
    } else if kind == Unzstd::full_name() {
        let Unzstd { dictionaries, chunk_size } = unpack(&config).at(place)?;
        let _ = chunk_size;
        refuse!(dictionaries);
        Ok((Coding::Zstd, GROWTH))
    } else {
        Err(Refusal::unsupported(format!("{place} ({kind})")))
    }
}

pub(super) fn buffer(message: buffer::Buffer) -> Decoded<u64> {
    match message.max_request_bytes {
        Some(most) if most.value > 0 => Ok(u64::from(most.value)),
        Some(_) => Err(Refusal::new("max_request_bytes", "0")),
        None => Err(Refusal::new("max_request_bytes", "missing")),
    }
}

pub(super) fn buffer_override(message: buffer::BufferPerRoute) -> Decoded<FilterOverride> {
    match message.r#override {
        Some(buffer_per_route::Override::Disabled(_)) => Ok(FilterOverride::Off),
        Some(buffer_per_route::Override::Buffer(own)) => Ok(FilterOverride::Buffer(buffer(own).at("buffer")?)),
        None => Err(Refusal::new("override", "missing")),
    }
}
