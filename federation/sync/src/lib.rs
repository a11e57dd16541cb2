//! The delta protocol between one owner of named resources and many readers, as two halves without I/O.
//!
//! A [`Publisher`] (or a [`SotwPublisher`]) stands at the owner's end of one stream: requests go in, and for
//! the newest [`Snapshot`] it says what to send next. A [`Subscriber`] (or a [`SotwSubscriber`]) stands at the
//! reader's end. Both are synchronous and know no clock, socket or encoding: who owns the stream translates its
//! messages to and from the types here. Used by the control plane's ADS server, the gateway's xDS client and the
//! exchange between control planes. Never looks into a resource's body.

mod books;
mod ledger;
mod message;
mod plan;
mod publisher;
mod resource;
mod sotw_publisher;
mod sotw_subscriber;
mod subscriber;

pub use ledger::TypeStatus;
pub use message::{DeltaRequest, DeltaResponse, SotwRequest, SotwResponse, Update};
pub use plan::{Plan, Rule, types};
pub use publisher::Publisher;
pub use resource::{Resource, ResourceSet, Snapshot, content_version, resource_set};
pub use sotw_publisher::SotwPublisher;
pub use sotw_subscriber::SotwSubscriber;
pub use subscriber::Subscriber;

#[cfg(test)]
mod laws;
