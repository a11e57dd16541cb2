//! The form of an answer that is made here: mappers and formats, and gRPC's headers for gRPC requests.

use crate::{
    accesslog::{Question, Record, passes},
    config::{LocalReply, ReplyFormat, ReplyMapper},
    header,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header as h};
use std::fmt::Write as _;

/// An answer on its way.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Applies what is configured. `record` knows the request; its status, headers and body are taken from the answer.
pub fn rewrite(config: &LocalReply, record: &Record<'_>, question: Question, answer: &mut Answer) {
    let before = answer.headers.get(h::CONTENT_TYPE).cloned();
    let body = answer.body.clone();
    let mut format = config.format.as_ref();
    let fits = |mapper: &&ReplyMapper| {
        let mut seen = *record;
        seen.facts.status = Some(answer.status.as_u16());
        seen.facts.response = Some(&answer.headers);
        passes(&mapper.filter, &seen, question)
    };
    if let Some(mapper) = config.mappers.iter().find(fits) {
        map(mapper, record, answer);
        format = mapper.format.as_ref().or(format);
    }
    let own_type = answer.headers.get(h::CONTENT_TYPE) != before.as_ref();
    let kind = format.map_or_else(|| HeaderValue::from_static("text/plain"), |format| format.content_type.clone());
    if let Some(format) = format {
        answer.body = formatted(format, record, answer);
    }
    let missing = !answer.headers.contains_key(h::CONTENT_TYPE);
    if !answer.body.is_empty() && (missing || (answer.body != body && !own_type)) {
        answer.headers.insert(h::CONTENT_TYPE, kind);
    }
}

fn map(mapper: &ReplyMapper, record: &Record<'_>, answer: &mut Answer) {
    if let Some(body) = &mapper.body {
        answer.body = body.clone();
    }
    let mut facts = record.facts;
    facts.status = Some(answer.status.as_u16());
    facts.response = Some(&answer.headers);
    let pending = header::evaluate(&mapper.headers, &facts);
    header::apply(&mapper.headers, pending, &mut answer.headers);
    if let Some(status) = mapper.status {
        answer.status = status;
    }
}

fn formatted(format: &ReplyFormat, record: &Record<'_>, answer: &Answer) -> Bytes {
    let text = String::from_utf8_lossy(&answer.body);
    let mut seen = *record;
    seen.facts.status = Some(answer.status.as_u16());
    seen.facts.response = Some(&answer.headers);
    seen.facts.local_reply = &text;
    let mut out = Vec::with_capacity(128);
    format.line.render_body(&seen, &mut out);
    out.into()
}

/// Gives an answer gRPC's form: status and message in headers, HTTP status 200, no body. What is there already stays.
pub fn in_grpc(code: u32, answer: &mut Answer) {
    answer.status = StatusCode::OK;
    let json = answer.headers.get(h::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    answer.headers.insert(h::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer.headers.entry("grpc-status").or_insert_with(|| HeaderValue::from(code));
    let mut body = &*answer.body;
    if json {
        body = body.strip_suffix(b"\n").unwrap_or(body);
    }
    if !body.is_empty()
        && !answer.headers.contains_key("grpc-message")
        && let Ok(message) = HeaderValue::try_from(percent_encoded(body))
    {
        answer.headers.insert("grpc-message", message);
    }
    answer.headers.remove(h::CONTENT_LENGTH);
    answer.body = Bytes::new();
}

/// As gRPC's HTTP/2 mapping writes messages.
pub fn percent_encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if (0x20..0x7f).contains(byte) && *byte != b'%' {
            out.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accesslog::LineFormat,
        config::{ComparisonOp, HeaderChanges, LogFilter, LogFormat, Value},
        format::Facts,
        testing::head,
    };

    fn mapper(filter: LogFilter) -> ReplyMapper {
        ReplyMapper { filter, status: None, body: None, format: None, headers: HeaderChanges::default() }
    }

    fn answer(status: u16, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(h::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) }
    }

    fn rewritten(config: &LocalReply, mut answer: Answer) -> (u16, String, String) {
        let head = head("/p", &[]);
        let record = Record { facts: Facts { head: Some(&head), ..Facts::default() }, ..Record::default() };
        rewrite(config, &record, Question::default(), &mut answer);
        let kind = answer.headers.get(h::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap());
        (answer.status.as_u16(), kind.to_owned(), String::from_utf8(answer.body.to_vec()).unwrap())
    }

    fn text(format: &str, kind: &'static str) -> Option<ReplyFormat> {
        let line = LineFormat::text(format).unwrap();
        Some(ReplyFormat { line, content_type: HeaderValue::from_static(kind), json: false })
    }

    #[test]
    fn the_first_mapper_that_fits_counts() {
        let not_found = LogFilter::Status(ComparisonOp::Equal, 404);
        let any = LogFilter::Status(ComparisonOp::AtLeast, 0);
        let config = LocalReply {
            mappers: [
                ReplyMapper {
                    status: StatusCode::from_u16(410).ok(),
                    body: Some(Bytes::from_static(b"gone\n")),
                    ..mapper(not_found)
                },
                ReplyMapper { format: text("own %RESPONSE_CODE%", "text/html"), ..mapper(any) },
            ]
            .into(),
            format: text("<%LOCAL_REPLY_BODY%> %RESPONSE_CODE% %REQ(:path)%", "text/x"),
        };
        assert_eq!(rewritten(&config, answer(404, "x")), (410, "text/x".into(), "<gone\n> 410 /p".into()));
        assert_eq!(rewritten(&config, answer(503, "x")), (503, "text/html".into(), "own 503".into()));
    }

    #[test]
    fn json_bodies_say_so() {
        let member = |key: &str, text: &str| (key.into(), Value::Text(text.into()));
        let object = Value::Map(std::sync::Arc::new(
            [member("code", "%RESPONSE_CODE%"), member("say", "%LOCAL_REPLY_BODY%")].into_iter().collect(),
        ));
        let line = LineFormat::compile(&LogFormat::Json { object, omit_empty: false }).unwrap();
        let content_type = HeaderValue::from_static("application/json");
        let format = Some(ReplyFormat { line, content_type, json: true });
        let config = LocalReply { mappers: Box::default(), format };
        let said = rewritten(&config, answer(503, "a\"b"));
        assert_eq!(said, (503, "application/json".into(), "{\"code\":503,\"say\":\"a\\\"b\"}\n".into()));
    }

    #[test]
    fn grpc_answers_have_no_body() {
        let mut made = answer(503, "no %");
        in_grpc(14, &mut made);
        assert_eq!((made.status.as_u16(), made.body.len()), (200, 0));
        assert_eq!(made.headers["grpc-status"], "14");
        assert_eq!(made.headers["grpc-message"], "no %25");
        assert_eq!(made.headers["content-type"], "application/grpc");
    }
}
