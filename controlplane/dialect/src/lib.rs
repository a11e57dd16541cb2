//! Reads text into what the mesh understands: documents of Kubernetes, Istio, Gateway API and MCS objects into registry
//! items and intents, with a complaint for everything that is not in force as its author thinks.
//!
//! Pure: no file, clock, socket or `async`. The only code that knows field names of these APIs. Never looks at two objects
//! at once, except to find that both are the same one; references between objects are bound elsewhere. Used by the control
//! plane's sources and by the command line, which therefore judge alike.
//!
//! A folder is read as `kubectl apply -f FOLDER -R` applies it: files in the order of their paths, the last definition of an
//! object wins. A broken document leaves its neighbours alone:
//!
//! ```
//! use tombolo_controlplane_dialect::{read, Context, Document};
//! use tombolo_federation_model::{ClusterId, TrustDomain};
//!
//! let context = Context::new(ClusterId::parse("east").unwrap(), TrustDomain::parse("east.local").unwrap());
//! let text = "
//! apiVersion: v1
//! kind: Service
//! metadata: {name: web}
//! spec:
//!   selector: {app: web}
//!   ports: [{port: 80, name: http}]
//! ---
//! this: [is not yaml
//! ";
//! let good = read(&[Document::new("web.yaml", text)], &context);
//! assert_eq!(good.items().count(), 1);
//! assert!(good.unreadable.contains("web.yaml"));
//! assert_eq!(good.diagnostics[0].place, "web.yaml:9");
//!
//! // Later the file is damaged: what was good before stays until the file can be read again.
//! let mut damaged = read(&[Document::new("web.yaml", "kind: [")], &context);
//! assert_eq!(damaged.keep_last_good(&good).len(), 1);
//! assert_eq!(damaged.items().count(), 1);
//! ```

pub mod code;
mod common;
mod fields;
mod format;
mod gateway_api;
mod grammar;
mod istio;
mod kube;
mod mcs;
mod object;
mod read;
mod reading;
mod run;
#[cfg(test)]
mod tests;
mod text;

pub use read::{is_manifest, read, read_json};
pub use reading::{Context, Document, ReadObject, Reading, Refused};
pub use run::{RunKind, RunPort, RunSpec, complete_ports};
