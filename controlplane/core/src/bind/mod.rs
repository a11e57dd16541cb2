//! Connects what users wrote: which proxies are alike, what they see, which service a host means, which policy applies,
//! how listeners of several objects combine, and what is wrong with an object.
//!
//! Pure functions over a [`Reader`]; they cannot fail, they can complain. Knows no xDS. Used by `translate` and the engine.

mod audience;
mod check;
mod destination;
mod gateway;
mod grant;
mod hosts;
mod peer;
mod routes;
mod scope;
mod target;

pub use audience::{Audience, audience};
pub use check::{Checked, check};
pub use destination::{EffectiveDestination, destination};
pub use gateway::{ChainKind, GatewayPlan, ListenerKind, ListenerPlan, ServerRef, TlsChain, plan};
pub use grant::{is_refused, may_hold, permit_connections};
pub use hosts::covering;
pub use peer::mutual_tls;
pub use routes::{flatten, mesh_routes};
pub use scope::{Scope, scope};
pub use target::{Located, NotLocated};

use crate::{
    intent::{LocalityPolicy, MeshSettings, Meta, OutboundPolicy},
    settings::SiteSettings,
    stage::{AudienceId, Reader},
};
use tombolo_federation_model::{Diagnostic, Labels, Namespace, ObjectRef, Severity, Visibility};

/// A class of proxies with the reader that looks at the world for it.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, 'w> {
    /// Records what is read.
    pub reader: &'a Reader<'w>,
    /// The class.
    pub id: AudienceId,
    /// What its members have in common.
    pub audience: &'w Audience,
}

impl<'a, 'w> View<'a, 'w> {
    /// The view of a class, if it still exists.
    #[must_use]
    pub fn of(reader: &'a Reader<'w>, id: AudienceId) -> Option<Self> {
        Some(Self { reader, id, audience: reader.audience(id)? })
    }
}

/// Whether all labels of a selector are there.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A complaint. The place is filled in by the server, which knows the files.
#[must_use]
pub fn complain(
    severity: Severity,
    code: &str,
    object: &ObjectRef,
    field: impl Into<String>,
    message: impl Into<String>,
) -> Diagnostic {
    Diagnostic {
        severity,
        code: code.to_owned(),
        object: object.clone(),
        field: field.into(),
        message: message.into(),
        place: String::new(),
    }
}

/// Settings of a mesh for which nobody wrote any: those of Istio's default profile.
#[must_use]
pub fn default_mesh(site: &SiteSettings) -> MeshSettings {
    let root = Namespace::parse("istio-system").expect("a literal that is a namespace");
    let object = ObjectRef::new("MeshConfig", root.as_str(), "default", site.cluster.as_str());
    MeshSettings {
        meta: Meta { object, namespace: root.clone(), name: "default".to_owned(), created: 0, generation: 0 },
        root_namespace: root,
        trust_domain: None,
        outbound: OutboundPolicy::AllowAny,
        auto_mtls: true,
        locality: LocalityPolicy::default(),
        default_retry: None,
        default_service_visibility: Visibility::All,
        default_routes_visibility: Visibility::All,
        default_destination_visibility: Visibility::All,
        connect_timeout: None,
        access_log_file: "/dev/stdout".to_owned(),
        access_log_json: false,
        access_log_format: String::new(),
        trusted_proxies: 0,
        cluster_local: Vec::new(),
    }
}
