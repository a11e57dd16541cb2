//! Access loggers and their filters.

use super::{
    Refusal,
    any::{At, Decoded, structure, type_name, unpack},
    matcher,
};
use crate::{
    accesslog::LineFormat,
    config::{AccessLog, ComparisonOp, LogFilter, LogFormat, LogSink, MetadataPlace},
};
use prost::Name as _;
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            accesslog::v3::{self as pb, access_log_filter::FilterSpecifier as F, comparison_filter::Op},
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
        },
    },
    google::protobuf::{Any, Struct},
};

/// Filters within filters deeper than this are refused.
const DEEPEST: u32 = 8;

pub(super) fn all(list: Vec<pb::AccessLog>) -> Decoded<Box<[AccessLog]>> {
    list.into_iter().enumerate().map(|(at, log)| one(log).nth("access_log", at)).collect()
}

fn one(message: pb::AccessLog) -> Decoded<AccessLog> {
    let pb::AccessLog { name, filter: wanted, config_type } = message;
    let Some(pb::access_log::ConfigType::TypedConfig(config)) = config_type else {
        return Err(Refusal::new("typed_config", format!("missing for {name}")));
    };
    let (sink, format) = sink(&config).at("typed_config")?;
    LineFormat::compile(&format).at("typed_config.log_format")?;
    Ok(AccessLog { sink, format, filter: wanted.map(|wanted| filter(wanted, 0)).transpose().at("filter")? })
}

fn sink(config: &Any) -> Decoded<(LogSink, LogFormat)> {
    let kind = type_name(config);
    if kind == FileAccessLog::full_name() {
        let FileAccessLog { path, access_log_format } = unpack(config)?;
        let sink = match path.as_str() {
            "/dev/stdout" => LogSink::Stdout,
            "/dev/stderr" => LogSink::Stderr,
            "" => return Err(Refusal::new("path", "empty")),
            file => LogSink::File(file.into()),
        };
        let format = match access_log_format {
            None => LogFormat::Default,
            Some(AccessLogFormat::Format(text)) => text_or_default(text),
            Some(AccessLogFormat::JsonFormat(object) | AccessLogFormat::TypedJsonFormat(object)) => {
                json(&object, false).at("json_format")?
            }
            Some(AccessLogFormat::LogFormat(format)) => substitution(format).at("log_format")?,
        };
        Ok((sink, format))
    } else if kind == StdoutAccessLog::full_name() {
        let message: StdoutAccessLog = unpack(config)?;
        let format = message.access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        Ok((LogSink::Stdout, stream(format)?))
    } else if kind == StderrAccessLog::full_name() {
        let message: StderrAccessLog = unpack(config)?;
        let format = message.access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        Ok((LogSink::Stderr, stream(format)?))
    } else {
        Err(Refusal::unsupported(kind))
    }
}

fn stream(format: Option<SubstitutionFormatString>) -> Decoded<LogFormat> {
    format.map_or(Ok(LogFormat::Default), |format| substitution(format).at("log_format"))
}

fn text_or_default(text: String) -> LogFormat {
    if text.is_empty() { LogFormat::Default } else { LogFormat::Text(text.into()) }
}

fn json(object: &Struct, omit_empty: bool) -> Result<LogFormat, String> {
    Ok(LogFormat::Json { object: structure(object, 0)?, omit_empty })
}

pub(super) fn substitution(message: SubstitutionFormatString) -> Decoded<LogFormat> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } = message;
    let _ = content_type;
    // Our JSON has its keys sorted anyway.
    let _ = json_format_options;
    let known = |name: &str| matches!(name, "envoy.formatter.req_without_query" | "envoy.formatter.metadata");
    if let Some(other) = formatters.iter().find(|formatter| !known(&formatter.name)) {
        return Err(Refusal::unsupported(format!("formatters.{}", other.name)));
    }
    match format {
        Some(Format::TextFormat(text)) => Ok(text_or_default(text)),
        Some(Format::TextFormatSource(source)) => {
            let text = String::from_utf8(super::any::data(&source).at("text_format_source")?);
            text.map(text_or_default).map_err(|_| Refusal::new("text_format_source", "not text"))
        }
        Some(Format::JsonFormat(object)) => json(&object, omit_empty_values).at("json_format"),
        None => Err(Refusal::new("format", "missing")),
    }
}

pub(super) fn filter(message: pb::AccessLogFilter, depth: u32) -> Decoded<LogFilter> {
    if depth > DEEPEST {
        return Err(Refusal::new("", "nested too deep"));
    }
    Ok(match message.filter_specifier {
        Some(F::StatusCodeFilter(by)) => {
            let (op, value) = comparison(by.comparison).at("status_code_filter")?;
            LogFilter::Status(op, value)
        }
        Some(F::DurationFilter(by)) => {
            let (op, value) = comparison(by.comparison).at("duration_filter")?;
            LogFilter::Duration(op, value)
        }
        Some(F::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(F::TraceableFilter(_)) => LogFilter::Traceable,
        Some(F::RuntimeFilter(by)) => {
            LogFilter::Share(matcher::share(&by.percent_sampled.unwrap_or_default(), &by.runtime_key))
        }
        Some(F::AndFilter(of)) => LogFilter::And(several(of.filters, depth).at("and_filter")?),
        Some(F::OrFilter(of)) => LogFilter::Or(several(of.filters, depth).at("or_filter")?),
        Some(F::HeaderFilter(by)) => {
            let header = by.header.ok_or_else(|| Refusal::new("header_filter.header", "missing"))?;
            LogFilter::Header(matcher::header(header).at("header_filter.header")?)
        }
        Some(F::ResponseFlagFilter(by)) => {
            let unknown = by.flags.iter().find(|flag| crate::failure::Flag::parse(flag).is_none());
            if let Some(flag) = unknown {
                return Err(Refusal::new("response_flag_filter.flags", format!("{flag:?} is not known")));
            }
            LogFilter::Flags(super::any::texts(&by.flags))
        }
        Some(F::GrpcStatusFilter(by)) => {
            let codes = by.statuses.iter().filter_map(|status| u16::try_from(*status).ok());
            LogFilter::GrpcStatus(codes.collect(), by.exclude)
        }
        Some(F::ExtensionFilter(by)) => return Err(Refusal::unsupported(format!("extension_filter.{}", by.name))),
        Some(F::MetadataFilter(by)) => metadata_filter(by).at("metadata_filter")?,
        Some(F::LogTypeFilter(_)) => return Err(Refusal::unsupported("log_type_filter")),
        None => return Err(Refusal::new("filter_specifier", "missing")),
    })
}

/// As in Envoy, without a matcher only the answer for what is not found is left.
fn metadata_filter(message: pb::MetadataFilter) -> Decoded<LogFilter> {
    let pb::MetadataFilter { matcher, match_if_key_not_found } = message;
    let otherwise = super::any::bool_or(match_if_key_not_found, true);
    Ok(match matcher.map(super::metadata::condition).transpose().at("matcher")? {
        Some(matcher) => LogFilter::Metadata(matcher.place, Some(matcher.value), otherwise),
        None => {
            let nowhere = MetadataPlace { namespace: "".into(), keys: Box::default() };
            LogFilter::Metadata(nowhere, None, otherwise)
        }
    })
}

fn several(list: Vec<pb::AccessLogFilter>, depth: u32) -> Decoded<Box<[LogFilter]>> {
    list.into_iter().enumerate().map(|(at, one)| filter(one, depth + 1).nth("filters", at)).collect()
}

fn comparison(message: Option<pb::ComparisonFilter>) -> Decoded<(ComparisonOp, u32)> {
    let message = message.ok_or_else(|| Refusal::new("comparison", "missing"))?;
    let op = match message.op() {
        Op::Eq => ComparisonOp::Equal,
        Op::Ne => ComparisonOp::NotEqual,
        Op::Ge => ComparisonOp::AtLeast,
        Op::Le => ComparisonOp::AtMost,
    };
    let value = message.value.ok_or_else(|| Refusal::new("comparison.value", "missing"))?;
    Ok((op, value.default_value))
}
