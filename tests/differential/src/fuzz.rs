//! Config fuzz: valid resources with one field spoilt, so that both sides can be asked whether they take them. Owns the
//! templates and the ways to spoil; what is spoilt is drawn by a seeded generator, and says in words what was done.

mod filters;
mod templates;

use crate::resource::{self, CLUSTER, ENDPOINTS, LISTENER, ROUTES, URL};
use serde_json::{Map, Value, json};

pub use templates::base;

/// One resource to offer.
pub struct Mutant {
    /// Which resource.
    pub kind: &'static str,
    /// Name in the envelope.
    pub name: String,
    /// What was done to it.
    pub what: String,
    /// The encoded message.
    pub body: Vec<u8>,
    /// Type URL of the kind.
    pub type_url: String,
    /// Type URL of the content.
    pub content_url: String,
}

/// One way to spoil one place.
type Spoilt = (String, Value);

/// Numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (n as u64)).unwrap_or(0)
    }
}

/// So many mutants of all templates, or also of those that are `wide`; the same for the same seed. `ip` is a loopback address of
/// the caller's own.
#[must_use]
pub fn mutants(seed: u64, count: usize, wide: bool, ip: &str) -> Vec<Mutant> {
    let mut draw = Draw(seed);
    let mut all: Vec<(&'static str, Spoilt)> = Vec::new();
    let more = if wide { templates::wide() } else { Vec::new() };
    for (kind, template) in templates::all().into_iter().chain(more) {
        all.push((kind, ("nothing".into(), template.clone())));
        all.extend(spoil_all(&template).into_iter().map(|spoilt| (kind, spoilt)));
    }
    let mut mutants = Vec::new();
    while mutants.len() < count && !all.is_empty() {
        let (kind, (what, value)) = all.swap_remove(draw.below(all.len()));
        let number = mutants.len();
        // What is no message at all cannot be sent.
        mutants.extend(encode(kind, what, value, number, ip));
    }
    mutants.extend(wrong_types(ip));
    let filters = filters::all().into_iter().enumerate();
    mutants.extend(filters.filter_map(|(n, (what, value))| encode(LISTENER, what, filled(&value), 200_000 + n, ip)));
    mutants
}

/// Resources whose content has another type than the envelope.
fn wrong_types(ip: &str) -> Vec<Mutant> {
    let pairs = [(CLUSTER, ROUTES), (LISTENER, CLUSTER), (CLUSTER, "no.such.Type")];
    let templates = templates::all();
    let mutant = |(n, (kind, content)): (usize, (&'static str, &str))| {
        let (_, template) = templates.iter().find(|(k, _)| *k == kind)?;
        let what = format!("content is a {content}");
        let mutant = encode(kind, what, template.clone(), 100_000 + n, ip)?;
        Some(Mutant { content_url: format!("{URL}{content}"), ..mutant })
    };
    pairs.into_iter().enumerate().filter_map(mutant).collect()
}

fn encode(kind: &'static str, what: String, value: Value, number: usize, ip: &str) -> Option<Mutant> {
    let fixed = matches!(kind, ROUTES | ENDPOINTS);
    let name = if fixed { "fuzz".to_owned() } else { format!("fuzz-{number}") };
    let text = value.to_string().replace("$ip", ip).replace("$name", &name);
    let value: Value = serde_json::from_str(&text).ok()?;
    let body = crate::schema::encode(kind, &value).ok()?;
    let url = format!("{URL}{kind}");
    Some(Mutant { kind, name, what, body, content_url: url.clone(), type_url: url })
}

/// Every way to spoil every place of a resource.
fn spoil_all(template: &Value) -> Vec<Spoilt> {
    let mut places = Vec::new();
    walk(template, String::new(), &mut places);
    let mut all = Vec::new();
    for (path, value) in places {
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        // A resource of another name than its envelope is another subject, and would stay behind.
        if matches!(path.as_str(), "/name" | "/cluster_name") {
            continue;
        }
        // Where it listens is not what is tried here, and one field of a log is like another.
        if last == "bind_to_port" || path.starts_with("/address") || path.contains("/json_format/") {
            continue;
        }
        for (word, change) in changes(&last, &value) {
            let mut spoilt = template.clone();
            let done = match change {
                Some(value) => spoilt.pointer_mut(&path).map(|place| *place = value).is_some(),
                None => remove(&mut spoilt, &path),
            };
            if done {
                all.push((format!("{word} {path}"), spoilt));
            }
        }
    }
    all
}

fn walk(value: &Value, path: String, places: &mut Vec<(String, Value)>) {
    if !path.is_empty() {
        places.push((path.clone(), value.clone()));
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                walk(value, format!("{path}/{n}"), places);
            }
        }
        _ => {}
    }
}

/// What may become of a value; nothing: it is taken away.
fn changes(key: &str, value: &Value) -> Vec<(&'static str, Option<Value>)> {
    let mut list = vec![("without", None)];
    let mut put = |word, value| list.push((word, Some(value)));
    match value {
        Value::Number(_) => {
            put("zero", json!(0));
            put("largest", json!(u32::MAX));
            put("negative", json!(-1));
        }
        Value::String(_) if key == "@type" => {
            put("unknown type", json!(format!("{URL}no.such.Extension")));
            put("another type", json!(format!("{URL}envoy.extensions.filters.http.router.v3.Router")));
        }
        Value::String(_) if key == "regex" => {
            put("open group", json!("("));
            put("empty", json!(""));
        }
        Value::String(text) if text.ends_with('s') && text.trim_end_matches('s').parse::<f64>().is_ok() => {
            put("no time", json!("0s"));
            put("negative time", json!("-1s"));
            put("long time", json!("315576000000s"));
        }
        Value::String(text) if text.chars().all(|c| c.is_ascii_uppercase() || c == '_') && text.len() > 2 => {
            put("unknown enum", json!(99));
        }
        Value::String(_) => {
            put("empty", json!(""));
            put("line feed in", json!("a\nb"));
        }
        Value::Array(items) => {
            put("empty", json!([]));
            put("doubled", Value::Array([items.clone(), items.clone()].concat()));
        }
        Value::Object(_) => put("empty", Value::Object(Map::new())),
        Value::Bool(yes) => put("inverted", json!(!yes)),
        Value::Null => {}
    }
    list
}

fn remove(value: &mut Value, path: &str) -> bool {
    let Some((parent, key)) = path.rsplit_once('/') else { return false };
    match value.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.remove(&key.replace("~1", "/").replace("~0", "~")).is_some(),
        Some(Value::Array(items)) => key.parse().is_ok_and(|n: usize| {
            let there = n < items.len();
            if there {
                items.remove(n);
            }
            there
        }),
        _ => false,
    }
}

/// A template without the type that names it.
fn bare(mut template: Value) -> Value {
    if let Value::Object(fields) = &mut template {
        fields.remove("@type");
    }
    template
}

/// Names and places of a template filled in.
fn filled(template: &Value) -> Value {
    let text = template.to_string().replace("$s-0", "$name").replace("$s", "fuzz").replace("$l0", "7000");
    let text = text.replace("$b0", "7001").replace("$b1", "7002").replace("$log", "/dev/null");
    bare(serde_json::from_str(&text).unwrap_or_default())
}

pub(crate) use resource::{chain, cluster, extension, hcm_hosts, listener, tcp, to, with};
