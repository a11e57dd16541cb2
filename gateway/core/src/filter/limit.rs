//! Local rate limits: describes a request, finds its buckets, takes tokens.

use super::TokenBucket;
use crate::{
    config::{DescriptorLimit, HostRules, LocalRateLimit, RateAction, RateRule},
    decision::Matched,
    head::{ConnInfo, Head, split_query},
    route::{headers_match, query_fits, query_value},
    time::Millis,
};
use smallvec::SmallVec;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A request, as far as it is described.
#[derive(Clone, Copy)]
pub(crate) struct Described<'a> {
    pub(crate) head: &'a Head,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) cluster: &'a str,
    pub(crate) matched: Option<&'a Matched>,
    pub(crate) conn: Option<&'a ConnInfo>,
}

type Entries = SmallVec<[(String, String); 2]>;

/// Whether there are tokens, and which bucket is told of; `None`: nothing limits the request.
pub(crate) fn take<'l>(
    limit: &'l LocalRateLimit,
    request: Described<'l>,
    now: Millis,
) -> Option<(bool, &'l Arc<TokenBucket>)> {
    let (own, buckets) = match request.conn.filter(|_| limit.each_connection) {
        Some(conn) => {
            let of_conn = conn.buckets.get_or_init(|| Arc::new(limit.fresh_buckets()));
            (of_conn.bucket.as_ref()?, &of_conn.descriptors)
        }
        None => (limit.bucket.as_ref()?, &limit.descriptors),
    };
    let found = if buckets.is_empty() { SmallVec::new() } else { descriptors(limit, buckets, request) };
    for one in &found {
        if !one.bucket.take(now) && !one.shadow {
            return Some((false, &one.bucket));
        }
    }
    if (found.is_empty() || limit.always_default) && !own.take(now) {
        return Some((false, own));
    }
    // Of several the one that is nearest to its end.
    let all = found.iter().map(|one| &one.bucket);
    let others = all.chain((found.is_empty() || limit.always_default).then_some(own));
    Some((true, others.min_by_key(|bucket| bucket.left(now)).unwrap_or(own)))
}

/// Buckets of the request's descriptions; the slower ones first.
fn descriptors<'l>(
    limit: &LocalRateLimit,
    buckets: &'l [DescriptorLimit],
    request: Described<'_>,
) -> SmallVec<[&'l DescriptorLimit; 2]> {
    let mut out: SmallVec<[&DescriptorLimit; 2]> = SmallVec::new();
    let mut look = |rules: &[RateRule], stage: Option<u32>| {
        for rule in rules.iter().filter(|rule| stage.is_none_or(|stage| stage == rule.stage)) {
            let Some(entries) = entries(rule, request) else { continue };
            let same = |one: &&DescriptorLimit| {
                one.entries.len() == entries.len()
                    && one.entries.iter().zip(&entries).all(|(a, b)| *a.0 == *b.0 && *a.1 == *b.1)
            };
            out.extend(buckets.iter().find(same));
        }
    };
    if !limit.rules.is_empty() {
        look(&limit.rules, None);
    } else if let Some(matched) = request.matched {
        let action = matched.action();
        let of_route = action.map_or(&[][..], |action| &action.rate_rules);
        look(of_route, Some(limit.stage));
        let mode = if action.is_some_and(|a| a.include_host_rules) { HostRules::Always } else { limit.host_rules };
        let of_host = match mode {
            HostRules::Always => true,
            HostRules::Otherwise => of_route.is_empty(),
            HostRules::Never => false,
        };
        if of_host {
            look(&matched.host().rate_rules, Some(limit.stage));
        }
    }
    out.sort_by_key(|one| std::cmp::Reverse(one.bucket.pace()));
    out
}

fn entries(rule: &RateRule, request: Described<'_>) -> Option<Entries> {
    let mut out = Entries::new();
    for action in &rule.actions {
        match entry(action, request) {
            Entry::Is(key, value) => out.push((key, value)),
            Entry::Skipped => {}
            Entry::None => return None,
        }
    }
    (!out.is_empty()).then_some(out)
}

enum Entry {
    Is(String, String),
    /// It is absent, and that does not matter.
    Skipped,
    /// It is absent: the request is not described by this rule.
    None,
}

fn entry(action: &RateAction, request: Described<'_>) -> Entry {
    let Described { head, client, cluster, .. } = request;
    let found = |key: &str, value: Option<String>, skip: bool| match value {
        Some(value) => Entry::Is(key.to_owned(), value),
        None if skip => Entry::Skipped,
        None => Entry::None,
    };
    match action {
        RateAction::DestinationCluster => Entry::Is("destination_cluster".into(), cluster.to_owned()),
        RateAction::RemoteAddress => found("remote_address", client.map(|c| c.ip().to_string()), false),
        RateAction::MaskedAddress(v4, v6) => {
            found("masked_remote_address", client.map(|c| masked(c.ip(), *v4, *v6)), false)
        }
        RateAction::Header(name, key, skip) => {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            let value = value.or_else(|| (*name == http::header::HOST).then_some(head.authority.as_str()));
            found(key, value.map(str::to_owned), *skip)
        }
        RateAction::Query(name, key, skip) => {
            found(key, query_value(name, split_query(&head.path).1).map(str::to_owned), *skip)
        }
        RateAction::Key(key, value) => Entry::Is(key.to_string(), value.to_string()),
        RateAction::HeaderMatch(key, value, wanted, headers) => {
            found(key, (headers_match(headers, head) == *wanted).then(|| value.to_string()), false)
        }
        RateAction::QueryMatch(key, value, wanted, matchers) => {
            let fits = matchers.iter().all(|matcher| query_fits(matcher, split_query(&head.path).1));
            found(key, (fits == *wanted).then(|| value.to_string()), false)
        }
    }
}

fn masked(ip: IpAddr, v4: u8, v6: u8) -> String {
    let bits = if ip.is_ipv4() { v4 } else { v6 };
    ipnet::IpNet::new(ip, bits).map_or_else(|_| ip.to_string(), |net| net.trunc().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Fraction, HeaderChanges},
        testing::head,
    };

    fn limit(descriptors: &[(&str, &str, u32)], rules: Vec<RateRule>) -> LocalRateLimit {
        let one = |(key, value, max): &(&str, &str, u32)| DescriptorLimit {
            entries: [((*key).into(), (*value).into())].into(),
            bucket: Arc::new(TokenBucket::new(*max, 1, 1_000_000)),
            shadow: false,
        };
        LocalRateLimit {
            stat_prefix: "".into(),
            bucket: Some(Arc::new(TokenBucket::new(3, 1, 1_000_000))),
            enabled: Fraction::always(),
            enforced: Fraction::always(),
            status: 429,
            response_headers: HeaderChanges::default(),
            request_headers: HeaderChanges::default(),
            grpc_resource_exhausted: false,
            descriptors: descriptors.iter().map(one).collect(),
            rules: rules.into(),
            stage: 0,
            host_rules: HostRules::Otherwise,
            tell: false,
            tell_retry: false,
            always_default: false,
            each_connection: false,
        }
    }

    fn asks(limit: &LocalRateLimit, path: &str, headers: &[(&str, &str)]) -> bool {
        let head = head(path, headers);
        let client = Some("10.1.2.3:4".parse().unwrap());
        let request = Described { head: &head, client, cluster: "c", matched: None, conn: None };
        take(limit, request, Millis(0)).unwrap().0
    }

    fn rule(action: RateAction) -> RateRule {
        RateRule { stage: 0, actions: [action].into() }
    }

    #[test]
    fn a_description_has_its_own_bucket() {
        let by_user = rule(RateAction::Header("x-user".parse().unwrap(), "user".into(), false));
        let limit = limit(&[("user", "a", 1)], vec![by_user]);
        assert!(asks(&limit, "/", &[("x-user", "a")]) && !asks(&limit, "/", &[("x-user", "a")]));
        let others = (0..4).map(|_| asks(&limit, "/", &[("x-user", "b")])).collect::<Vec<_>>();
        assert_eq!(others, [true, true, true, false], "all others share one");
    }

    #[test]
    fn descriptions_are_made_of_the_request() {
        let check = |action: RateAction, key: &str, value: &str| {
            let limit = limit(&[(key, value, 0)], vec![rule(action)]);
            assert!(!asks(&limit, "/p?k=v", &[("x-a", "1")]), "{key}={value}");
        };
        check(RateAction::RemoteAddress, "remote_address", "10.1.2.3");
        check(RateAction::MaskedAddress(16, 64), "masked_remote_address", "10.1.0.0/16");
        check(RateAction::DestinationCluster, "destination_cluster", "c");
        check(RateAction::Query("k".into(), "q".into(), false), "q", "v");
        check(RateAction::Key("generic_key".into(), "x".into()), "generic_key", "x");
        check(
            RateAction::HeaderMatch("header_match".into(), "yes".into(), true, Box::default()),
            "header_match",
            "yes",
        );
    }

    #[test]
    fn each_connection_may_have_buckets_of_its_own() {
        let mut limit = limit(&[], Vec::new());
        limit.each_connection = true;
        let (head, conns) = (head("/", &[]), [ConnInfo::default(), ConnInfo::default()]);
        let asks = |limit: &LocalRateLimit, conn: &ConnInfo| {
            let request = Described { head: &head, client: None, cluster: "c", matched: None, conn: Some(conn) };
            take(limit, request, Millis(0)).unwrap().0
        };
        for conn in &conns {
            assert_eq!((0..5).filter(|_| asks(&limit, conn)).count(), 3);
        }
        limit.each_connection = false;
        assert!(asks(&limit, &conns[0]), "the bucket of all is full");
    }

    #[test]
    fn the_default_bucket_may_count_for_all() {
        let mut limit =
            limit(&[("generic_key", "x", 9)], vec![rule(RateAction::Key("generic_key".into(), "x".into()))]);
        limit.always_default = true;
        assert_eq!((0..4).filter(|_| asks(&limit, "/", &[])).count(), 3);
        limit.always_default = false;
        assert!(asks(&limit, "/", &[]));
    }
}
