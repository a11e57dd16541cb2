//! The operators of header values and log lines are listed twice: where manifests are read and where they are rendered. Here
//! both lists judge the same texts, so that neither can change alone.

use std::{collections::BTreeSet, fs, path::Path};
use tombolo_controlplane_dialect::{Context, Document, Reading, code, read};
use tombolo_federation_model::{ClusterId, TrustDomain};
use tombolo_gateway_core::{accesslog::LineFormat, format::Format};

const SOURCES: [&str; 4] = [
    "controlplane/dialect/src/format.rs",
    "gateway/core/src/accesslog/metadata.rs",
    "gateway/core/src/accesslog/operator.rs",
    "gateway/core/src/accesslog/target.rs",
];
/// What may stand behind a name.
const ARGUMENTS: [&str; 26] = [
    "",
    "()",
    "(x-a)",
    "(X-A?:PATH)",
    "(:status)",
    "(a b)",
    "(a:b)",
    "(CAMEL_STRING)",
    "(SNAKE_STRING)",
    "(NUMBER)",
    "(%s.%3f)",
    "(%Q)",
    "(DS_RX_BEG:US_TX_BEG:us)",
    "(DS_RX_BEG:US_TX_BEG:s)",
    "(ROUTE)",
    "(ROUTE:a:b)",
    "(NQ:PATH)",
    "(:ORIG)",
    "(DECODED)",
    "(SNI_FIRST:HOST)",
    "(ALLOW_WHITESPACES)",
    "(a:FIELD:b)",
    "(24)",
    "(129)",
    ":10",
    "(x-a):10",
];

/// Every quoted word of capitals in the sources of both sides, wherever it stands: what one side knows, the other is asked.
fn words() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut words = BTreeSet::new();
    for source in SOURCES {
        let text = fs::read_to_string(root.join(source)).unwrap();
        let is_word =
            |w: &&str| w.len() > 2 && w.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        words.extend(text.split('"').filter(is_word).map(str::to_owned));
    }
    // Addresses are put together from parts by one of the sides.
    let parts: Vec<String> = words.iter().cloned().collect();
    for part in parts {
        for ending in ["_ADDRESS", "_ADDRESS_WITHOUT_PORT", "_PORT"] {
            words.insert(format!("{part}{ending}"));
        }
    }
    words
}

fn texts() -> Vec<String> {
    let all = words();
    assert!(all.contains("PROTOCOL") && all.contains("BYTES_SENT") && all.len() > 100, "{all:?}");
    all.iter().flat_map(|word| ARGUMENTS.iter().map(move |argument| format!("%{word}{argument}%"))).collect()
}

fn reading(text: String) -> Reading {
    let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
    read(&[Document::new("a.yaml", text.as_str())], &context)
}

#[test]
fn header_values_are_taken_by_both_or_by_neither() {
    let texts = texts();
    let routes = texts.iter().enumerate().map(|(at, text)| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r{at}}}\nspec:\n  hosts: [h{at}]\n  \
             http: [{{headers: {{request: {{set: {{x-y: '{text}'}}}}}}, route: [{{destination: {{host: api}}}}]}}]\n"
        )
    });
    let read = reading(routes.collect());
    let refused: BTreeSet<_> = read.refused.keys().map(|object| object.name.to_string()).collect();
    assert!(!refused.is_empty() && refused.len() < texts.len());
    let unlike = texts.iter().enumerate().filter_map(|(at, text)| {
        let rendered = Format::parse(text);
        (refused.contains(&format!("r{at}")) != rendered.is_err()).then(|| format!("{text}: {rendered:?}"))
    });
    assert_eq!(unlike.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn log_lines_are_taken_by_both_or_by_neither() {
    let (mut taken, mut unlike, texts) = (0, Vec::new(), texts());
    for text in &texts {
        let settings = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    \
             accessLogFile: /dev/stdout\n    accessLogFormat: '{text}'\n"
        );
        let refused = reading(settings).diagnostics.iter().any(|d| d.code == code::BAD_VALUE);
        let rendered = LineFormat::text(text).map(|_| ());
        if refused != rendered.is_err() {
            unlike.push(format!("{text}: {rendered:?}"));
        }
        taken += usize::from(!refused);
    }
    assert_eq!(unlike, Vec::<String>::new());
    assert!(taken > 0 && taken < texts.len());
}
