//! Owns the route kinds as a whole: parents, rules, backends. One route yields one meaning for its gateways and one for each
//! service whose clients follow it, because those are for different hosts.

use super::{
    filter::{self, Filters},
    parent::{self, Parents, ServiceParent, parent_host},
};
use crate::{
    code,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use std::time::Duration;
use tombolo_controlplane_core::intent::{
    Attachment, HttpAction, HttpBackend, HttpMatch, HttpRule, Intent, Meta, Precedence, RetryPolicy, Rewrite, Routes,
    Target, TcpBackend, TcpMatch, TcpRule, TlsMatch, TlsRule,
};
use tombolo_federation_model::{Host, ObjectRef, Visibility};

/// The mesh's default, needed where only the time of one try is given.
const DEFAULT_ATTEMPTS: u32 = 2;

pub(crate) fn read_http(head: &Head, object: &Fields<'_>, conditions: fn(&At<'_>) -> HttpMatch) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let parents = parent::read(&spec, head);
    parent::check(&parents, object);
    let hosts = hosts(&spec);
    let http: Vec<_> = spec.list("rules").iter().map(|at| http_rule(at, head, conditions)).collect();
    let base = Routes { http, ..empty(head, hosts) };
    spread(base, parents, |routes, port| {
        for rule in &mut routes.http {
            if rule.matches.is_empty() {
                rule.matches.push(HttpMatch::default());
            }
            rule.matches.iter_mut().for_each(|m| m.port = Some(port));
        }
    })
}

pub(crate) fn read_tls(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let parents = parent::read(&spec, head);
    parent::check(&parents, object);
    let hosts = hosts(&spec);
    let rule = |at: &At<'_>| {
        let connection = TcpMatch::default();
        let matches = vec![TlsMatch { sni_hosts: hosts.clone(), connection }];
        TlsRule { field: at.path.clone(), matches, backends: tcp_backends(&at.fields(), head) }
    };
    let tls = spec.list("rules").iter().map(rule).collect();
    let base = Routes { tls, ..empty(head, hosts.clone()) };
    spread(base, parents, |routes, port| {
        routes.tls.iter_mut().flat_map(|rule| &mut rule.matches).for_each(|m| m.connection.port = Some(port));
    })
}

pub(crate) fn read_tcp(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let parents = parent::read(&spec, head);
    parent::check(&parents, object);
    let rule = |at: &At<'_>| TcpRule {
        field: at.path.clone(),
        matches: Vec::new(),
        backends: tcp_backends(&at.fields(), head),
    };
    let tcp = spec.list("rules").iter().map(rule).collect();
    let base = Routes { tcp, ..empty(head, any_host()) };
    spread(base, parents, |routes, port| {
        for rule in &mut routes.tcp {
            rule.matches = vec![TcpMatch { port: Some(port), ..TcpMatch::default() }];
        }
    })
}

fn empty(head: &Head, hosts: Vec<Host>) -> Routes {
    Routes {
        meta: head.meta(),
        hosts,
        attachments: Vec::new(),
        export_to: Visibility::All,
        precedence: Precedence::MostSpecific,
        http: Vec::new(),
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

fn any_host() -> Vec<Host> {
    Host::parse("*").into_iter().collect()
}

fn hosts(spec: &Fields<'_>) -> Vec<Host> {
    let hosts: Vec<_> = spec.list("hostnames").iter().filter_map(At::host).collect();
    if hosts.is_empty() { any_host() } else { hosts }
}

/// One meaning for all gateways, one for each service and port. Later ones have names of their own, because an object has
/// one meaning.
fn spread(base: Routes, parents: Parents, at_port: impl Fn(&mut Routes, u16)) -> Yield {
    let mut parts = Vec::new();
    if !parents.gateways.is_empty() {
        parts.push(Routes { attachments: parents.gateways, ..base.clone() });
    }
    for ServiceParent { host, ports, visibility } in parents.services {
        let attachments = vec![Attachment::Mesh];
        let of_service = Routes { hosts: vec![host], attachments, export_to: visibility, ..base.clone() };
        if ports.is_empty() {
            parts.push(of_service);
            continue;
        }
        for port in ports {
            let mut of_port = of_service.clone();
            at_port(&mut of_port, port);
            parts.push(of_port);
        }
    }
    for (index, part) in parts.iter_mut().enumerate().skip(1) {
        part.meta = numbered(&part.meta, index + 1);
    }
    Yield { intents: parts.into_iter().map(Intent::Routes).collect(), ..Yield::default() }
}

fn numbered(meta: &Meta, number: usize) -> Meta {
    let object = &meta.object;
    let name = format!("{}#{number}", object.name);
    Meta { object: ObjectRef::new(&object.kind, &object.namespace, &name, &object.cluster), ..meta.clone() }
}

fn http_rule(at: &At<'_>, head: &Head, conditions: fn(&At<'_>) -> HttpMatch) -> HttpRule {
    let fields = at.fields();
    fields.not_in_force(&["sessionPersistence"]);
    let matches: Vec<_> = fields.list("matches").iter().map(conditions).collect();
    let filters = filter::read(&fields, head, &matches);
    let backends = http_backends(&fields, head);
    if filters.redirect.is_some() && !backends.is_empty() {
        at.error(code::CONFLICTING_FIELDS, "RequestRedirect and backendRefs exclude each other; keep one");
    }
    let (timeout, per_try_timeout) = timeouts(&fields);
    let Filters { headers, redirect, rewrite, mirrors, cors } = filters;
    let action = match redirect {
        Some(redirect) => HttpAction::Redirect(redirect),
        None => HttpAction::Forward { backends, rewrite: rewrite.unwrap_or(Rewrite::default()) },
    };
    HttpRule {
        name: fields.string("name").unwrap_or_default(),
        field: at.path.clone(),
        retry: retry(&fields, per_try_timeout),
        fault: None,
        delegate: None,
        timeout,
        matches,
        action,
        mirrors,
        cors,
        headers,
    }
}

/// Of the whole request, and of one try.
fn timeouts(rule: &Fields<'_>) -> (Option<Duration>, Option<Duration>) {
    let Some(timeouts) = rule.fields("timeouts") else { return (None, None) };
    let time = |name| timeouts.duration(name).filter(|time| !time.is_zero());
    let (request, backend) = (time("request"), time("backendRequest"));
    if let (Some(request), Some(backend)) = (request, backend)
        && backend > request
    {
        timeouts.at.error(code::BAD_VALUE, "backendRequest must not be longer than request");
    }
    (request, backend)
}

fn retry(rule: &Fields<'_>, per_try_timeout: Option<Duration>) -> Option<RetryPolicy> {
    let usual = RetryPolicy {
        attempts: DEFAULT_ATTEMPTS,
        per_try_timeout,
        on: Vec::new(),
        statuses: Vec::new(),
        remote_localities: None,
        ignore_previous_hosts: None,
        backoff: None,
    };
    let Some(retry) = rule.fields("retry") else { return per_try_timeout.map(|_| usual) };
    let statuses: Vec<u16> = retry.list("codes").iter().filter_map(|at| at.int(400..=599)).collect();
    let conditions = ["connect-failure", "refused-stream", "reset-before-request", "retriable-status-codes"];
    Some(RetryPolicy {
        attempts: retry.u32("attempts").unwrap_or(DEFAULT_ATTEMPTS),
        on: if statuses.is_empty() { Vec::new() } else { conditions.map(str::to_owned).into() },
        backoff: retry.at("backoff").and_then(|at| at.positive_duration()),
        statuses,
        ..usual
    })
}

/// Without weight zero; when nothing is left, the rule answers 500 as the API says.
fn http_backends(rule: &Fields<'_>, head: &Head) -> Vec<HttpBackend> {
    let mut backends = Vec::new();
    for at in rule.list("backendRefs") {
        let fields = at.fields();
        let headers = filter::backend_headers(&fields, head);
        let weight = weight(&fields);
        backends.extend(target(&fields, head).map(|destination| HttpBackend { destination, weight, headers }));
    }
    backends.retain(|backend| backend.weight > 0);
    backends
}

fn tcp_backends(rule: &Fields<'_>, head: &Head) -> Vec<TcpBackend> {
    rule.skip(&["name"]);
    let mut backends = Vec::new();
    for at in rule.list("backendRefs") {
        let fields = at.fields();
        let weight = weight(&fields);
        backends.extend(target(&fields, head).map(|destination| TcpBackend { destination, weight }));
    }
    backends.retain(|backend| backend.weight > 0);
    backends
}

fn weight(backend: &Fields<'_>) -> u32 {
    backend.at("weight").and_then(|at| at.int(0..=1_000_000)).unwrap_or(1)
}

/// A service, an import of one from all clusters, or a host by name.
pub(crate) fn target(fields: &Fields<'_>, head: &Head) -> Option<Target> {
    fields.skip(&["group"]);
    let own = fields.namespace("namespace");
    let port = fields.port("port");
    let kinds = [("Service", 's'), ("ServiceImport", 'i'), ("Hostname", 'h')];
    let kind = fields.at("kind").map_or(Some('s'), |at| at.choose(&kinds))?;
    let name = fields.need("name")?;
    let namespace = own.unwrap_or_else(|| head.namespace.clone());
    if port.is_none() && !fields.at.sink.refused() {
        fields.at.error(code::REQUIRED, "port is required: a service may have several");
    }
    let host = match kind {
        'h' => name.host()?,
        _ => name.parse(|text| parent_host(text, &namespace, kind == 'i', &name))?,
    };
    Some(Target { host, subset: None, port })
}
