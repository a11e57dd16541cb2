//! Owns filters of rules and of backends. A filter that is not known refuses the route: a rule without its filter would be
//! another rule.

use super::route::target;
use crate::{
    code,
    fields::{At, Fields},
    grammar,
    istio::{check_header_name, header_value},
    object::Head,
};
use std::{collections::BTreeMap, time::Duration};
use tombolo_controlplane_core::intent::{
    Cors, Fraction, HeaderChanges, HeaderEdit, HttpMatch, Mirror, PathRewrite, Redirect, RedirectPort, Rewrite,
    TextMatch,
};

/// What the filters of a rule come to.
#[derive(Default)]
pub(crate) struct Filters {
    pub(crate) headers: HeaderChanges,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) cors: Option<Cors>,
}

pub(crate) fn read(owner: &Fields<'_>, head: &Head, matches: &[HttpMatch]) -> Filters {
    let mut filters = Filters::default();
    for at in owner.list("filters") {
        one(&at, head, matches, &mut filters);
    }
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        owner.at.error(code::CONFLICTING_FIELDS, "RequestRedirect and URLRewrite exclude each other; keep one");
    }
    filters
}

fn one(at: &At<'_>, head: &Head, matches: &[HttpMatch], filters: &mut Filters) -> Option<()> {
    let fields = at.fields();
    let kind = fields.need("type")?;
    match kind.str()? {
        "RequestHeaderModifier" => filters.headers.request = edit(&fields.need("requestHeaderModifier")?, true),
        "ResponseHeaderModifier" => filters.headers.response = edit(&fields.need("responseHeaderModifier")?, false),
        "RequestMirror" => filters.mirrors.extend(mirror(&fields.need("requestMirror")?, head)),
        "RequestRedirect" => filters.redirect = Some(redirect(&fields.need("requestRedirect")?, matches)),
        "URLRewrite" => filters.rewrite = Some(rewrite(&fields.need("urlRewrite")?, matches)),
        "CORS" => filters.cors = Some(cors(&fields.need("cors")?)),
        other => kind.error(
            code::NOT_ENFORCED,
            format!("the filter {other:?} is not supported, so the route is refused; remove the filter"),
        ),
    }
    Some(())
}

/// Backends have no requests of their own to redirect or copy: only headers may change there.
pub(crate) fn backend_headers(owner: &Fields<'_>, head: &Head) -> HeaderChanges {
    let filters = read(owner, head, &[]);
    if filters.redirect.is_some() || filters.rewrite.is_some() || !filters.mirrors.is_empty() || filters.cors.is_some()
    {
        owner
            .at
            .error(code::NOT_ENFORCED, "on a backend only header modifiers are supported; move the filter to the rule");
    }
    filters.headers
}

fn edit(at: &At<'_>, request: bool) -> HeaderEdit {
    let fields = at.fields();
    let list = |name, host_allowed| {
        let mut headers = BTreeMap::new();
        for at in fields.list(name) {
            let fields = at.fields();
            let value = fields.need("value").and_then(|at| header_value(&at));
            let Some(name) = fields.need("name").and_then(|at| at.string()) else { continue };
            check_header_name(&at, &name, host_allowed);
            headers.extend(value.map(|value| (name.to_ascii_lowercase(), value)));
        }
        headers
    };
    let remove = fields.strings("remove").iter().map(|name| name.to_ascii_lowercase()).collect();
    HeaderEdit { set: list("set", request), add: list("add", false), remove }
}

fn mirror(at: &At<'_>, head: &Head) -> Option<Mirror> {
    let fields = at.fields();
    let percent = fields.at("percent").and_then(|at| at.float(0.0..=100.0)).map(grammar::percent);
    let fraction = fields.fields("fraction").and_then(|fraction| {
        let whole = fraction.at("denominator").map_or(Some(100), |at| at.int::<u32>(1..=1_000_000_000))?;
        let part = fraction.need("numerator")?.int::<u32>(0..=i64::from(whole))?;
        Some(grammar::percent(f64::from(part) * 100.0 / f64::from(whole)))
    });
    let destination = fields.need("backendRef").and_then(|at| target(&at.fields(), head));
    Some(Mirror { destination: destination?, fraction: percent.or(fraction).unwrap_or(Fraction::ALL) })
}

fn path_rewrite(at: &At<'_>, matches: &[HttpMatch]) -> Option<PathRewrite> {
    let fields = at.fields();
    let (full, prefix) = (fields.string("replaceFullPath"), fields.string("replacePrefixMatch"));
    let whole = fields.need("type")?.choose(&[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)])?;
    if whole {
        return full.map(PathRewrite::Full);
    }
    let everywhere = matches.iter().all(|m| matches!(m.path, None | Some(TextMatch::SegmentPrefix(_))));
    if !everywhere || matches.len() > 1 {
        at.error(code::BAD_VALUE, "ReplacePrefixMatch needs exactly one match, of type PathPrefix; split the rule");
    }
    prefix.map(PathRewrite::SegmentPrefix)
}

fn rewrite(at: &At<'_>, matches: &[HttpMatch]) -> Rewrite {
    let fields = at.fields();
    Rewrite {
        path: fields.at("path").and_then(|at| path_rewrite(&at, matches)),
        authority: fields.at("hostname").and_then(|at| at.host()).map(|host| host.to_string()),
    }
}

/// Without a port the new address has the usual port of a given scheme, else that of the listener.
fn redirect(at: &At<'_>, matches: &[HttpMatch]) -> Redirect {
    let fields = at.fields();
    let scheme = fields.at("scheme").and_then(|at| at.choose(&[("http", "http"), ("https", "https")]));
    let otherwise = if scheme.is_some() { RedirectPort::FromProtocol } else { RedirectPort::FromRequest };
    let codes: Vec<_> = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)].into();
    Redirect {
        path: fields.at("path").and_then(|at| path_rewrite(&at, matches)),
        authority: fields.at("hostname").and_then(|at| at.host()).map(|host| host.to_string()),
        port: fields.port("port").map_or(otherwise, RedirectPort::Number),
        scheme: scheme.map(str::to_owned),
        status: fields.at("statusCode").and_then(|at| at.choose(&codes)).unwrap_or(302),
    }
}

fn cors(at: &At<'_>) -> Cors {
    let fields = at.fields();
    let origin = |text: String| match text.split_once('*') {
        None => TextMatch::Exact(text),
        Some(("", "")) => TextMatch::Exact(text),
        Some((before, after)) => TextMatch::Regex(format!("{}.*{}", regex::escape(before), regex::escape(after))),
    };
    let seconds = fields.at("maxAge").and_then(|at| at.int::<u64>(1..=2_147_483_647));
    Cors {
        allow_origins: fields.strings("allowOrigins").into_iter().map(origin).collect(),
        allow_methods: fields.strings("allowMethods"),
        allow_headers: fields.strings("allowHeaders"),
        expose_headers: fields.strings("exposeHeaders"),
        max_age: Some(Duration::from_secs(seconds.unwrap_or(5))),
        allow_credentials: fields.bool("allowCredentials"),
        forward_unmatched_preflights: false,
    }
}
