//! Owns DestinationRule as a whole: its host and its subsets. Policies are read by its neighbour.

use super::{backend, destination_policy};
use crate::{
    code, common,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use tombolo_controlplane_core::intent::{Destination, Intent, Subset};
use tombolo_federation_model::Visibility;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let workload_selector = common::match_labels(spec.fields("workloadSelector"));
    let mut export_to = common::export_to(spec.at("exportTo"), &head.namespace);
    if workload_selector.is_some() {
        let own = Visibility::Only(vec![head.namespace.clone()]);
        if let Some(at) = spec.at("exportTo")
            && export_to != own
        {
            at.error(
                code::CONFLICTING_FIELDS,
                "a rule with workloadSelector is for its own namespace; write [\".\"] or remove it",
            );
        }
        export_to = own;
    }
    let policy = spec.at("trafficPolicy").map(|at| destination_policy::read(&at)).unwrap_or_default();
    let subsets = subsets(&spec);
    let Some(host) = spec.need("host").and_then(|at| backend::host(&at, head)) else { return Yield::default() };
    Intent::Destination(Destination { meta: head.meta(), host, export_to, workload_selector, policy, subsets }).into()
}

fn subsets(spec: &Fields<'_>) -> Vec<Subset> {
    let mut subsets: Vec<Subset> = Vec::new();
    for at in spec.list("subsets") {
        let Some(subset) = subset(&at) else { continue };
        if subsets.iter().any(|other| other.name == subset.name) {
            at.error(code::BAD_VALUE, format!("there are two subsets {:?}; rename or remove one", subset.name));
        }
        subsets.push(subset);
    }
    subsets
}

fn subset(at: &At<'_>) -> Option<Subset> {
    let fields = at.fields();
    let labels = fields.labels("labels");
    let policy = fields.at("trafficPolicy").map(|at| destination_policy::read(&at)).unwrap_or_default();
    let name = fields.need("name")?.string()?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        at.error(code::BAD_VALUE, format!("{name:?} is no subset name: use letters, digits, '-', '_' and '.'"));
    }
    Some(Subset { name, labels, policy })
}
