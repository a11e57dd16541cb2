//! Values made of text and operators (`%REQ(x-a)%`), as header mutations, local replies and path rewrites use them.
//!
//! Owns what such values know of a request ([`Facts`]). The operators are those of log lines and live in `accesslog`; one that is
//! not known is refused when compiled, never rendered as something else.

use crate::{
    accesslog::{Record, Template, Upstream},
    config::Metadata,
    failure::Flags,
    head::{ConnInfo, Head, Protocol},
};
use http::HeaderMap;
use std::{collections::BTreeMap, net::SocketAddr};

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format(Template);

/// Variables of the environment that the process was started with.
pub type Environment = BTreeMap<String, String>;

/// What operators read that stays the same from request to request.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Name of this machine.
    pub hostname: &'a str,
    /// The environment of this process.
    pub environment: Option<&'a Environment>,
    /// Number of the client's connection.
    pub connection_id: Option<u64>,
    /// Name of the filter chain.
    pub filter_chain: &'a str,
    /// Metadata of the listener.
    pub listener: Option<&'a Metadata>,
    /// Metadata of the filter chain.
    pub chain: Option<&'a Metadata>,
}

/// Metadata of what a request came upon.
#[derive(Clone, Copy, Default)]
pub struct MetadataOf<'a> {
    /// The route.
    pub route: Option<&'a Metadata>,
    /// The virtual host.
    pub virtual_host: Option<&'a Metadata>,
    /// The cluster.
    pub cluster: Option<&'a Metadata>,
    /// The endpoint.
    pub endpoint: Option<&'a Metadata>,
}

/// What operators read. Unknown things are left `None` or empty and render as nothing.
#[derive(Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The request.
    pub head: Option<&'a Head>,
    /// What was spoken, where there is no head that could be shown.
    pub unheard: Option<Protocol>,
    /// The connection.
    pub conn: Option<&'a ConnInfo>,
    /// The client's address when it is not the connection's (trusted `x-forwarded-for`).
    pub client: Option<SocketAddr>,
    /// When the request began, in microseconds since 1970.
    pub start: u64,
    /// What stays the same.
    pub around: Surroundings<'a>,
    /// Metadata.
    pub metadata: MetadataOf<'a>,
    /// Status of the response.
    pub status: Option<u16>,
    /// Headers of the response.
    pub response: Option<&'a HeaderMap>,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: &'a str,
    /// Name of the route.
    pub route: &'a str,
    /// Name of the virtual host.
    pub virtual_host: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
    /// The connection to it.
    pub via: Option<&'a Upstream<'a>>,
    /// Bytes of the request's body so far.
    pub received: u64,
    /// Tries so far.
    pub attempts: u32,
    /// Body of an answer made here.
    pub local_reply: &'a str,
}

impl Format {
    /// Compiles.
    ///
    /// # Errors
    /// When an operator is not known or not closed; says so in lower case.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("%REQ_WITHOUT_QUERY(") {
            // In Envoy an extension of log formats that cannot be named here.
            return Err("%REQ_WITHOUT_QUERY% is an operator of access logs; use %PATH(NQ:PATH)%".to_owned());
        }
        Template::parse(text).map(Self)
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// The text, when there are no operators.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        self.0.fixed()
    }

    /// Renders. What is not known renders as nothing.
    #[must_use]
    pub fn render(&self, facts: &Facts<'_>) -> Vec<u8> {
        let bytes = crate::accesslog::Bytes { received: facts.received, ..crate::accesslog::Bytes::default() };
        let record =
            Record { facts: *facts, bytes, upstream: facts.via.copied().unwrap_or_default(), ..Record::default() };
        let mut out = Vec::with_capacity(64);
        self.0.render_value(&record, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Value;
    use std::sync::Arc;

    fn check(text: &str, expect: &str) {
        let mut head = Head { path: "/p?q=1".into(), ..Head::default() };
        head.headers.insert("x-src", "hey".parse().unwrap());
        let said = [("none".into(), Value::Null), ("text".into(), Value::Text("x".into()))];
        let said = [("m".into(), Value::Map(Arc::new(said.into())))];
        head.metadata = Metadata(Some(Arc::new(said.into())));
        let conn = ConnInfo { remote: Some("1.2.3.4:5".parse().unwrap()), ..ConnInfo::default() };
        let facts = Facts {
            head: Some(&head),
            conn: Some(&conn),
            status: Some(200),
            cluster: "c",
            route: "r",
            ..Facts::default()
        };
        assert_eq!(String::from_utf8(Format::parse(text).unwrap().render(&facts)).unwrap(), expect);
    }

    #[test]
    fn operators_render() {
        check("plain", "plain");
        check(
            "%REQ(X-SRC?:PATH)%|%PROTOCOL%|%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%REQ(:METHOD):2%|100%%",
            "hey|HTTP/1.1|1.2.3.4|GE|100%",
        );
        check("%REQ(nope?:PATH)%", "/p?q=1");
        check("%PATH(NQ)%|%PATH(WQ:PATH)%|%QUERY_PARAMS%|%QUERY_PARAM(q)%", "/p|/p?q=1|q=1|1");
        check("a%REQ(nope)%b", "ab");
        check(
            "%DYNAMIC_METADATA(m:none)%|%DYNAMIC_METADATA(m:text)%|%METADATA(DYNAMIC:m)%",
            r#"|x|{"none":null,"text":"x"}"#,
        );
        check("%RESPONSE_CODE%|%UPSTREAM_CLUSTER%|%ROUTE_NAME%", "200|c|r");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            "%NOPE%",
            "%REQ%",
            "%REQ(x%",
            "50%",
            "%REQ(a):x%",
            "%PROTOCOL(x)%",
            "%REQ(a b)%",
            "%REQ_WITHOUT_QUERY(:PATH)%",
        ] {
            assert!(Format::parse(bad).is_err(), "{bad:?} should be refused");
        }
    }
}
