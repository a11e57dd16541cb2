//! The `date` of responses, written once a second.

use crate::clock;
use http::HeaderValue;
use std::time::UNIX_EPOCH;

/// The date as it was last written.
#[derive(Default)]
pub(super) struct Date {
    second: u64,
    value: Option<HeaderValue>,
}

impl Date {
    /// The date now.
    pub(super) fn value(&mut self) -> &[u8] {
        let now = clock::wall(clock::recent());
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if self.second != second || self.value.is_none() {
            self.second = second;
            self.value = HeaderValue::try_from(httpdate::fmt_http_date(now)).ok();
        }
        self.value.as_ref().map_or(b"", HeaderValue::as_bytes)
    }
}
