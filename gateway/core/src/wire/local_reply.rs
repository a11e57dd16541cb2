//! Changes of answers that are made here.

use super::{
    Refusal,
    any::{At, Decoded, data, header_value},
    header, log,
};
use crate::{
    accesslog::LineFormat,
    config::{LocalReply, LogFormat, ReplyFormat, ReplyMapper},
};
use http::StatusCode;
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::SubstitutionFormatString, extensions::filters::network::http_connection_manager::v3 as pb,
};

pub(super) fn config(message: pb::LocalReplyConfig) -> Decoded<LocalReply> {
    let pb::LocalReplyConfig { mappers, body_format } = message;
    let mappers = mappers.into_iter().enumerate().map(|(at, one)| mapper(one).nth("mappers", at));
    Ok(LocalReply {
        mappers: mappers.collect::<Decoded<_>>()?,
        format: body_format.map(format).transpose().at("body_format")?,
    })
}

fn mapper(message: pb::ResponseMapper) -> Decoded<ReplyMapper> {
    let pb::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = message;
    let filter = filter.ok_or_else(|| Refusal::new("filter", "missing"))?;
    let status = status_code.map(|code| {
        let status = u16::try_from(code.value).ok().filter(|code| (200..600).contains(code));
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| Refusal::new("status_code", "not a status from 200 to 599"))
    });
    Ok(ReplyMapper {
        filter: log::filter(filter, 0).at("filter")?,
        status: status.transpose()?,
        body: body.as_ref().map(data).transpose().at("body")?.map(Into::into),
        format: body_format_override.map(format).transpose().at("body_format_override")?,
        headers: header::changes(headers_to_add, &[], "headers_to_add", "")?,
    })
}

fn format(message: SubstitutionFormatString) -> Decoded<ReplyFormat> {
    let content_type = message.content_type.clone();
    let format = match log::substitution(message)? {
        // Nothing written means an empty body here, not a log line.
        LogFormat::Default => LogFormat::Text("".into()),
        other => other,
    };
    let json = matches!(format, LogFormat::Json { .. });
    let kind = match (content_type.as_str(), json) {
        ("", true) => "application/json",
        ("", false) => "text/plain",
        (own, _) => own,
    };
    let line = LineFormat::compile(&format).at("format")?;
    Ok(ReplyFormat { line, content_type: header_value(kind).at("content_type")?, json })
}
