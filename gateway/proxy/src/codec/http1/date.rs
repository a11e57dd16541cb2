//! The `date` of responses, written once a second.

use crate::clock;
use http::HeaderValue;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The date as it was last written.
#[derive(Default)]
pub(super) struct Date {
    /// The moment at which it is over, and its text.
    last: Option<(Instant, HeaderValue)>,
}

impl Date {
    /// The date now.
    pub(super) fn value(&mut self) -> &[u8] {
        let now = clock::recent();
        if self.last.as_ref().is_none_or(|(over, _)| now >= *over) {
            self.last = Self::written();
        }
        self.last.as_ref().map_or(b"", |(_, value)| value.as_bytes())
    }

    fn written() -> Option<(Instant, HeaderValue)> {
        let (at, now) = (clock::read(), SystemTime::now());
        let into = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let left = Duration::from_secs(1).saturating_sub(Duration::from_nanos(into.into()));
        Some((at + left, HeaderValue::try_from(httpdate::fmt_http_date(now)).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_anew_when_its_second_is_over() {
        let mut date = Date::default();
        clock::read();
        let first = date.value().to_vec();
        let said = httpdate::parse_http_date(std::str::from_utf8(&first).unwrap()).unwrap();
        let off = SystemTime::now().duration_since(said).unwrap();
        assert!(off < Duration::from_secs(60), "{off:?}");
        // The text stays while its moment is not over, and not longer.
        date.last = Some((clock::read() + Duration::from_secs(60), HeaderValue::from_static("kept")));
        assert_eq!(date.value(), b"kept");
        date.last = Some((clock::read(), HeaderValue::from_static("old")));
        assert_ne!(date.value(), b"old");
    }
}
