//! Owns the kinds of the multi-cluster services API.

use crate::{code, fields::Fields, object::Head, read::Yield};
use tombolo_federation_model::Export;
use tombolo_federation_registry::Item;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    if head.kind != "ServiceExport" {
        // Imports follow from the exports of others.
        object.skip_rest();
        return Yield::default();
    }
    if let Some(spec) = object.fields("spec") {
        spec.not_in_force(&["exportedLabels", "exportedAnnotations"]);
    }
    if !matches!(head.version.as_str(), "v1alpha1" | "v1beta1" | "v1") {
        object.at.warn(code::SUSPICIOUS, format!("version {} is unknown; write v1beta1", head.version));
    }
    Item::Export(Export {
        namespace: head.namespace.clone(),
        name: head.name.clone(),
        created: head.created,
        origin: head.object.clone(),
    })
    .into()
}
