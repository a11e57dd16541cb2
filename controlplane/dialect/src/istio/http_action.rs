//! Owns one HTTP rule: what it does with a request. Conditions and policies are read by its neighbours.

use super::{backend, http_match, http_policy};
use crate::{
    code,
    fields::{At, Fields},
    grammar,
    object::Head,
};
use tombolo_controlplane_core::intent::{
    HttpAction, HttpBackend, HttpMatch, HttpRule, NamedRef, PathRewrite, Redirect, RedirectPort, Rewrite, TextMatch,
};

const MAX_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

pub(crate) fn rule(at: &At<'_>, head: &Head) -> HttpRule {
    let fields = at.fields();
    let matches: Vec<_> = fields.list("match").iter().map(|at| http_match::read(at, head)).collect();
    let headers = fields.at("headers").map(|at| http_policy::headers(&at)).unwrap_or_default();
    let action = action(&fields, head, &matches);
    if let HttpAction::Forward { rewrite, .. } = &action
        && rewrite.authority.is_some()
        && headers.request.set.keys().any(|name| name == "host" || name == ":authority")
    {
        at.error(code::CONFLICTING_FIELDS, "rewrite.authority and headers.request.set both set the host; keep one");
    }
    if let Some(at) = fields.at("websocketUpgrade") {
        at.warn(code::LEGACY_FIELD, "upgrades are always on; remove it");
    }
    HttpRule {
        name: fields.string("name").unwrap_or_default(),
        field: at.path.clone(),
        timeout: fields.duration("timeout").filter(|timeout| !timeout.is_zero()),
        retry: fields.at("retries").and_then(|at| http_policy::retries(&at)),
        fault: fields.at("fault").map(|at| http_policy::fault(&at)),
        mirrors: http_policy::mirrors(&fields, head),
        cors: fields.at("corsPolicy").map(|at| http_policy::cors(&at)),
        delegate: fields.at("delegate").and_then(|at| delegate(&at, head)),
        matches,
        action,
        headers,
    }
}

/// Exactly one of `route`, `redirect`, `directResponse` and `delegate`.
fn action(fields: &Fields<'_>, head: &Head, matches: &[HttpMatch]) -> HttpAction {
    let asked = ["route", "redirect", "directResponse", "delegate"];
    let written: Vec<_> = asked.into_iter().filter(|name| fields.present(name)).collect();
    let nothing = HttpAction::Forward { backends: Vec::new(), rewrite: Rewrite::default() };
    match written.as_slice() {
        [] => {
            fields.at.error(code::REQUIRED, "it does nothing; write route, redirect, directResponse or delegate");
            nothing
        }
        ["route"] => forward(fields, head),
        ["redirect"] => {
            exclude(fields, "redirect", &["rewrite", "fault"]);
            fields.at("redirect").map_or(nothing, |at| HttpAction::Redirect(redirect(&at, matches)))
        }
        ["directResponse"] => {
            exclude(fields, "directResponse", &["rewrite", "fault"]);
            fields.at("directResponse").map_or(nothing, |at| respond(&at))
        }
        ["delegate"] => HttpAction::Forward { backends: Vec::new(), rewrite: rewrite(fields) },
        several => {
            let message = format!("{} exclude each other; keep one", several.join(" and "));
            fields.at.error(code::CONFLICTING_FIELDS, message);
            nothing
        }
    }
}

fn exclude(fields: &Fields<'_>, with: &str, names: &[&'static str]) {
    for at in names.iter().filter_map(|name| fields.at(name)) {
        at.error(code::CONFLICTING_FIELDS, format!("it cannot stand beside {with}; remove one"));
    }
}

fn forward(fields: &Fields<'_>, head: &Head) -> HttpAction {
    let mut backends = Vec::new();
    let list = fields.at("route");
    for at in list.iter().flat_map(At::list) {
        let fields = at.fields();
        let weight = fields.u32("weight").unwrap_or(0);
        let headers = fields.at("headers").map(|at| http_policy::headers(&at)).unwrap_or_default();
        let destination = fields.need("destination").and_then(|at| backend::destination(&at, head));
        backends.extend(destination.map(|destination| HttpBackend { destination, weight, headers }));
    }
    if let Some(list) = &list {
        let weights: Vec<_> = backends.iter().map(|b| b.weight).collect();
        backend::check_weights(list, &weights);
        if backends.is_empty() {
            list.error(code::REQUIRED, "at least one destination is required");
        }
    }
    backend::only_one(&mut backends, |backend| &mut backend.weight);
    HttpAction::Forward { backends, rewrite: rewrite(fields) }
}

fn rewrite(fields: &Fields<'_>) -> Rewrite {
    let Some(at) = fields.at("rewrite") else { return Rewrite::default() };
    let fields = at.fields();
    let uri = fields.string("uri");
    let regex = fields.fields("uriRegexRewrite").and_then(|regex| {
        let substitution = regex.need("rewrite");
        let pattern = regex.need("match").and_then(|at| at.parse(grammar::expression))?;
        let substitution = substitution?.parse(|text| grammar::substitution(text, &pattern))?;
        Some(PathRewrite::Regex { pattern, substitution })
    });
    if uri.is_some() && regex.is_some() {
        at.error(code::CONFLICTING_FIELDS, "uri and uriRegexRewrite exclude each other; keep one");
    }
    Rewrite { path: uri.map(PathRewrite::Prefix).or(regex), authority: fields.string("authority") }
}

fn redirect(at: &At<'_>, matches: &[HttpMatch]) -> Redirect {
    let fields = at.fields();
    let whole = fields.string("uri").filter(|uri| !uri.is_empty());
    let prefix = fields.at("prefixRewrite").and_then(|at| prefix_rewrite(&at, matches));
    if whole.is_some() && prefix.is_some() {
        at.error(code::CONFLICTING_FIELDS, "uri and prefixRewrite exclude each other; keep one");
    }
    let number = fields.port("port").map(RedirectPort::Number);
    let derive =
        [("FROM_PROTOCOL_DEFAULT", RedirectPort::FromProtocol), ("FROM_REQUEST_PORT", RedirectPort::FromRequest)];
    let derived = fields.at("derivePort").and_then(|at| at.choose(&derive));
    if number.is_some() && derived.is_some() {
        at.error(code::CONFLICTING_FIELDS, "port and derivePort exclude each other; keep one");
    }
    let code = |at: At<'_>| {
        let code = at.int::<u16>(300..=399)?;
        if !matches!(code, 301 | 302 | 303 | 307 | 308) {
            at.error(code::BAD_VALUE, "it must be 301, 302, 303, 307 or 308");
        }
        Some(code)
    };
    Redirect {
        path: whole.map(PathRewrite::Full).or(prefix.map(PathRewrite::Prefix)),
        authority: fields.string("authority").filter(|text| !text.is_empty()),
        port: number.or(derived).unwrap_or(RedirectPort::Unset),
        scheme: fields
            .at("scheme")
            .and_then(|at| at.choose(&[("http", "http"), ("https", "https")]))
            .map(str::to_owned),
        status: fields.at("redirectCode").and_then(code).unwrap_or(301),
    }
}

fn prefix_rewrite(at: &At<'_>, matches: &[HttpMatch]) -> Option<String> {
    let prefixes = matches.iter().all(|m| matches!(m.path, Some(TextMatch::Prefix(_))));
    if matches.is_empty() || !prefixes {
        at.error(
            code::BAD_VALUE,
            "it needs a uri prefix in every match of the rule; write match with uri.prefix, or use uri",
        );
    }
    at.string()
}

fn respond(at: &At<'_>) -> HttpAction {
    let fields = at.fields();
    let status = fields.need("status").and_then(|at| at.int(200..=599)).unwrap_or(500);
    let body = fields.at("body").map(|at| body(&at)).unwrap_or_default();
    HttpAction::Respond { status, body }
}

fn body(at: &At<'_>) -> Vec<u8> {
    let fields = at.fields();
    let text = fields.string("string").map(String::into_bytes);
    let bytes = fields.at("bytes").and_then(|at| at.parse(grammar::base64));
    if text.is_some() && bytes.is_some() {
        at.error(code::CONFLICTING_FIELDS, "string and bytes exclude each other; keep one");
    }
    let body = text.or(bytes).unwrap_or_default();
    if body.len() > MAX_BODY {
        at.error(code::BAD_VALUE, "the body is larger than 1 MiB; serve it from a service");
    } else if body.len() > LARGE_BODY {
        at.warn(
            code::SUSPICIOUS,
            "the body is larger than 100 KiB and is sent to every proxy; better serve it from a service",
        );
    }
    body
}

fn delegate(at: &At<'_>, head: &Head) -> Option<NamedRef> {
    let fields = at.fields();
    let namespace = fields.namespace("namespace").unwrap_or_else(|| head.namespace.clone());
    Some(NamedRef { namespace, name: fields.need("name")?.string()? })
}
