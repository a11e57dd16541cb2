//! Owns the pipeline: files in order, documents, objects, and which definition of an object is in force. Never knows a
//! spec: the families of kinds do.

use crate::{
    code,
    fields::{At, Fields, Sink, place},
    gateway_api, istio, kube, mcs,
    object::Head,
    reading::{Context, Document, ReadObject, Reading, Refused},
    run::RunSpec,
    text::{self, Node, Value},
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_controlplane_core::intent::Intent;
use tombolo_federation_model::{Diagnostic, ObjectRef, Severity};
use tombolo_federation_registry::Item;

/// What one object yields.
#[derive(Debug, Default)]
pub(crate) struct Yield {
    pub(crate) items: Vec<Item>,
    pub(crate) intents: Vec<Intent>,
    pub(crate) run: Option<RunSpec>,
}

impl From<Item> for Yield {
    fn from(item: Item) -> Self {
        Self { items: vec![item], ..Self::default() }
    }
}

impl From<Intent> for Yield {
    fn from(intent: Intent) -> Self {
        Self { intents: vec![intent], ..Self::default() }
    }
}

impl From<RunSpec> for Yield {
    fn from(run: RunSpec) -> Self {
        Self { run: Some(run), ..Self::default() }
    }
}

/// Whether a file of this name holds manifests, as `kubectl apply -R` decides.
#[must_use]
pub fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|ending| path.ends_with(ending))
}

/// Reads documents as `kubectl apply -R` applies files: in the order of their paths, the last definition of an object wins.
/// Never fails: what cannot be read is in [`Reading::diagnostics`], [`Reading::refused`] and [`Reading::unreadable`].
///
/// ```
/// use tombolo_controlplane_dialect::{code, read, Context, Document};
/// use tombolo_federation_model::{ClusterId, TrustDomain};
///
/// let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
/// let route = "
/// apiVersion: networking.istio.io/v1
/// kind: VirtualService
/// metadata: {name: reviews}
/// spec:
///   hosts: [reviews]
///   http: [{route: [{destination: {host: reviews}}], timeout: 5}]
/// ";
/// let reading = read(&[Document::new("routes/reviews.yaml", route)], &context);
/// let complaint = &reading.diagnostics[0];
/// assert_eq!((complaint.code.as_str(), complaint.field.as_str()), (code::BAD_VALUE, "spec.http[0].timeout"));
/// assert_eq!(complaint.place, "routes/reviews.yaml:7");
/// assert_eq!(reading.refused.len(), 1);
/// ```
#[must_use]
pub fn read(input: &[Document], ctx: &Context) -> Reading {
    let mut files: Vec<&Document> = input.iter().collect();
    files.sort_by(|a, b| a.place.split('/').cmp(b.place.split('/')));
    let mut pile = Pile { ctx, candidates: BTreeMap::new(), faults: Vec::new(), reading: Reading::default() };
    for (rank, file) in files.iter().enumerate() {
        pile.reading.order.push(file.place.clone());
        pile.file(rank, file);
    }
    pile.settle()
}

/// Reads one object that an API server told. The reading has at most one object; a list yields its members.
///
/// ```
/// use tombolo_controlplane_dialect::{read_json, Context};
/// use tombolo_federation_model::{ClusterId, TrustDomain};
///
/// let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
/// let service = serde_json::json!({
///     "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}
/// });
/// assert_eq!(read_json(&service, "api-server", &context).items().count(), 1);
/// ```
#[must_use]
pub fn read_json(object: &serde_json::Value, place: &str, ctx: &Context) -> Reading {
    let mut pile = Pile { ctx, candidates: BTreeMap::new(), faults: Vec::new(), reading: Reading::default() };
    pile.reading.order.push(place.to_owned());
    pile.object(&text::from_json(object), Spot { rank: 0, file: place }, &[]);
    pile.settle()
}

/// A file with its position in the order.
#[derive(Clone, Copy)]
struct Spot<'a> {
    rank: usize,
    file: &'a str,
}

/// One definition of an object.
struct Candidate {
    /// Position in the text: file, line.
    at: (usize, u32),
    file: String,
    /// `None` when it was refused.
    yielded: Option<Yield>,
    diagnostics: Vec<Diagnostic>,
}

struct Pile<'c> {
    ctx: &'c Context,
    candidates: BTreeMap<ObjectRef, Vec<Candidate>>,
    /// Complaints that belong to no object.
    faults: Vec<((usize, u32), Diagnostic)>,
    reading: Reading,
}

impl Pile<'_> {
    fn file(&mut self, rank: usize, file: &Document) {
        let spot = Spot { rank, file: &file.place };
        let text = match std::str::from_utf8(&file.text) {
            Ok(text) => text,
            Err(_) => return self.fault(spot, 0, code::YAML, "it is not UTF-8 text".to_owned()),
        };
        for part in text::split(text) {
            match text::parse(part.text, part.lines_before) {
                Err(fault) => self.fault(spot, fault.line, code::YAML, fault.reason),
                Ok(parsed) if parsed.root.value == Value::Null => {}
                Ok(parsed) => self.object(&parsed.root, spot, &parsed.duplicates),
            }
        }
    }

    fn fault(&mut self, spot: Spot<'_>, line: u32, code: &str, reason: String) {
        self.reading.unreadable.insert(spot.file.to_owned());
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            code: code.to_owned(),
            object: ObjectRef::new("File", "", spot.file, self.ctx.cluster.as_str()),
            field: String::new(),
            message: format!("{reason}; what this document defined before stays in force"),
            place: place(spot.file, line),
        };
        self.faults.push(((spot.rank, line), diagnostic));
    }

    fn object(&mut self, root: &Node, spot: Spot<'_>, duplicates: &[text::Key]) {
        if let (Some(kind), Some(Value::List(members))) =
            (root.get("kind").and_then(Node::text), root.get("items").map(|items| &items.value))
            && kind.ends_with("List")
        {
            // A key that stands twice taints every member: nobody knows to which it belongs.
            members.iter().for_each(|member| self.object(member, spot, duplicates));
            return;
        }
        match Head::parse(root, self.ctx) {
            Err((line, reason)) => self.fault(spot, line, code::NOT_AN_OBJECT, reason),
            Ok(head) => {
                let candidate = read_object(root, &head, spot, duplicates, self.ctx);
                self.candidates.entry(head.object).or_default().push(candidate);
            }
        }
    }

    /// Decides for each object which definition is in force. A definition that is refused never hides an earlier good one.
    fn settle(mut self) -> Reading {
        let mut complaints = std::mem::take(&mut self.faults);
        for (object, mut definitions) in std::mem::take(&mut self.candidates) {
            let winner = definitions.iter().rposition(|d| d.yielded.is_some());
            let last = definitions.len() - 1;
            if winner != Some(last) {
                let Candidate { at: (_, line), file, .. } = &definitions[last];
                self.reading.refused.insert(object.clone(), Refused { place: file.clone(), line: *line });
            }
            if let Some(repeated) = repeated(&object, &definitions) {
                complaints.push((definitions[last].at, repeated));
            }
            for (index, definition) in definitions.iter_mut().enumerate() {
                if index == last || Some(index) == winner || definition.yielded.is_none() {
                    let at = definition.at;
                    complaints.extend(definition.diagnostics.drain(..).map(|diagnostic| (at, diagnostic)));
                }
            }
            if let Some(index) = winner {
                self.put(object, definitions.swap_remove(index));
            }
        }
        complaints.sort_by_key(|(at, _)| *at);
        self.reading.diagnostics = complaints.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        self.reading
    }

    fn put(&mut self, object: ObjectRef, definition: Candidate) {
        let yielded = definition.yielded.unwrap_or_default();
        let read = ReadObject {
            object: object.clone(),
            place: definition.file,
            line: definition.at.1,
            items: yielded.items,
            intents: yielded.intents.into_iter().map(Arc::new).collect(),
            run: yielded.run,
        };
        self.reading.objects.insert(object, read);
    }
}

/// The complaint that an object is defined more than once.
fn repeated(object: &ObjectRef, definitions: &[Candidate]) -> Option<Diagnostic> {
    let [earlier @ .., last] = definitions else { return None };
    let places: Vec<_> = earlier.iter().map(|d| place(&d.file, d.at.1)).collect();
    let here = place(&last.file, last.at.1);
    let first = places.first()?;
    let others = if places.len() > 1 { format!("{} (and {} more)", first, places.len() - 1) } else { first.clone() };
    Some(Diagnostic {
        severity: Severity::Warning,
        code: code::DUPLICATE_OBJECT.to_owned(),
        object: object.clone(),
        field: String::new(),
        message: format!(
            "it is defined in {others} and in {here}; the last one applies, as with kubectl apply; keep one, or give them different names"
        ),
        place: here,
    })
}

fn read_object(root: &Node, head: &Head, spot: Spot<'_>, duplicates: &[text::Key], ctx: &Context) -> Candidate {
    let sink = Sink::new(ctx, head.object.clone(), spot.file);
    for key in duplicates {
        let message = format!("the key {:?} stands twice in one map; remove one of the two", key.name);
        sink.report(Severity::Error, code::DUPLICATE_KEY, &key.name, key.line, message);
    }
    let fields = At::new(root, "", &sink).fields();
    fields.skip(&["apiVersion", "kind", "metadata", "status"]);
    let yielded = family(head, &fields);
    drop(fields);
    let refused = sink.refused();
    Candidate {
        at: (spot.rank, root.line),
        file: spot.file.to_owned(),
        yielded: (!refused).then_some(yielded),
        diagnostics: sink.into_diagnostics(),
    }
}

/// Hands an object to the family that knows its kind.
fn family(head: &Head, object: &Fields<'_>) -> Yield {
    match head.group.as_str() {
        "" | "apps" | "batch" | "discovery.k8s.io" => kube::read(head, object),
        "networking.istio.io" | "security.istio.io" | "telemetry.istio.io" | "extensions.istio.io" => {
            istio::read(head, object)
        }
        "config.istio.io" | "authentication.istio.io" | "rbac.istio.io" => istio::withdrawn(head, object),
        "gateway.networking.k8s.io" => gateway_api::read(head, object),
        "multicluster.x-k8s.io" => mcs::read(head, object),
        _ => kube::unknown(head, object),
    }
}
