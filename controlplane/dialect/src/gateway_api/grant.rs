//! Owns ReferenceGrant: who may refer to objects of its namespace.

use crate::{
    code,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use tombolo_controlplane_core::intent::{Grant, GrantedFrom, GrantedTo, Intent};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    if !matches!(head.version.as_str(), "v1alpha2" | "v1beta1" | "v1") {
        object.at.warn(code::SUSPICIOUS, format!("version {} is unknown; write v1beta1", head.version));
    }
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let from = spec.need("from").iter().flat_map(At::list).filter_map(|at| source(&at)).collect();
    let to = spec.need("to").iter().flat_map(At::list).filter_map(|at| target(&at)).collect();
    Intent::Grant(Grant { meta: head.meta(), from, to }).into()
}

fn source(at: &At<'_>) -> Option<GrantedFrom> {
    let fields = at.fields();
    let group = fields.string("group");
    let kind = fields.need("kind").and_then(|at| at.string());
    let namespace = fields.need("namespace").and_then(|at| at.namespace());
    Some(GrantedFrom { group: group.unwrap_or_default(), kind: kind?, namespace: namespace? })
}

fn target(at: &At<'_>) -> Option<GrantedTo> {
    let fields = at.fields();
    let group = fields.string("group");
    let name = fields.string("name").filter(|name| !name.is_empty());
    let kind = fields.need("kind")?.string()?;
    Some(GrantedTo { group: group.unwrap_or_default(), kind, name })
}
