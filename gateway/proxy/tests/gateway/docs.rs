//! `docs/xds.md` says what the decoder does: it is made from the table of types and from the decoder's own text, and this fails when
//! it is not current. `UPDATE_GOLDEN=1` writes it anew.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};
use tombolo_gateway_core::wire::{Kind, SUPPORTED};

const INTRODUCTION: &str = "\
# xDS: what the gateway understands

Made from the decoder by a test; do not edit (`UPDATE_GOLDEN=1 cargo test -p tombolo-gateway-proxy --test gateway docs`).

The gateway is an xDS v3 client: delta (the default) or state of the world, one aggregated stream (ADS). The rules:

- **A resource that cannot be used is refused by name** and with a reason; the others of the same response are taken. In the delta
  protocol the refused ones are listed one a line in `error_detail`. The last good version goes on serving.
- **Nothing that is known is ignored silently.** Each message is taken apart field by field; a field that is set and that nobody reads
  refuses the resource, or stands below among those without effect, with the reason in the decoder. Fields that are newer than the
  messages this was built with are not seen, as in Envoy.
- **Unknown extensions refuse the resource** unless they are marked `is_optional` (HTTP filters), which leaves them out.
- **Warming.** A cluster serves when its endpoints and certificates are here, a listener when its routes, certificates and extensions
  are. Each source says how long it may take (`initial_fetch_timeout`, 15 s by default, 0 for ever); then it is done without: a listener
  answers 404 until its routes come. The version before serves meanwhile. Routes to a new cluster wait for that cluster's endpoints.
- **Sources.** `ads`, `self`, and `api_config_source` that names the same control plane (aggregated, or the cluster `xds-grpc`) are the
  one stream. `path` and `path_config_source` are refused: a control plane does not make a gateway read files.
- **Removal** of clusters, listeners, scopes and virtual hosts takes effect at once (listeners drain). Endpoints, routes and secrets
  that are still referred to stay. An extension that is removed (delta) falls back to its `default_config`; without one requests get
  500, for nothing may pass a filter that is gone.
- **`ttl`.** Clusters, listeners, scopes and virtual hosts that are not renewed in time are dropped; others stay. A resource without a
  body renews.
- **Acknowledgement** means understood and kept, not yet warm. Envoy holds back the answer to a cluster update while a cluster warms;
  this gateway does not, so control planes need not guess.
- **Bounds.** 64 MiB for one resource, 256 MiB for one message, 250,000 resources of a type, 1 GiB in all; what is beyond is refused.
- **Names** of the form `xdstp://` are refused.
- **Without the control plane** everything goes on. With `--state DIR` the last good resources are on disk and serve after a restart;
  private keys are never written there, so chains that need one wait for the control plane.
- **`--config FILE`** reads `static_resources` (listeners, clusters, secrets) and static layers of `layered_runtime` from YAML or JSON
  instead, and again when the file changes; a file with a mistake is refused as a whole, with the place of the mistake.
- **`--rtds LAYER`** subscribes to runtime layers.

";

/// What a function does with the fields of one message.
#[derive(Default)]
struct Fields {
    read: Vec<String>,
    without_effect: Vec<String>,
    refused: Vec<String>,
}

fn words(list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().trim_start_matches("r#"));
    let names = names.map(|name| name.split(':').next().unwrap_or(name).trim().to_owned());
    names
        .filter(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
        .collect()
}

/// Text between a mark and its end, for each time the mark is there.
fn between<'t>(text: &'t str, mark: &str, end: &str) -> Vec<&'t str> {
    text.split(mark).skip(1).filter_map(|rest| rest.split_once(end).map(|(inner, _)| inner)).collect()
}

/// Messages that are taken apart in a function, with what becomes of their fields.
fn messages(function: &str, out: &mut BTreeMap<String, Fields>) {
    let code = function.lines().map(|line| line.split("//").next().unwrap_or(line));
    let plain = code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    let mut refused: Vec<String> = between(&plain, "refuse!(", ")").iter().flat_map(|list| words(list)).collect();
    // The field itself is the last word of a place, and of a place that is put together.
    let places =
        [between(&plain, "Refusal::unsupported(\"", "\""), between(&plain, "Refusal::unsupported(format!(\"", "\"")];
    refused.extend(places.concat().iter().map(|place| place.rsplit('.').next().unwrap_or(place).to_owned()));
    let mut idle: Vec<String> = between(&plain, "let _ = (", ")").iter().flat_map(|list| words(list)).collect();
    idle.extend(between(&plain, "let _ = ", ";").iter().filter(|one| !one.contains('(')).flat_map(|one| words(one)));
    for taken in plain.split("let ").skip(1) {
        let Some((name, rest)) = taken.split_once('{') else { continue };
        let Some((fields, tail)) = rest.split_once('}') else { continue };
        let name = name.trim().rsplit("::").next().unwrap_or_default();
        let fits =
            name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if !fits || !tail.trim_start().starts_with('=') || tail.trim_start().starts_with("==") {
            continue;
        }
        let message = out.entry(name.to_owned()).or_default();
        for field in words(fields) {
            let list = if refused.contains(&field) {
                &mut message.refused
            } else if idle.contains(&field) {
                &mut message.without_effect
            } else {
                &mut message.read
            };
            if !list.contains(&field) {
                list.push(field);
            }
        }
    }
}

fn page() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("## Discovery services\n\n| kind | type |\n| --- | --- |\n");
    for kind in Kind::ALL {
        let _ = writeln!(out, "| {kind:?} | `{}` |", kind.type_url().trim_start_matches("type.googleapis.com/"));
    }
    out.push_str("\n## Messages by place\n\n| place | message | limits |\n| --- | --- | --- |\n");
    for row in SUPPORTED {
        let _ = writeln!(out, "| {} | `{}` | {} |", row.place, row.message, row.limits);
    }
    out.push_str(
        "\n## Fields\n\nOf each message that the decoder takes apart: what is read, what is taken and has no effect, what refuses the \
         resource when it is set (some only with certain values).\n\n| message | read | without effect | refused |\n| --- | --- | --- | --- |\n",
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src/wire");
    let mut all = BTreeMap::new();
    sources(&folder, &mut all);
    for (name, fields) in all {
        let list = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} |",
            list(&fields.read),
            list(&fields.without_effect),
            list(&fields.refused)
        );
    }
    out
}

fn sources(folder: &Path, all: &mut BTreeMap<String, Fields>) {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_none_or(|name| name != "tests") {
            let text = fs::read_to_string(&path).unwrap();
            text.split("\n}\n").for_each(|function| messages(function, all));
        }
    }
}

#[test]
fn the_page_on_xds_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/xds.md");
    let made = page();
    assert!(
        made.contains("| HttpConnectionManager |") && made.contains("| RouteConfiguration |"),
        "the decoder is not found"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == made, "docs/xds.md is not current: run this test with UPDATE_GOLDEN=1");
}
