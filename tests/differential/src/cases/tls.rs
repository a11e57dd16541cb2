//! TLS on both sides: which chain serves, what is agreed, who is trusted, what is told of it.

use crate::{
    certs::certs,
    resource::{
        certificate, chain, cluster, extension, h2, hcm, http, inspector, listener, tcp, tls_chain, tls_to, to, trust,
        with,
    },
    script::{Case, Scenario, Step, Tls, act, call, get, http2, post, raw, request, scenario},
};
use serde_json::{Value, json};

/// The scenarios of this subject.
pub(super) fn all() -> Vec<Scenario> {
    vec![chains(), clients(), passthrough(), http_inspector(), origination()]
}

fn sni(sni: &'static str) -> Tls {
    Tls { sni, ..Tls::default() }
}

fn context(name: &str, more: Value) -> Value {
    json!({"common_tls_context": with(json!({"tls_certificates": [certificate(name)]}), more)})
}

fn answers(word: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": word}}});
    hcm(vec![route], json!({}))
}

fn chains() -> Scenario {
    let alpn = json!({"alpn_protocols": ["h2", "http/1.1"]});
    let only = |version: &str| json!({"tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version}});
    let named = |names: &[&str]| json!({"server_names": names});
    let first = vec![
        tls_chain(answers("svc"), named(&["svc.test"]), context("svc", alpn.clone())),
        tls_chain(answers("wild"), named(&["*.wild.test"]), context("wild", json!({}))),
        tls_chain(answers("deep"), named(&["deep.wild.test"]), context("a", json!({}))),
        tls_chain(answers("old"), named(&["old.test"]), context("a", only("TLSv1_2"))),
        tls_chain(answers("new"), named(&["new.test"]), context("a", only("TLSv1_3"))),
        tls_chain(answers("h2 only"), named(&["h2.test"]), context("a", json!({"alpn_protocols": ["h2"]}))),
        with(
            tls_chain(answers("by alpn"), json!({"application_protocols": ["special"]}), context("a", json!({}))),
            json!({}),
        ),
    ];
    let fallback = tls_chain(answers("default"), json!({}), context("default", alpn));
    let inspected = json!({"listener_filters": [inspector()]});
    let g = |name, tls| get(name, "/", &[]).tls(tls);
    let cases = vec![
        g("exact name", sni("svc.test")),
        g("name in capitals", sni("SVC.test")),
        g("wildcard", sni("x.wild.test")),
        g("exact before wildcard", sni("deep.wild.test")),
        g("two labels under the wildcard", sni("a.b.wild.test")),
        g("the wildcard's own name", sni("wild.test")),
        g("no chain, default", sni("nobody.test")),
        g("no name, default", sni("")),
        g("1.2 only, client of both", sni("old.test")),
        g("1.2 only, client of 1.3", Tls { only: Some(13), ..sni("old.test") }),
        g("1.3 only, client of 1.2", Tls { only: Some(12), ..sni("new.test") }),
        g("1.3 only, client of both", sni("new.test")),
        g("client of 1.2", Tls { only: Some(12), ..sni("svc.test") }),
        g("alpn http/1.1", Tls { alpn: vec!["http/1.1"], ..sni("svc.test") }),
        g("alpn unknown", Tls { alpn: vec!["spdy/3"], ..sni("svc.test") }),
        g("alpn of the chain", Tls { alpn: vec!["special"], ..sni("x.test") }),
        http2("alpn h2", vec![call("/")]).tls(Tls { alpn: vec!["h2", "http/1.1"], ..sni("svc.test") }),
        http2("alpn h2 for another chain", vec![call("/")]).tls(Tls { alpn: vec!["h2"], ..sni("nobody.test") }),
        g("no alpn in the chain, offered", Tls { alpn: vec!["http/1.1"], ..sni("x.wild.test") }),
        get("plain text to a TLS listener", "/", &[]),
        raw("nonsense to a TLS listener", vec![Step::Send(b"\x16\x03\x01\x00\x05hello".to_vec()), Step::ReadEnd])
            .ignoring(&["read"]),
        g("no default, no chain", sni("nobody.test")).on(1),
        g("no default, chain", sni("svc.test")).on(1),
        g("without inspector", sni("anything.test")).on(2),
    ];
    let resources = vec![
        listener(0, first, with(inspected.clone(), json!({"default_filter_chain": fallback}))),
        listener(1, vec![tls_chain(answers("svc"), named(&["svc.test"]), context("svc", json!({})))], inspected),
        listener(2, vec![tls_chain(answers("bare"), json!({}), context("svc", json!({})))], json!({})),
    ];
    scenario("tls chains", resources, cases)
}

fn clients() -> Scenario {
    let san = |matcher: Value| json!({"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}]});
    let validated = |more: Value, required: bool| {
        let inner = json!({"tls_certificates": [certificate("svc")], "validation_context": trust(more)});
        json!({"common_tls_context": inner, "require_client_certificate": required})
    };
    let details = json!({"subject": true, "cert": false, "chain": false, "dns": true, "uri": true});
    let xfcc = |mode: &str| {
        let more = json!({"forward_client_cert_details": mode, "set_current_client_cert_details": details});
        hcm(vec![to("/", "c", json!({}))], more)
    };
    let shown = |name: &'static str| Tls { certificate: Some(name), ..sni("svc.test") };
    let old = |name: &'static str| Tls { only: Some(12), ..shown(name) };
    let sent = [("x-forwarded-client-cert", "By=a;Hash=b;URI=c")];
    let g = |name, on: u16, tls| get(name, "/", &[]).tls(tls).on(on);
    let cases = vec![
        g("required, shown", 0, shown("client")),
        g("required, shown, 1.2", 0, old("client")),
        g("required, none", 0, sni("svc.test")).ignoring(&["answer", "log"]),
        g("required, none, 1.2", 0, Tls { only: Some(12), ..sni("svc.test") }).ignoring(&["log"]),
        g("required, of another authority", 0, shown("client-other")).ignoring(&["answer", "log"]),
        g("optional, none", 1, sni("svc.test")),
        g("optional, shown", 1, shown("client")),
        g("optional, of another authority", 1, shown("client-other")).ignoring(&["answer", "log"]),
        g("name that matches", 2, shown("client")),
        g("name that does not", 2, shown("client-plain")).ignoring(&["answer", "log"]),
        get("details sent by the client, sanitized", "/", &sent).tls(shown("client")).on(0),
        get("details appended", "/", &sent).tls(shown("client")).on(3),
        get("details forwarded only", "/", &sent).tls(shown("client")).on(4),
        get("details set, without a certificate", "/", &sent).tls(sni("svc.test")).on(1),
        get("details always forwarded", "/", &sent).tls(sni("svc.test")).on(5),
        g("trust of another authority only", 6, shown("client-other")),
    ];
    let one =
        |n: u16, mode: &str, context: Value| listener(n, vec![tls_chain(xfcc(mode), json!({}), context)], json!({}));
    let exact = san(json!({"exact": "spiffe://test/ns/a/sa/client"}));
    let other = json!({"common_tls_context": {
        "tls_certificates": [certificate("svc")],
        "validation_context": {"trusted_ca": {"inline_string": certs().other_ca}},
    }, "require_client_certificate": true});
    let resources = vec![
        one(0, "SANITIZE_SET", validated(json!({}), true)),
        one(1, "SANITIZE_SET", validated(json!({}), false)),
        one(2, "SANITIZE_SET", validated(exact, true)),
        one(3, "APPEND_FORWARD", validated(json!({}), true)),
        one(4, "FORWARD_ONLY", validated(json!({}), true)),
        one(5, "ALWAYS_FORWARD_ONLY", validated(json!({}), false)),
        one(6, "SANITIZE_SET", other),
        cluster("c", &["$b0"], json!({})),
    ];
    scenario("tls clients", resources, cases)
}

fn passthrough() -> Scenario {
    let by_name = |names: &[&str], to: &str| {
        with(chain(tcp(json!({"cluster": format!("$s-{to}")}))), json!({"filter_chain_match": {"server_names": names}}))
    };
    let plain = with(
        chain(tcp(json!({"cluster": "$s-b"}))),
        json!({"filter_chain_match": {"transport_protocol": "raw_buffer"}}),
    );
    let cases = vec![
        // How long a signature is differs from one handshake to the next.
        get("by name", "/", &[]).tls(sni("svc.test")).ignoring(&["log"]),
        get("by another name", "/", &[]).tls(sni("x.wild.test")).ignoring(&["log"]),
        get("name of nobody", "/", &[]).tls(sni("nobody.test")),
        get("plain text beside it", "/", &[]),
        raw("hello in pieces", {
            let hello = hello();
            let mut steps: Vec<Step> = Vec::new();
            for piece in hello.chunks(11) {
                steps.extend([Step::Send(piece.to_vec()), Step::Sleep(2)]);
            }
            steps.push(Step::Sleep(100));
            steps
        })
        .ignoring(&["extra", "closed", "log", "upstream0.tls"]),
        raw("client that says nothing", vec![Step::Sleep(300), Step::Shut, Step::ReadEnd]),
    ];
    let resources = vec![
        listener(
            0,
            vec![by_name(&["svc.test"], "a"), by_name(&["*.wild.test"], "b"), plain],
            json!({"listener_filters": [inspector()]}),
        ),
        cluster("a", &["$b0"], json!({})),
        cluster("b", &["$b1"], json!({})),
    ];
    scenario("tls passthrough", resources, cases)
}

/// A TLS hello for `svc.test`, without the rest of a handshake.
fn hello() -> Vec<u8> {
    let name = b"svc.test";
    let short = |n: usize| u16::try_from(n).unwrap_or(0).to_be_bytes();
    let list = [&[0][..], &short(name.len()), name].concat();
    let server_name = [&[0, 0][..], &short(list.len() + 2), &short(list.len()), &list].concat();
    let versions = [0, 43, 0, 3, 2, 3, 4];
    let extensions = [&server_name[..], &versions].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &short(extensions.len()), &extensions].concat();
    let handshake = [&[1, 0][..], &short(body.len()), &body].concat();
    [&[0x16, 3, 1][..], &short(handshake.len()), &handshake].concat()
}

fn http_inspector() -> Scenario {
    let filter = extension(
        "envoy.filters.listener.http_inspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        json!({}),
    );
    let speaks = |protocols: &[&str], filter: Value| {
        with(chain(filter), json!({"filter_chain_match": {"application_protocols": protocols}}))
    };
    let bytes = chain(tcp(json!({"cluster": "$s-bytes"})));
    let cases = vec![
        get("HTTP/1.1", "/", &[]),
        raw("HTTP/1.0", vec![Step::Send(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n".to_vec()), Step::Answer]),
        http2("HTTP/2", vec![call("/")]),
        raw("bytes", vec![Step::Send(b"hello bytes\r\n".to_vec()), Step::Read(13)]),
        raw("nearly HTTP", vec![Step::Send(b"GET the thing\r\n".to_vec()), Step::Read(15)]),
        raw(
            "in pieces",
            vec![
                Step::Send(b"GE".to_vec()),
                Step::Sleep(30),
                Step::Send(b"T / HT".to_vec()),
                Step::Sleep(30),
                Step::Send(b"TP/1.1\r\nhost: svc.test\r\n\r\n".to_vec()),
                Step::Answer,
            ],
        ),
    ];
    let resources = vec![
        listener(
            0,
            vec![
                speaks(&["http/1.1"], answers("one")),
                speaks(&["http/1.0"], answers("zero")),
                speaks(&["h2c"], answers("two")),
            ],
            json!({"listener_filters": [filter], "default_filter_chain": bytes}),
        ),
        cluster("bytes", &["$b0"], json!({})),
    ];
    Scenario { bytes: &[0], ..scenario("http inspector", resources, cases) }
}

fn origination() -> Scenario {
    let validated = |more: Value| json!({"validation_context": trust(more)});
    let names = |name: &str| {
        validated(json!({"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}]}))
    };
    let to_tls = |sni: &str, common: Value| tls_to(json!({"sni": sni, "common_tls_context": common}));
    let shows = json!({"tls_certificates": [certificate("client")], "validation_context": trust(json!({}))});
    let clusters = [
        ("good", to_tls("backend.test", validated(json!({})))),
        ("unverified", to_tls("other.test", json!({}))),
        ("untrusted", to_tls("other.test", validated(json!({})))),
        ("name", to_tls("backend.test", names("backend.test"))),
        ("wrongname", to_tls("backend.test", names("elsewhere.test"))),
        ("shows", to_tls("svc.test", shows)),
        ("nosni", to_tls("", validated(json!({})))),
        ("alpn", to_tls("backend.test", with(validated(json!({})), json!({"alpn_protocols": ["http/1.1"]})))),
        (
            "h2",
            with(h2(json!({})), to_tls("backend.test", with(validated(json!({})), json!({"alpn_protocols": ["h2"]})))),
        ),
    ];
    let auto = with(
        crate::resource::options_of(
            json!({"auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}),
        ),
        to_tls("backend.test", validated(json!({}))),
    );
    let mut resources = vec![http(
        clusters
            .iter()
            .map(|(name, _)| to(&format!("/{name}/"), name, json!({})))
            .chain([
                to("/auto/", "auto", json!({})),
                to("/host/", "host", json!({})),
                to("/told/", "told", json!({})),
                to("/plain/", "plain", json!({})),
                to("/deaf/", "deaf", json!({})),
            ])
            .collect(),
    )];
    resources.extend(clusters.iter().map(|(name, fields)| cluster(name, &["$b0"], fields.clone())));
    resources.push(cluster("auto", &["$b0"], auto));
    let by_host = |more: Value| {
        let names = with(json!({"auto_sni": true, "auto_san_validation": true}), more);
        let options =
            json!({"upstream_http_protocol_options": names, "explicit_http_config": {"http_protocol_options": {}}});
        with(crate::resource::options_of(options), tls_to(json!({"common_tls_context": validated(json!({}))})))
    };
    resources.push(cluster("host", &["$b0"], by_host(json!({}))));
    resources.push(cluster("told", &["$b0"], by_host(json!({"override_auto_sni_header": "x-host"}))));
    // TLS to a backend that speaks none.
    resources.push(cluster("plain", &["$b1"], to_tls("backend.test", validated(json!({})))));
    resources.push(cluster("deaf", &["$dead"], to_tls("backend.test", validated(json!({})))));
    let g = |name: &'static str, path: &str| -> Case { get(name, path, &[]) };
    let cases = vec![
        g("verified", "/good/"),
        g("not verified", "/unverified/"),
        g("of another authority", "/untrusted/").ignoring(&["upstream"]),
        g("name that matches", "/name/"),
        g("name that does not", "/wrongname/").ignoring(&["upstream"]),
        g("client certificate", "/shows/"),
        g("no name", "/nosni/"),
        g("alpn", "/alpn/"),
        g("HTTP/2", "/h2/"),
        g("by agreement", "/auto/"),
        get("host that it proves to be", "/host/", &[("host", "backend.test")]),
        get("host that it proves to be, with a port", "/host/", &[("host", "backend.test:8443")]),
        get("host that it does not prove to be", "/host/", &[("host", "elsewhere.test")]).ignoring(&["upstream"]),
        get("address that it does not prove to be", "/host/", &[("host", "10.9.8.7")]).ignoring(&["upstream"]),
        get("host of a header", "/told/", &[("x-host", "backend.test")]),
        get(
            "host of a header that it does not prove to be",
            "/told/",
            &[("x-host", "elsewhere.test"), ("host", "backend.test")],
        )
        .ignoring(&["upstream"]),
        get("host where the header is missing", "/told/", &[("host", "backend.test")]),
        g("to plain text", "/plain/").ignoring(&["upstream"]),
        g("to nobody", "/deaf/"),
        post("a body", "/good/", &[], b"hello").then(0, act().status(201)),
        raw(
            "kept",
            vec![
                Step::Send(request("GET", "/good/1", &[], b"")),
                Step::Answer,
                Step::Send(request("GET", "/good/2", &[], b"")),
                Step::Answer,
            ],
        ),
    ];
    Scenario { bytes: &[1], ..scenario("tls origination", resources, cases) }
}
