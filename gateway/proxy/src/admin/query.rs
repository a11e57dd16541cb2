//! The query of an admin page.

/// Pairs of a query string.
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Of a request.
    pub(super) fn new(text: Option<&'a str>) -> Self {
        Self(text.unwrap_or_default())
    }

    /// All pairs, decoded.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (String, String)> + 'a {
        self.0.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.pairs().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// True when a key is there, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let digits = [ahead.next(), ahead.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                if let [Some(high), Some(low)] = digits {
                    out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    bytes = ahead;
                } else {
                    out.push(byte);
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::new(Some("graceful&filter=a%2Eb%zz+c&filter=d"));
        assert!(query.has("graceful") && !query.has("none"));
        assert_eq!(query.get("filter").unwrap(), "a.b%zz c");
    }
}
