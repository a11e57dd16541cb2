//! Cross-site request forgery: requests that change something come from pages of the same origin, or of those that are allowed.

use crate::{config::Csrf, head::Head};
use http::{HeaderName, Method, header};

/// Whether a request may pass.
pub(crate) fn same_site(csrf: &Csrf, head: &Head) -> bool {
    if !matches!(head.method, Method::POST | Method::PUT | Method::DELETE | Method::PATCH) {
        return true;
    }
    let told =
        |name: HeaderName| head.headers.get(name).map_or("", |value| host_and_port(value.to_str().unwrap_or("")));
    let source = match told(header::ORIGIN) {
        "" => told(header::REFERER),
        origin => origin,
    };
    !source.is_empty()
        && (source == host_and_port(&head.authority)
            || csrf.origins.iter().any(|origin| origin.fits(source.as_bytes())))
}

/// What follows the scheme of a URL, without the path; a text that is no URL as it is.
fn host_and_port(text: &str) -> &str {
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return text;
    }
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Fraction, StringMatch, StringMatcher},
        testing::head,
    };

    fn check(method: Method, headers: &[(&str, &str)], expect: bool) {
        let suffix = StringMatcher { kind: StringMatch::Suffix(".friend.example".into()), ignore_case: false };
        let csrf = Csrf { enabled: Fraction::always(), origins: [suffix].into() };
        let mut head = head("/", headers);
        head.authority = "shop.example:8080".into();
        head.method = method;
        assert_eq!(same_site(&csrf, &head), expect, "{headers:?}");
    }

    #[test]
    fn pages_of_the_same_origin_may_change_something() {
        check(Method::GET, &[], true);
        check(Method::POST, &[], false);
        check(Method::POST, &[("origin", "http://shop.example:8080")], true);
        check(Method::POST, &[("origin", "https://shop.example:8080/path")], true);
        check(Method::PUT, &[("origin", "http://shop.example")], false);
        check(Method::DELETE, &[("referer", "http://shop.example:8080/a?b=c")], true);
        check(Method::PATCH, &[("origin", "null"), ("referer", "http://shop.example:8080/")], false);
        check(Method::POST, &[("origin", "https://a.friend.example")], true);
        check(Method::POST, &[("origin", "shop.example:8080")], true);
        check(Method::POST, &[("origin", "FTP://u@shop.example:8080?x")], true);
        check(Method::POST, &[("origin", "http://shop.example:8080#x")], false);
    }
}
