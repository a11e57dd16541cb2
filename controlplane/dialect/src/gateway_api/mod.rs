//! Owns the kinds of the Gateway API. Never judges references between objects: that is bound elsewhere.

mod filter;
mod gateway;
mod grant;
mod parent;
mod route;
mod rule_match;

use crate::{code, fields::Fields, object::Head, read::Yield};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    match head.kind.as_str() {
        "Gateway" => gateway::read(head, object),
        "HTTPRoute" => route::read_http(head, object, rule_match::http),
        "GRPCRoute" => route::read_http(head, object, rule_match::grpc),
        "TLSRoute" => route::read_tls(head, object),
        "TCPRoute" => route::read_tcp(head, object),
        "ReferenceGrant" => grant::read(head, object),
        "GatewayClass" => {
            object.skip_rest();
            Yield::default()
        }
        _ => {
            object.skip_rest();
            object.at.warn(code::NOT_READ, format!("the kind {} is not read yet; it has no effect", head.kind));
            Yield::default()
        }
    }
}

/// The name by which routes find a gateway. Istio has a kind Gateway too, so both may have the same name.
fn gateway_name(name: &str) -> String {
    format!("gateway-api/{name}")
}
