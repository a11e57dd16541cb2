//! Owns what goes in and what comes out: documents, the context in which they are read, and the reading with what is
//! needed to keep the last good version of an object. Never parses. Used by every caller of this crate.

use crate::run::RunSpec;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_controlplane_core::intent::Intent;
use tombolo_federation_model::{ClusterId, Diagnostic, Namespace, ObjectRef, TrustDomain};
use tombolo_federation_registry::Item;

/// A file, or another piece of text with objects in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from, for example `shop/reviews.yaml`. Unique in one reading; files are applied in the order of
    /// their paths, folder by folder.
    pub place: String,
    /// Its bytes, UTF-8.
    pub text: Vec<u8>,
}

impl Document {
    /// A document from a place and its content.
    #[must_use]
    pub fn new(place: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self { place: place.into(), text: text.into() }
    }
}

/// What a reader must know besides the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The cluster that owns the objects.
    pub cluster: ClusterId,
    /// For objects that do not say theirs, as `kubectl apply -n`.
    pub default_namespace: Namespace,
    /// Where mesh-wide objects live.
    pub root_namespace: Namespace,
    /// What stands after `.svc.`.
    pub domain_suffix: String,
    /// For identities of written-out endpoints.
    pub trust_domain: TrustDomain,
}

impl Context {
    /// The usual context of a cluster: namespaces `default` and `istio-system`, suffix `cluster.local`.
    ///
    /// # Panics
    /// Never: the names are fixed and valid.
    #[must_use]
    pub fn new(cluster: ClusterId, trust_domain: TrustDomain) -> Self {
        let fixed = |text| Namespace::parse(text).expect("a fixed name is a valid name");
        Self {
            cluster,
            trust_domain,
            default_namespace: fixed("default"),
            root_namespace: fixed("istio-system"),
            domain_suffix: "cluster.local".to_owned(),
        }
    }
}

/// One object that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadObject {
    /// Which. The kind is followed by its API group where the kind alone is ambiguous.
    pub object: ObjectRef,
    /// Its document.
    pub place: String,
    /// The line on which it begins, from 1; 0 when there is no text.
    pub line: u32,
    /// What it puts into the registry.
    pub items: Vec<Item>,
    /// What its author means.
    pub intents: Vec<Arc<Intent>>,
    /// What it wants to run.
    pub run: Option<RunSpec>,
}

/// An object that was seen and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its document.
    pub place: String,
    /// The line on which it begins.
    pub line: u32,
}

/// Everything that a set of documents says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// In force, each with what it yields.
    pub objects: BTreeMap<ObjectRef, ReadObject>,
    /// Seen, but not usable: their last good version should stay. See [`Reading::keep_last_good`].
    pub refused: BTreeMap<ObjectRef, Refused>,
    /// Documents of which at least one part could not be parsed, so that nobody knows which objects are missing.
    pub unreadable: BTreeSet<String>,
    /// Complaints, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// All documents in the order in which they were applied.
    pub(crate) order: Vec<String>,
}

impl Reading {
    /// What belongs into the registry, in the order of the objects.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.objects.values().flat_map(|object| &object.items)
    }

    /// What users mean, in the order of the objects.
    pub fn intents(&self) -> impl Iterator<Item = &Arc<Intent>> {
        self.objects.values().flat_map(|object| &object.intents)
    }

    /// What is to run, with the ports that the services of this reading tell where an object says none.
    ///
    /// ```
    /// use tombolo_controlplane_dialect::{read, Context, Document};
    /// use tombolo_federation_model::{ClusterId, TrustDomain};
    ///
    /// let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
    /// let text = "
    /// apiVersion: apps/v1
    /// kind: Deployment
    /// metadata: {name: web}
    /// spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}}
    /// ---
    /// apiVersion: v1
    /// kind: Service
    /// metadata: {name: web}
    /// spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
    /// ";
    /// let runs = read(&[Document::new("web.yaml", text)], &context).runs();
    /// assert_eq!(runs[0].ports[0].number, 8080);
    /// ```
    #[must_use]
    pub fn runs(&self) -> Vec<RunSpec> {
        let mut runs: Vec<_> = self.objects.values().filter_map(|object| object.run.clone()).collect();
        crate::run::complete_ports(&mut runs, self.items());
        runs
    }

    /// Puts back what an earlier reading had and this one could not read: the objects that are refused now, and those of
    /// documents that do not parse now. Everything else stays as it is, so an object that was really removed is gone.
    /// Returns the objects whose earlier version was kept.
    pub fn keep_last_good(&mut self, earlier: &Reading) -> BTreeSet<ObjectRef> {
        let mut kept = BTreeSet::new();
        for (object, last) in &earlier.objects {
            if self.should_keep(object, last) {
                self.objects.insert(object.clone(), last.clone());
                kept.insert(object.clone());
            }
        }
        kept
    }

    fn should_keep(&self, object: &ObjectRef, last: &ReadObject) -> bool {
        let now = self.objects.get(object);
        if let Some(refused) = self.refused.get(object) {
            return now.is_none() || refused.place == last.place;
        }
        // An unreadable document may still define the object; a document that comes later wins over it.
        self.unreadable.contains(&last.place) && now.is_none_or(|now| self.rank(&now.place) < self.rank(&last.place))
    }

    fn rank(&self, place: &str) -> Option<usize> {
        self.order.iter().position(|known| known == place)
    }
}
