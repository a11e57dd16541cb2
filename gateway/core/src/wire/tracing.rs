//! Shares of traced requests. There is nothing to send spans to: a provider is refused by name.

use super::{
    Refusal,
    any::{Decoded, refuse},
};
use crate::config::Sampling;
use tombolo_controlplane_api::xds::envoy::{
    extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing, r#type::v3::Percent,
};

pub(super) fn sampling(message: Tracing) -> Decoded<Sampling> {
    let Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = message;
    refuse!(provider);
    // These say what spans look like, of which there are none; contexts that clients send always pass unchanged.
    let _ = (verbose, max_path_tag_length, custom_tags, spawn_upstream_span, operation, upstream_operation);
    let _ = no_context_propagation;
    Ok(Sampling {
        client: hundredths(client_sampling.as_ref(), "client_sampling")?,
        random: hundredths(random_sampling.as_ref(), "random_sampling")?,
        overall: hundredths(overall_sampling.as_ref(), "overall_sampling")?,
    })
}

fn hundredths(share: Option<&Percent>, field: &str) -> Decoded<u32> {
    match share.map_or(100.0, |share| share.value) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the pattern")]
        percent if (0.0..=100.0).contains(&percent) => Ok((percent * 100.0) as u32),
        percent => Err(Refusal::new(field, format!("{percent} is not a percentage"))),
    }
}
