//! The filters of a chain, one after the other: what they answer, and what they add to a decision.
//!
//! Owns what is known while a request goes through them. What a filter does by itself is `filter`'s.

use super::{Moment, answer};
use crate::{
    config::{
        ClusterChoice, ClusterWeight, FilterOverride, Fraction, Hcm, HeaderMutationFilter, HealthCheckFilter,
        HttpFilter, HttpFilterKind, LocalRateLimit, Metadata,
    },
    decision::{Cause, Matched, Reply},
    failure::{Failure, Flag, Flags, Kind},
    filter::{self, BodyFilter, CorsVerdict, Described, Mutations, Subject},
    format::Facts,
    head::{ConnInfo, Head},
    names, route,
    runtime::Runtime,
    time::Random,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// What filters add to a decision.
#[derive(Default)]
pub(super) struct Draft<'m> {
    pub(super) runtime: Option<&'m Runtime>,
    pub(super) conn: Option<&'m ConnInfo>,
    pub(super) client: Option<SocketAddr>,
    pub(super) matched: Option<&'m Matched>,
    pub(super) weighted: Option<u32>,
    pub(super) cluster: &'m str,
    pub(super) delay: Option<Duration>,
    pub(super) parts: Parts,
}

#[derive(Default)]
pub(super) struct Parts {
    pub(super) weighted: Option<u32>,
    pub(super) response_kbps: Option<u64>,
    pub(super) response_headers: Vec<(header::HeaderName, HeaderValue)>,
    pub(super) mutations: Mutations,
    pub(super) forward_host: Option<String>,
    pub(super) bodies: Vec<BodyFilter>,
    pub(super) health_check: bool,
    pub(super) metadata: Metadata,
}

impl<'m> Draft<'m> {
    pub(super) fn parts(self) -> Parts {
        Parts { weighted: self.weighted, ..self.parts }
    }

    fn hit(&self, share: &Fraction, random: &mut Random) -> bool {
        let drawn = random.draw();
        self.runtime.map_or_else(|| share.hit(drawn), |runtime| runtime.hit(share, drawn))
    }

    pub(super) fn flags(&self) -> Flags {
        let mut flags = Flags::NONE;
        if self.delay.is_some() {
            flags.insert(Flag::DelayInjected);
        }
        flags
    }

    pub(super) fn weight(&self) -> Option<&'m ClusterWeight> {
        match &self.matched?.action()?.cluster {
            ClusterChoice::Weighted { clusters, .. } => clusters.get(self.weighted? as usize),
            ClusterChoice::One(_) | ClusterChoice::Header(_) => None,
        }
    }

    pub(super) fn run_filters(
        &mut self,
        hcm: &'m Hcm,
        head: &Head,
        moment: Moment,
        random: &mut Random,
    ) -> Option<Box<Reply>> {
        hcm.filters.iter().find_map(|filter| self.run(filter, head, moment, random))
    }

    fn run(&mut self, filter: &'m HttpFilter, head: &Head, moment: Moment, random: &mut Random) -> Option<Box<Reply>> {
        let over = filter::override_of(&filter.name, self.matched, self.weight());
        if matches!(over, Some(FilterOverride::Off)) || (filter.disabled && over.is_none()) {
            return None;
        }
        match &filter.kind {
            HttpFilterKind::Fault(own) => {
                let fault = if let Some(FilterOverride::Fault(fault)) = over { fault } else { own };
                self.fault(fault, head, moment, random)
            }
            HttpFilterKind::Cors => match over {
                Some(FilterOverride::Cors(cors)) => self.cors(cors, head, random),
                _ => None,
            },
            HttpFilterKind::Csrf(own) => {
                let csrf = if let Some(FilterOverride::Csrf(csrf)) = over { csrf } else { own };
                let refused = self.hit(&csrf.enabled, random) && !filter::same_site(csrf, head);
                refused.then(|| Box::new(Reply::failure(Failure::new(Kind::ForeignOrigin))))
            }
            HttpFilterKind::LocalRateLimit(own) => {
                let limit = if let Some(FilterOverride::LocalRateLimit(limit)) = over { limit } else { own };
                self.limited(limit, head, moment, random)
            }
            HttpFilterKind::Rbac(own) => {
                let rules = if let Some(FilterOverride::Rbac(other)) = over { other } else { own };
                let metadata = &self.parts.metadata;
                let subject = Subject { conn: self.conn?, client: self.client, head: Some(head), metadata };
                let details = filter::allowed(rules, subject).err()?;
                Some(Box::new(Reply::failure(Failure::new(Kind::AccessDenied).with_reason(details))))
            }
            HttpFilterKind::HealthCheck(own) => self.health_check(own, head),
            HttpFilterKind::Discovered(_) => Some(Box::new(Reply::failure(Failure::new(Kind::NoFilterConfig)))),
            HttpFilterKind::HeaderMutation(own) => {
                let levels = filter::levels_of(&filter.name, self.matched, self.weight());
                self.parts.mutations.push(Arc::clone(own), levels);
                None
            }
            quiet => {
                self.note(quiet, over, head);
                None
            }
        }
    }

    /// What filters ask for that never answer a request themselves.
    fn note(&mut self, kind: &'m HttpFilterKind, over: Option<&'m FilterOverride>, head: &Head) {
        let parts = &mut self.parts;
        match kind {
            HttpFilterKind::SetMetadata(own) => own.apply(&mut parts.metadata),
            HttpFilterKind::HeaderToMetadata(own) => {
                let told = if let Some(FilterOverride::HeaderToMetadata(other)) = over { other } else { own };
                told.read_request(head, &mut parts.metadata);
                parts.mutations.tell(told);
            }
            HttpFilterKind::DynamicForwardProxy => match over {
                Some(FilterOverride::ForwardHost(host)) => parts.forward_host = Some(host.to_string()),
                Some(FilterOverride::ForwardHostHeader(name)) => {
                    parts.forward_host = head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
                }
                _ => {}
            },
            HttpFilterKind::Compressor(own) => {
                let settings =
                    if let Some(FilterOverride::Compressor(other)) = over { other.over(own) } else { Arc::clone(own) };
                parts.bodies.push(BodyFilter::Compress(settings, None));
            }
            HttpFilterKind::Decompressor(own) => parts.bodies.push(BodyFilter::Decompress(Arc::clone(own))),
            HttpFilterKind::GrpcWeb => {
                if filter::is_grpc_web(head) {
                    parts.bodies.push(BodyFilter::GrpcWeb(filter::Web::Not));
                }
            }
            HttpFilterKind::Buffer(own) => {
                let most = if let Some(FilterOverride::Buffer(other)) = over { other } else { own };
                parts.bodies.push(BodyFilter::Buffer(*most));
            }
            HttpFilterKind::MeshStats
            | HttpFilterKind::GrpcStats
            | HttpFilterKind::OnDemand
            | HttpFilterKind::Router(_)
            | HttpFilterKind::Fault(_)
            | HttpFilterKind::Cors
            | HttpFilterKind::HeaderMutation(_)
            | HttpFilterKind::Csrf(_)
            | HttpFilterKind::LocalRateLimit(_)
            | HttpFilterKind::Rbac(_)
            | HttpFilterKind::HealthCheck(_)
            | HttpFilterKind::Discovered(_) => {}
        }
    }

    fn fault(
        &mut self,
        fault: &crate::config::Fault,
        head: &Head,
        moment: Moment,
        random: &mut Random,
    ) -> Option<Box<Reply>> {
        let drawn = filter::inject(fault, self.cluster, head, moment.active_faults, random);
        self.delay = drawn.delay.or(self.delay);
        self.parts.response_kbps = drawn.response_kbps.or(self.parts.response_kbps);
        let (status, grpc) = drawn.abort?;
        let mut reply = Reply::failure(Failure::new(Kind::FaultInjected).with_status(status));
        reply.grpc_status = grpc;
        let mut flags = self.flags();
        flags.extend(reply.flags);
        reply.flags = flags;
        Some(Box::new(reply))
    }

    fn limited(
        &mut self,
        limit: &LocalRateLimit,
        head: &Head,
        moment: Moment,
        random: &mut Random,
    ) -> Option<Box<Reply>> {
        if !self.hit(&limit.enabled, random) {
            return None;
        }
        let Self { conn, client, cluster, matched, .. } = *self;
        let described = Described { head, client, cluster, matched, conn };
        let (passes, bucket) = filter::take(limit, described, moment.now)?;
        let mut told = HeaderMap::new();
        if limit.tell {
            let (left, wait) = (bucket.left(moment.now), bucket.wait(moment.now));
            told.insert(names::X_RATELIMIT_LIMIT, HeaderValue::from(bucket.max()));
            told.insert(names::X_RATELIMIT_REMAINING, HeaderValue::from(left));
            told.insert(names::X_RATELIMIT_RESET, HeaderValue::from(wait));
        }
        let enforced = !passes && self.hit(&limit.enforced, random);
        if !enforced {
            self.parts.response_headers.extend(told.iter().map(|(name, value)| (name.clone(), value.clone())));
            if !passes && !limit.request_headers.is_empty() {
                let added = HeaderMutationFilter::from(&limit.request_headers);
                self.parts.mutations.push(Arc::new(added), std::iter::empty());
            }
            return None;
        }
        let mut reply = Reply::failure(Failure::new(Kind::RateLimited).with_status(limit.status));
        let pending = crate::header::evaluate(&limit.response_headers, &Facts { head: Some(head), ..Facts::default() });
        crate::header::apply(&limit.response_headers, pending, &mut reply.headers);
        reply.headers.extend(told);
        if limit.tell_retry {
            reply.headers.insert(header::RETRY_AFTER, HeaderValue::from(bucket.wait(moment.now)));
        }
        reply.grpc_status = limit.grpc_resource_exhausted.then_some(8);
        Some(Box::new(reply))
    }

    fn health_check(&mut self, own: &Arc<HealthCheckFilter>, head: &Head) -> Option<Box<Reply>> {
        if !route::headers_match(&own.headers, head) {
            return None;
        }
        self.parts.health_check = true;
        let cause = Cause::HealthCheck(Arc::clone(own));
        (!own.pass_through).then(|| Box::new(answer(StatusCode::OK, HeaderMap::new(), Bytes::new(), cause, None)))
    }

    fn cors(&mut self, cors: &crate::config::Cors, head: &Head, random: &mut Random) -> Option<Box<Reply>> {
        match filter::cors(cors, head, self.runtime?, random) {
            CorsVerdict::Ignore => None,
            CorsVerdict::Allow(headers) => {
                self.parts.response_headers.extend(headers);
                None
            }
            CorsVerdict::Answer(headers) => {
                Some(Box::new(answer(StatusCode::OK, headers, Bytes::new(), Cause::Preflight, None)))
            }
        }
    }
}
