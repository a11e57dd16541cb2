//! Owns access log lines: formats compiled once, rendered per request into a buffer that the caller keeps.
//!
//! Knows Envoy's operators by name; an operator that is not known is refused when the format is read, never rendered as
//! something else. Values that came over the network cannot break a line: control bytes become `\xNN` in text and are
//! escaped in JSON. Never opens a file, never reads a clock or the environment. Rendering allocates nothing beyond the
//! buffer, but for what has to be put together first (decoded queries, metadata that is no text). Used by the I/O layer; `wire` compiles formats to refuse bad ones.

mod json;
mod judge;
mod metadata;
mod operator;
mod record;
mod sink;
mod target;
mod template;
#[cfg(test)]
mod tests;
mod time;

pub use judge::{Question, passes};
pub use record::{Bytes, Record, Times, Upstream};

use crate::config;
pub(crate) use template::Template;

use json::Json;

/// Envoy's line where nothing else is configured.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
     %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The line that Istio configures where its user says nothing.
pub const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
     %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
     \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
     \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
     %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct LineFormat(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text(Template),
    Json(Json),
}

impl LineFormat {
    /// Compiles what is configured.
    ///
    /// # Errors
    /// When an operator is not known or not closed; says so in lower case.
    pub fn compile(format: &config::LogFormat) -> Result<Self, String> {
        match format {
            config::LogFormat::Default => Self::text(DEFAULT),
            config::LogFormat::Text(text) => Self::text(text),
            config::LogFormat::Json { object, omit_empty } => Ok(Self(Kind::Json(Json::parse(object, *omit_empty)?))),
        }
    }

    /// Compiles a line of text.
    ///
    /// # Errors
    /// When an operator is not known or not closed; says so in lower case.
    pub fn text(text: &str) -> Result<Self, String> {
        Ok(Self(Kind::Text(Template::parse(text)?)))
    }

    /// Whether metadata of clusters or endpoints is read.
    #[must_use]
    pub fn reads_metadata(&self) -> bool {
        match &self.0 {
            Kind::Text(template) => template.reads_metadata(),
            Kind::Json(json) => json.reads_metadata(),
        }
    }

    /// Appends the body of an answer: the same without the escapes that keep lines apart.
    pub fn render_body(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text(template) => template.render(record, "-", sink::Escape::Raw, out),
            Kind::Json(json) => json.render(record, out),
        }
    }

    /// Appends the line of one request.
    pub fn render(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text(template) => template.render(record, "-", sink::Escape::Text, out),
            Kind::Json(json) => json.render(record, out),
        }
    }
}
