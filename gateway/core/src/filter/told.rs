//! Values of headers and cookies become metadata of the request.

use crate::{
    config::{HeaderToMetadata, Metadata, MetadataKind, MetadataRule, MetadataSource, MetadataTarget, Value},
    head::{Head, Name},
    route,
    wire::value_of,
};
use base64::{Engine as _, alphabet, engine};
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use std::{borrow::Cow, sync::Arc};

/// Longer values are not written.
const LONGEST: usize = 8 << 10;

/// With padding or without.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

impl HeaderToMetadata {
    /// Reads a request. Its head stays as it is.
    pub fn read_request(&self, head: &Head, metadata: &mut Metadata) {
        let mut gone: SmallVec<[&Name; 2]> = SmallVec::new();
        for rule in &self.request {
            let value = match &rule.source {
                MetadataSource::Header(Some(name)) if !gone.contains(&name) => match name {
                    Name::Header(name) => joined(name, &head.headers),
                    other => head.value(other).map(|value| String::from_utf8_lossy(value).into_owned()),
                },
                MetadataSource::Header(_) => None,
                MetadataSource::Cookie(name) => cookie(name, &head.headers),
            };
            if let MetadataSource::Header(Some(name)) = &rule.source
                && rule.remove
            {
                gone.push(name);
            }
            rule.write(value, metadata);
        }
    }

    /// Reads a response, and takes headers out of it.
    pub fn read_response(&self, headers: &mut HeaderMap, metadata: &mut Metadata) {
        for rule in &self.response {
            let value = match &rule.source {
                MetadataSource::Header(Some(Name::Header(name))) => {
                    let value = joined(name, headers);
                    if rule.remove {
                        headers.remove(name);
                    }
                    value
                }
                MetadataSource::Header(_) => None,
                MetadataSource::Cookie(name) => cookie(name, headers),
            };
            rule.write(value, metadata);
        }
    }
}

/// All values of a header.
fn joined(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?.into_owned();
    Some(values.fold(first, |all, next| all + "," + &next))
}

fn cookie(name: &str, headers: &HeaderMap) -> Option<String> {
    route::cookie_value(name, headers).filter(|value| !value.is_empty()).map(str::to_owned)
}

impl MetadataRule {
    fn write(&self, value: Option<String>, metadata: &mut Metadata) {
        let target = if value.is_some() { &self.present } else { &self.missing };
        let Some(target) = target else { return };
        if let Some(value) = target.value(&value.unwrap_or_default()) {
            metadata.put(&target.namespace, &target.key, value);
        }
    }
}

impl MetadataTarget {
    fn value(&self, read: &str) -> Option<Value> {
        let text = match (&*self.value, &self.rewrite) {
            ("", None) => Cow::Borrowed(read),
            ("", Some(rewrite)) => Cow::Owned(route::replace_all(rewrite, read)),
            (fixed, _) => Cow::Borrowed(fixed),
        };
        if text.is_empty() || text.len() >= LONGEST {
            return None;
        }
        let bytes = match self.base64 {
            true => Cow::Owned(BASE64.decode(&*text).ok().filter(|bytes| !bytes.is_empty())?),
            false => Cow::Borrowed(text.as_bytes()),
        };
        match self.kind {
            MetadataKind::Text => Some(Value::Text(Arc::from(String::from_utf8_lossy(&bytes)))),
            MetadataKind::Number => {
                let number: f64 = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
                Some(Value::Number(number))
            }
            MetadataKind::Encoded => value_of(&bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::head;

    fn target(key: &str, kind: MetadataKind) -> MetadataTarget {
        let (namespace, value) = ("n".into(), Box::default());
        MetadataTarget { namespace, key: key.into(), value, rewrite: None, kind, base64: false }
    }

    fn rule(header: &str, present: MetadataTarget) -> MetadataRule {
        let source = MetadataSource::Header(Name::parse(header).ok());
        MetadataRule { source, present: Some(present), missing: None, remove: false }
    }

    #[test]
    fn heads_become_metadata() {
        let fixed = MetadataTarget { value: "none".into(), ..target("fixed", MetadataKind::Text) };
        let rules = [
            rule("x-a", target("text", MetadataKind::Text)),
            rule("x-n", target("number", MetadataKind::Number)),
            rule("x-a", target("no number", MetadataKind::Number)),
            rule("x-b", MetadataTarget { base64: true, ..target("decoded", MetadataKind::Text) }),
            MetadataRule { remove: true, ..rule("x-gone", target("gone", MetadataKind::Text)) },
            MetadataRule { missing: Some(fixed), ..rule("x-gone", target("still there", MetadataKind::Text)) },
        ];
        let filter = HeaderToMetadata { request: rules.into(), response: Box::default(), removal: None };
        let mut metadata = Metadata::default();
        let fields = [("x-a", "1,5"), ("x-a", "b"), ("x-n", " 2.5 "), ("x-b", "aGV5"), ("x-gone", "z")];
        filter.read_request(&head("/", &fields), &mut metadata);
        let text = |text: &str| Some(Value::Text(text.into()));
        let get = |key: &str| metadata.get("n", key).cloned();
        assert_eq!(get("text"), text("1,5,b"));
        assert_eq!(get("number"), Some(Value::Number(2.5)));
        assert_eq!((get("decoded"), get("gone"), get("fixed")), (text("hey"), text("z"), text("none")));
        assert_eq!((get("no number"), get("still there")), (None, None));
    }
}
