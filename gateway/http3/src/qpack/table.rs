//! The static table of RFC 9204.

use http::{HeaderName, header};

/// The pseudo-header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pseudo {
    /// `:authority`
    Authority,
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:protocol`
    Protocol,
    /// `:scheme`
    Scheme,
    /// `:status`
    Status,
}

impl Pseudo {
    /// By its name without the colon.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"authority" => Self::Authority,
            b"method" => Self::Method,
            b"path" => Self::Path,
            b"protocol" => Self::Protocol,
            b"scheme" => Self::Scheme,
            b"status" => Self::Status,
            _ => return None,
        })
    }
}

/// Name of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
}

/// By index.
pub(super) static TABLE: [(Name, &str); 99] = [
    (Name::Pseudo(Pseudo::Authority), ""),
    (Name::Pseudo(Pseudo::Path), "/"),
    (Name::Header(header::AGE), "0"),
    (Name::Header(header::CONTENT_DISPOSITION), ""),
    (Name::Header(header::CONTENT_LENGTH), "0"),
    (Name::Header(header::COOKIE), ""),
    (Name::Header(header::DATE), ""),
    (Name::Header(header::ETAG), ""),
    (Name::Header(header::IF_MODIFIED_SINCE), ""),
    (Name::Header(header::IF_NONE_MATCH), ""),
    (Name::Header(header::LAST_MODIFIED), ""),
    (Name::Header(header::LINK), ""),
    (Name::Header(header::LOCATION), ""),
    (Name::Header(header::REFERER), ""),
    (Name::Header(header::SET_COOKIE), ""),
    (Name::Pseudo(Pseudo::Method), "CONNECT"),
    (Name::Pseudo(Pseudo::Method), "DELETE"),
    (Name::Pseudo(Pseudo::Method), "GET"),
    (Name::Pseudo(Pseudo::Method), "HEAD"),
    (Name::Pseudo(Pseudo::Method), "OPTIONS"),
    (Name::Pseudo(Pseudo::Method), "POST"),
    (Name::Pseudo(Pseudo::Method), "PUT"),
    (Name::Pseudo(Pseudo::Scheme), "http"),
    (Name::Pseudo(Pseudo::Scheme), "https"),
    (Name::Pseudo(Pseudo::Status), "103"),
    (Name::Pseudo(Pseudo::Status), "200"),
    (Name::Pseudo(Pseudo::Status), "304"),
    (Name::Pseudo(Pseudo::Status), "404"),
    (Name::Pseudo(Pseudo::Status), "503"),
    (Name::Header(header::ACCEPT), "*/*"),
    (Name::Header(header::ACCEPT), "application/dns-message"),
    (Name::Header(header::ACCEPT_ENCODING), "gzip, deflate, br"),
    (Name::Header(header::ACCEPT_RANGES), "bytes"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_HEADERS), "cache-control"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_HEADERS), "content-type"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_ORIGIN), "*"),
    (Name::Header(header::CACHE_CONTROL), "max-age=0"),
    (Name::Header(header::CACHE_CONTROL), "max-age=2592000"),
    (Name::Header(header::CACHE_CONTROL), "max-age=604800"),
    (Name::Header(header::CACHE_CONTROL), "no-cache"),
    (Name::Header(header::CACHE_CONTROL), "no-store"),
    (Name::Header(header::CACHE_CONTROL), "public, max-age=31536000"),
    (Name::Header(header::CONTENT_ENCODING), "br"),
    (Name::Header(header::CONTENT_ENCODING), "gzip"),
    (Name::Header(header::CONTENT_TYPE), "application/dns-message"),
    (Name::Header(header::CONTENT_TYPE), "application/javascript"),
    (Name::Header(header::CONTENT_TYPE), "application/json"),
    (Name::Header(header::CONTENT_TYPE), "application/x-www-form-urlencoded"),
    (Name::Header(header::CONTENT_TYPE), "image/gif"),
    (Name::Header(header::CONTENT_TYPE), "image/jpeg"),
    (Name::Header(header::CONTENT_TYPE), "image/png"),
    (Name::Header(header::CONTENT_TYPE), "text/css"),
    (Name::Header(header::CONTENT_TYPE), "text/html; charset=utf-8"),
    (Name::Header(header::CONTENT_TYPE), "text/plain"),
    (Name::Header(header::CONTENT_TYPE), "text/plain;charset=utf-8"),
    (Name::Header(header::RANGE), "bytes=0-"),
    (Name::Header(header::STRICT_TRANSPORT_SECURITY), "max-age=31536000"),
    (Name::Header(header::STRICT_TRANSPORT_SECURITY), "max-age=31536000; includesubdomains"),
    (Name::Header(header::STRICT_TRANSPORT_SECURITY), "max-age=31536000; includesubdomains; preload"),
    (Name::Header(header::VARY), "accept-encoding"),
    (Name::Header(header::VARY), "origin"),
    (Name::Header(header::X_CONTENT_TYPE_OPTIONS), "nosniff"),
    (Name::Header(header::X_XSS_PROTECTION), "1; mode=block"),
    (Name::Pseudo(Pseudo::Status), "100"),
    (Name::Pseudo(Pseudo::Status), "204"),
    (Name::Pseudo(Pseudo::Status), "206"),
    (Name::Pseudo(Pseudo::Status), "302"),
    (Name::Pseudo(Pseudo::Status), "400"),
    (Name::Pseudo(Pseudo::Status), "403"),
    (Name::Pseudo(Pseudo::Status), "421"),
    (Name::Pseudo(Pseudo::Status), "425"),
    (Name::Pseudo(Pseudo::Status), "500"),
    (Name::Header(header::ACCEPT_LANGUAGE), ""),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "FALSE"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "TRUE"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_HEADERS), "*"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_METHODS), "get"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_METHODS), "get, post, options"),
    (Name::Header(header::ACCESS_CONTROL_ALLOW_METHODS), "options"),
    (Name::Header(header::ACCESS_CONTROL_EXPOSE_HEADERS), "content-length"),
    (Name::Header(header::ACCESS_CONTROL_REQUEST_HEADERS), "content-type"),
    (Name::Header(header::ACCESS_CONTROL_REQUEST_METHOD), "get"),
    (Name::Header(header::ACCESS_CONTROL_REQUEST_METHOD), "post"),
    (Name::Header(header::ALT_SVC), "clear"),
    (Name::Header(header::AUTHORIZATION), ""),
    (Name::Header(header::CONTENT_SECURITY_POLICY), "script-src 'none'; object-src 'none'; base-uri 'none'"),
    (Name::Header(HeaderName::from_static("early-data")), "1"),
    (Name::Header(HeaderName::from_static("expect-ct")), ""),
    (Name::Header(header::FORWARDED), ""),
    (Name::Header(header::IF_RANGE), ""),
    (Name::Header(header::ORIGIN), ""),
    (Name::Header(HeaderName::from_static("purpose")), "prefetch"),
    (Name::Header(header::SERVER), ""),
    (Name::Header(HeaderName::from_static("timing-allow-origin")), "*"),
    (Name::Header(header::UPGRADE_INSECURE_REQUESTS), "1"),
    (Name::Header(header::USER_AGENT), ""),
    (Name::Header(HeaderName::from_static("x-forwarded-for")), ""),
    (Name::Header(header::X_FRAME_OPTIONS), "deny"),
    (Name::Header(header::X_FRAME_OPTIONS), "sameorigin"),
];

/// The first index of a name.
pub(super) fn find(name: &str) -> Option<usize> {
    Some(match name {
        "age" => 2,
        "content-disposition" => 3,
        "content-length" => 4,
        "cookie" => 5,
        "date" => 6,
        "etag" => 7,
        "if-modified-since" => 8,
        "if-none-match" => 9,
        "last-modified" => 10,
        "link" => 11,
        "location" => 12,
        "referer" => 13,
        "set-cookie" => 14,
        "accept" => 29,
        "accept-encoding" => 31,
        "accept-ranges" => 32,
        "access-control-allow-headers" => 33,
        "access-control-allow-origin" => 35,
        "cache-control" => 36,
        "content-encoding" => 42,
        "content-type" => 44,
        "range" => 55,
        "strict-transport-security" => 56,
        "vary" => 59,
        "x-content-type-options" => 61,
        "x-xss-protection" => 62,
        "accept-language" => 72,
        "access-control-allow-credentials" => 73,
        "access-control-allow-methods" => 76,
        "access-control-expose-headers" => 79,
        "access-control-request-headers" => 80,
        "access-control-request-method" => 81,
        "alt-svc" => 83,
        "authorization" => 84,
        "content-security-policy" => 85,
        "early-data" => 86,
        "expect-ct" => 87,
        "forwarded" => 88,
        "if-range" => 89,
        "origin" => 90,
        "purpose" => 91,
        "server" => 92,
        "timing-allow-origin" => 93,
        "upgrade-insecure-requests" => 94,
        "user-agent" => 95,
        "x-forwarded-for" => 96,
        "x-frame-options" => 97,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_at_its_first_place() {
        for (at, (name, _)) in TABLE.iter().enumerate() {
            if let Name::Header(name) = name {
                let first = TABLE.iter().position(|(n, _)| matches!(n, Name::Header(n) if n == name));
                assert_eq!(find(name.as_str()), first, "{at}");
            }
        }
        assert_eq!(TABLE[98], (Name::Header(header::X_FRAME_OPTIONS), "sameorigin"));
        assert_eq!(TABLE[25], (Name::Pseudo(Pseudo::Status), "200"));
    }
}
