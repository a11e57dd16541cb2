//! Cross-origin resource sharing.

use crate::{config::Cors, head::Head, names, runtime::Runtime, time::Random};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum CorsVerdict {
    /// Nothing.
    Ignore,
    /// The response gets these headers.
    Allow(Vec<(HeaderName, HeaderValue)>),
    /// The preflight is answered with these headers.
    Answer(HeaderMap),
}

pub(crate) fn judge(cors: &Cors, head: &Head, runtime: &Runtime, random: &mut Random) -> CorsVerdict {
    let Some(origin) = head.headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else {
        return CorsVerdict::Ignore;
    };
    if !runtime.hit(&cors.enabled, random.draw()) {
        return CorsVerdict::Ignore;
    }
    let preflight = head.method == Method::OPTIONS
        && head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
    let allowed = cors.allow_origins.iter().any(|matcher| matcher.fits(origin.as_bytes()));
    match (allowed, preflight) {
        (false, true) if !cors.forward_not_matching_preflights => CorsVerdict::Answer(HeaderMap::new()),
        (false, _) => CorsVerdict::Ignore,
        (true, true) => CorsVerdict::Answer(answer(cors, origin, head)),
        (true, false) => CorsVerdict::Allow(permission(cors, origin)),
    }
}

fn permission(cors: &Cors, origin: &HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    let mut out = vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
    if cors.allow_credentials {
        out.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    if let Some(expose) = &cors.expose_headers {
        out.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone()));
    }
    out
}

fn answer(cors: &Cors, origin: &HeaderValue, head: &Head) -> HeaderMap {
    let mut out = HeaderMap::new();
    let mut put = |name: HeaderName, value: Option<&HeaderValue>| {
        if let Some(value) = value {
            out.insert(name, value.clone());
        }
    };
    let yes = HeaderValue::from_static("true");
    put(header::ACCESS_CONTROL_ALLOW_ORIGIN, Some(origin));
    put(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, cors.allow_credentials.then_some(&yes));
    put(header::ACCESS_CONTROL_ALLOW_METHODS, cors.allow_methods.as_ref());
    put(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.allow_headers.as_ref());
    put(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.as_ref());
    // Means nothing here, but Envoy's answers to preflights pass through what adds it.
    put(header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose_headers.as_ref());
    let private = cors.allow_private_network
        && head.headers.get(names::PRIVATE_NETWORK_REQUESTED).is_some_and(|asked| asked == "true");
    put(names::PRIVATE_NETWORK_ALLOWED, private.then_some(&yes));
    out
}
