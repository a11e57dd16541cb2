//! Route tables.

use super::{
    Refusal, action,
    any::{
        At, Decoded, decode, filled, header_name, header_names, header_value, known, metadata, one_line, refuse, unpack,
    },
    filter, format, header, matcher, retry,
    split::split,
};
use crate::{
    config::{
        DirectResponse, Metadata, PathMatch, Redirect, RedirectPath, RequireTls, Route, RouteMatch, RouteTable,
        RouteTarget, UriTemplate, VirtualHost,
    },
    route::{hosts::HostIndex, template},
};
use http::StatusCode;
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::{
    config::route::v3::{
        self as pb, redirect_action as ra, route::Action, route_match::PathSpecifier, virtual_host::TlsRequirementType,
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
};

/// Of a body that is written in a route, unless the table says otherwise.
pub(super) const LARGEST_BODY: usize = 4096;

/// Number of the field of virtual hosts.
const HOSTS: u32 = 2;

/// How a route table comes, which decides what counts where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comes {
    /// In the listener: its clusters must be there.
    Written,
    /// By itself: its clusters may come later.
    Alone,
}

/// A route table.
pub(super) fn table(mut message: pb::RouteConfiguration, comes: Comes) -> Decoded<RouteTable> {
    let hosts = std::mem::take(&mut message.virtual_hosts);
    made(message, hosts.into_iter().map(Ok), comes)
}

/// A route table from its bytes.
pub(super) fn encoded(bytes: &[u8], comes: Comes) -> Decoded<RouteTable> {
    let apart = split(bytes, HOSTS)?;
    made(apart.message()?, apart.items.iter().map(|item| decode(item)), comes)
}

fn made(
    message: pb::RouteConfiguration,
    virtual_hosts: impl ExactSizeIterator<Item = Decoded<pb::VirtualHost>>,
    comes: Comes,
) -> Decoded<RouteTable> {
    let pb::RouteConfiguration {
        name,
        virtual_hosts: _,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata: meta,
        route_specifiers,
    } = message;
    refuse!(cluster_specifier_plugins, route_specifiers);
    let source = vhds.map(|vhds| vhds.config_source.unwrap_or_default());
    let more_hosts = source.as_ref().map(super::any::over_ads).transpose().at("vhds.config_source")?;
    let most_body = most_body(max_direct_response_body_size_bytes);
    // Names that are empty are taken here, as in Envoy, and refused in hosts and routes.
    let named = |list: Vec<String>| list.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>();
    let (request_headers_to_remove, response_headers_to_remove) =
        (named(request_headers_to_remove), named(response_headers_to_remove));
    let mut index = HostIndex::default();
    let mut hosts = Vec::with_capacity(virtual_hosts.len());
    for (at, host) in virtual_hosts.enumerate() {
        let host = host.nth("virtual_hosts", at)?;
        let place = u32::try_from(at).map_err(|_| Refusal::new("virtual_hosts", "too many"))?;
        for (nth, domain) in host.domains.iter().enumerate() {
            let put = index.put(domain, place).map_err(|twice| format!("{:?} is there twice", twice.0));
            put.nth("domains", nth).nth("virtual_hosts", at)?;
        }
        hosts.push(virtual_host(host, most_body).nth("virtual_hosts", at)?);
    }
    index.shrink();
    let vhost_header =
        if vhost_header.is_empty() { None } else { Some(header_name(&vhost_header).at("vhost_header")?) };
    Ok(RouteTable {
        name: name.into(),
        hosts: hosts.into(),
        index,
        request_headers: request_changes(request_headers_to_add, &request_headers_to_remove)?,
        response_headers: response_changes(response_headers_to_add, &response_headers_to_remove)?,
        internal_only_headers: header_names(&internal_only_headers, "internal_only_headers")?,
        most_specific_wins: most_specific_header_mutations_wins,
        ignore_port: ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters: ignore_path_parameters_in_path_matching,
        mirrors: action::mirrors(request_mirror_policies)?,
        overrides: filter::overrides(typed_per_filter_config)?,
        metadata: metadata(meta.as_ref()).at("metadata")?,
        more_hosts,
        more: None,
        validate_clusters: super::any::bool_or(validate_clusters, comes == Comes::Written),
    })
}

/// How long the bodies of direct responses may be.
pub(super) fn most_body(told: Option<tombolo_controlplane_api::xds::google::protobuf::UInt32Value>) -> usize {
    match told.map(|most| most.value) {
        None => LARGEST_BODY,
        // As in Envoy, no bound.
        Some(0) => usize::MAX,
        Some(most) => most as usize,
    }
}

pub(super) fn request_changes(
    add: Vec<tombolo_controlplane_api::xds::envoy::config::core::v3::HeaderValueOption>,
    remove: &[String],
) -> Decoded<crate::config::HeaderChanges> {
    header::changes(add, remove, "request_headers_to_add", "request_headers_to_remove")
}

pub(super) fn response_changes(
    add: Vec<tombolo_controlplane_api::xds::envoy::config::core::v3::HeaderValueOption>,
    remove: &[String],
) -> Decoded<crate::config::HeaderChanges> {
    header::changes(add, remove, "response_headers_to_add", "response_headers_to_remove")
}

pub(super) fn virtual_host(message: pb::VirtualHost, most_body: usize) -> Decoded<VirtualHost> {
    let require_tls = known(message.require_tls).at("require_tls")?;
    let pb::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls: _,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata: meta,
        route_specifiers,
    } = message;
    refuse!(matcher, virtual_clusters, cors, retry_policy_typed_config, route_specifiers);
    if domains.is_empty() {
        return Err(Refusal::new("domains", "empty"));
    }
    for (at, domain) in domains.iter().enumerate() {
        one_line(domain).nth("domains", at)?;
    }
    let routes = routes.into_iter().enumerate().map(|(at, r)| route(r, most_body).map(Arc::new).nth("routes", at));
    Ok(VirtualHost {
        name: filled(name).at("name")?.into(),
        routes: routes.collect::<Decoded<_>>()?,
        require_tls: match require_tls {
            TlsRequirementType::None => RequireTls::None,
            TlsRequirementType::ExternalOnly => RequireTls::External,
            TlsRequirementType::All => RequireTls::All,
        },
        request_headers: request_changes(request_headers_to_add, &request_headers_to_remove)?,
        response_headers: response_changes(response_headers_to_add, &response_headers_to_remove)?,
        request_attempt_count: include_request_attempt_count,
        response_attempt_count: include_attempt_count_in_response,
        timeout_retry_header: include_is_timeout_retry_header,
        retry: retry_policy.map(retry::policy).transpose().at("retry_policy")?.map(Arc::new),
        hedge: hedge_policy.map(retry::hedge).transpose().at("hedge_policy")?.map(Arc::new),
        mirrors: action::mirrors(request_mirror_policies)?,
        overrides: filter::overrides(typed_per_filter_config)?,
        body_buffer_limit: body_limit(per_request_buffer_limit_bytes, request_body_buffer_limit),
        rate_rules: super::limit::rules(rate_limits)?,
        metadata: metadata(meta.as_ref()).at("metadata")?,
    })
}

fn body_limit(
    old: Option<tombolo_controlplane_api::xds::google::protobuf::UInt32Value>,
    new: Option<tombolo_controlplane_api::xds::google::protobuf::UInt64Value>,
) -> Option<u64> {
    new.map(|limit| limit.value).or(old.map(|limit| u64::from(limit.value)))
}

fn route(message: pb::Route, most_body: usize) -> Decoded<Route> {
    let pb::Route {
        name,
        r#match,
        metadata: meta,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action: target,
    } = message;
    refuse!(tracing, route_specifiers);
    // Names spans, of which this gateway makes none.
    decorator.as_ref().map(|decorator| filled(decorator.operation.clone())).transpose().at("decorator.operation")?;
    let _ = decorator;
    let matches = route_match(r#match.ok_or_else(|| Refusal::new("match", "missing"))?).at("match")?;
    let target = match target {
        Some(Action::Route(route)) => RouteTarget::Forward(Box::new(action::forward(route, &matches).at("route")?)),
        Some(Action::Redirect(to)) => RouteTarget::Redirect(Box::new(redirect(to).at("redirect")?)),
        Some(Action::DirectResponse(answer)) => {
            RouteTarget::Respond(Box::new(respond(answer, most_body).at("direct_response")?))
        }
        Some(Action::NonForwardingAction(_)) => RouteTarget::NonForwarding,
        Some(Action::FilterAction(_)) => return Err(Refusal::unsupported("filter_action")),
        None => return Err(Refusal::new("action", "missing")),
    };
    Ok(Route {
        name: name.into(),
        matches,
        target,
        request_headers: request_changes(request_headers_to_add, &request_headers_to_remove)?,
        response_headers: response_changes(response_headers_to_add, &response_headers_to_remove)?,
        overrides: filter::overrides(typed_per_filter_config)?,
        stat_prefix: stat_prefix.into(),
        body_buffer_limit: body_limit(per_request_buffer_limit_bytes, request_body_buffer_limit),
        metadata: metadata(meta.as_ref()).at("metadata")?,
    })
}

fn route_match(message: pb::RouteMatch) -> Decoded<RouteMatch> {
    let pb::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = message;
    refuse!(filter_state);
    let said = |(at, one)| super::metadata::condition(one).nth("dynamic_metadata", at);
    let said = dynamic_metadata.into_iter().enumerate().map(said).collect::<Decoded<Vec<_>>>()?;
    let query = query_parameters.into_iter().enumerate().map(|(at, q)| matcher::query(q).nth("query_parameters", at));
    let cookies = cookies.into_iter().enumerate().map(|(at, c)| matcher::cookie(c).nth("cookies", at));
    let tls = tls_context.unwrap_or_default();
    Ok(RouteMatch {
        path: path(path_specifier)?,
        case_sensitive: super::any::bool_or(case_sensitive, true),
        headers: matcher::headers(headers, "headers")?,
        query: query.collect::<Decoded<_>>()?,
        cookies: cookies.collect::<Decoded<_>>()?,
        grpc: grpc.is_some(),
        share: matcher::runtime_share(runtime_fraction, None).at("runtime_fraction")?.map(Box::new),
        tls_presented: tls.presented.map(|presented| presented.value),
        tls_validated: tls.validated.map(|validated| validated.value),
        // Filters say something after the route is chosen only, as in Envoy.
        never: !said.iter().all(|one| one.fits(&Metadata::default())),
    })
}

fn path(specifier: Option<PathSpecifier>) -> Decoded<PathMatch> {
    Ok(match specifier {
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix(prefix.into()),
        Some(PathSpecifier::Path(path)) => PathMatch::Exact(path.into()),
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(matcher::regex(regex).at("safe_regex")?),
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if prefix.len() < 2 || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                return Err(Refusal::new("path_separated_prefix", "not a path without a slash at its end"));
            }
            PathMatch::Separated(prefix.into())
        }
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            PathMatch::Template(Box::new(path_template(policy).at("path_match_policy")?))
        }
        None => return Err(Refusal::new("path_specifier", "missing")),
    })
}

fn path_template(
    policy: tombolo_controlplane_api::xds::envoy::config::core::v3::TypedExtensionConfig,
) -> Decoded<UriTemplate> {
    let config = policy.typed_config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
    let config: UriTemplateMatchConfig = unpack(&config).at("typed_config")?;
    template::parse(&config.path_template).at("path_template")
}

fn redirect(message: pb::RedirectAction) -> Decoded<Redirect> {
    let code = known(message.response_code).at("response_code")?;
    let pb::RedirectAction {
        host_redirect,
        port_redirect,
        response_code: _,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = message;
    let (https, scheme) = match scheme_rewrite_specifier {
        Some(ra::SchemeRewriteSpecifier::HttpsRedirect(https)) => (https, None),
        Some(ra::SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            (false, Some(scheme).filter(|scheme| !scheme.is_empty()))
        }
        None => (false, None),
    };
    let path = match path_rewrite_specifier {
        None => RedirectPath::Same,
        Some(ra::PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => RedirectPath::Same,
        Some(ra::PathRewriteSpecifier::PathRedirect(path)) => {
            one_line(&path).at("path_redirect")?;
            RedirectPath::Full(path.into())
        }
        Some(ra::PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            one_line(&prefix).at("prefix_rewrite")?;
            RedirectPath::Prefix(prefix.into())
        }
        Some(ra::PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            RedirectPath::Regex(Box::new(matcher::rewrite(rewrite).at("regex_rewrite")?))
        }
        Some(ra::PathRewriteSpecifier::PathRewrite(_)) => return Err(Refusal::unsupported("path_rewrite")),
    };
    let port = super::any::port(port_redirect).at("port_redirect")?;
    Ok(Redirect {
        scheme: scheme.map(Into::into),
        https,
        host: Some(host_redirect).filter(|host| !host.is_empty()).map(Into::into),
        port: (port != 0).then_some(port),
        path,
        status: match code {
            ra::RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            ra::RedirectResponseCode::Found => StatusCode::FOUND,
            ra::RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
            ra::RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            ra::RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        },
        strip_query,
    })
}

fn respond(message: pb::DirectResponseAction, most: usize) -> Decoded<DirectResponse> {
    let pb::DirectResponseAction { status, body, body_format } = message;
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let body = body.as_ref().map(super::any::data).transpose().at("body")?.unwrap_or_default();
    if body.len() > most {
        return Err(Refusal::new("body", format!("longer than {most} bytes")));
    }
    Ok(DirectResponse {
        status: status.ok_or_else(|| Refusal::new("status", "not a status from 200 to 599"))?,
        body: body.into(),
        format: body_format.map(format::body).transpose().at("body_format")?,
    })
}

/// A host that is written out, if there is one.
pub(super) fn literal_host(text: &str, field: &str) -> Decoded<Option<http::HeaderValue>> {
    if text.is_empty() { Ok(None) } else { header_value(text).at(field).map(Some) }
}
