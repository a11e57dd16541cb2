//! Owns the kinds of the Gateway API.

use crate::{fields::Fields, kube, object::Head, read::Yield};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    kube::unknown(head, object)
}
